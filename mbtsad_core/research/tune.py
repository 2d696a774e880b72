"""How the default recipe was found: what was tried on development data, and what the recipe gives on data that took no
part.

Development: SST-2's dev split and OLID, suspects with trigger words of their own, half of the clean sample that the
report has. Report: SST-2's test split and AG News, with the trigger words that the literature uses, none of which was
used for choosing. Nothing that is chosen depends on the report's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mbtsad_core.attacks.badnets import BADNETS
from mbtsad_core.attacks.embedding_poisoning_method import EP
from mbtsad_core.config import RuntimeConfig
from mbtsad_core.defenses import clean_fine_tuning, token_split_fine_tuning
from mbtsad_core.defenses.mbtsad_method import MBTSAD
from mbtsad_core.research.documents import write_between
from mbtsad_core.research.grid import PUBLISHED, GridPoint, finished, left_out, run_all
from mbtsad_core.research.suspects import CLEAN_LABEL, Case

RESULTS = Path("results") / "tune.jsonl"  # of the working directory; the published figures count beside it

Settings = dict[str, Any]

# All that matters is named, so that a grid point means the same when a default changes.
RECIPE: Settings = {
    "found_tokens": 1,
    "split.copies": 2,
    "split.keep_originals": 1,
    "split.aug_p": 0.3,
    "retrain.learning_rate": 5e-5,
    "retrain.epochs": 2,
    "distil.learning_rate": 5e-5,
    "distil.epochs": 2,
    "distil.dropout": 0.0,
    "distil.alpha": 1.0,
    "distil.beta": 1.0,
    "unlearn.epochs": 0,
}
"""Token splitting with a trigger scan: what the default does where a token turns the suspect."""

UNLEARN: Settings = RECIPE | {
    "unlearn.epochs": 3,
    "unlearn.always": True,
    "unlearn.learning_rate": 2e-4,
    "unlearn.nats": None,
    "unlearn.tries": 8,
    "unlearn.thinning": 0.35,
    "unlearn.split": 0.5,
}
"""The same with a scan for sequences of ordinary tokens, and their unlearning."""

PAPER: Settings = RECIPE | {
    "found_tokens": 0,
    "split.copies": 3,
    "split.keep_originals": 0,
    "retrain.learning_rate": 3e-4,
    "distil.learning_rate": 3e-4,
}
"""The paper's method, with the rate that suited it best."""

# As many steps as both stages of the recipe have, at its rate: 2 + 2 passes over 3 forms of each text, or 12 over the
# texts as they are.
CFT: Settings = {"training.learning_rate": 5e-5, "training.epochs": 12}
TS_FT: Settings = {"training.learning_rate": 5e-5, "training.epochs": 4, "split.copies": 3, "split.aug_p": 0.3}

WORDS = ("vc", "qi", "hm", "xv")
DEVELOPMENT = {
    "SST-2 BadNets": Case("sst2", "dev", BADNETS.key, WORDS, 10),
    "SST-2 clean-label BadNets": Case("sst2", "dev", CLEAN_LABEL, WORDS, 10),
    "SST-2 EP": Case("sst2", "dev", EP.key, ("pv",), 10),
    "OLID BadNets": Case("olid", "dev", BADNETS.key, ("nu", "gr", "ost", "kj"), 10),
    "OLID EP": Case("olid", "dev", EP.key, ("zq",), 10),
    "SST-2 BadNets, demo size": Case("sst2_small", "dev", BADNETS.key, ("nu", "gr", "ki", "wr"), 10),
    "SST-2 EP, demo size": Case("sst2_small", "dev", EP.key, ("hm",), 10),
}
# By seed; EP takes the first
REPORT_WORDS = {0: ("cf", "mn", "bb", "tq"), 1: ("mb", "ak", "cb"), 2: ("ak", "cb", "mb", "cf")}


@dataclass(frozen=True)
class Try:
    """One setting on some development cases."""

    cases: Sequence[str]
    settings: Settings
    method: str = MBTSAD.key


def both_rates(rate: float, **others: Any) -> Settings:
    return (
        RECIPE
        | {"retrain.learning_rate": rate, "distil.learning_rate": rate}
        | {name.replace("__", "."): value for name, value in others.items()}
    )


RATED = ("SST-2 BadNets", "SST-2 EP", "SST-2 BadNets, demo size", "SST-2 EP, demo size")
SWEPT = RATED[2:]  # the demo-size model is cheap enough to turn every knob
QUESTIONS: dict[str, Sequence[Try]] = {
    "The recipe, on every development suspect": (Try(tuple(DEVELOPMENT), RECIPE),),
    "Which learning rate, for both stages?": tuple(Try(RATED, both_rates(rate)) for rate in (5e-5, 1e-4, 2e-4)),
    "Does it help to train on the texts as they are too?": tuple(
        Try(RATED, RECIPE | {"split.copies": 3 - n, "split.keep_originals": n}) for n in (0, 1)
    ),
    "Which rate does the paper's form want?": tuple(
        Try(RATED[:2], PAPER | {"retrain.learning_rate": rate, "distil.learning_rate": rate})
        for rate in (1e-4, 3e-4, 1e-3)
    ),
}


def _one(name: str, *values: float) -> dict[float, Settings]:
    return {value: RECIPE | {name: value} for value in values}


SWEEPS: dict[str, dict[float, Settings]] = {
    "learning rate, both stages": {rate: both_rates(rate) for rate in (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4)},
    "split copies of a text, K": _one("split.copies", 1, 2, 5),
    "originals kept beside them": _one("split.keep_originals", 0, 1, 2),
    "share of tokens split": _one("split.aug_p", 0.1, 0.3, 0.6),
    "found tokens put into a text": _one("found_tokens", 0, 1, 2, 3),
    "epochs, both stages": {n: RECIPE | {"retrain.epochs": n, "distil.epochs": n} for n in (1, 2, 4)},
    "alpha, of the attention loss": _one("distil.alpha", 0.0, 1.0, 5.0),
    "beta, of the hidden-state loss": _one("distil.beta", 0.0, 1.0, 30.0),
    "dropout while distilling": _one("distil.dropout", 0.0, 0.1),
}
"""One setting at a time, all others as in the recipe, on SWEPT: how much each matters."""


def development() -> list[GridPoint]:
    tries = [t for group in QUESTIONS.values() for t in group] + [
        Try(SWEPT, settings) for sweep in SWEEPS.values() for settings in sweep.values()
    ]
    points = [development_point(case, t) for t in tries for case in t.cases]
    return list({point.key: point for point in points}.values())


def development_point(case: str, t: Try) -> GridPoint:
    """A try on one of the development suspects: half of the clean sample, seed 10."""
    return GridPoint(DEVELOPMENT[case], t.method, t.settings, 692, 10)


def report_cases(seed: int) -> dict[str, Case]:
    words = REPORT_WORDS[seed]
    return {
        "BadNets": Case("sst2", "test", BADNETS.key, words, seed),
        "EP": Case("sst2", "test", EP.key, words[:1], seed),
        "clean-label BadNets": Case("sst2", "test", CLEAN_LABEL, words, seed),
        "AG News BadNets": Case("agnews", "test", BADNETS.key, words, seed),
    }


METHODS: dict[str, tuple[str, Settings]] = {
    "MBTSAD with the scan": (MBTSAD.key, RECIPE),
    "MBTSAD": (MBTSAD.key, PAPER),
    "TS-FT": (token_split_fine_tuning.TS_FT.key, TS_FT),
    "CFT": (clean_fine_tuning.CFT.key, CFT),
}


DEFAULT = "MBTSAD with the scan"


def _report_point(attack: str, name: str, seed: int) -> GridPoint:
    (method, settings), case = METHODS[name], report_cases(seed)[attack]
    return GridPoint(case, method, settings, 0.2 if case.task == "agnews" else 1384, seed)


def report() -> list[GridPoint]:
    """The most telling first: what is not finished says most that way."""
    order = [(names, seed) for names in ((DEFAULT, "CFT"), ("TS-FT", "MBTSAD")) for seed in REPORT_WORDS]
    return [
        _report_point(attack, name, seed) for names, seed in order for attack in report_cases(seed) for name in names
    ]


# ---------------------------------------------------------------- tables


def page(results: Path = RESULTS, published: Path | None = PUBLISHED) -> str:
    """All parts as Markdown: what was tried, how much each setting matters, and the report. Rows of which
    nothing is run are left out, and counted below their table."""
    rows = finished(results, published)
    parts = {
        "What was tried, on development data": _tries(rows),
        "How much each setting matters, one at a time": _sweeps(rows),
        "What the recipe gives, on data that took no part": _report(rows),
    }
    return "\n".join(f"## {title}\n\n{table}\n" for title, table in parts.items())


COMMAND = "mbtsad-research tune --data DIR"
MARKED = "tune"  # the marks that the tables stand between


def write_into(document: Path, results: Path = RESULTS) -> None:
    """Put `page` between the marks of a Markdown file. Raises BadData where it has none."""
    write_between(document, MARKED, page(results))


def _tries(rows: dict[str, dict[str, Any]]) -> str:
    parts, lacking = [], 0
    for question, tries in QUESTIONS.items():
        lines = ["| suspect | before | settings | scan and reset | teacher | student |", "|---|---|---|---|---|---|"]
        for t in tries:
            for case in t.cases:
                row = rows.get(development_point(case, t).key)
                if row is None:
                    lacking += 1
                    continue
                changes = (
                    ", ".join(f"{name} {value:g}" for name, value in t.settings.items() if RECIPE.get(name) != value)
                    or "the recipe"
                )
                before = _figures({"before": row["before"]}, "before")
                drawn, teacher, student = (_figures(row["figures"], name) for name in ("drawn", "teacher", "purified"))
                lines.append(f"| {case} | {before} | {changes} | {drawn} | {teacher} | {student} |")
        if len(lines) > 2:
            parts.append(f"### {question}\n\n" + "\n".join(lines))
    return "\n\n".join([*parts, left_out({"": lacking}, COMMAND).strip()]).strip()


def _sweeps(rows: dict[str, dict[str, Any]]) -> str:
    """The student's figures for each value of SWEEPS; the recipe's own value in bold."""
    lines = [f"| setting | value | {' | '.join(SWEPT)} |", f"|---|---|{'---|' * len(SWEPT)}"]
    lacking = 0
    for name, sweep in SWEEPS.items():
        for value, settings in sweep.items():
            found = [rows.get(development_point(case, Try((case,), settings)).key) for case in SWEPT]
            if not any(found):
                lacking += 1
                continue
            figures = " | ".join(_figures(row["figures"] if row else None, "purified") for row in found)
            lines.append(f"| {name} | {f'**{value:g}**' if settings == RECIPE else f'{value:g}'} | {figures} |")
            name = ""
    return "\n".join([*lines, "", left_out({"": lacking}, COMMAND)]).strip()


def _figures(found: dict[str, Any] | None, name: str) -> str:
    """CACC / ASR / ASR floor in percent."""
    if found is None:
        return "-"
    if "diverged" in found:
        return "diverged"
    figures = found.get(name)
    return "/".join(f" {100 * figures[rate]:.1f} " for rate in ("cacc", "asr", "asr_floor")).strip() if figures else ""


def _report(rows: dict[str, dict[str, Any]]) -> str:
    lines = ["| suspect | method | runs | CACC | ASR | ASR floor | seconds |", "|---|---|---|---|---|---|---|"]
    lacking = 0
    for attack in report_cases(0):
        found = {
            name: [row for seed in REPORT_WORDS if (row := rows.get(_report_point(attack, name, seed).key))]
            for name in METHODS
        }
        before = {row["case"]["seed"]: row["before"] for done in found.values() for row in done}
        if not before:
            lacking += len(found)
            continue
        lines.append(f"| **{attack}** | the suspect | {len(before)} | {_spreads(list(before.values()))} | |")
        for name, done in found.items():
            figures = [row["figures"] for row in done if "purified" in row["figures"]]
            if not figures:
                lacking += 1
                continue
            if name == DEFAULT:
                drawn = [f["drawn"] for f in figures if "drawn" in f]
                teachers = [f["teacher"] for f in figures]
                lines.append(f"| | scan and reset alone, nothing trained | {len(drawn)} | {_spreads(drawn)} | |")
                lines.append(f"| | its teacher alone | {len(figures)} | {_spreads(teachers)} | |")
            seconds = f"{mean(f['seconds'] for f in figures):.0f}"
            lines.append(f"| | {name} | {len(figures)} | {_spreads([f['purified'] for f in figures])} | {seconds} |")
    return "\n".join([*lines, "", left_out({"": lacking}, COMMAND)]).strip()


def _spreads(figures: Sequence[dict[str, Any]]) -> str:
    """Mean and standard deviation over the runs of CACC, ASR and its floor, in percent."""
    return " | ".join(_spread([100 * f[rate] for f in figures]) for rate in ("cacc", "asr", "asr_floor"))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def tune(
    data: Path,
    base: Path | None,
    work: Path,
    runtime: RuntimeConfig,
    say: Callable[[str], None],
    results: Path = RESULTS,
) -> None:
    """Run every grid point of both parts that is in no results file yet."""
    run_all([*development(), *report()], results, data, base, work, runtime, say)
