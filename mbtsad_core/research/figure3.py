"""Figure 3 of the paper (arXiv 2501.02754): how far each augmenter carries the clean texts of a poisoned training set
from what the suspect knows.

Every clean text gives one augmented text by each augmenter. The bars are the suspect's mean cross-entropy on each set
(eq. 9), the picture is its [CLS] vectors in a plane. To this come the same changes at token splitting's budget, and the
share of each set outside the clean classes' 95 % region.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.augment import AUGMENTERS, BUDGET_MATCHED, unavailable
from mbtsad_core.evaluation.embeddings import Projection, cls_vectors, outlying, project
from mbtsad_core.evaluation.perturbation import ORIGINAL, Perturbation, perturbations
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.rates import rates_to_dict
from mbtsad_core.research.suspects import Case, named_trigger, plan, texts
from mbtsad_core.types import Event, LabelledText, Steps

PROJECTIONS = ("tsne", "umap")  # the paper's is t-SNE
SHOWN = 200  # texts of each set in a picture; all of them are measured
PICTURES = "figure3"
STAGE = "figure 3"


def clean_part(case: Case, data: Path) -> list[LabelledText]:
    """The training texts of a suspect that its poisoning left as they were."""
    _, config = plan(case)
    train, trigger = texts(data, case.task, "train"), named_trigger(case, data)
    assert trigger is not None, "the suspects of Figure 3 have named triggers"
    poisoned = poison(train, trigger, config.poison, case.seed)  # type: ignore[attr-defined]
    return [kept for given, kept in zip(train, poisoned, strict=True) if kept == given]


def measure(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    seed: int,
    pictures: Path | None = None,
    projections: Sequence[str] = PROJECTIONS,
) -> Steps[dict[str, Any]]:
    """For each augmenter that can run here, and "original":

    loss     mean cross-entropy in nats, with its standard error: {"mean", "error"}; matched: the same at token
             splitting's budget
    outside  the share of its [CLS] vectors outside the clean classes' 95 % region, with counts and interval, and their
             median distance

    With `pictures` the planes go to that folder as PROJECTION.json, for `read_picture`.
    """
    here = [name for name in AUGMENTERS if name not in unavailable()]
    differ = [name for name in here if BUDGET_MATCHED[name] is not AUGMENTERS[name]]
    steps, step = len(here) + len(differ) + 2 + len(projections), itertools.count(1)
    found, matched = dict[str, Perturbation](), dict[str, Perturbation]()
    for name in here:
        found |= perturbations(suspect, clean, {name: AUGMENTERS[name]}, seed=seed)
        yield Event(STAGE, next(step), steps)
    for name in differ:
        matched[name] = perturbations(suspect, clean, {name: BUDGET_MATCHED[name]}, seed=seed)[name]
        yield Event(STAGE, next(step), steps)
    vectors = {name: cls_vectors(suspect, p.texts) for name, p in found.items()}
    yield Event(STAGE, next(step), steps)
    augmented = {name: v for name, v in vectors.items() if name != ORIGINAL}
    scores = outlying(vectors[ORIGINAL], [t.label for t in clean], augmented, seed=seed)
    yield Event(STAGE, next(step), steps)

    chosen = sorted(random.Random(f"figure 3, seed {seed}").sample(range(len(clean)), min(SHOWN, len(clean))))
    points = np.concatenate([v[chosen] for v in vectors.values()])
    trust = {}
    for method in projections:
        projection = project(points, points, method, seed=seed)
        trust[method] = projection.trustworthiness
        if pictures is not None:
            shown = [
                (name, p.texts[k].text, suspect.labels[clean[k].label]) for name, p in found.items() for k in chosen
            ]
            _write_picture(pictures / f"{method}.json", projection, shown)
        yield Event(STAGE, next(step), steps)
    return {
        "texts": len(clean),
        "loss": {name: {"mean": p.mean, "error": p.error} for name, p in found.items()},
        "matched": {name: {"mean": p.mean, "error": p.error} for name, p in matched.items()},
        "outside": {
            s.name: rates_to_dict({"outside": s.outside}) | {"median": s.median, "radius": s.radius} for s in scores
        },
        "trustworthiness": trust,
    }


def _write_picture(path: Path, projection: Projection, kept: Sequence[tuple[str, str, str]]) -> None:
    """Keep a plane and its points, each of a set, a text and a class."""
    points = [
        {"text": text, "set": "clean" if name == ORIGINAL else name, "class": label} for name, text, label in kept
    ]
    picture = {"points": points, "plane": projection.before.tolist(), "trustworthiness": projection.trustworthiness}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(picture), encoding="utf-8")


def read_picture(pictures: Path, method: str) -> dict[str, Any] | None:
    """What `measure` has kept: {"points": [{"text", "set", "class"}], "plane": N x 2, "trustworthiness"}; None where it
    has not."""
    path = pictures / f"{method}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
