"""Where the texts of a run lie before and after it: sets of texts, their [CLS] vectors in one plane, and how far each
set lies from clean data. A run that is done keeps it in its folder, so that opening it takes no time."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mbtsad_core.augment import AUGMENTER_NAMES, AUGMENTERS
from mbtsad_core.augment.token_splitting import split_tokens
from mbtsad_core.config import SplitConfig
from mbtsad_core.errors import MBTSADError
from mbtsad_core.evaluation.embeddings import Outlying, Projection, Vectors, cls_vectors, outlying, project
from mbtsad_core.service.purification import Inputs, Request, prepare, read_model
from mbtsad_core.service.run_folder import RUN, write_json
from mbtsad_core.types import LabelledText, Rate
from mbtsad_core.views.embeddings import METHODS, Points

SPACE = "space.json"
TEXTS = 600  # that are drawn at first: half of them clean, a quarter of each other set
WORTH_KEEPING = 300  # texts; the places of fewer are computed in a moment


@dataclass(frozen=True, slots=True)
class Space:
    """The points, their places by method of projection, and the out-of-distribution scores by model."""

    points: Points
    places: dict[str, Projection]
    scores: dict[str, list[Outlying]]


def texts_of(
    inputs: Inputs,
    split: SplitConfig,
    extra: Sequence[str] = (),
    most: int = TEXTS,
    refused: Callable[[MBTSADError], Any] = lambda error: None,
) -> tuple[Points, list[int]]:
    """At most `most` texts, or a quarter more for each augmenter of `extra`, and the class index of each.

    refused  gets what an augmenter raises whose needs have gone; the other sets are drawn all the same
    """
    rng = random.Random("texts of the projection")

    def some(texts: list[LabelledText], most: int) -> list[LabelledText]:
        return texts if len(texts) <= most else rng.sample(texts, most)

    clean = some(list(inputs.clean), most // 2)
    sets = {"clean": clean}
    if inputs.triggered:
        sets["triggered"] = some([t.triggered for t in inputs.triggered], most // 4)

    def changed(change: Callable[[str], str]) -> list[LabelledText]:
        return [LabelledText(change(t.text), t.label, t.pair) for t in clean[: most // 4]]

    sets["token-split"] = changed(lambda text: split_tokens(text, rng, split).text)
    for name in extra:
        try:
            sets[AUGMENTER_NAMES[name]] = changed(lambda text, name=name: AUGMENTERS[name](text, rng))  # type: ignore[misc]
        except MBTSADError as error:
            refused(error)
    named = [(t, name) for name, texts in sets.items() for t in texts]
    classes = tuple(inputs.suspect.labels[t.label] for t, _ in named)
    points = Points(tuple(t.text for t, _ in named), tuple(name for _, name in named), classes)
    return points, [t.label for t, _ in named]


def scores_of(vectors: Vectors, points: Points, labels: list[int]) -> list[Outlying]:
    """How far each set lies from the clean one, by the vectors of one model."""
    where = {name: np.flatnonzero([s == name for s in points.sets]) for name in dict.fromkeys(points.sets)}
    clean = where.pop("clean")
    sets = {name: vectors[mine] for name, mine in where.items()}
    return outlying(vectors[clean], [labels[i] for i in clean], sets)


def keep_space(out: Path) -> None:
    """Write the space of the finished run in `out`, where it has texts enough: UMAP first, then the others."""
    request = Request.from_dict(json.loads((out / RUN).read_text("utf-8"))["request"])
    inputs = prepare(request)
    points, labels = texts_of(inputs, request.config.split)
    if len(points.texts) < WORTH_KEEPING:
        return
    purified = read_model(str(out / "model"), "", request.config.max_length, request.runtime, inputs.suspect.labels)
    vectors = {
        name: cls_vectors(model, list(points.texts))
        for name, model in (("suspect", inputs.suspect), ("purified", purified))
    }
    space = Space(points, {}, {name: scores_of(found, points, labels) for name, found in vectors.items()})
    for method in METHODS:
        space.places[method] = project(vectors["suspect"], vectors["purified"], method)
        write_json(out / SPACE, _to_dict(space))


def read_space(out: Path) -> Space | None:
    """What `keep_space` wrote; None where there is nothing, or nothing that it would write: the worker has read a
    stranger's model."""
    try:
        found = json.loads((out / SPACE).read_text("utf-8"))
        places = {
            method: Projection(**place | {name: np.array(place[name], np.float32) for name in ("before", "after")})
            for method, place in found["places"].items()
        }
        scores = {
            name: [Outlying(**one | {"outside": Rate(**one["outside"])}) for one in all_of]
            for name, all_of in found["scores"].items()
        }
        points = Points(**{name: tuple(values) for name, values in found["points"].items()})
        if any(not _has_place(place, len(points.texts)) for place in places.values()):
            return None
        return Space(points, places, scores)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _has_place(projection: Projection, texts: int) -> bool:
    """Whether each text has one, before and after."""
    return all(
        plane.shape == (texts, 2) and bool(np.isfinite(plane).all()) for plane in (projection.before, projection.after)
    )


def _to_dict(space: Space) -> dict[str, Any]:
    places = {
        method: dataclasses.asdict(place) | {"before": place.before.tolist(), "after": place.after.tolist()}
        for method, place in space.places.items()
    }
    scores = {name: [dataclasses.asdict(one) for one in all_of] for name, all_of in space.scores.items()}
    return {"points": dataclasses.asdict(space.points), "places": places, "scores": scores}
