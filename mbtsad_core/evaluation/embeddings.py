"""[CLS] vectors of named sets of texts: projections with one basis for before and after, and how far each set lies from
clean data."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mbtsad_core.errors import BadData, UnknownMethod
from mbtsad_core.models.classifier import Classifier, autocast, collate, encode, evaluation_mode, head_states
from mbtsad_core.rates import wilson
from mbtsad_core.types import LabelledText, Rate

Vectors = NDArray[np.float32]  # (N, D)
Indices = NDArray[np.int64]  # (N,)

PROJECTIONS = ("pca", "umap", "tsne")
NEIGHBOURS = 15  # of UMAP's graph, and of the trustworthiness
JUDGED = 1000  # points on which the trustworthiness is measured: it compares all pairs of them
FIRST_REDUCED_TO = 50  # principal components that UMAP and t-SNE start from, as is usual: faster, and little is lost
KEPT = 32  # projections that are remembered
FEWEST = 5  # vectors that differ, below which there is nothing to draw
ROUNDING = 1e-5  # of the vectors' own length: what differs by less differs by the rounding of float32 alone


@torch.inference_mode()
def cls_vectors(
    classifier: Classifier, texts: Sequence[str] | Sequence[LabelledText], *, batch_size: int = 64
) -> Vectors:
    """The last layer's hidden state at the token that the head reads: the first, [CLS] or <s>, and of a decoder the
    last one. (N, D) in float32. Padding does not enter it."""
    encoded = encode(classifier, texts)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))  # little padding
    vectors = np.empty((len(encoded), classifier.model.config.hidden_size), np.float32)
    with evaluation_mode(classifier.model), autocast(classifier):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            states = head_states(classifier, collate(classifier, [encoded[i] for i in chosen]))
            vectors[chosen] = states.float().cpu().numpy()
    return vectors


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The same N texts before and after, in one plane.

    before, after    (N, 2); the same vector is at the same point in both
    trustworthiness  in [0, 1]: how far the 15 nearest neighbors in the plane are neighbors in the full space too
                     (Venna and Kaski, 2001); measured on at most 1000 of the 2N points
    explained        shares of the variance along both axes, for "pca"; None for the others, whose axes mean nothing
    """

    method: str
    before: Vectors
    after: Vectors
    trustworthiness: float
    explained: tuple[float, float] | None


_lock = threading.Lock()  # UMAP's compiled code is not made for two threads at once
_known: OrderedDict[str, Projection] = OrderedDict()


def project(before: Vectors, after: Vectors, method: str = "pca", *, seed: int = 0) -> Projection:
    """Project the [CLS] vectors of N texts under two classifiers, (N, D) each, with ONE basis that is fitted on both
    together.

    PCA takes well under a second for 2 x 2000 vectors. UMAP and t-SNE take several, and UMAP some more the first time,
    when it compiles; they start from the first 50 principal components. The result depends on the arguments alone and
    is remembered by their content. Raises as `check_vectors` does.
    """
    check_vectors(before, after, method)
    key = f"{method} {seed} {digest(before, after)}"
    with _lock:
        if key not in _known:
            _known[key] = _project(before, after, method, seed)
        _known.move_to_end(key)
        while len(_known) > KEPT:
            _known.popitem(last=False)
        return _known[key]


def check_vectors(before: Vectors, after: Vectors, method: str = "pca") -> None:
    """Raise UnknownMethod, or BadData for what no projection can draw: vectors of other texts, without a number, or of
    which fewer than FEWEST differ by more than rounding. The libraries below are not made for such: t-SNE can end the
    process."""
    if method not in PROJECTIONS:
        raise UnknownMethod("projection", method, PROJECTIONS)
    if before.shape != after.shape:
        raise BadData(
            f"A projection compares the same texts before and after; got {len(before)} and {len(after)} vectors."
        )
    both = np.concatenate([before, after]).astype(np.float64)
    if not np.isfinite(both).all():
        raise BadData(
            "Some [CLS] vectors of these texts are not finite numbers, so they have no place. Look at the model: it "
            "may have diverged."
        )
    if (found := _different(both)) < FEWEST:
        raise BadData(
            f"A projection needs at least five different vectors; these texts give {found} that differ by more than "
            f"rounding ({ROUNDING:g} of their length). Give more texts; where there are many, the model answers all of "
            "them alike, and there is nothing to draw."
        )


def _different(vectors: NDArray[np.float64]) -> int:
    """How many vectors, FEWEST at most, differ by more than rounding: each the farthest from those before it."""
    if not len(vectors):
        return 0
    vectors = vectors / (np.abs(vectors).max() or 1.0)
    least = ROUNDING * np.sqrt((vectors**2).sum(1).mean())
    distance, chosen = np.full(len(vectors), np.inf), 0
    for found in range(1, FEWEST):
        distance = np.minimum(distance, np.linalg.norm(vectors - vectors[chosen], axis=1))
        chosen = int(distance.argmax())
        if distance[chosen] <= least:
            return found
    return FEWEST


def _to_unit(vectors: NDArray[np.float64]) -> float:
    """The power of two that brings the vectors to about unit spread, the root mean square distance to their mean; no
    digit of them changes."""
    spread = np.sqrt(((vectors - vectors.mean(0)) ** 2).sum(1).mean())
    return float(2.0 ** -np.round(np.log2(spread)))


def warm_up() -> None:
    """Have UMAP compile its parts, some ten seconds the first time, so that the first visitor need not wait for it."""
    drawn = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    project(drawn[:20], drawn[20:], "umap")


def digest(before: Vectors, after: Vectors) -> str:
    """The content of both, to remember by."""
    return hashlib.sha256(
        repr(before.shape).encode() + np.ascontiguousarray(before).tobytes() + np.ascontiguousarray(after).tobytes()
    ).hexdigest()


def _project(before: Vectors, after: Vectors, method: str, seed: int) -> Projection:
    # Equal vectors are fitted once, so that every method puts them at one point.
    different, where = np.unique(np.concatenate([before, after]), axis=0, return_inverse=True)
    from sklearn.decomposition import PCA

    unit = _to_unit(different.astype(np.float64))
    scaled = unit * different.astype(np.float64)
    components = min(FIRST_REDUCED_TO, *different.shape)
    pca = PCA(components, svd_solver="covariance_eigh" if different.shape[1] <= len(different) else "full")
    reduced = pca.fit_transform(scaled)
    if method == "pca":
        plane = (reduced[:, :2] if components > 1 else np.pad(reduced, ((0, 0), (0, 1)))) / unit
    elif method == "umap":
        plane = _umap(reduced, seed)
    else:
        from sklearn.manifold import TSNE

        plane = TSNE(perplexity=min(30.0, (len(reduced) - 1) / 3), init="pca", random_state=seed).fit_transform(reduced)
    shares = [*pca.explained_variance_ratio_[:2].tolist(), 0.0]
    points = np.asarray(plane, np.float32)[where.reshape(-1)]
    return Projection(
        method,
        points[: len(before)],
        points[len(before) :],
        _trustworthiness(scaled.astype(np.float32), np.asarray(plane), seed),
        (shares[0], shares[1]) if method == "pca" else None,
    )


def _umap(reduced: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    # In a thread of its own: UMAP leaves the thread that it runs in with one of OpenMP for each core, whatever this
    # process was given, and t-SNE after it takes ten times as long where other processes have the cores
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_umap_here, reduced, seed).result()


def _umap_here(reduced: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    import warnings

    from sklearn.neighbors import NearestNeighbors

    neighbors = min(NEIGHBOURS, len(reduced) - 1)
    finder = NearestNeighbors(n_neighbors=neighbors, algorithm="brute").fit(reduced)
    nearest = finder.kneighbors(reduced, return_distance=False)
    # Anew, for those found are rounded, and UMAP looks for the first that is not at distance 0
    distances = np.linalg.norm(reduced[:, None] - reduced[nearest], axis=-1)
    order = distances.argsort(axis=1, kind="stable")
    nearest, distances = (np.take_along_axis(found, order, 1) for found in (nearest, distances))
    with warnings.catch_warnings():
        # A fixed seed means one thread: that is what we ask for
        warnings.filterwarnings("ignore", message=".*n_jobs value.*")
        # It says that Tensorflow, which we do not use, is missing
        warnings.filterwarnings("ignore", category=ImportWarning)
        # No further points are placed among these
        warnings.filterwarnings("ignore", message=".*knn_search_index.*")
        import umap
        from umap.umap_ import compute_membership_strengths, smooth_knn_dist

        # Seconds to compile, which UMAP does anew in each process: kept on disk, as the rest of its parts are
        for compiled in (smooth_knn_dist, compute_membership_strengths):
            compiled.enable_caching()
        reducer = umap.UMAP(
            n_neighbors=neighbors,
            init="pca",
            random_state=seed,
            n_jobs=1,
            # Exact, and without a call of Python for each pair of points, as its own way for fewer than 4096 has
            precomputed_knn=(nearest, distances.astype(np.float32), None),
            force_approximation_algorithm=True,
        )
        plane: NDArray[np.float32] = reducer.fit_transform(reduced)
    return plane


def _trustworthiness(space: Vectors, plane: NDArray[np.float32], seed: int) -> float:
    from sklearn.manifold import trustworthiness

    some = np.random.default_rng(seed).permutation(len(space))[:JUDGED]
    return float(trustworthiness(space[some], plane[some], n_neighbors=min(NEIGHBOURS, (len(some) - 1) // 2)))


@dataclass(frozen=True, slots=True)
class Outlying:
    """How far a set of texts lies from the clean class clusters of one classifier.

    outside  share of its vectors outside the clusters' 95 % region
    median   median Mahalanobis distance to the nearest class mean; a median of `radius` lies on the region's edge
    radius   the distance that 95 % of held-out clean vectors stay within
    """

    name: str
    outside: Rate
    median: float
    radius: float


def outlying(
    clean: Vectors, classes: Sequence[int], sets: Mapping[str, Vectors], *, folds: int = 5, seed: int = 0
) -> list[Outlying]:
    """Score "clean" itself and each of `sets`, all of one classifier: (N, D) vectors each. `classes` are those of the
    clean vectors.

    The distance of a vector x is min over classes c of sqrt((x - m_c)' S^-1 (x - m_c)), S the pooled within-class
    covariance, shrunk as by Ledoit and Wolf (2004): the detector of Lee et al. (2018, arXiv 1807.03888). It is
    cross-fitted: means and covariance come from the other folds, so clean vectors are judged by fits that never saw
    them; their 95th percentile is the radius, and about 5 % of clean data lie outside. Vectors of the other sets get
    their mean distance over the folds' fits. Raises BadData where a class has fewer than two clean vectors.
    """
    labels = np.asarray(classes, np.int64)
    if len(labels) != len(clean):
        raise BadData(f"Each clean vector needs its class; got {len(clean)} vectors and {len(labels)} classes.")
    names, counts = np.unique(labels, return_counts=True)
    if not len(names) or counts.min() < 2:
        raise BadData("The clean class clusters need at least two clean texts of every class that occurs.")
    fold = _folds(labels, min(folds, int(counts.min())), seed)
    held_out = np.empty(len(clean))
    elsewhere = {name: np.zeros(len(vectors)) for name, vectors in sets.items()}
    for k in range(fold.max() + 1):
        means, whiten = _clusters(clean[fold != k], labels[fold != k])
        held_out[fold == k] = _distances(clean[fold == k], means, whiten)
        for name, vectors in sets.items():
            elsewhere[name] += _distances(vectors, means, whiten) / (fold.max() + 1)
    radius = float(np.quantile(held_out, 0.95, method="higher"))
    return [
        Outlying(name, wilson(int((d > radius).sum()), len(d)), float(np.median(d)), radius)
        for name, d in {"clean": held_out, **elsewhere}.items()
        if len(d)
    ]


def _folds(labels: Indices, folds: int, seed: int) -> Indices:
    """A fold for each vector, each class spread evenly over them."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), np.int64)
    for c in np.unique(labels):
        mine = np.flatnonzero(labels == c)
        fold[mine] = rng.permutation(len(mine)) % folds
    return fold


def _clusters(vectors: Vectors, labels: Indices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Class means (C, D), and the matrix W (D, D) for which |W v| is the Mahalanobis length of v."""
    from sklearn.covariance import ledoit_wolf

    x = vectors.astype(np.float64)
    means = np.stack([x[labels == c].mean(0) for c in np.unique(labels)])
    residuals = x - means[np.searchsorted(np.unique(labels), labels)]
    S, _ = ledoit_wolf(residuals, assume_centered=True)
    S[np.diag_indices_from(S)] += 1e-9 * np.trace(S) / len(S) or 1.0  # vectors without any spread: plain distances
    return means, np.linalg.inv(np.linalg.cholesky(S))


def _distances(vectors: Vectors, means: NDArray[np.float64], whiten: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mahalanobis distance to the nearest class mean: (N, D) -> (N,)."""
    to_each = [np.linalg.norm((vectors - mean) @ whiten.T, axis=1) for mean in means]
    nearest: NDArray[np.float64] = np.min(to_each, axis=0)
    return nearest
