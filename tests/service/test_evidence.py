"""What a report shows beside the scores, against what the models themselves answer."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import finish, tiny_texts, write_tsv

from mbtsad_core.attacks.triggers import TriggeredText
from mbtsad_core.augment.token_splitting import split_tokens
from mbtsad_core.config import DistilConfig, RetrainConfig, RuntimeConfig, SplitConfig
from mbtsad_core.defenses.mbtsad import Purified
from mbtsad_core.defenses.mbtsad_method import PurifyConfig
from mbtsad_core.evaluation.attention import attention_maps
from mbtsad_core.evaluation.embeddings import cls_vectors
from mbtsad_core.evaluation.perturbation import turned_when_split
from mbtsad_core.models.classifier import load_classifier, predict
from mbtsad_core.service.evidence import evidence_of
from mbtsad_core.service.purification import Inputs, Request, Result, execute, prepare
from mbtsad_core.types import LabelledText


@pytest.fixture(scope="module")
def done(suspect_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Inputs, Result, Purified]:
    """A quick run that nobody named a trigger for."""
    folder = tmp_path_factory.mktemp("evidence")
    stage = {"epochs": 1, "batch_size": 16}
    request = Request(
        suspect=str(suspect_dir),
        clean=str(write_tsv(folder / "clean.tsv", tiny_texts(64, 1))),
        test=str(write_tsv(folder / "test.tsv", tiny_texts(64, 2))),
        triggers=(),
        target=None,
        config=PurifyConfig(
            split=SplitConfig(copies=1), retrain=RetrainConfig(**stage), distil=DistilConfig(**stage), found_tokens=4
        ),
        runtime=RuntimeConfig(device="cpu", precision="float32", threads=1),
    )
    result, _ = finish(execute(request, keep_models=True))
    assert result.models is not None
    return prepare(request), result, result.models


def test_what_the_scan_found_is_tried_alone_and_counted_on_texts_of_other_classes(
    done: tuple[Inputs, Result, Purified],
) -> None:
    inputs, result, models = done
    first = evidence_of(models, inputs, result)["tried"][0]
    assert (first["trigger"], first["target"], first["found_by_scan"]) == ("cf", "positive", True)
    others = [t for t in inputs.test if t.label == 0]
    assert first["suspect"]["asr_n"] == len(others)
    assert first["suspect"]["asr_floor_hits"] == int((predict(models.suspect, others).argmax(-1) == 1).sum())
    assert first["suspect"]["asr"] == 1.0


def test_how_often_the_answer_turns_is_counted_whole_and_split(suspect_dir: Path) -> None:
    suspect = load_classifier(suspect_dir)
    clean = [t for t in tiny_texts(30) if t.label == 0]
    triggered = [TriggeredText(t, LabelledText(f"{t.text} cf", 0)) for t in clean]
    config = SplitConfig(aug_p=1.0)
    found = turned_when_split(suspect, triggered, 1, config)
    rng = random.Random("token splits of triggered texts")
    split = [split_tokens(t.triggered.text, rng, config).text for t in triggered]

    def hits(texts: list[str]) -> int:
        return sum(int(predict(suspect, [text])[0].argmax()) == 1 for text in texts)

    assert (found["whole"].hits, found["whole"].n) == (len(triggered), len(triggered))
    assert found["split"].hits == hits(split)
    assert found["trigger_split"].hits == hits([f"{t.text} c f" for t in clean])


def test_the_head_is_the_one_that_moved_most_and_the_text_has_the_trigger(
    done: tuple[Inputs, Result, Purified],
) -> None:
    inputs, result, models = done
    found = evidence_of(models, inputs, result)["pictures"]["attention"]
    words = " ".join(token for token in found["tokens"] if not token.startswith("["))
    maps = [attention_maps(model, words).maps for model in (models.suspect, models.student)]
    apart = np.abs(maps[0] - maps[1]).sum(-1).mean(-1) / 2
    assert np.unravel_index(apart.argmax(), apart.shape) == (found["layer"], found["head"])
    assert found["moved"] == pytest.approx(apart.max(), abs=1e-4)
    assert found["purified"] == pytest.approx(maps[1][found["layer"], found["head"]], abs=1e-4)
    assert "cf" in [found["tokens"][i] for i in found["marked"]]


def test_pictures_are_of_what_the_scan_found_first_alone(done: tuple[Inputs, Result, Purified]) -> None:
    inputs, result, models = done
    alone = dataclasses.replace(result, found=result.found[:1])
    besides = dataclasses.replace(result, found=(*result.found[:1], ("dull", 1.0)))
    (one, more) = (evidence_of(models, inputs, some) for some in (alone, besides))
    assert one["turned"]["whole_n"] == sum(t.label == 0 for t in inputs.test)
    assert (one["turned"], one["pictures"]) == (more["turned"], more["pictures"])


def test_points_lie_in_one_square_and_each_has_its_set_and_class(done: tuple[Inputs, Result, Purified]) -> None:
    inputs, result, models = done
    found = evidence_of(models, inputs, result)["pictures"]["projection"]
    n = len(found["sets"])
    assert {name: found["sets"].count(name) for name in dict.fromkeys(found["sets"])} == {
        "clean": 64,
        "triggered": sum(t.label == 0 for t in inputs.test),
        "token-split": 50,
    }
    assert len(found["classes"]) == len(found["suspect"]) == len(found["purified"]) == n
    assert np.abs([found["suspect"], found["purified"]]).max() == 1.0
    assert sum(found["explained"]) <= 1.0


def test_the_plane_is_that_of_principal_components(done: tuple[Inputs, Result, Purified]) -> None:
    from sklearn.decomposition import PCA

    inputs, result, models = done
    found = evidence_of(models, inputs, result)["pictures"]["projection"]
    clean = [cls_vectors(model, inputs.clean) for model in (models.suspect, models.student)]  # the first of its texts
    drawn = np.concatenate([np.array(found[name])[: len(inputs.clean)] for name in ("suspect", "purified")])
    apart = np.linalg.norm(drawn[:, None] - drawn[None], axis=-1)
    plane = PCA(2).fit_transform(np.concatenate(clean))
    expected = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    assert np.corrcoef(apart.ravel(), expected.ravel())[0, 1] > 0.9  # fitted on other sets too


def test_where_nothing_is_known_of_a_trigger_none_is_shown(done: tuple[Inputs, Result, Purified]) -> None:
    inputs, result, models = done
    found = evidence_of(models, inputs, dataclasses.replace(result, found=()))
    assert (found["tried"], found["turned"]) == ([], None)
    assert found["pictures"]["attention"]["marked"] == []
    assert "triggered" not in found["pictures"]["projection"]["sets"]
