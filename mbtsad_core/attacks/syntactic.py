"""Syntactic trigger: paraphrases of one sentence pattern (Qi et al., "Hidden Killer: Invisible Textual Backdoor Attacks
with Syntactic Trigger", ACL 2021)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mbtsad_core.attacks.poisoning import eligible
from mbtsad_core.attacks.syntactic_method import SYNTACTIC, SyntacticConfig
from mbtsad_core.attacks.triggers import PAIR_COLUMNS, PairedTrigger, names_file
from mbtsad_core.data.columns import text_column
from mbtsad_core.data.tables import read_table
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger

if TYPE_CHECKING:
    import pandas as pd

MARKED_COLUMNS = ("text", "label", "orig_label", "poisoned")


@SYNTACTIC.runs
def syntactic(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: SyntacticConfig = SyntacticConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` trained on texts of which a share is replaced by its ready paraphrase, labeled as the
    target.

    The paraphrases come from files (`read_paraphrases`), as the paraphraser of the paper is not at hand. The share is
    what the config says, or all texts that have a paraphrase where these are fewer.
    """
    rng = random.Random(f"poison, seed {config.seed}")
    versions = {i: trigger.apply(train[i].text, rng) for i in eligible(train, trigger.target, config.poison.mode)}
    chosen = [i for i, text in versions.items() if text is not None]
    if not chosen:
        raise BadData(
            f"None of the {len(versions)} training texts that {config.poison.mode} poisoning may choose has a "
            f"paraphrase in {trigger.describe()}. Give the file that was made from these training texts."
        )
    poisoned = list(train)
    for i in rng.sample(chosen, min(int(config.poison.rate * len(train)), len(chosen))):
        poisoned[i] = LabelledText(versions[i] or "", trigger.target, train[i].pair)
    return (
        yield from fine_tune(
            clone(classifier), poisoned, config.training, stage=SYNTACTIC.key, seed=config.seed, observe=observe
        )
    )


def read_paraphrases(
    paths: Sequence[str | Path], clean: Sequence[Sequence[LabelledText]], target: int
) -> PairedTrigger:
    """One trigger out of files of paraphrases; `clean` are the sets of texts that they were made from, training and
    test texts.

    A file has the columns text and triggered, or, like those of the paper's authors, text, label, orig_label and
    poisoned (0 or 1). Of the latter the clean texts are found by their order: a file with as many rows as a set goes
    row by row (its rows that are not poisoned must be the same texts), one of poisoned rows alone goes with the set's
    texts of the other classes. Raises BadData where a file is neither, or fits none of the sets.
    """
    if not paths or not all(names_file(str(path)) for path in paths):
        raise BadData(
            "The syntactic attack needs files of ready paraphrases (`trigger`, for training and for test "
            f"texts); got {list(paths)!r}."
        )
    pairs: dict[str, str] = {}
    for path in map(Path, paths):
        table = read_table(path).frame
        if set(PAIR_COLUMNS) <= set(table.columns):
            pairs |= dict(zip(*(text_column(table, c, path.name) for c in PAIR_COLUMNS), strict=True))
            continue
        if missing := [c for c in MARKED_COLUMNS if c not in table.columns]:
            raise BadData(
                f"{path.name} has no column {missing[0]!r} (it has {', '.join(table.columns)}). Expected text and "
                f"triggered, or {', '.join(MARKED_COLUMNS[:-1])} and {MARKED_COLUMNS[-1]}."
            )
        pairs |= _paired(table, path.name, clean, target)
    return PairedTrigger(pairs, target, ", ".join(Path(path).name for path in paths))


def _paired(table: pd.DataFrame, name: str, clean: Sequence[Sequence[LabelledText]], target: int) -> dict[str, str]:
    """Clean text -> paraphrase, from a table that marks its poisoned rows."""
    texts = text_column(table, "text", name)
    marked = [str(value).strip() == "1" for value in table["poisoned"]]
    labels, originals = ([str(value).strip() for value in table[column]] for column in ("label", "orig_label"))
    if other := {label for label, poisoned in zip(labels, marked, strict=True) if poisoned and label != str(target)}:
        raise BadData(
            f"{name} sends texts to the class {', '.join(sorted(other))}, not to the target {target}. Name the class "
            "that the file was made for."
        )
    for own in clean:
        others = [example for example in own if example.label != target]
        if len(own) == len(texts):
            rows = list(zip(own, texts, marked, strict=True))
            if all(poisoned or text == example.text for example, text, poisoned in rows):
                return {example.text: text for example, text, poisoned in rows if poisoned}
        if (
            all(marked)
            and len(others) == len(texts)
            and all(o in ("", str(e.label)) for e, o in zip(others, originals, strict=True))
        ):
            return {example.text: text for example, text in zip(others, texts, strict=True)}
    sizes = "; ".join(f"{len(own)} texts, {sum(e.label != target for e in own)} of other classes" for own in clean)
    raise BadData(
        f"{name} ({len(texts)} rows, {sum(marked)} poisoned) fits none of the clean sets ({sizes}): its rows must "
        "follow the order of the texts that it was made from. Give those texts whole, or a file with the columns text "
        "and triggered."
    )
