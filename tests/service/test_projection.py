"""A projection in a sandbox: the same points as in this process, and a sentence where the sandbox gave none."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from mbtsad_core.config import SandboxConfig
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation.embeddings import project
from mbtsad_core.service.projection import _read, _why, project_apart
from mbtsad_core.service.sandbox import Ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the sandbox lacks what `missing` says")


def drawn(n: int, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


def test_the_points_are_those_of_this_process(tmp_path: Path) -> None:
    found, expected = project_apart(drawn(12), drawn(12, 1), "pca", tmp_path), project(drawn(12), drawn(12, 1), "pca")
    np.testing.assert_allclose(found.before, expected.before, atol=1e-5)
    np.testing.assert_allclose(found.after, expected.after, atol=1e-5)
    assert found.trustworthiness == pytest.approx(expected.trustworthiness)
    assert found.explained == pytest.approx(expected.explained)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_neighbors_stay_neighbors_and_equal_vectors_are_at_one_point(method: str, tmp_path: Path) -> None:
    """Not digit by digit: these two carry a difference in rounding, which another process may have, to another
    picture."""
    vectors = np.concatenate([drawn(15), drawn(15, 1) + 20])
    found = project_apart(vectors, vectors, method, tmp_path)
    np.testing.assert_array_equal(found.before, found.after)
    near = np.linalg.norm(found.before[:, None] - found.before[None], axis=-1)
    np.fill_diagonal(near, np.inf)
    assert [int(i) < 15 for i in near.argmin(1)] == [True] * 15 + [False] * 15
    assert (found.method, found.explained) == (method, None)


def test_vectors_that_hardly_differ_start_no_process(tmp_path: Path) -> None:
    same = np.ones((12, 6), np.float32) + 1e-7 * drawn(12)
    with pytest.raises(BadData, match="needs at least five different vectors"):
        project_apart(same, same, "pca", tmp_path / "no such folder, which a process would need")


def test_a_sandbox_that_reaches_a_limit_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        BadData,
        match=r"by tsne could not be drawn: it may take at most 0\.1 seconds, and it took more\. Choose another "
        r"projection",
    ):
        project_apart(drawn(12), drawn(12, 1), "tsne", tmp_path, SandboxConfig(seconds=0.1))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_ended_is_told_in_words() -> None:
    assert "signal 11 ended its process. Choose another" in _why(Ended(-11, None, b"", b""), "tsne", SandboxConfig())
    assert "ended with status 1." in _why(Ended(1, None, b"", b""), "umap", SandboxConfig())


def test_an_answer_that_is_no_points_is_none() -> None:
    def written(**arrays: object) -> bytes:
        out = io.BytesIO()
        np.savez(
            out,
            **{"before": drawn(3)[:, :2], "after": drawn(3)[:, :2], "explained": (), "trustworthiness": 1.0} | arrays,
        )  # type: ignore[arg-type]
        return out.getvalue()

    assert _read(written(), "tsne", 3).explained is None
    lacking = io.BytesIO()
    np.savez(lacking, before=drawn(3)[:, :2])
    wrong = [
        b"",
        b"points",
        lacking.getvalue(),
        written(after=drawn(4)[:, :2]),
        written(before=np.full((3, 2), np.nan)),
        written(before=np.array([None] * 3)),
    ]
    for answer in wrong:
        with pytest.raises((ValueError, KeyError, OSError, EOFError)):
            _read(answer, "tsne", 3)
