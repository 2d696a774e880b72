"""What a report shows of a run beside its scores: triggers tried, what splitting does to the trigger, a head that
moved, and where texts lie. All of it plain values, as report.json has them (docs/report.schema.json)."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mbtsad_core.attacks.triggers import TriggeredText, names_file, places, triggered_test_set, typed_trigger
from mbtsad_core.augment.token_splitting import split_tokens
from mbtsad_core.errors import MBTSADError
from mbtsad_core.evaluation.attention import attention_maps, moved
from mbtsad_core.evaluation.embeddings import cls_vectors
from mbtsad_core.evaluation.perturbation import split_rows, turned_when_split
from mbtsad_core.evaluation.scores import OBSERVED, spaced
from mbtsad_core.evaluation.trigger_trials import try_trigger, turned_to
from mbtsad_core.models.classifier import Classifier, encode, predict
from mbtsad_core.models.subword_tokens import added, readable_tokens
from mbtsad_core.rates import rates_to_dict
from mbtsad_core.steps import drain
from mbtsad_core.types import LabelledText, Scores
from mbtsad_core.views.stages import ways_of

if TYPE_CHECKING:
    from mbtsad_core.defenses.mbtsad import Purified
    from mbtsad_core.service.purification import Inputs, Result

EVIDENCE = ("tried", "turned", "pictures")
TRIED = 4  # words of the trigger, and of what the scan found, each for itself
SPLITS, WORDS = 3, 30  # texts whose splits are shown, and how long they are at most, where there are such
FEW, ASKED = 14, 16  # tokens of the text whose attention is shown; texts among which it is looked for
CLEAN, OTHERS = 100, 50  # points of the projection


def evidence_of(models: Purified, inputs: Inputs, result: Result) -> dict[str, Any]:
    """tried     what each trigger does to suspect and purified model: the one that was named, on all texts, then what
              the scan found, on a sample
    turned    how often a trigger turns the suspect (`turned_when_split`); None without one
    pictures  splits, attention and projection; None for what cannot be drawn of these models
    """
    found = ways_of(result.found, result.phrases)
    triggered, target = _triggered(models.suspect, inputs, found, result.request.config.seed)
    split, suspect = result.request.config.split, models.suspect
    texts = [t.triggered for t in triggered] or list(inputs.clean)
    turned = None if target is None else turned_when_split(suspect, triggered, target, split)
    return {
        "tried": [*_named(inputs, result), *_tried(models, inputs, found, result)],
        "turned": turned and rates_to_dict(turned),
        "pictures": {
            "splits": [dataclasses.asdict(row) for row in split_rows(suspect, _short(texts), split)],
            "attention": _attention(models, triggered, texts),
            "projection": _projection(models, inputs, triggered, result),
        },
    }


def _triggered(
    suspect: Classifier, inputs: Inputs, found: Sequence[str], seed: int
) -> tuple[Sequence[TriggeredText], int | None]:
    """Texts with the trigger of the request, or with what the scan found first; and the class that it sends them to."""
    if inputs.triggered or not found:
        return inputs.triggered, inputs.target
    target = turned_to(suspect, inputs.clean, found[:1])
    trigger = typed_trigger(found[:1], target, window=places(suspect.max_length))
    with contextlib.suppress(MBTSADError):  # no text of another class
        return triggered_test_set(inputs.test, trigger, seed), target
    return (), None


def _named(inputs: Inputs, result: Result) -> list[dict[str, Any]]:
    """The trigger of the request, as it was measured."""
    if result.suspect.asr is None or inputs.target is None:
        return []
    words = " | ".join(inputs.used["trigger"]["texts"])
    return [_trial(words, result.labels[inputs.target], False, result.suspect, result.purified)]


def _tried(models: Purified, inputs: Inputs, found: Sequence[str], result: Result) -> list[dict[str, Any]]:
    """Each word of a trigger that has several, and what the scan found and nobody named, each tried by itself on a
    sample of the test texts."""
    both, config = {"suspect": models.suspect, "purified": models.student}, result.request.config
    named = result.request.triggers
    each = [way for way in named if not names_file(way)][:TRIED] if len(named) > 1 else []
    alone = [way for way in found if way not in named][:TRIED]
    targets = dict.fromkeys(each, inputs.target)
    targets |= {way: turned_to(models.suspect, inputs.clean, [way]) for way in alone}
    rows, window = [], places(config.max_length)
    answered: dict[int, Mapping[str, Sequence[int]]] = {}  # by target class, which says what the other texts are
    for way, target in targets.items():
        others = spaced([t for t in inputs.test if t.label != target], OBSERVED)
        if others and target is not None:
            known = answered.get(target)
            steps = try_trigger(both, others, [way], target, window=window, seed=config.seed, answered=known)
            trial = drain(steps)
            answered[target] = trial.answered
            rows.append(_trial(way, trial.target, way in found, trial.scores["suspect"], trial.scores["purified"]))
    return rows


def _trial(trigger: str, target: str, by_scan: bool, suspect: Scores, purified: Scores) -> dict[str, Any]:
    models = {"suspect": suspect, "purified": purified}
    rates = {name: rates_to_dict({"asr": s.asr, "asr_floor": s.asr_floor}) for name, s in models.items()}
    return {"trigger": trigger, "target": target, "found_by_scan": by_scan, **rates}


def _short(texts: Sequence[LabelledText]) -> list[LabelledText]:
    """The first few short ones, and not those that show most."""
    short = [text for text in texts if len(text.text.split()) <= WORDS]
    return (short or sorted(texts, key=lambda text: len(text.text)))[:SPLITS]


def _attention(
    models: Purified, triggered: Sequence[TriggeredText], texts: Sequence[LabelledText]
) -> dict[str, Any] | None:
    """The head that moved most from suspect to purified, on a short text with the trigger."""
    text, without = _telling(models.suspect, triggered) if triggered else (min(texts, key=lambda t: len(t.text)), None)
    with contextlib.suppress(MBTSADError):
        before, after = (attention_maps(model, text) for model in (models.suspect, models.student))
        shift = moved(before, after)
        layer, head = divmod(int(np.argmax(shift)), shift.shape[1])
        marked = added(_tokens(models.suspect, without), before.tokens) if without else ()
        return {
            "layer": layer,
            "head": head,
            "moved": round(float(shift[layer, head]), 4),
            "tokens": list(before.tokens),
            "marked": list(marked),
            "answers": {"suspect": before.answer, "purified": after.answer},
            "suspect": before.maps[layer, head].astype(float).round(4).tolist(),
            "purified": after.maps[layer, head].astype(float).round(4).tolist(),
        }
    return None


def _telling(suspect: Classifier, triggered: Sequence[TriggeredText]) -> tuple[LabelledText, LabelledText]:
    """A text of few tokens that the suspect answers right without the trigger: with it and without."""
    sentences = [t for t in triggered if len(t.clean.text.split()) >= 5] or list(triggered)
    by_length = sorted(sentences, key=lambda t: len(t.triggered.text))[: 8 * ASKED]
    some = ([t for t in by_length if len(_tokens(suspect, t.triggered)) <= FEW] or by_length)[:ASKED]
    answers = predict(suspect, [t.clean for t in some]).argmax(-1).tolist()
    right = [t for t, answer in zip(some, answers, strict=True) if t.clean.label == answer]
    one = (right or some)[0]
    return one.triggered, one.clean


def _tokens(classifier: Classifier, text: LabelledText) -> tuple[str, ...]:
    (encoded,) = encode(classifier, [text])
    return readable_tokens(classifier, encoded)


def _projection(
    models: Purified, inputs: Inputs, triggered: Sequence[TriggeredText], result: Result
) -> dict[str, Any] | None:
    """Where texts lie for suspect and purified model, in the plane of their first two principal components."""
    clean, rng = spaced(inputs.clean, CLEAN), random.Random("texts of the report's projection")
    split = [dataclasses.replace(t, text=split_tokens(t.text, rng, result.request.config.split).text) for t in clean]
    sets = {
        "clean": clean,
        "triggered": [t.triggered for t in spaced(triggered, OTHERS)],
        "token-split": split[:OTHERS],
    }
    texts = [text for some in sets.values() for text in some]
    vectors = np.concatenate([cls_vectors(model, texts) for model in (models.suspect, models.student)]).astype(float)
    if not np.isfinite(vectors).all():
        return None
    U, spread, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    plane = U[:, :2] * spread[:2]
    half = (plane / (np.abs(plane).max() or 1.0)).round(3).reshape(2, len(texts), 2)
    return {
        "explained": (spread[:2] ** 2 / ((spread**2).sum() or 1.0)).round(4).tolist(),
        "sets": [name for name, some in sets.items() for _ in some],
        "classes": [result.labels[text.label] for text in texts],
        "suspect": half[0].tolist(),
        "purified": half[1].tolist(),
    }
