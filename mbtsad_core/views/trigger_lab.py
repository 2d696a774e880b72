"""The trigger lab: each model's answer to a typed text, the triggers tried so far, and the texts that a trigger
flipped."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path

from mbtsad_core.evaluation.trigger_trials import FlippedText, TriggerTrial
from mbtsad_core.models.subword_tokens import added
from mbtsad_core.types import Rate
from mbtsad_core.views.curves import GREY, PURIFIED, SUSPECT, TEACHER
from mbtsad_core.views.words import percent, rate

COLOURS = {"suspect": SUSPECT, "teacher": TEACHER, "purified": PURIFIED}
BARS = 3  # classes that are shown of a model with more than two
CONTEXT = 24  # words on either side of a trigger that are shown of a long text

TRIGGER_LAB_STYLE = Path(__file__).with_name("trigger_lab.css").read_text("utf-8")


def answers_html(found: Mapping[str, Sequence[float]], labels: Sequence[str], target: int | None = None) -> str:
    """A probability bar a model, and the class that it answers; `found` has each model's probabilities by index of
    class, as `answers` gives them.

    Two classes: one bar, of `target`, or of the last class; half is where the answer changes. More: the three likeliest
    classes, `target` always among them. The height depends on the number of models and classes alone, so nothing jumps
    while a text is typed. Needs STYLE and TRIGGER_LAB_STYLE.
    """
    if not found:
        return _nothing("answers", "What the models answer", "Type a text: the answer of each model stands here.")
    shown = "".join(_answer(name, p, labels, target) for name, p in found.items())
    return f'<section class="mbtsad lab answers" aria-label="What the models answer">{shown}</section>'


def _answer(name: str, probabilities: Sequence[float], labels: Sequence[str], target: int | None) -> str:
    p = [x if math.isfinite(x) else 0.0 for x in probabilities]
    given = max(range(len(p)), key=p.__getitem__)
    if len(p) == 2:
        classes = [1 if target is None else target]
    else:
        classes = sorted(range(len(p)), key=lambda c: -p[c])[:BARS]
        if target is not None and target not in classes:
            classes[-1] = target
    bars = "".join(_bar(name, labels[c], p[c], given=c == given, half=len(p) == 2) for c in classes)
    to_target = " <b>(the target)</b>" if given == target else ""
    said = f'<div class="said">answers <b>{escape(labels[given])}</b>{to_target}</div>'
    return (
        f'<div class="one"><div class="model" style="--of:{_colour(name)}">{escape(name)}</div><div>{bars}</div>'
        f"{said}</div>"
    )


def _bar(name: str, label: str, p: float, *, given: bool, half: bool) -> str:
    about = escape(f"{name}: probability of {label}")
    return (
        f'<div class="bar"><span class="class{" given" * given}" title="{escape(label)}">P({escape(label)})</span>'
        f'<span class="track{" half" * half}" style="--of:{_colour(name)}" role="meter" aria-label="{about}" '
        'aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * p:.1f}" aria-valuetext="{percent(p)}"><i style="width:{100 * p:.1f}%"></i></span>'
        f'<span class="number">{percent(p)}</span></div>'
    )


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
    names = "".join(
        f'<th scope="col" role="columnheader"><span class="model" style="--of:{_colour(name)}">{escape(name)}</span>'
        "</th>"
        for name in models
    )
    rows = "".join(_trial(i, trials[i], models, i == chosen) for i in reversed(range(len(trials))))
    return f"""<section class="mbtsad lab trials" aria-label="Triggers tried">
<p class="note muted">ASR: share of triggered texts of the other classes that go to the target. Floor, the upright mark: share of the same texts that go there
without the trigger. In brackets: Wilson 95 % interval, then counts. Choose a row to see the texts that flipped.</p>
<table role="table"><thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader" class="trigger">trigger</th>
<th scope="col" role="columnheader">target</th>{names}</tr></thead><tbody role="rowgroup">{rows}</tbody></table></section>"""


def _trial(i: int, trial: TriggerTrial, models: Sequence[str], chosen: bool) -> str:
    cells = "".join(
        f'<td role="cell" class="rate" style="--of:{_colour(name)}">{_measured(name, trial)}</td>' for name in models
    )
    return (
        f'<tr role="row"{" class=picked" * chosen}><th scope="row" role="rowheader" class="trigger">'
        f'<button type="button" data-trial="{i}" aria-pressed="{str(chosen).lower()}" dir="auto">'
        f"{escape(_visible(trial.trigger))}</button></th>"
        f'<td role="cell" class="target"><span class="name">target </span>{escape(trial.target)}</td>{cells}</tr>'
    )


def _measured(name: str, trial: TriggerTrial) -> str:
    """ASR of one model in words and as a bar, with its floor as a mark on the bar."""
    scores = trial.scores.get(name)
    label = f'<span class="name model">{escape(name)}</span>'
    if scores is None or scores.asr is None or scores.asr_floor is None:
        return f'{label}<span class="muted">not measured</span>'
    share, floor = 100 * scores.asr.share, 100 * scores.asr_floor.share
    track = (
        f'<span class="track" aria-hidden="true"><i style="width:{share:.1f}%"></i><b style="left:{floor:.1f}%">'
        "</b></span>"
    )
    return f"{label}{_rate(scores.asr)}{track}<small>floor {rate(scores.asr_floor)}</small>"


def _rate(value: Rate) -> str:
    share, rest = rate(value).split(" %", 1)
    return f"<b>{share} %</b>{rest}"


def flips_html(trial: TriggerTrial | None, most: int = 50) -> str:
    """The texts that the trigger flipped, at most `most`: the text with the trigger marked, its class, each model's
    answers without and with it.

    First those that flip the last model, which is the purified one, then those that flip the one before it; else in the
    test set's order. Needs STYLE and TRIGGER_LAB_STYLE.
    """
    name = "Texts that flipped"
    if trial is None:
        return _nothing("flips", name, "Choose a trigger above to see which texts it flipped.")
    models, trigger = list(trial.scores), f"<b>{escape(_visible(trial.trigger))}</b>"
    n = next((s.asr.n for s in trial.scores.values() if s.asr), 0)
    if not trial.flipped:
        return _nothing(
            "flips",
            name,
            f"With {trigger}, none of the {n} texts of the other classes flipped to {escape(trial.target)}.",
        )
    ordered = sorted(
        trial.flipped, key=lambda text: [not _flips(text, model, trial.target) for model in reversed(models)]
    )
    each = ", ".join(
        f"{escape(model)} {sum(_flips(text, model, trial.target) for text in trial.flipped)}" for model in models
    )
    shown = (
        f" {most} of {len(ordered)} shown, first those that flip {escape(models[-1])}."
        if len(ordered) > most
        else f" All {len(ordered)} shown."
        if len(ordered) > 1
        else ""
    )
    heads = "".join(f'<div class="model" style="--of:{_colour(model)}">{escape(model)}</div>' for model in models)
    rows = "".join(_flip(text, models, trial.target) for text in ordered[:most])
    return f"""<section class="mbtsad lab flips" aria-label="{name}" tabindex="0" style="--models:{len(models)}">
<p class="note">With {trigger}, {len(ordered)} of {n} texts of the other classes flipped to {escape(trial.target)}: {each}.{shown}</p>
<div class="row head" aria-hidden="true"><div>text with the trigger</div><div>true class</div>{heads}</div>{rows}</section>"""


def _flips(text: FlippedText, model: str, target: str) -> bool:
    return text.after[model] == target != text.before[model]


def _flip(text: FlippedText, models: Sequence[str], target: str) -> str:
    changes = "".join(
        f'<div class="change{" flip" * _flips(text, model, target)}"><span class="name model" '
        f'style="--of:{_colour(model)}">{escape(model)}</span>'
        f"{escape(text.before[model])} → {escape(text.after[model])}</div>"
        for model in models
    )
    words = text.triggered.split()
    marked = _marked(words, added(text.clean.split(), words))
    true = f'<div class="class"><span class="name">true class</span>{escape(text.label)}</div>'
    return f'<div class="row"><div class="text" dir="auto">{marked}</div>{true}{changes}</div>'


def _marked(words: Sequence[str], places: Collection[int]) -> str:
    """The words with those at `places` marked; a long text is cut to what is around them."""
    near = {i for place in places or (0,) for i in range(place - CONTEXT, place + CONTEXT + 1)}
    out: list[str] = []
    for i, word in enumerate(words):
        if i not in near and len(words) > 3 * CONTEXT:
            out += ["…"] if out[-1:] != ["…"] else []
        elif i not in places:
            out.append(escape(word))
        elif i - 1 in places:  # one line under a whole phrase
            out[-1] = f"{out[-1].removesuffix('</u>')} {escape(_visible(word))}</u>"
        else:
            out.append(f"<u>{escape(_visible(word))}</u>")
    return " ".join(out)


def _visible(trigger: str) -> str:
    """A trigger with its invisible characters (zero-width spaces, marks of writing direction) as their code points."""
    return "".join(c if c.isprintable() else f"‹U+{ord(c):04X}›" for c in trigger)  # noqa: RUF001 (angle quotes)


def _colour(model: str) -> str:
    return COLOURS.get(model, GREY)


def _nothing(kind: str, name: str, why: str) -> str:
    """`why` is taken as it is."""
    return f'<section class="mbtsad lab {kind}" aria-label="{name}"><p class="nothing muted">{why}</p></section>'
