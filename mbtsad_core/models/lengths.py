"""How much of a text a classifier reads, and what is said where that is not all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mbtsad_core.config import MOST_TOKENS
from mbtsad_core.types import LabelledText, Note
from mbtsad_core.vetting.config_policy import COUNT_FROM_PADDING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mbtsad_core.models.classifier import Classifier


def length_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens a model and its tokenizer can read."""
    positions = model.config.max_position_embeddings
    if model.config.model_type in COUNT_FROM_PADDING:
        positions -= model.config.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))


def whole_lengths(classifier: Classifier, texts: Sequence[LabelledText]) -> list[int]:
    """How many tokens each text has, special ones included, before it is cut at `max_length`."""
    found = [0] * len(texts)
    for paired in (False, True):
        chosen = [i for i, t in enumerate(texts) if (t.pair is not None) == paired]
        if not chosen:
            continue
        special = classifier.tokenizer.num_special_tokens_to_add(pair=paired)
        pairs = [texts[i].pair for i in chosen] if paired else None
        # With the settings of `encode`, for others may use the tokenizer at the same time, and it keeps the last ones.
        out = classifier.tokenizer(
            [texts[i].text for i in chosen], pairs, truncation=True, max_length=classifier.max_length
        )
        for i, encoding in zip(chosen, out.encodings, strict=True):
            found[i] = len(encoding.ids) + sum(len(cut.ids) - special for cut in encoding.overflowing)
    return found


def cut_notes(classifier: Classifier, asked: int | None, sets: Mapping[str, Sequence[LabelledText]]) -> list[Note]:
    """That texts are longer than what is read of them, and what reads more; nothing where none is.

    asked  the length that the user asked for
    sets   the texts by what they are called
    """
    read = classifier.max_length
    lengths = {name: whole_lengths(classifier, texts) for name, texts in sets.items()}
    cut = [
        f"{n} of {len(found)} {name}"
        for name, found in lengths.items()
        if (n := sum(length > read for length in found))
    ]
    if not cut:
        return []
    limit, longest = (
        length_limit(classifier.model, classifier.tokenizer),
        max(max(found, default=0) for found in lengths.values()),
    )
    text = f"{' and '.join(cut)} are longer than {read} tokens, of which the model reads the first ones alone"
    if read >= limit:
        more = ", for it can read no more."
    else:
        why = (
            ""
            if asked
            else f" (no more than {MOST_TOKENS} where none is asked for: memory and time grow with the square of the "
            "length)"
        )
        more = f"{why}. A `max_length` of {limit} reads {'them whole' if longest <= limit else 'more of them'}."
    return [Note("length", text + more)]
