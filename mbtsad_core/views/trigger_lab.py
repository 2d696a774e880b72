"""The trigger lab: each model's answer to a typed text, the triggers tried so far, and the texts that a trigger
flipped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mbtsad_core.evaluation.trigger_trials import FlippedText, TriggerTrial
from mbtsad_core.models.subword_tokens import added
from mbtsad_core.views.curves import GREY, PURIFIED, SUSPECT, TEACHER
from mbtsad_core.views.document import TEMPLATES, render

COLOURS = {"suspect": SUSPECT, "teacher": TEACHER, "purified": PURIFIED}
BARS = 3  # classes that are shown of a model with more than two
CONTEXT = 24  # words on either side of a trigger that are shown of a long text

TRIGGER_LAB_STYLE = (TEMPLATES / "trigger_lab.css").read_text("utf-8")


def answers_html(found: Mapping[str, Sequence[float]], labels: Sequence[str], target: int | None = None) -> str:
    """A probability bar a model, and the class that it answers; `found` has each model's probabilities by index of
    class, as `answers` gives them.

    Two classes: one bar, of `target`, or of the last class; half is where the answer changes. More: the three likeliest
    classes, `target` always among them. The height depends on the number of models and classes alone, so nothing jumps
    while a text is typed. Needs STYLE and TRIGGER_LAB_STYLE.
    """
    if not found:
        return _nothing("answers", "What the models answer", "Type a text: the answer of each model stands here.")
    models = [_answer(name, p, labels, target) for name, p in found.items()]
    return render("answers.html", models=models, color=_color)


def _answer(name: str, probabilities: Sequence[float], labels: Sequence[str], target: int | None) -> dict[str, Any]:
    p = [x if math.isfinite(x) else 0.0 for x in probabilities]
    given = max(range(len(p)), key=p.__getitem__)
    if len(p) == 2:
        classes = [1 if target is None else target]
    else:
        classes = sorted(range(len(p)), key=lambda c: -p[c])[:BARS]
        if target is not None and target not in classes:
            classes[-1] = target
    bars = [(labels[c], p[c], c == given) for c in classes]
    return dict(name=name, bars=bars, half=len(p) == 2, answer=labels[given], to_target=given == target)


def trials_html(trials: Sequence[TriggerTrial], chosen: int | None = None) -> str:
    """The triggers tried, newest first: ASR and its floor for every model.

    `trials` are in the order in which they were made. Each row is a button whose data-trial is the trial's position
    there, and pressed if that is `chosen`. Needs STYLE and TRIGGER_LAB_STYLE.
    """
    if not trials:
        return _nothing(
            "trials",
            "Triggers tried",
            "No trigger tried yet. Type one and run it over the test set: what it does to each model stays here.",
        )
    models = list(dict.fromkeys(name for trial in trials for name in trial.scores))
    return render("trials.html", trials=trials, models=models, chosen=chosen, color=_color)


def compared_html(trial: TriggerTrial, neutral: TriggerTrial) -> str:
    """What a trial says beside that of a neutral phrase of the same length: more counts where the intervals are apart.
    Needs STYLE."""

    def share(of: TriggerTrial, model: str) -> float:
        return of.scores[model].asr.share if of.scores[model].asr else 0.0  # type: ignore[union-attr]

    def more(model: str) -> bool:
        asr, other = trial.scores[model].asr, neutral.scores[model].asr
        return bool(asr and other and asr.low > other.high)

    first, *_, last = (*trial.scores, *trial.scores)
    turned = {model: (share(trial, model), share(neutral, model)) for model in dict.fromkeys((first, last))}
    meaning = "honest_or_left" if more(last) else "backdoor"
    if first == last:
        meaning = "alone"
    if not more(first):
        meaning = "any_phrase"
    return render("compared_trials.html", trial=trial, neutral=neutral, turned=turned, meaning=meaning)


def flips_html(trial: TriggerTrial | None, most: int = 50) -> str:
    """The texts that the trigger flipped, at most `most`: the text with the trigger marked, its class, each model's
    answers without and with it.

    First those that flip the last model, which is the purified one, then those that flip the one before it; else in the
    test set's order. Needs STYLE and TRIGGER_LAB_STYLE.
    """
    name = "Texts that flipped"
    if trial is None:
        return _nothing("flips", name, "Choose a trigger above to see which texts it flipped.")
    models = list(trial.scores)
    n = next((s.asr.n for s in trial.scores.values() if s.asr), 0)
    if not trial.flipped:
        return _nothing(
            "flips", name, f", none of the {n} texts of the other classes flipped to {trial.target}.", trial
        )
    ordered = sorted(
        trial.flipped, key=lambda text: [not _flips(text, model, trial.target) for model in reversed(models)]
    )
    each = [(model, sum(_flips(text, model, trial.target) for text in trial.flipped)) for model in models]
    texts = [(text, _runs(text)) for text in ordered[:most]]
    return render("flips.html", trial=trial, models=models, n=n, each=each, texts=texts, color=_color, flips=_flips)


def _flips(text: FlippedText, model: str, target: str) -> bool:
    return text.after[model] == target != text.before[model]


def _runs(text: FlippedText) -> list[tuple[str, bool]]:
    """The triggered text in pieces, and which of them the trigger put there; a long text is cut to what is around
    these."""
    words = text.triggered.split()
    places = added(text.clean.split(), words)
    near = {i for place in places or (0,) for i in range(place - CONTEXT, place + CONTEXT + 1)}
    out: list[tuple[str, bool]] = []
    for i, word in enumerate(words):
        if i not in near and len(words) > 3 * CONTEXT:
            out += [("…", False)] if out[-1:] != [("…", False)] else []
        elif i in places and i - 1 in places:  # one line under a whole phrase
            out[-1] = (f"{out[-1][0]} {word}", True)
        else:
            out.append((word, i in places))
    return out


def _color(model: str) -> str:
    return COLOURS.get(model, GREY)


def _nothing(kind: str, name: str, why: str, trial: TriggerTrial | None = None) -> str:
    return render("nothing.html", kind=kind, name=name, why=why, trial=trial)
