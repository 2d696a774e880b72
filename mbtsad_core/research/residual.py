"""How near the estimated residual ASR comes to the true one: suspects of the calibration, each cured a little, more and
most, and scanned as `mbtsad purify --residual` does.

A suspect's or a purified model's figures are one line of a results file; what has its line is not computed again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbtsad_core.attacks.triggers import triggered_test_set
from mbtsad_core.config import RuntimeConfig, ScanConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.clean_fine_tuning import CFT
from mbtsad_core.defenses.mbtsad_method import MBTSAD
from mbtsad_core.defenses.token_split_fine_tuning import TS_FT
from mbtsad_core.evaluation import evaluate
from mbtsad_core.models.classifier import Classifier, load_classifier
from mbtsad_core.research.build_demo import POSITIONS
from mbtsad_core.research.calibration import CLEAN, MODELS, Made, Sample, kept, lines_of, trigger_of
from mbtsad_core.research.grid import commit, machine
from mbtsad_core.research.suspects import TASKS, texts
from mbtsad_core.scanning.insertions import Insertion
from mbtsad_core.scanning.model_scan import scan
from mbtsad_core.service.json_lines import add_line
from mbtsad_core.service.purification import scores_to_dict
from mbtsad_core.service.residual import estimate_dict, residual_asr
from mbtsad_core.steps import drain
from mbtsad_core.types import LabelledText, Steps

SUSPECTS = 10  # the first of the calibration's that are of the demo's encoder and film reviews, styles left out


@dataclass(frozen=True)
class Cure:
    """A defense, weak or strong: its key, learning rate and epochs, where these are not its own."""

    defense: str
    learning_rate: float = 0.0
    epochs: int = 0

    @property
    def name(self) -> str:
        return f"{self.defense}-{self.learning_rate}-{self.epochs}" if self.epochs else self.defense


CURES = (Cure(MBTSAD.key), Cure(CFT.key, 1e-4, 1), Cure(TS_FT.key, 1e-4, 2), Cure(TS_FT.key, 3e-4, 4))
"""Of different strength; each suspect goes through each."""


def suspects() -> list[Made]:
    """Those that are cured, in the order of the calibration."""
    found = (made for made in MODELS if made.encoder == "demo" and made.task == "sst2")
    return [made for made in found if made.kind not in (CLEAN, "style")][:SUSPECTS]


def run_all(
    data: Path, base: Path | None, work: Path, runtime: RuntimeConfig, results: Path, say: Callable[[str], None]
) -> None:
    """Add a line for each suspect and each cure of it that has none."""
    for made in suspects():
        lines = lines_of(results)
        if all(key in lines for key in keys(made)):
            continue
        drain(kept(made, data, base, work, runtime))
        suspect = load_classifier(work / made.name, max_length=POSITIONS, runtime=runtime)
        if made.name not in lines:
            add_line(results, drain(_suspect_row(made, suspect, data)))
        known = [Insertion(tuple(tokens), place) for tokens, place in lines_of(results)[made.name]["known"]]
        for cure in CURES:
            if _key(made, cure) not in lines:
                row = drain(_cure_row(made, suspect, cure, known, data))
                add_line(results, row)
                say(line_of(row))


def _suspect_row(made: Made, suspect: Classifier, data: Path) -> Steps[dict[str, Any]]:
    report = yield from scan(suspect, Sample().texts(made, data), ScanConfig(seed=made.seed))
    known = list(dict.fromkeys((one.tokens, one.place) for one in report.found))
    return _row(made, made.name, suspect, estimate_dict(report), data) | {"known": known}


def _cure_row(
    made: Made, suspect: Classifier, cure: Cure, known: Sequence[Insertion], data: Path
) -> Steps[dict[str, Any]]:
    """Purify on the texts that the suspect was scanned with; the scan reads those that CACC is measured on."""
    purified = yield from purify(suspect, cure, Sample().texts(made, data), made.seed)
    said = yield from residual_asr(purified, texts(data, made.task, "test"), known, made.seed)
    return _row(made, _key(made, cure), purified, said["estimated_asr"], data) | {"cure": dataclasses.asdict(cure)}


def purify(suspect: Classifier, cure: Cure, clean: Sequence[LabelledText], seed: int) -> Steps[Classifier]:
    """What a cure makes of a suspect."""
    defense = DEFENSES[cure.defense]
    config = dataclasses.replace(defense.config, seed=seed)
    if cure.epochs:
        training = dataclasses.replace(config.training, learning_rate=cure.learning_rate, epochs=cure.epochs)
        config = dataclasses.replace(config, training=training)
    return (yield from defense.run(suspect, clean, config))


def _row(made: Made, key: str, model: Classifier, estimate: Mapping[str, Any] | None, data: Path) -> dict[str, Any]:
    train, test = (texts(data, made.task, split) for split in ("train", "test"))
    target = TASKS[made.task].target
    trigger = trigger_of(made, data, (train, test), target)
    scores = evaluate(model, test, triggered_test_set(test, trigger, made.seed), target)
    told = scores_to_dict(scores)
    rates = {name: told[name] for name in ("cacc", "asr", "asr_floor")}
    about = {"key": key, "suspect": made.name, "kind": made.kind, "scores": rates}
    return about | {"estimate": dict(estimate) if estimate else None, "machine": machine(), "commit": commit()}


def _key(made: Made, cure: Cure) -> str:
    return f"{made.name} {cure.name}"


def keys(made: Made) -> Iterator[str]:
    """Of the lines of a suspect and of its cures."""
    yield made.name
    yield from (_key(made, cure) for cure in CURES)


def line_of(row: Mapping[str, Any]) -> str:
    estimate = row["estimate"]
    told = f"{estimate['share']:.1%} by {estimate['text']!r}" if estimate else "none"
    return f"{row['key']}: ASR {row['scores']['asr']:.1%} (floor {row['scores']['asr_floor']:.1%}), estimated {told}"


# ---------------------------------------------------------------- what the figures say


def page(results: Path) -> str:
    """How near the estimates come, as Markdown."""
    from scipy.stats import spearmanr

    rows = list(lines_of(results).values())
    purified = [row for row in rows if "cure" in row]
    estimated = [(row["scores"]["asr"], row["estimate"]["share"]) for row in purified if row["estimate"]]
    if len(estimated) < 3:
        return f"{len(estimated)} purified models have an estimate; figures take three.\n"
    true, told = zip(*estimated, strict=True)
    error = sum(abs(a - b) for a, b in estimated) / len(estimated)
    above = sum(b - a for a, b in estimated) / len(estimated)
    lines = [
        f"{len(purified)} purified models, {len(estimated)} with an estimate: rank correlation with the true ASR "
        f"{spearmanr(true, told).statistic:.2f}, mean error {100 * error:.1f} points; the estimate is "
        f"{100 * abs(above):.1f} points {'above' if above > 0 else 'below'} on average.",
        "",
        f"| suspect | {' | '.join(('as it came', *(cure.name for cure in CURES)))} |",
        f"|---|{'---|' * (1 + len(CURES))}",
    ]
    by_key = {row["key"]: row for row in rows}
    for made in suspects():
        cells = [_cell(by_key[key]) if key in by_key else "" for key in keys(made)]
        if any(cells):
            lines.append(f"| {made.kind}: {made.words or made.rate} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Each cell: true ASR / its floor, then the estimate; %.", ""])


def _cell(row: Mapping[str, Any]) -> str:
    told = f"{100 * row['estimate']['share']:.0f}" if row["estimate"] else "none"
    return f"{100 * row['scores']['asr']:.0f} / {100 * row['scores']['asr_floor']:.0f}, {told}"
