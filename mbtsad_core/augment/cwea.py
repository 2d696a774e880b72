"""CWEA, contextual word embeddings augmentation (Kobayashi, NAACL 2018; as nlpaug 1.1.11 does it): words that a masked
language model offers."""

from __future__ import annotations

import functools
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbtsad_core.augment.token_splitting import TOKEN, budget
from mbtsad_core.errors import MBTSADError, UnsuitableModel
from mbtsad_core.sources import HUB
from mbtsad_core.vetting.model_folder import check_model_files

MODEL = "MBTSAD_MASKED_LM"  # environment variable: a folder, or hub:OWNER/NAME
ONE_AT_A_TIME = threading.Lock()  # threads share a model, and with it what is hooked to it
TOP = 100  # candidates for a word, the likeliest


def cwea(text: str, rng: random.Random) -> str:
    """`contextual` with the model that the environment variable MBTSAD_MASKED_LM names; raises UnsuitableModel where it
    names none."""
    source = os.environ.get(MODEL)
    if not source:
        raise UnsuitableModel(
            f"CWEA needs a masked language model. Name one in the environment variable {MODEL}: a folder that "
            "save_pretrained wrote, or hub:OWNER/NAME, such as hub:google-bert/bert-base-uncased. Without a network, "
            "mbtsad-research build-language-model makes a small one."
        )
    return contextual(source)(text, rng)


@functools.cache
def contextual(source: str) -> Callable[[str, random.Random], str]:
    """The augmenter that a masked language model makes; `source` is a folder or hub:OWNER/NAME.

    k = clip(ceil(0.3 n), 1, 10) of the text's n words and marks, as many as token splitting cuts, are replaced, one
    after the other in random order: the word is masked in the text as it then stands, and one of the model's 100
    likeliest tokens is drawn by its probability, whole words other than the masked one alone. Words that the tokenizer
    cuts in pieces are left as they are; so is the text's spacing.
    Raises UnsuitableModel where there is no such model.
    """
    model, tokenizer = _load(source)

    def augmenter(text: str, rng: random.Random) -> str:
        spans = [m.span() for m in TOKEN.finditer(text)]
        words = [
            i for i, (a, b) in enumerate(spans) if text[a:b].isalpha() and _place(tokenizer, text, a, b) is not None
        ]
        for i in rng.sample(words, min(budget(text), len(words))):
            a, b = [m.span() for m in TOKEN.finditer(text)][i]
            if (place := _place(tokenizer, text, a, b)) is None:
                continue  # a longer word ahead of it has pushed it out of what the model reads
            offered = _offered(model, tokenizer, text, place)
            offered.pop(text[a:b].lower(), None)
            if offered:
                text = text[:a] + rng.choices(list(offered), weights=list(offered.values()))[0] + text[b:]
        return text

    return augmenter


def _place(tokenizer: Any, text: str, a: int, b: int) -> int | None:
    """The position of the token that is the characters a to b of the text; None where they are several, or not read."""
    offsets = tokenizer(text, return_offsets_mapping=True, truncation=True)["offset_mapping"]
    return next(
        (
            i
            for i, (start, end) in enumerate(offsets)
            if end == b and a - 1 <= start <= a and text[start:end].strip() == text[a:b]
        ),
        None,
    )


def _offered(model: Any, tokenizer: Any, text: str, place: int) -> dict[str, float]:
    """Probabilities, not normalized, of the whole words among the model's likeliest tokens at a place, the likeliest
    first."""
    import torch

    batch = tokenizer(text, return_tensors="pt", truncation=True)
    batch["input_ids"][0, place] = tokenizer.mask_token_id
    with ONE_AT_A_TIME, torch.inference_mode():
        # The vocabulary is as costly as the layers: its scores are made for the place alone.
        cut = model.get_output_embeddings().register_forward_pre_hook(lambda module, given: (given[0][:, place],))
        try:
            scores = model(**batch).logits[0]
        finally:
            cut.remove()
    likely = scores.float().softmax(-1).topk(min(TOP, model.config.vocab_size))
    found: dict[str, float] = {}
    for token, probability in zip(likely.indices.tolist(), likely.values.tolist(), strict=True):
        if word := _word(tokenizer, token):
            found.setdefault(word, probability)
    return found


@functools.lru_cache(maxsize=100_000)  # the same likely words are offered again and again
def _word(tokenizer: Any, token: int) -> str | None:
    """The token as a word, where it is one that stands alone within a text."""
    word = tokenizer.decode([token]).strip()
    return word if word.isalpha() and tokenizer(f" {word}", add_special_tokens=False)["input_ids"] == [token] else None


@functools.cache
def _load(source: str) -> tuple[Any, Any]:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    name = source.removeprefix(HUB)
    if name == source:
        check_model_files(Path(source))
    safe = dict(trust_remote_code=False, local_files_only=name == source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **safe)
        model, report = AutoModelForMaskedLM.from_pretrained(
            name, use_safetensors=True, output_loading_info=True, **safe
        )
    except MBTSADError:
        raise
    except Exception as error:  # transformers and the network raise what their parts raise
        raise UnsuitableModel(
            f"No masked language model could be loaded from {source!r}: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    if report["missing_keys"] or tokenizer.mask_token_id is None:
        raise UnsuitableModel(
            f"{source!r} is no masked language model: "
            f"{'its head has no weights' if report['missing_keys'] else 'its tokenizer has no mask token'}. Give one "
            "such as bert-base-uncased, saved with its masked-language head."
        )
    return model.eval(), tokenizer
