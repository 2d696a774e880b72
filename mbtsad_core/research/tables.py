"""The paper's tables and its Figure 3 (arXiv 2501.02754), with our figures beside its own.

Each table is a list of grid points, so that it can be stopped and resumed, and grow over days. What is not run says so;
nothing is filled in. The paper's models are BERT-base, and each of its figures is one run. Ours are a six-layer MiniLM
and several seeds: each varies the trigger words, the suspect, the clean sample, the splits and the training.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev, variance
from typing import Any

from mbtsad_core.attacks import ATTACKS
from mbtsad_core.attacks.badnets import BADNETS
from mbtsad_core.attacks.embedding_poisoning_method import EP
from mbtsad_core.attacks.layer_wise_method import LWP
from mbtsad_core.attacks.sentence import SENTENCE
from mbtsad_core.augment import AUGMENTER_NAMES
from mbtsad_core.config import RuntimeConfig
from mbtsad_core.defenses import DEFENSES
from mbtsad_core.defenses.badacts_method import BADACTS
from mbtsad_core.defenses.beear_method import BEEAR
from mbtsad_core.defenses.clean_fine_tuning import CFT
from mbtsad_core.defenses.fine_pruning_method import FINE_PRUNING
from mbtsad_core.defenses.fst_method import FST
from mbtsad_core.defenses.ft_sam_method import FT_SAM
from mbtsad_core.defenses.mbtsad_method import CD, MBTSAD, NO_ATT, NO_HID
from mbtsad_core.defenses.nad_method import NAD
from mbtsad_core.defenses.pure_method import PURE
from mbtsad_core.defenses.reinitialization_method import REINITIALIZATION
from mbtsad_core.defenses.reserve_method import FINE_MIXING, FINE_PURIFYING
from mbtsad_core.defenses.seam import SEAM
from mbtsad_core.defenses.token_split_fine_tuning import TS_FT
from mbtsad_core.detectors import DETECTORS
from mbtsad_core.detectors.onion_method import ONION
from mbtsad_core.detectors.rap_method import RAP
from mbtsad_core.detectors.span_method import SPAN
from mbtsad_core.detectors.strip_method import STRIP
from mbtsad_core.errors import BadConfig
from mbtsad_core.methods import Method, Need
from mbtsad_core.rates import wilson
from mbtsad_core.research import tune
from mbtsad_core.research.documents import write_between
from mbtsad_core.research.grid import (
    FIGURE3,
    NAD_UNEVEN,
    NONE,
    PUBLISHED,
    RETIRED,
    RETRAINED,
    GridPoint,
    finished,
    left_out,
    run_all,
    run_on_ray,
)
from mbtsad_core.research.suspects import CLEAN_LABEL, Case, planted_case
from mbtsad_core.types import Event

RESULTS = Path("results") / "tables.jsonl"  # of the working directory; the published figures count beside it
ENGINES = ("here", "ray")
TABLES = ("table1", "table2", "table3", "table4", "sequences", "figure3")

Settings = dict[str, Any]
Rows = dict[str, dict[str, Any]]

# ---------------------------------------------------------------- the paper's figures

SETS = tuple((task, attack) for task in ("sst2", "imdb") for attack in ("BadNets", "LWP", "EP"))
TASK_NAMES = {"sst2": "SST-2", "imdb": "IMDb"}

Pairs = tuple[tuple[float, float], ...]
PAPER: dict[str, Pairs] = {  # CACC and ASR in percent, in the order of SETS; Tables II and IV
    "none": ((91.32, 89.88), (90.66, 94.41), (91.21, 95.17), (93.48, 89.94), (92.87, 95.50), (94.03, 98.66)),
    "CFT": ((91.82, 65.02), (91.43, 93.43), (91.56, 93.78), (93.18, 85.77), (91.86, 95.47), (93.70, 84.03)),
    "Reinit": ((89.95, 27.96), (89.46, 47.15), (89.51, 90.02), (93.19, 37.29), (92.19, 92.24), (93.69, 82.75)),
    "Fine-Pruning": ((89.29, 16.18), (88.41, 18.53), (87.59, 78.40), (92.35, 52.11), (91.47, 27.14), (92.96, 37.95)),
    "TS-FT": ((90.45, 33.38), (90.74, 25.98), (90.88, 38.38), (93.20, 38.46), (92.88, 30.80), (93.65, 40.15)),
    "MBTSAD": ((90.17, 9.65), (90.72, 15.90), (89.07, 12.83), (92.92, 17.24), (93.01, 16.26), (93.65, 9.64)),
    "Fine-Mixing": ((88.34, 15.79), (88.91, 12.39), (88.52, 11.18), (92.23, 9.10), (92.37, 7.56), (92.33, 9.30)),
    "Fine-Purifying": ((88.74, 16.01), (88.57, 15.13), (88.19, 14.39), (91.93, 9.69), (92.36, 8.21), (92.10, 7.75)),
    "STRIP": ((91.49, 39.36), (90.88, 93.73), (87.69, 93.20), (93.34, 70.94), (89.13, 91.12), (93.85, 98.59)),
    "RAP": ((90.66, 32.35), (90.77, 53.27), (87.86, 93.41), (91.24, 48.36), (91.73, 62.52), (71.81, 51.45)),
    "CD": ((92.03, 53.83), (88.91, 47.26), (89.18, 50.33), (93.46, 36.15), (91.85, 63.75), (93.40, 18.97)),
    "no-hid": ((85.89, 32.68), (90.66, 25.11), (87.59, 45.72), (93.60, 25.86), (87.13, 12.15), (93.79, 39.06)),
    "no-att": ((88.96, 17.43), (88.85, 16.67), (90.77, 36.84), (92.26, 15.66), (93.04, 37.69), (94.11, 20.30)),
    "EDA": ((90.17, 27.19), (90.56, 87.28), (89.78, 93.86)),  # Table III, on SST-2 alone
    "AEDA": ((90.77, 42.54), (91.38, 81.36), (89.84, 81.36)),
    "CWEA": ((87.53, 94.85), (89.62, 88.82), (88.69, 69.30)),
    "Add-Trig": ((90.61, 39.80), (90.66, 93.75), (90.28, 93.53)),
    "TS": ((90.45, 33.38), (90.74, 25.98), (90.88, 38.38)),
}
# Mean cross-entropy of the suspect on token-split texts, the largest of the five; the others are in a picture only
FIGURE3_TS = 0.5333

REPORTED = {attack.key: attack.reported for attack in ATTACKS.values()} | {
    CLEAN_LABEL: "the same, if the paper's BadNets is clean-label, as OpenBackdoor's is and as its ASR suggests"
}

# ---------------------------------------------------------------- what is run

AMOUNT = {"sst2": 1384, "imdb": 0.2}  # clean texts: a fifth of the training set
DEVELOPED_ON = ("SST-2 BadNets", "SST-2 EP")  # of tune.DEVELOPMENT
# Learning rate and passes over the clean texts: the published form, then MBTSAD's number of steps
RATES = ((2e-5, 3), (1e-4, 12), (3e-4, 12))


@dataclass(frozen=True)
class Row:
    """A method as a line of a table.

    candidates  its settings: the published ones or the default first, and those that are tried beside them on
                development suspects
    paper       its line of PAPER, where it has one
    first       its grid points are run before those of the others
    """

    name: str
    method: str
    candidates: tuple[Settings, ...]
    paper: str = ""
    source: str = ""
    first: bool = False

    @property
    def pretrained(self) -> bool:
        """Whether it uses pre-trained weights."""
        return self.method in DEFENSES and DEFENSES[self.method].needs is Need.PRETRAINED


def _row(method: Method[Any, Any], candidates: tuple[Settings, ...], source: str, *, first: bool = False) -> Row:
    """A method under its own title, which is its line in the paper too."""
    return Row(method.title, method.key, candidates, method.title if method.title in PAPER else "", source, first)


def _rates(stage: str = "training", /, **own: Any) -> tuple[Settings, ...]:
    """A rival's own settings at each of RATES, which its last stage is trained by."""
    return tuple(own | {f"{stage}.learning_rate": rate, f"{stage}.epochs": epochs} for rate, epochs in RATES)


def _nad(rate: float, originals: int = 0) -> Settings:
    own = {
        "student_texts": "split",
        "split.copies": 3,
        "split.keep_originals": originals,
        "split.aug_p": 0.3,
        "distil.dropout": 0.0,
        "distil.alpha": 1.0,
        "distil.beta": 1.0,
    }
    return own | {"retrain.learning_rate": rate, "retrain.epochs": 2, "distil.learning_rate": rate, "distil.epochs": 2}


_HELD_OUT = {"held_out": 0.2, "tolerance": 0.02}
_PRUNED = {
    "ranking": "absolute",
    "scope": "all_layers",
    "stop": "accuracy",
    "step": 0.01,
    "tolerance": 0.1,
    "most": 0.6,
}
_BEEAR = {"depth": 0.5, "bound": 0.2, "inner_steps": 3, "inner_rate": 0.2, "weight": 1.0}
_RAP = {"form": "union", "word": "drawn", "least": 0.1, "most": 0.3, "learning_rate": 0.01, "epochs": 5, "frr": 0.01}
_OWN_RATE = "MBTSAD's rate and steps"
TABLE2 = (
    Row("MBTSAD with the scan (the default)", MBTSAD.key, (tune.RECIPE,), "MBTSAD", "docs/recipe.md", first=True),
    Row("MBTSAD, the paper's form", MBTSAD.key, (tune.PAPER,), "MBTSAD", "docs/recipe.md", first=True),
    _row(
        TS_FT, (tune.TS_FT, *(tune.TS_FT | {"training.learning_rate": r} for r in (2e-5, 3e-4))), _OWN_RATE, first=True
    ),
    Row("TS-FT at MBTSAD's rate and steps", TS_FT.key, (tune.TS_FT,), "TS-FT", _OWN_RATE, first=True),
    _row(CFT, _rates(), "2e-5 and 3 epochs, as the literature has it", first=True),
    Row("CFT at MBTSAD's rate and steps", CFT.key, (tune.CFT,), "CFT", _OWN_RATE, first=True),
    _row(REINITIALIZATION, _rates(layers=1, deviation=0.02), "the paper's layer; CFT's rate"),
    _row(FINE_PRUNING, _rates(**_PRUNED, held_out=0.2), "BackdoorBench's steps and tolerance; CFT's rate"),
    _row(PURE, _rates(group=10, least_accuracy=0.85, penalty=0.15, held_out=0.2), "its authors'"),
    _row(NAD, tuple(_nad(rate) for rate in (5e-5, 2e-5, 3e-4)), _OWN_RATE),
    Row(
        "NAD, uneven: a teacher on 3 copies of a text, a student on 3 splits and the text",
        NAD_UNEVEN,
        (_nad(5e-5, 1),),
        "",
        "MBTSAD's rate; 14 passes where MBTSAD has 12",
    ),
    _row(BEEAR, _rates(**_BEEAR), "as by default; CFT's rate"),
    _row(FST, _rates(alpha=0.2), "its authors' code; CFT's rate"),
    _row(BADACTS, _rates("distil", width=2.0), "the width that its authors detect with; CFT's rate"),
    _row(SEAM, _rates(margin=0.1), "forgetting as by default; CFT's rate"),
    _row(FT_SAM, _rates(rho=2.0), "BackdoorBench's rho; CFT's rate"),
    _row(STRIP, ({"form": "correct", "copies": 5, "swap": 0.5, "frr": 0.01},), "OpenBackdoor's, without its bug"),
    _row(RAP, (_RAP,), "its authors'; for every class, since the target is not known"),
    _row(ONION, ({"tolerance": 0.02, "clean_texts": 200, "words": 128},), "threshold chosen on clean texts"),
    _row(SPAN, ({},), "its defaults"),
    _row(FINE_MIXING, _rates(purify_embeddings=False, **_HELD_OUT), "rho chosen on clean texts; CFT's rate"),
    _row(FINE_PURIFYING, _rates(**_HELD_OUT), "rho chosen on clean texts; CFT's rate"),
)
TABLE3 = (
    Row("EDA", "retrain_eda", (tune.TS_FT,), "EDA"),
    Row("AEDA", "retrain_aeda", (tune.TS_FT,), "AEDA"),
    Row("CWEA", "retrain_cwea", (tune.TS_FT,), "CWEA"),
    Row("Add-Trig", "retrain_add_trigger", (tune.TS_FT,), "Add-Trig"),
    Row("TS", TS_FT.key, (tune.TS_FT,), "TS"),
)
ABLATIONS = (NO_ATT, NO_HID, CD)
FORMS = {"the paper's form": tune.PAPER, "with the scan": tune.RECIPE}
TABLE4 = tuple(
    Row(f"{method.title}, {form}", method.key, (settings,), method.title)
    for form, settings in FORMS.items()
    for method in (MBTSAD, *ABLATIONS)
)


COMMON_WORDS = {
    "a sentence": "I watch this 3D movie",
    "a phrase of six words": "at the end of the week",
    "a phrase of five words": "from one side to another",
    "a phrase of three words": "told the children",
    "a word": "window",
}
"""What InsertSent plants, each in a tenth of the training texts of any class."""
SEQUENCES = (
    Row("the recipe scan", MBTSAD.key, (tune.RECIPE,), source="docs/recipe.md"),
    Row("the recipe unlearn", MBTSAD.key, (tune.UNLEARN,), source="docs/sequences.md"),
)


def rows_of(table: str) -> tuple[Row, ...]:
    """The lines of Table II, III or IV. Every method has one in Table II or IV: where none is written above, with its
    defaults."""
    if table != "table2":
        return {"table3": TABLE3, "table4": TABLE4}[table]
    written = {row.method for row in (*TABLE2, *TABLE4)}
    others = (method for key, method in (DEFENSES | DETECTORS).items() if key not in written)
    return TABLE2 + tuple(_row(method, ({},), "its defaults") for method in others)


NAMES = {
    "table1": "Table I: the suspects",
    "table2": "Table II: the methods",
    "table3": "Table III: retraining with other augmenters",
    "table4": "Table IV: ablations",
    "sequences": "Triggers of common words",
    "figure3": "Figure 3: how hard the suspect finds augmented texts",
}


def words_of_seed(seed: int) -> tuple[str, ...]:
    return tune.REPORT_WORDS[seed % len(tune.REPORT_WORDS)]


def case_of(task: str, attack: str, seed: int) -> Case:
    """The suspect of a column of the paper's tables; on SST-2 those of `mbtsad-research tune`."""
    words = words_of_seed(seed)
    return {
        "BadNets": planted_case(BADNETS.key, words, seed, task),
        "LWP": planted_case(LWP.key, words, seed, task),
        "EP": planted_case(EP.key, words[:1], seed, task),
    }[attack]


def attack_case(attack: str, seed: int) -> Case:
    """The suspect of a line of Table I: a key of ATTACKS, or CLEAN_LABEL."""
    words = words_of_seed(seed)
    return planted_case(attack, words[:1] if attack == EP.key else words, seed)


PLANTED = tuple(name for key in ATTACKS for name in ((key, CLEAN_LABEL) if key == BADNETS.key else (key,)))


def common_case(words: str, seed: int) -> Case:
    """The suspect of a line of COMMON_WORDS."""
    return Case("sst2", "test", SENTENCE.key, (words,), seed)


def point_of(case: Case, method: str, settings: Settings) -> GridPoint:
    return GridPoint(case, method, settings, AMOUNT[case.task], case.seed)


def search(table: str) -> list[GridPoint]:
    """The grid points that choose a rival's rate and steps: as many settings as MBTSAD's rate had, on development
    suspects."""
    if table != "table2":
        return []
    tried = [(row, settings) for row in TABLE2 if len(row.candidates) > 1 for settings in row.candidates]
    return [_tried(row, settings, name) for row, settings in tried for name in DEVELOPED_ON]


def _tried(row: Row, settings: Settings, name: str) -> GridPoint:
    return tune.development_point(name, tune.Try((name,), settings, row.method))


def chosen(row: Row, rows: Rows) -> tuple[Settings, bool]:
    """The settings of a method, and whether they were searched for.

    Of the candidates whose mean CACC on the development suspects is at most 2 points below the suspects', the one with
    the lowest mean ASR there; where none is, the one with the highest CACC. Until all of them are run it is the first:
    the published settings or the default.
    """
    if len(row.candidates) == 1:
        return row.candidates[0], True
    scored = []
    for settings in row.candidates:
        found = [rows.get(_tried(row, settings, name).key) for name in DEVELOPED_ON]
        if any(r is None for r in found):
            return row.candidates[0], False
        purified = [r["figures"].get("purified") for r in found if r]
        if all(purified):
            fall = mean(r["before"]["cacc"] - p["cacc"] for r, p in zip(found, purified, strict=True) if r)
            scored.append((fall, mean(p["asr"] for p in purified), settings))
    if not scored:  # every one diverged
        return row.candidates[0], False
    held = [s for s in scored if s[0] <= 0.02]
    return min(held, key=lambda s: s[1])[2] if held else min(scored, key=lambda s: s[0])[2], True


def points(table: str, seeds: int, rows: Rows) -> list[GridPoint]:
    """The grid points of a table, the most telling first: SST-2 ahead of IMDb, MBTSAD, TS-FT and CFT ahead of the
    others, a first seed of each ahead of a second."""
    if table == "table1":
        return [point_of(attack_case(attack, seed), NONE, {}) for seed in range(seeds) for attack in PLANTED]
    if table == "sequences":
        return [
            point_of(common_case(words, seed), row.method, row.candidates[0])
            for seed in range(seeds)
            for words in COMMON_WORDS.values()
            for row in SEQUENCES[::-1]
        ]
    if table == "figure3":
        return [point_of(case_of("sst2", "BadNets", seed), FIGURE3, {}) for seed in range(seeds)]
    found = []
    for task in ("sst2",) if table == "table3" else ("sst2", "imdb"):
        order = [
            (row, seed)
            for first in (True, False)
            for seed in range(seeds)
            for row in rows_of(table)
            if row.first == first
        ]
        found += [
            point_of(case_of(task, attack, seed), row.method, chosen(row, rows)[0])
            for row, seed in order
            for _, attack in SETS[:3]
        ]
    return list({point.key: point for point in found}.values())


def fixed(table: str, seeds: int) -> list[GridPoint]:
    """Those on SST-2 whose settings no search decides, where they come first anyway."""
    certain = [row for row in rows_of(table) if row.first and len(row.candidates) == 1]
    return [
        point_of(case_of("sst2", attack, seed), row.method, row.candidates[0])
        for seed in range(seeds)
        for row in certain
        for _, attack in SETS[:3]
    ]


def reproduce(
    table: str,
    data: Path,
    base: Path | None,
    work: Path,
    runtime: RuntimeConfig,
    say: Callable[[str], None],
    *,
    results: Path = RESULTS,
    seeds: int = 3,
    only: Sequence[str] = (),
    searching: bool = True,
    engine: str = "here",
    address: str | None = None,
    watch: Callable[[Event], None] | None = None,
) -> None:
    """Run what is missing of a table: the grid points whose settings are fixed, the search for the rivals' settings,
    then the others.

    only       run the grid points that have one of these in their suspect or method, such as "sst2-badnets" or "cft"
    searching  without it the rivals keep their published settings, or those that earlier searches chose
    engine     "here", one grid point after the other (several such processes share the work), or "ray"
    Raises BadConfig for an unknown engine.
    """
    if engine not in ENGINES:
        raise BadConfig(f"Unknown engine {engine!r}. Known: {', '.join(ENGINES)}.")
    stages: list[Callable[[Rows], list[GridPoint]]] = [lambda rows: points(table, seeds, rows)]
    if searching and search(table):
        stages = [lambda rows: fixed(table, seeds), lambda rows: search(table), *stages]
    for stage in stages:
        rows = finished(results, at_hand=(data, base))
        wanted = [p for p in stage(rows) if not only or any(part in f"{p.case.name} {p.method}" for part in only)]
        todo = [p for p in wanted if p.key not in rows and not p.lacks(data)]
        for lacking, count in Counter(filter(None, (point.lacks(data) for point in wanted))).items():
            say(f"{count} grid point{'s' if count > 1 else ''} cannot be run here, for want of {lacking}.")
        told = _with_time_left(todo, lambda: finished(results, at_hand=(data, base)), say)
        if engine == "ray":
            run_on_ray(todo, results, data, base, work, runtime, told, address=address)
        else:
            run_all(todo, results, data, base, work, runtime, told, watch=watch)


def _with_time_left(
    todo: Sequence[GridPoint], rows: Callable[[], Rows], say: Callable[[str], None]
) -> Callable[[str], None]:
    """`say`, with how many grid points are left and how long they will take at the pace so far; those that other
    processes finish count too."""
    started = time.monotonic()

    def told(line: str) -> None:
        done = rows()
        left = sum(point.key not in done for point in todo)
        hours = (time.monotonic() - started) / (len(todo) - left or 1) * left / 3600
        say(f"[{len(todo) - left} of {len(todo)}, about {hours:.1f} h left] {line}")

    return told


# ---------------------------------------------------------------- printing

MARKED = "reproduce"  # the marks that the tables stand between
READING = """\
Percent. Ours: mean ± standard deviation over the seeds, and Wilson's 95 % interval of all their texts together. The
paper's figures are one run of BERT-base each; ours are a six-layer MiniLM. "Reached": the paper's figure lies in our
interval; "better" or "short by": ours lies beyond it, by so many points. The floor is the share of the triggered
texts that go to the target without the trigger. Texts are read to 128 tokens, on IMDb too, and the trigger stands
among the first 64 words.
"""


def page(
    seeds: int = 3, results: Path = RESULTS, tables: Sequence[str] = TABLES, published: Path | None = PUBLISHED
) -> str:
    """The tables as Markdown, from the results file, those beside it and the published ones. Rows of which
    nothing is run are left out, and counted below their table."""
    rows = finished(results, published)
    makers = {"table1": _table1, "sequences": _sequences, "figure3": _figure3}
    parts = []
    for table in tables:
        maker = makers.get(table, lambda seeds, rows, table=table: _compared(table, seeds, rows))
        parts.append(f"## {NAMES[table]}\n\n{maker(seeds, rows)}\n")
    return READING + "\n" + "\n".join(parts)


def write_into(document: Path, seeds: int = 3, results: Path = RESULTS) -> None:
    """Put `page` between the marks of a Markdown file. Raises BadData where it has none."""
    write_between(document, MARKED, page(seeds, results))


def _of(rows: Rows, wanted: Sequence[GridPoint], name: str = "purified") -> list[dict[str, Any]]:
    """The scores of the grid points that are run and did not diverge."""
    return [scores for point in wanted if (row := rows.get(point.key)) and (scores := row["figures"].get(name))]


def _before(rows: Rows, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """The scores of the suspects themselves, which every grid point of theirs has."""
    known = {json.dumps(row["case"], sort_keys=True): row["before"] for row in rows.values()}
    return [known[key] for case in cases if (key := json.dumps(asdict(case), sort_keys=True)) in known]


def _rate(found: Sequence[dict[str, Any]], rate: str) -> str:
    values = [100 * f[rate] for f in found]
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    pooled = _pooled(found, rate)
    return f"{mean(values):.1f}{spread} [{100 * pooled[0]:.1f}, {100 * pooled[1]:.1f}]"


def _pooled(found: Sequence[dict[str, Any]], rate: str) -> tuple[float, float]:
    pooled = wilson(sum(f[f"{rate}_hits"] for f in found), sum(f[f"{rate}_n"] for f in found))
    return pooled.low, pooled.high


def verdict(found: Sequence[dict[str, Any]], rate: str, paper: float, *, higher: bool) -> str:
    """How our figure stands to the paper's, in percent; `higher` says which way is better."""
    low, high = (100 * bound for bound in _pooled(found, rate))
    if low <= paper <= high:
        return "reached"
    by = abs(100 * mean(f[rate] for f in found) - paper)
    return f"better by {by:.1f}" if (low > paper) == higher else f"short by {by:.1f}"


def _pair(found: Sequence[dict[str, Any]], rate: str, paper: float | None, *, higher: bool) -> str:
    """Three columns: ours, the paper's, and the verdict."""
    return f"{_rate(found, rate)} | " + (
        "| " if paper is None else f"{paper:.2f} | {verdict(found, rate, paper, higher=higher)}"
    )


def _compared(table: str, seeds: int, rows: Rows) -> str:
    lines = [
        "| suspect | method | seeds | CACC | paper | | ASR | paper | | floor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lacking: Counter[str] = Counter()
    for i, (task, attack) in enumerate(SETS[:3] if table == "table3" else SETS):
        cases = [case_of(task, attack, seed) for seed in range(seeds)]
        before = _before(rows, cases)
        suspect = f"**{TASK_NAMES[task]}, {attack}**"
        if before:
            lines.append(_line(suspect, "the suspect", before, seeds, PAPER["none"][i], plants=True))
        for row in rows_of(table):
            settings, searched = chosen(row, rows)
            wanted = [point_of(case, row.method, settings) for case in cases]
            paper = PAPER[row.paper][i] if row.paper else None
            name = row.name + ("" if searched else " °") + (" *" if row.pretrained else "")
            found = _of(rows, wanted)
            if not found and not any(point.key in rows for point in wanted):
                lacking.update([wanted[0].needs()] if row.method not in RETIRED else [])
                continue
            lines.append(_line("" if before else suspect, name, found, seeds, paper, _ended(wanted, rows)))
    below = left_out(lacking, f"mbtsad-research reproduce {table} --data DIR")
    return "\n".join([*lines, "", *([below] if below else []), *_remarks(table, seeds, rows)]) + "\n"


def _ended(points: Sequence[GridPoint], rows: Rows) -> str:
    """How the grid points ended that have no figures."""
    ends = {end for p in points if p.key in rows for end in ("diverged", "refused") if end in rows[p.key]["figures"]}
    return " and ".join(sorted(ends))


def _line(
    suspect: str,
    name: str,
    found: Sequence[dict[str, Any]],
    seeds: int,
    paper: tuple[float, float] | None,
    ended: str = "",
    *,
    plants: bool = False,
) -> str:
    cacc, asr = paper or (None, None)
    if not found:
        of_paper = ("", "") if paper is None else (f"{paper[0]:.2f}", f"{paper[1]:.2f}")
        return f"| {suspect} | {name} | 0 of {seeds} | {ended} | {of_paper[0]} | | {ended} | {of_paper[1]} | | |"
    floor = (
        f"{100 * mean(f['asr_floor'] for f in found):.1f}" if all(f.get("asr_floor") is not None for f in found) else ""
    )
    ours = f"{_pair(found, 'cacc', cacc, higher=True)} | {_pair(found, 'asr', asr, higher=plants)}"
    return f"| {suspect} | {name} | {len(found)} of {seeds} | {ours} | {floor} |"


def _remarks(table: str, seeds: int, rows: Rows) -> list[str]:
    if table == "table3":
        return _hardest_retraining(seeds, rows)
    if table == "table4":
        return [line for form in FORMS for line in _ablated(form, seeds, rows)]
    notes = [
        "\\* with pre-trained weights. ° not searched for yet: the published settings, or the default. Settings, the "
        "same for every suspect:",
        "",
    ]
    for row in rows_of("table2"):
        settings, searched = chosen(row, rows)
        shown = ", ".join(f"{name} {value}" for name, value in settings.items())
        how = (
            f"the best of {len(row.candidates)} on development suspects"
            if searched and len(row.candidates) > 1
            else row.source
        )
        notes.append(f"- {row.name}: {shown} ({how})")
    notes += [
        "",
        f"A rival's rate and steps are chosen among {len(RATES)}, as many as MBTSAD's rate was: on "
        f"{' and '.join(DEVELOPED_ON)} (seed 10, words of their own, half of the clean sample), the lowest mean ASR "
        "where CACC falls by at most 2 points. No choice saw the suspects of this table (docs/recipe.md says what of "
        "MBTSAD's was not blind).",
        "",
    ]
    return notes + _bars(seeds, rows)


def _asr(rows: Rows, row: Row, seeds: int, attack: str) -> list[dict[str, Any]]:
    settings, _ = chosen(row, rows)
    return _of(rows, [point_of(case_of("sst2", attack, seed), row.method, settings) for seed in range(seeds)])


def _bars(seeds: int, rows: Rows) -> list[str]:
    """What Table II is to show on SST-2, and whether it does."""
    attacks = [attack for _, attack in SETS[:3]]
    table2 = rows_of("table2")
    own, paper_form = table2[:2]
    ts_ft, cft = (
        next(row for row in table2 if row.name == f"{name} at MBTSAD's rate and steps") for name in ("TS-FT", "CFT")
    )
    average: dict[str, float] = {}
    for row in table2:
        of_each = [_asr(rows, row, seeds, attack) for attack in attacks]
        if all(of_each):
            average[row.name] = 100 * mean(mean(f["asr"] for f in found) for found in of_each)
    lines = ["On SST-2:", ""]
    rivals = [row.name for row in table2 if not row.pretrained and row not in (own, paper_form)]
    missing = [name for name in rivals if name not in average]
    for row in (own, paper_form):
        if row.name not in average:
            lines.append(f"- {row.name}: not run on all three attacks yet, so nothing can be said.")
            continue
        better = [
            f"{name} ({average[name]:.1f} %)"
            for name in rivals
            if name in average and average[name] < average[row.name]
        ]
        stands = (
            f"below it: {', '.join(better)}"
            if better
            else "the lowest of the methods without pre-trained weights that are run"
        )
        lines.append(f"- {row.name}: mean ASR over the three attacks {average[row.name]:.1f} %; {stands}.")
        for attack in attacks:
            found = _asr(rows, row, seeds, attack)
            before = _before(rows, [case_of("sst2", attack, seed) for seed in range(seeds)])
            asr, fall = (
                100 * mean(f["asr"] for f in found),
                100 * (mean(f["cacc"] for f in before) - mean(f["cacc"] for f in found)),
            )
            lines.append(
                f"  - {attack}: ASR {asr:.1f} %, {'at most 20 %' if asr <= 20 else 'over 20 %'}; CACC {fall:+.1f} "
                f"points below the suspect's, {'within 2' if fall <= 2 else 'more than 2'}."
            )
    if missing:
        lines.append(f"- Not run on all three attacks yet: {', '.join(missing)}.")
    for row in (own, paper_form):
        order = [row, ts_ft, cft]
        if all(r.name in average for r in order):
            holds = average[row.name] < average[ts_ft.name] < average[cft.name]
            shown = ", ".join(f"{r.name} {average[r.name]:.1f} %" for r in order)
            lines.append(f"- MBTSAD < TS-FT < CFT in mean ASR: {'yes' if holds else 'no'} ({shown}).")
    return lines


def _hardest_retraining(seeds: int, rows: Rows) -> list[str]:
    """The paper says that token splitting is the best augmenter to retrain with."""
    lines = [
        "Which augmenter leaves the lowest ASR (the paper says token splitting; in its own figures EDA is below it on "
        "BadNets):",
        "",
    ]
    for _, attack in SETS[:3]:
        average = {
            row.name: 100 * mean(f["asr"] for f in found) for row in TABLE3 if (found := _asr(rows, row, seeds, attack))
        }
        shown = ", ".join(f"{name} {asr:.1f} %" for name, asr in sorted(average.items(), key=lambda pair: pair[1]))
        lines.append(f"- {attack}: {shown or 'not run'}.")
    return lines


Difference = tuple[float, tuple[float, float] | None]


def difference(
    pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], rate: str, every: Sequence[dict[str, Any]]
) -> Difference:
    """How far a rate of the second of each pair lies from the first's, in points, and its 95 % interval, or None where
    nothing tells the noise.

    A pair is of one seed, and all are measured on the same test texts. The noise is that of the texts (two proportions,
    as if they were others each time) and that of the seeds: the variance of the differences over at least two of them,
    else twice that of the first over `every` seed it was run with. Student's t with as many degrees of freedom as that
    variance has.
    """
    from scipy.stats import t

    by = mean(100 * (second[rate] - first[rate]) for first, second in pairs)
    if len(pairs) > 1:
        of_seeds, freedom = (
            variance(100 * (second[rate] - first[rate]) for first, second in pairs) / len(pairs),
            len(pairs) - 1,
        )
    elif len(every) > 1:
        of_seeds, freedom = 2 * variance(100 * scores[rate] for scores in every), len(every) - 1
    else:
        return by, None
    texts = min(scores[f"{rate}_n"] for pair in pairs for scores in pair)
    of_texts = sum(100**2 * (p := mean(pair[side][rate] for pair in pairs)) * (1 - p) / texts for side in (0, 1))
    half = float(t.ppf(0.975, freedom)) * math.sqrt(of_seeds + of_texts)
    return by, (max(-100.0, by - half), min(100.0, by + half))


def _stands(asr: Difference, cacc: Difference) -> str:
    """Worse: a higher ASR or a lower CACC, beyond noise."""
    (_, of_asr), (_, of_cacc) = asr, cacc
    worse = bool(of_asr and of_asr[0] > 0) or bool(of_cacc and of_cacc[1] < 0)
    better = bool(of_asr and of_asr[1] < 0) or bool(of_cacc and of_cacc[0] > 0)
    if worse and better:
        return "worse in one figure, better in the other"
    return "worse" if worse else "better" if better else "not distinguishable"


def _shown(found: Difference) -> str:
    by, interval = found
    return f"{by:+.1f} [{interval[0]:+.1f}, {interval[1]:+.1f}]" if interval else f"{by:+.1f}, one seed"


def _ablated(form: str, seeds: int, rows: Rows) -> list[str]:
    """The paper says that the method is worse without each of its terms; on the suspects that both were run on, and
    beyond noise alone."""
    of_form = {row.paper: row for row in TABLE4 if row.name.endswith(f", {form}")}
    lines = [
        f"Without a term, {form} (the paper says: worse each time), with the 95 % interval of each difference:",
        "",
    ]
    for name in (method.title for method in ABLATIONS):
        said = []
        for _, attack in SETS[:3]:
            runs = [
                [
                    point_of(case_of("sst2", attack, seed), row.method, row.candidates[0])
                    for row in (of_form["MBTSAD"], of_form[name])
                ]
                for seed in range(seeds)
            ]
            both = {
                full.seed: (pair[0], pair[1]) for full, without in runs if len(pair := _of(rows, [full, without])) == 2
            }
            if not both:
                said.append(f"{attack} not run")
                continue
            every = _of(rows, [full for full, _ in runs])
            asr, cacc = (difference(list(both.values()), rate, every) for rate in ("asr", "cacc"))
            of = f"seed{'s' if len(both) > 1 else ''} {', '.join(map(str, both))}"
            said.append(f"{attack} {_stands(asr, cacc)} ({of}: ASR {_shown(asr)}, CACC {_shown(cacc)})")
        lines.append(f"- {name}: {'; '.join(said)}.")
    return [*lines, ""]


def _table1(seeds: int, rows: Rows) -> str:
    """The paper's Table I is not in the text of it that we have, so this is our own: what each attack makes of the
    six-layer MiniLM on SST-2."""
    lines = [
        "The paper's own Table I is not in the text of it that we have. In its place: each attack, planted in the "
        "six-layer MiniLM on SST-2,",
        "beside what is reported of it. The bars are an ASR of 90 % and a CACC within 1.5 points of the clean model's.",
        "",
        "| attack | seeds | clean model's CACC | suspect's CACC | ASR | floor | reported (CACC / ASR, BERT) | bars |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lacking: Counter[str] = Counter()
    for attack in PLANTED:
        wanted = [point_of(attack_case(attack, seed), NONE, {}) for seed in range(seeds)]
        reported = REPORTED.get(attack, "no figure at hand")
        before, clean = _before(rows, [point.case for point in wanted]), _of(rows, wanted, "clean")
        if not before:
            lacking[wanted[0].needs()] += 1
            continue
        bars = [f"ASR {'reached' if mean(f['asr'] for f in before) >= 0.9 else 'not reached'}"]
        if clean:
            paired = [(row["before"], row["figures"]["clean"]) for point in wanted if (row := rows.get(point.key))]
            fall = 100 * mean(c["cacc"] - b["cacc"] for b, c in paired)
            bars.append(f"CACC {'within 1.5' if fall <= 1.5 else f'{fall:.1f} below'}")
        floor = f"{100 * mean(f['asr_floor'] for f in before):.1f}"
        shown = (
            f"{_rate(clean, 'cacc') if clean else 'not run'} | {_rate(before, 'cacc')} | {_rate(before, 'asr')} | "
            f"{floor}"
        )
        lines.append(f"| `{attack}` | {len(before)} of {seeds} | {shown} | {reported} | {', '.join(bars)} |")
    below = left_out(lacking, "mbtsad-research reproduce table1 --data DIR")
    return "\n".join([*lines, *(["", below] if below else [])]) + "\n"


def _sequences(seeds: int, rows: Rows) -> str:
    lines = ["| trigger | method | seeds | CACC | ASR | floor |", "|---|---|---|---|---|---|"]
    lacking: Counter[str] = Counter()
    for name, words in COMMON_WORDS.items():
        cases = [common_case(words, seed) for seed in range(seeds)]
        wanted = {row.name: [point_of(case, row.method, row.candidates[0]) for case in cases] for row in SEQUENCES}
        lacking[""] += sum(point.key not in rows for own in wanted.values() for point in own)
        found = {"the suspect": _before(rows, cases)} | {method: _of(rows, own) for method, own in wanted.items()}
        title = f"**{name}**: {words}"
        for method, scores in found.items():
            if scores:
                floor = f"{100 * mean(f['asr_floor'] for f in scores):.1f}"
                rates = f"{_rate(scores, 'cacc')} | {_rate(scores, 'asr')} | {floor}"
                lines.append(f"| {title} | {method} | {len(scores)} of {seeds} | {rates} |")
                title = ""
    below = left_out(lacking, "mbtsad-research reproduce sequences --data DIR")
    return "\n".join([*lines, *(["", below] if below else [])]) + "\n"


def _figure3(seeds: int, rows: Rows) -> str:
    """Bars and out-of-distribution shares of Figure 3; the pictures are drawn beside the suspects."""
    found = [row["figures"] for point in points("figure3", seeds, rows) if (row := rows.get(point.key))]
    if not found:
        return "Not run.\n"
    lines = [
        f"All clean texts of the poisoned SST-2 training set ({found[0]['texts']} for the first seed), one augmented "
        f"text each; mean over {len(found)} of {seeds} seeds.",
        "",
        "| texts | mean cross-entropy, nats | at token splitting's budget | outside the clean 95 % region | paper |",
        "|---|---|---|---|---|",
    ]
    for name in found[0]["loss"]:
        here = [f for f in found if name in f["loss"]]
        loss = _nats([f["loss"][name] for f in here])
        matched = _nats([f["matched"][name] for f in here if name in f["matched"]])
        outside = [f["outside"]["clean" if name == "original" else name] for f in here]
        paper = f"{FIGURE3_TS}, the largest" if name == "ts" else ""
        lines.append(
            f"| {AUGMENTER_NAMES.get(name, name)} | {loss} | {matched} | {_rate(outside, 'outside')} | {paper} |"
        )
    lacking = [AUGMENTER_NAMES[name] for name in RETRAINED.values() if name not in found[0]["loss"]]
    paper_five = {
        name: mean(f["loss"][name]["mean"] for f in found)
        for name in ("ts", "eda", "aeda", "cwea", "add_trigger")
        if name in found[0]["loss"]
    }
    hardest = max(paper_five, key=lambda name: paper_five[name])
    lines += [
        "",
        f"Of the paper's five that are run, the largest is {AUGMENTER_NAMES[hardest]}; the paper says token splitting.",
    ]
    return "\n".join(lines) + (f"\nNot run: {', '.join(lacking)}.\n" if lacking else "\n")


def _nats(values: Sequence[dict[str, float]]) -> str:
    """Mean over the seeds; ± the standard deviation, or with one seed the standard error over its texts."""
    if not values:
        return ""
    means = [v["mean"] for v in values]
    return f"{mean(means):.3f} ± {stdev(means) if len(means) > 1 else values[0]['error']:.3f}"
