"""The language models that two methods of the paper's tables ask for, where none can be had from the Hub: a masked one
for CWEA, a causal one for ONION.

Both are the pre-trained encoder with a language-model head, trained on the words of a data set; its labels are not
read. They are small, and made of little text: the perplexity that is told beside them says how far they are from a
GPT-2.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.config import LanguageModelConfig, RuntimeConfig
from mbtsad_core.data import read_dataset
from mbtsad_core.errors import BadData, Diverged
from mbtsad_core.models.classifier import Classifier, autocast, place
from mbtsad_core.research.build_demo import encoder_folder
from mbtsad_core.types import Event, Steps
from mbtsad_core.vetting.blueprint import quiet

MASKED, CAUSAL = KINDS = ("masked", "causal")
IGNORED = -100  # a token whose loss does not count
HELD_OUT = 64  # blocks that the perplexity is measured on
SHARE_MASKED = 0.15  # BERT's


def build_language_model(
    kind: str,
    data: str | Path,
    base: Path | None,
    out: Path,
    config: LanguageModelConfig,
    runtime: RuntimeConfig = RuntimeConfig(),
) -> Steps[dict[str, Any]]:
    """Train a language model on the texts of a data set and write it to `out`, as CWEA or ONION load it.

    kind  "masked" or "causal", see `KINDS`
    data  as `read_dataset` takes it
    base  the pre-trained encoder, a BERT; where not given, the installed MiniLM
    Returns how many tokens it was trained on, and its perplexity on blocks that it did not see: of masked tokens, or of
    each token after those before it. Raises BadData where the texts are fewer than a few blocks, Diverged where the
    loss is not finite.
    """
    folder = encoder_folder(base)
    placed = place(_untrained(kind, folder, config), runtime)
    blocks = _read_blocks(data, placed.tokenizer, config)
    held, trained = blocks[:HELD_OUT], blocks[HELD_OUT:]
    draws = torch.Generator().manual_seed(config.seed)

    def loss_on(some: Tensor) -> Tensor:
        given = masked(some, placed.tokenizer, draws) if kind == MASKED else (some[:, :-1], some[:, 1:])
        return _loss(placed, *given)

    placed.model.train()
    yield from _train(placed.model, trained, loss_on, draws, config, f"{kind} language model")
    placed.model.eval()
    with torch.no_grad():
        draws.manual_seed(config.seed)
        perplexity = math.exp(float(torch.stack([loss_on(some) for some in held.split(config.batch_size)]).mean()))
    placed.model.save_pretrained(out)
    placed.tokenizer.save_pretrained(out)
    return {"kind": kind, "tokens": trained.numel() * config.epochs, "perplexity": round(perplexity, 1)}


def _untrained(kind: str, folder: Path, config: LanguageModelConfig) -> Classifier:
    """The encoder with a new language-model head, held as a classifier is, which has a device and a precision."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    torch.manual_seed(config.seed)
    settings = AutoConfig.from_pretrained(folder, local_files_only=True, is_decoder=kind == CAUSAL)
    maker = AutoModelForCausalLM if kind == CAUSAL else AutoModelForMaskedLM
    with quiet():  # it would say at length that the head is a new one
        model = maker.from_pretrained(
            folder, config=settings, use_safetensors=True, local_files_only=True, attn_implementation="eager"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Classifier(model, tokenizer, labels=(), max_length=config.length)


def _read_blocks(data: str | Path, tokenizer: Any, config: LanguageModelConfig) -> Tensor:
    """The texts in an order of the seed, as blocks: (blocks, length). Raises BadData where these are too few."""
    texts = [example.text for example in read_dataset(data).texts]
    random.Random(f"texts, seed {config.seed}").shuffle(texts)
    tokens = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts[: config.texts]]
    blocks = blocks_of(tokens, config.length)
    if len(blocks) < 2 * HELD_OUT:
        raise BadData(
            f"{data} has {len(blocks)} blocks of {config.length} tokens, too few to learn a language from. Expected "
            f"{2 * HELD_OUT} or more."
        )
    return blocks


def _train(
    model: torch.nn.Module,
    blocks: Tensor,
    loss_on: Callable[[Tensor], Tensor],
    draws: torch.Generator,
    config: LanguageModelConfig,
    stage: str,
) -> Steps[None]:
    """AdamW, a short warm-up, then linear decay. Raises Diverged where the loss is not finite."""
    from transformers import get_linear_schedule_with_warmup

    steps, step = config.epochs * math.ceil(len(blocks) / config.batch_size), 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 20, steps)
    for _ in range(config.epochs):
        for chosen in torch.randperm(len(blocks), generator=draws).split(config.batch_size):
            loss, step = loss_on(blocks[chosen]), step + 1
            if not torch.isfinite(loss):
                raise Diverged(
                    f"The language model's loss is {loss.item()} at step {step} of {steps}. Take a lower learning rate."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            yield Event(stage, step, steps, {"loss": loss.item()})


def blocks_of(texts: Sequence[Sequence[int]], length: int) -> Tensor:
    """The tokens of all texts, each text cut into blocks of `length`; what is left over at its end is not used:
    (blocks, length)."""
    found = [text[start : start + length] for text in texts for start in range(0, len(text) - length + 1, length)]
    return torch.tensor(found, dtype=torch.long).reshape(-1, length)


def _loss(placed: Classifier, given: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens that are to be told: those of `wanted` that are not IGNORED."""
    given, wanted = given.to(placed.device), wanted.to(placed.device)
    counts = wanted != IGNORED
    with autocast(placed):
        hidden = placed.model.base_model(input_ids=given).last_hidden_state
        logits = placed.model.cls(hidden[counts])  # the head is as costly as the layers: on the tokens alone that count
    return cross_entropy(logits.float(), wanted[counts])


def masked(blocks: Tensor, tokenizer: Any, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """BERT's corruption (Devlin et al., NAACL 2019): 15 % of the tokens are to be told; of these 80 % are masked, 10 %
    are another token, 10 % stay.

    Returns what the model reads and what it is to tell, IGNORED elsewhere; both of the blocks' shape.
    """
    told = torch.rand(blocks.shape, generator=draws) < SHARE_MASKED
    told[:, 0] |= ~told.any()  # a loss needs a token
    fate = torch.rand(blocks.shape, generator=draws)
    others = torch.randint(len(tokenizer), blocks.shape, generator=draws)
    given = torch.where(told & (fate < 0.8), torch.tensor(tokenizer.mask_token_id), blocks)
    return torch.where(told & (fate >= 0.9), others, given), torch.where(told, blocks, torch.tensor(IGNORED))
