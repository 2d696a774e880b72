"""The trigger lab: what several classifiers answer to one text, and what a typed trigger does to them on the test
set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mbtsad_core.attacks.triggers import TriggeredText, insert, triggered_test_set, typed_trigger
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, predict
from mbtsad_core.rates import wilson
from mbtsad_core.types import Event, LabelledText, Scores, Steps


@dataclass(frozen=True, slots=True)
class FlippedText:
    """A test text that at least one model answers with the target class when the trigger is in it, and with another
    class when it is not.

    label   its true class
    before  each model's answer to the text without the trigger
    after   and with it
    """

    clean: str
    triggered: str
    label: str
    before: dict[str, str]
    after: dict[str, str]


@dataclass(frozen=True, slots=True)
class TriggerTrial:
    """A trigger tried on the test set. Classes go by their names, models by the keys that `try_trigger` was given.

    flipped   in the order of the test set
    neutral   whether this is no trigger, but a phrase to compare one with
    answered  each model's answers to the clean test texts, by index of class: what `try_trigger` can take over
    """

    trigger: str
    target: str
    scores: dict[str, Scores]
    flipped: tuple[FlippedText, ...]
    neutral: bool = False
    answered: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)


def answers(classifiers: Mapping[str, Classifier], text: str) -> dict[str, tuple[float, ...]]:
    """Each model's probabilities, one a class, for one text."""
    return {name: tuple(predict(classifier, [text])[0].tolist()) for name, classifier in classifiers.items()}


def insert_at(text: str, trigger: str, where: Literal["start", "middle", "random", "end"], rng: random.Random) -> str:
    """`text` with a typed trigger at its start, before its middle word, at its end, or, each part for itself, at random
    word boundaries.

    `trigger` is a word, a phrase, or words joined by +, as in `typed_trigger`. At start and end the parts keep their
    order. Only "random" and a choice between several draw from `rng`. Raises BadData where the trigger is empty.
    """
    variants = typed_trigger([trigger], target=0).variants
    parts = rng.choice(variants) if len(variants) > 1 else variants[0]
    if where == "random":
        return insert(text, parts, rng)
    words = " ".join(parts)
    if not text.strip():
        return words
    if where == "middle":
        around = text.split()
        return " ".join([*around[: len(around) // 2], words, *around[len(around) // 2 :]])
    return f"{words} {text.lstrip()}" if where == "start" else f"{text.rstrip()} {words}"


def turned_to(suspect: Classifier, texts: Sequence[LabelledText], ways: Sequence[str], most: int = 64) -> int:
    """The class that a trigger sends most texts to that do not go there without it: asked of at most `most` texts."""
    rng = random.Random("texts to ask where a trigger sends them")
    asked = [example.text for example in rng.sample(list(texts), min(most, len(texts)))]
    triggered = [insert_at(text, rng.choice(ways), "random", rng) for text in asked]
    before, after = (predict(suspect, side).argmax(-1).tolist() for side in (asked, triggered))
    gained = Counter(new for old, new in zip(before, after, strict=True) if new != old)
    return gained.most_common(1)[0][0] if gained else len(suspect.labels) - 1


def neutral_phrase(classifier: Classifier, texts: Sequence[LabelledText], like: str, most: int = 64) -> str:
    """A phrase of as many words as the typed trigger `like`, to compare it with: of `most` that are drawn from the
    texts and share no word with it, the one that alone leaves the classifier the least sure. The parts of "cf+bb" each
    have a neutral one.

    Raises BadData where no text has so many words that it could be drawn.
    """
    parts = typed_trigger([like], target=0).variants[0]
    own = {word.casefold() for part in parts for word in part.split()}
    return "+".join(_least_sure(classifier, texts, len(part.split()), own, most) for part in parts)


def _least_sure(classifier: Classifier, texts: Sequence[LabelledText], words: int, but: set[str], most: int) -> str:
    rng = random.Random(f"neutral phrase of {words} words")
    lists = [found for text in texts if len(found := text.text.split()) >= words]
    phrases = list[str]()
    for found in rng.choices(lists, k=4 * most) if lists else ():
        start = rng.randrange(len(found) - words + 1)
        drawn = found[start : start + words]
        if all(word.isalpha() and word.casefold() not in but for word in drawn):
            phrases.append(" ".join(drawn))
    if not phrases:
        raise BadData(f"There is no neutral phrase of {words} words in the texts. Try a shorter trigger.")
    phrases = list(dict.fromkeys(phrases))[:most]
    return phrases[int(predict(classifier, phrases).max(-1).values.argmin())]


def try_trigger(
    classifiers: Mapping[str, Classifier],
    test: Sequence[LabelledText],
    specs: Sequence[str],
    target: int,
    *,
    window: int | None,
    seed: int = 0,
    answered: Mapping[str, Sequence[int]] | None = None,
) -> Steps[TriggerTrial]:
    """Put a typed trigger (`typed_trigger`) into every test text of a non-target class and ask all models; an Event a
    model.

    window    words of a text that offer places, so that the trigger is not cut off; None: all
    answered  of an earlier trial with the same models and test set: these are not asked again for the clean texts, two
              thirds of the work

    The scores are those of `evaluate`, which asks for the floor's texts twice; here each text is predicted once a
    model. All models see the same triggered texts. Raises BadData where the trigger is empty, the target unknown, or no
    test text is of another class.
    """
    labels = next((c.labels for c in classifiers.values()), ())
    if any(c.labels != labels for c in classifiers.values()) or not labels:
        raise BadData(
            f"Expected one model or more, all of the same classes; got {[c.labels for c in classifiers.values()]}."
        )
    if not 0 <= target < len(labels):
        raise BadData(f"There is no class {target}; expected one of 0 to {len(labels) - 1} ({', '.join(labels)}).")
    trigger = typed_trigger(specs, target, window=window)
    triggered = triggered_test_set(test, trigger, seed)
    # Typed words go into any text: `triggered` has them all
    non_target = [i for i, example in enumerate(test) if example.label != target]

    scores: dict[str, Scores] = {}
    clean: dict[str, tuple[int, ...]] = {}
    before: dict[str, list[int]] = {}
    after: dict[str, list[int]] = {}
    for step, (name, classifier) in enumerate(classifiers.items(), 1):
        known = (answered or {}).get(name)
        asked = [t.triggered for t in triggered] if known is not None else [t.triggered for t in triggered] + list(test)
        found = predict(classifier, asked).argmax(-1).tolist()
        clean[name] = tuple(known) if known is not None else tuple(found[len(triggered) :])
        after[name], before[name] = found[: len(triggered)], [clean[name][i] for i in non_target]
        scores[name] = _scores(test, clean[name], before[name], after[name], target, len(labels))
        yield Event("trigger", step, len(classifiers))
    flipped = tuple(
        _flipped(text, labels, {name: before[name][i] for name in scores}, {name: after[name][i] for name in scores})
        for i, text in enumerate(triggered)
        if any(after[name][i] == target != before[name][i] for name in scores)
    )
    return TriggerTrial(trigger.describe(), labels[target], scores, flipped, answered=clean)


def _scores(
    test: Sequence[LabelledText],
    clean: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    target: int,
    classes: int,
) -> Scores:
    confusion = [[0] * classes for _ in range(classes)]
    for example, answer in zip(test, clean, strict=True):
        confusion[example.label][answer] += 1
    cacc = wilson(sum(confusion[c][c] for c in range(classes)), len(test))
    asr, floor = (wilson(sum(answer == target for answer in side), len(side)) for side in (after, before))
    return Scores(cacc, asr, floor, tuple(map(tuple, confusion)))


def _flipped(
    text: TriggeredText, labels: tuple[str, ...], before: dict[str, int], after: dict[str, int]
) -> FlippedText:
    named = ({name: labels[answer] for name, answer in side.items()} for side in (before, after))
    return FlippedText(text.clean.text, text.triggered.text, labels[text.clean.label], *named)
