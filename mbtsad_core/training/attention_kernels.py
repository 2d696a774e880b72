"""The attention-transfer loss of one layer in Triton: eqs. (3) and (4) and their gradient, with no map of a single head
in memory.

AE(A)_qk = sum over heads of A_jqk^p is rebuilt tile by tile from Q, K and two numbers a row: its largest score, and its
sum of exponentials above that. With F = AE(A), u = F / |F| and D = F_S - F_T, three sums a text give the distance:

    s = |F_T|^2,    e = |D|^2,    f = <D, F_T + F_S> = |F_S|^2 - |F_T|^2
    |u_T - u_S|^2 = (e - (f / (|F_T| + |F_S|))^2) / (|F_T| |F_S|)

This equals 2 - 2 <u_T, u_S>, but where the student is near its teacher that difference of two numbers near 2 is lost in
float32; e and f are sums of small numbers there, and exactly zero where the maps are equal.

The gradient with respect to F_S, (B, T, T) for all heads together, is made for one layer at a time and thrown away
after it. All sums that several programs share are added up by PyTorch, in float64: the result does not depend on the
order of the programs.

Symbols: B texts, H heads, T tokens, D dimensions of a head; p the power. Tensors are (B, T, H, D), contiguous, in
float32 or bfloat16, real is (B, T) with 1 at real tokens; everything else is float32. Tiles are
BLOCK x BLOCK, heads are padded to WIDTH dimensions, PRODUCT is how matrices are multiplied.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Tf32 holds a bfloat16 whole, so that its products are exact too
PRODUCTS = {torch.float32: "ieee", torch.bfloat16: "tf32"}
MASKED = tl.constexpr(-1e30)  # a score of padding; finite, for a row of nothing else must not become a NaN


@triton.jit
def head_rows(X, b, t, head, H, T, D, WIDTH: tl.constexpr):
    """The rows t of one head, (BLOCK, WIDTH), in float32; zero beyond the text and the width."""
    d = tl.arange(0, WIDTH)
    return tl.load(
        X + ((b * T + t[:, None]) * H + head) * D + d[None, :], mask=(t[:, None] < T) & (d[None, :] < D), other=0.0
    ).to(tl.float32)


@triton.jit
def scores(Q, K, b, q, k, head, scaling, H, T, D, WIDTH: tl.constexpr, PRODUCT: tl.constexpr):
    """Scaled scores of one head, (BLOCK, BLOCK), in float32."""
    rows, columns = head_rows(Q, b, q, head, H, T, D, WIDTH), head_rows(K, b, k, head, H, T, D, WIDTH)
    return tl.dot(rows, tl.trans(columns), input_precision=PRODUCT) * scaling


@triton.jit
def both_real(real, b, q, k, T):
    """Which pairs are of two real tokens, (BLOCK, BLOCK)."""
    rows = tl.load(real + b * T + q, mask=q < T, other=0)
    columns = tl.load(real + b * T + k, mask=k < T, other=0)
    return (rows[:, None] != 0) & (columns[None, :] != 0)


@triton.jit
def head_map(Q, K, rows, pairs, b, q, k, head, scaling, H, T, D, WIDTH: tl.constexpr, PRODUCT: tl.constexpr):
    """A of one head on a tile, (BLOCK, BLOCK): exp(score - largest) / total, which rounds less than exp(score -
    log-sum-exp)."""
    at = rows + ((b * H + head) * T + q) * 2
    largest, total = tl.load(at, mask=q < T, other=0.0), tl.load(at + 1, mask=q < T, other=1.0)
    x = scores(Q, K, b, q, k, head, scaling, H, T, D, WIDTH, PRODUCT) - largest[:, None]
    return tl.exp(tl.where(pairs, x, MASKED)) / total[:, None]


@triton.jit
def raised(A, POWER: tl.constexpr):
    """A^p of numbers from 0 to 1."""
    if POWER == 1.0:
        result = A
    elif POWER == 2.0:
        result = A * A
    else:
        result = tl.where(A > 0, tl.exp(POWER * tl.log(tl.maximum(A, 1e-37))), 0.0)
    return result


@triton.jit
def energy(
    Q,
    K,
    rows,
    pairs,
    b,
    q,
    k,
    scaling,
    H,
    T,
    D,
    POWER: tl.constexpr,
    WIDTH: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Eq. (3) on a tile, (BLOCK, BLOCK)."""
    F = tl.zeros((BLOCK, BLOCK), tl.float32)
    for head in range(H):
        F += raised(head_map(Q, K, rows, pairs, b, q, k, head, scaling, H, T, D, WIDTH, PRODUCT), POWER)
    return F


@triton.jit
def rows_kernel(
    Q,
    K,
    real,
    rows,
    scaling,
    H,
    T,
    D,
    POWER: tl.constexpr,
    WIDTH: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of each row of scores over the real keys: the largest, and the sum of exp(score - largest); programs are (tiles
    of rows, H, B)."""
    q, head, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1), tl.program_id(2)
    largest, total = tl.full((BLOCK,), MASKED, tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, T, BLOCK):
        k = start + tl.arange(0, BLOCK)
        seen = tl.load(real + b * T + k, mask=k < T, other=0) != 0
        x = tl.where(seen[None, :], scores(Q, K, b, q, k, head, scaling, H, T, D, WIDTH, PRODUCT), MASKED)
        larger = tl.maximum(largest, tl.max(x, 1))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(x - larger[:, None]), 1)
        largest = larger
    at = rows + ((b * H + head) * T + q) * 2
    tl.store(at, largest, mask=q < T)
    tl.store(at + 1, total, mask=q < T)


@triton.jit
def sums_kernel(
    Q_T,
    K_T,
    rows_T,
    Q_S,
    K_S,
    rows_S,
    real,
    sums,
    scaling,
    H,
    T,
    D,
    POWER: tl.constexpr,
    WIDTH: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """s, e and f of one tile; programs are (tiles of columns, tiles of rows, B), sums is (B, tiles, tiles, 3)."""
    column, row, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    q, k = row * BLOCK + tl.arange(0, BLOCK), column * BLOCK + tl.arange(0, BLOCK)
    pairs = both_real(real, b, q, k, T)
    F_T = energy(Q_T, K_T, rows_T, pairs, b, q, k, scaling, H, T, D, POWER, WIDTH, PRODUCT, BLOCK)
    F_S = energy(Q_S, K_S, rows_S, pairs, b, q, k, scaling, H, T, D, POWER, WIDTH, PRODUCT, BLOCK)
    difference = F_S - F_T
    at = sums + ((b * tl.num_programs(1) + row) * tl.num_programs(0) + column) * 3
    tl.store(at, tl.sum(tl.sum(F_T * F_T, 1), 0))
    tl.store(at + 1, tl.sum(tl.sum(difference * difference, 1), 0))
    tl.store(at + 2, tl.sum(tl.sum(difference * (F_T + F_S), 1), 0))


@triton.jit
def slope_kernel(
    Q_T,
    K_T,
    rows_T,
    Q_S,
    K_S,
    rows_S,
    real,
    weights,
    slope,
    scaling,
    H,
    T,
    D,
    POWER: tl.constexpr,
    WIDTH: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of the loss with respect to F_S, (B, T, T): weights[:, 0] (F_S - F_T) + weights[:, 1] F_T; programs as
    in `sums_kernel`."""
    column, row, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    q, k = row * BLOCK + tl.arange(0, BLOCK), column * BLOCK + tl.arange(0, BLOCK)
    pairs = both_real(real, b, q, k, T)
    F_T = energy(Q_T, K_T, rows_T, pairs, b, q, k, scaling, H, T, D, POWER, WIDTH, PRODUCT, BLOCK)
    F_S = energy(Q_S, K_S, rows_S, pairs, b, q, k, scaling, H, T, D, POWER, WIDTH, PRODUCT, BLOCK)
    value = tl.load(weights + b * 2) * (F_S - F_T) + tl.load(weights + b * 2 + 1) * F_T
    tl.store(slope + (b * T + q[:, None]) * T + k[None, :], value, mask=(q[:, None] < T) & (k[None, :] < T))


@triton.jit
def map_and_slope(
    Q,
    K,
    rows,
    real,
    slope,
    b,
    q,
    k,
    head,
    scaling,
    H,
    T,
    D,
    POWER: tl.constexpr,
    WIDTH: tl.constexpr,
    PRODUCT: tl.constexpr,
):
    """On a tile of one head: A, and its loss slope p A^p dL/dF, which is A times dL/dA."""
    A = head_map(Q, K, rows, both_real(real, b, q, k, T), b, q, k, head, scaling, H, T, D, WIDTH, PRODUCT)
    dF = tl.load(slope + (b * T + q[:, None]) * T + k[None, :], mask=(q[:, None] < T) & (k[None, :] < T), other=0.0)
    return A, POWER * raised(A, POWER) * dF


@triton.jit
def query_kernel(
    Q,
    K,
    rows,
    real,
    slope,
    dQ,
    row_sums,
    scaling,
    H,
    T,
    D,
    POWER: tl.constexpr,
    WIDTH: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dL/dQ, and the sum of A dL/dA over each row, which the softmax takes off; programs are (tiles of rows, H, B)."""
    q, head, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1), tl.program_id(2)
    row_sum = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, T, BLOCK):
        A, AdA = map_and_slope(
            Q, K, rows, real, slope, b, q, start + tl.arange(0, BLOCK), head, scaling, H, T, D, POWER, WIDTH, PRODUCT
        )
        row_sum += tl.sum(AdA, 1)
    tl.store(row_sums + (b * H + head) * T + q, row_sum, mask=q < T)
    gradient = tl.zeros((BLOCK, WIDTH), tl.float32)
    for start in range(0, T, BLOCK):
        k = start + tl.arange(0, BLOCK)
        A, AdA = map_and_slope(Q, K, rows, real, slope, b, q, k, head, scaling, H, T, D, POWER, WIDTH, PRODUCT)
        keys = head_rows(K, b, k, head, H, T, D, WIDTH)
        gradient += tl.dot(AdA - A * row_sum[:, None], keys, input_precision=PRODUCT)
    d = tl.arange(0, WIDTH)
    tl.store(
        dQ + ((b * T + q[:, None]) * H + head) * D + d[None, :],
        gradient * scaling,
        mask=(q[:, None] < T) & (d[None, :] < D),
    )


@triton.jit
def key_kernel(
    Q,
    K,
    rows,
    real,
    slope,
    row_sums,
    dK,
    scaling,
    H,
    T,
    D,
    POWER: tl.constexpr,
    WIDTH: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dL/dK; programs are (tiles of columns, H, B)."""
    k, head, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1), tl.program_id(2)
    gradient = tl.zeros((BLOCK, WIDTH), tl.float32)
    for start in range(0, T, BLOCK):
        q = start + tl.arange(0, BLOCK)
        A, AdA = map_and_slope(Q, K, rows, real, slope, b, q, k, head, scaling, H, T, D, POWER, WIDTH, PRODUCT)
        row_sum = tl.load(row_sums + (b * H + head) * T + q, mask=q < T, other=0.0)
        queries = head_rows(Q, b, q, head, H, T, D, WIDTH)
        gradient += tl.dot(tl.trans(AdA - A * row_sum[:, None]), queries, input_precision=PRODUCT)
    d = tl.arange(0, WIDTH)
    tl.store(
        dK + ((b * T + k[:, None]) * H + head) * D + d[None, :],
        gradient * scaling,
        mask=(k[:, None] < T) & (d[None, :] < D),
    )


# ---------------------------------------------------------------- to PyTorch


def distance(Q_T: Tensor, K_T: Tensor, Q_S: Tensor, K_S: Tensor, real: Tensor, power: float, scaling: float) -> Tensor:
    """Eq. (4) of one layer, (B,) in float32, from (B, T, H, D) each; the gradient goes to Q_S and K_S alone."""
    return _Distance.apply(
        Q_T.contiguous(),
        K_T.contiguous(),
        Q_S.contiguous(),
        K_S.contiguous(),
        real.to(torch.int32).contiguous(),
        power,
        scaling,
    )


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, Q_T, K_T, Q_S, K_S, real, power, scaling):
        B, T, H, D = Q_S.shape
        block = block_size(Q_S)
        tiles = triton.cdiv(T, block)
        sizes = dict(
            H=H,
            T=T,
            D=D,
            POWER=float(power),
            WIDTH=max(16, triton.next_power_of_2(D)),
            BLOCK=block,
            PRODUCT=PRODUCTS[Q_S.dtype],
        )
        rows_T, rows_S = (torch.empty(B, H, T, 2, device=Q_S.device) for _ in range(2))
        for Q, K, rows in ((Q_T, K_T, rows_T), (Q_S, K_S, rows_S)):
            rows_kernel[tiles, H, B](Q, K, real, rows, scaling, **sizes)
        sums = torch.empty(B, tiles, tiles, 3, device=Q_S.device)
        maps = (Q_T, K_T, rows_T, Q_S, K_S, rows_S, real)
        sums_kernel[tiles, tiles, B](*maps, sums, scaling, **sizes)
        s, e, f = sums.double().sum((1, 2)).unbind(1)  # each (B,)
        norm_T, norm_S = s.sqrt(), (s + f).clamp(min=0).sqrt()
        product, total = norm_T * norm_S, norm_T + norm_S
        empty = product == 0  # no real token
        squared = torch.where(empty, 0.0, (e - (f / total) ** 2).clamp(min=0) / product)
        ctx.save_for_backward(*maps, norm_T, norm_S, f, squared)
        ctx.scaling, ctx.sizes, ctx.grid = scaling, sizes, (tiles, H, B)
        return squared.sqrt().float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        *maps, norm_T, norm_S, f, squared = ctx.saved_tensors
        Q_S, K_S, rows_S, real = maps[3:]
        (tiles, H, B), T = ctx.grid, Q_S.shape[1]
        # d|u_T - u_S| / dF_S = (x F_S - y F_T) / (|F_S| |u_T - u_S|), x = cos / |F_S|, y = 1 / |F_T|; zero at equal
        # maps, as in the plain form
        cosine = 1 - squared / 2
        scale = gradient.double() / (norm_S * squared.sqrt())
        x_minus_y = (-f / (norm_T + norm_S) - squared / 2 * norm_T) / (norm_T * norm_S)
        weights = torch.stack([scale * cosine / norm_S, scale * x_minus_y], 1)
        weights = torch.where(squared[:, None] > 0, weights, 0.0).float()
        slope = torch.empty(B, T, T, device=Q_S.device)
        slope_kernel[tiles, tiles, B](*maps, weights, slope, ctx.scaling, **ctx.sizes)
        dQ, dK, row_sums = torch.empty_like(Q_S), torch.empty_like(K_S), torch.empty(B, H, T, device=Q_S.device)
        student = (Q_S, K_S, rows_S, real, slope)
        query_kernel[tiles, H, B](*student, dQ, row_sums, ctx.scaling, **ctx.sizes)
        key_kernel[tiles, H, B](*student, row_sums, dK, ctx.scaling, **ctx.sizes)
        return None, None, dQ, dK, None, None, None


def block_size(Q: Tensor) -> int:
    """Rows and columns of a tile: as large as the shared memory of small GPUs allows."""
    return 32 if Q.shape[-1] <= 64 else 16
