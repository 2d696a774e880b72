"""[CLS] vectors, one basis for two classifiers, and out-of-distribution scores against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import tiny_bert
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from threadpoolctl import threadpool_info

from mbtsad_core.errors import BadData, UnknownMethod
from mbtsad_core.evaluation import embeddings
from mbtsad_core.evaluation.embeddings import check_vectors, cls_vectors, outlying, project
from mbtsad_core.models.classifier import Classifier, collate, encode, trace, weights_hash
from mbtsad_core.types import LabelledText


def drawn(n: int, d: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:  # type: ignore[type-arg]
    return (np.random.default_rng(seed).normal(size=(n, d)) + shift).astype(np.float32)


def test_vectors_are_the_last_layers_first_token_and_padding_never_matters(
    tiny: Classifier, texts: list[LabelledText]
) -> None:
    before = weights_hash(tiny)
    some = [
        *texts[:5],
        LabelledText("a film", 0),
        LabelledText("the film was very very very truly superb and moving and brilliant", 1),
    ]
    together = cls_vectors(tiny, some, batch_size=4)
    for i, text in enumerate(some):
        alone = trace(tiny, collate(tiny, encode(tiny, [text]))).hidden[-1][0, 0].detach().numpy()
        np.testing.assert_allclose(together[i], alone, atol=1e-5)
    assert together.dtype == np.float32
    assert weights_hash(tiny) == before


@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_one_basis_puts_the_same_vector_at_the_same_point(method: str) -> None:
    before = drawn(30)
    after = np.concatenate([before[:20], drawn(10, seed=1, shift=3)])
    kept = before.copy()
    found = project(before, after, method)
    assert found.before.shape == found.after.shape == (30, 2)
    np.testing.assert_array_equal(found.before[:20], found.after[:20])
    assert np.abs(found.before[20:] - found.after[20:]).max() > 0.1
    assert 0 <= found.trustworthiness <= 1
    np.testing.assert_array_equal(before, kept)


def test_pca_agrees_with_a_singular_value_decomposition() -> None:
    before, after = drawn(40, 5), drawn(40, 5, seed=1, shift=1)
    found = project(before, after)
    both = np.concatenate([before, after]).astype(np.float64)
    u, s, _ = np.linalg.svd(both - both.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.concatenate([found.before, found.after])), np.abs(u[:, :2] * s[:2]), atol=1e-4)
    assert found.explained == pytest.approx((s[:2] ** 2 / (s**2).sum()).tolist())


def test_a_plane_is_perfectly_trustworthy() -> None:
    assert project(drawn(30, 2), drawn(30, 2, seed=1)).trustworthiness == pytest.approx(1)


def test_a_projection_is_remembered_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    first = project(drawn(20), drawn(20, seed=1))
    monkeypatch.setattr(embeddings, "_project", lambda *_: pytest.fail("fitted again"))
    assert project(drawn(20), drawn(20, seed=1)) is first


def test_only_so_many_projections_are_kept() -> None:
    for seed in range(embeddings.KEPT + 3):
        project(drawn(6, seed=seed), drawn(6, seed=seed + 1000))
    assert len(embeddings._known) == embeddings.KEPT


def test_what_cannot_be_projected_is_refused() -> None:
    with pytest.raises(UnknownMethod, match="pca, tsne, umap"):
        project(drawn(9), drawn(9), "isomap")
    with pytest.raises(BadData, match="five different"):
        project(np.ones((9, 3), np.float32), np.ones((9, 3), np.float32))
    with pytest.raises(BadData, match="same texts"):
        project(drawn(9), drawn(8))


BASE = drawn(1, 64)  # of length 8 or so, as [CLS] vectors have


def test_vectors_that_differ_by_rounding_alone_are_refused_at_any_scale() -> None:
    """They all differ in their last digits."""
    for scale in (1.0, 1e-12, 1e12):
        near = (scale * (BASE + 0.3 * embeddings.ROUNDING * drawn(40, 64, seed=1))).astype(np.float32)
        assert len(np.unique(near, axis=0)) == 40
        for method in embeddings.PROJECTIONS:
            with pytest.raises(BadData, match="these texts give 1 that differ by more than rounding"):
                check_vectors(near, near[::-1], method)
    with pytest.raises(BadData, match="these texts give 1 that differ"):
        project(near, near, "pca")


def test_some_far_vectors_do_not_hide_that_the_others_are_alike() -> None:
    near = (BASE + 0.3 * embeddings.ROUNDING * drawn(40, 64, seed=1)).astype(np.float32)
    far = np.concatenate([near, drawn(3, 64, seed=2)])
    with pytest.raises(BadData, match="these texts give 4"):
        check_vectors(far, far)
    check_vectors(np.concatenate([far, drawn(1, 64, seed=3)]), np.concatenate([far, drawn(1, 64, seed=3)]))


def test_vectors_just_above_the_threshold_are_taken() -> None:
    above = (BASE + 3 * embeddings.ROUNDING * drawn(40, 64, seed=1)).astype(np.float32)
    check_vectors(above, above)
    assert np.isfinite(project(above, above).before).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_without_a_number_are_refused(bad: float) -> None:
    broken = drawn(20)
    broken[3, 2] = bad
    with pytest.raises(BadData, match="not finite numbers"):
        project(drawn(20), broken, "tsne")


@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_the_picture_does_not_depend_on_the_vectors_scale(method: str) -> None:
    """By powers of two not in a digit; PCA's coordinates grow with the vectors, the others' mean nothing."""
    before, after = drawn(30), drawn(30, seed=1, shift=2)
    plain = project(before, after, method)
    for k in (2.0**-60, 2.0**-7, 2.0**40):
        scaled = project(np.float32(k) * before, np.float32(k) * after, method)
        np.testing.assert_array_equal(scaled.before, np.float32(k if method == "pca" else 1) * plain.before)
        np.testing.assert_array_equal(scaled.after, np.float32(k if method == "pca" else 1) * plain.after)
        assert scaled.trustworthiness == plain.trustworthiness


def test_distances_agree_with_scipy() -> None:
    clean, labels = np.concatenate([drawn(30), drawn(30, seed=1, shift=4)]), np.repeat([0, 1], 30)
    means, whiten = embeddings._clusters(clean, labels)
    residuals = np.concatenate([clean[:30] - clean[:30].mean(0), clean[30:] - clean[30:].mean(0)]).astype(np.float64)
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(residuals).covariance_)
    far = drawn(7, seed=2, shift=2)
    expected = [
        min(mahalanobis(x, clean[:30].mean(0), inverse), mahalanobis(x, clean[30:].mean(0), inverse)) for x in far
    ]
    np.testing.assert_allclose(embeddings._distances(far, means, whiten), expected, rtol=1e-4)


def test_clean_scores_about_five_percent_and_far_points_all() -> None:
    classes = [0, 1] * 200
    clean = drawn(400, 10) + 6 * np.array(classes, np.float32)[:, None]
    fresh = drawn(2000, 10, seed=5) + 6 * np.array([0, 1] * 1000, np.float32)[:, None]
    kept = clean.copy()
    scores = {
        s.name: s
        for s in outlying(clean, classes, {"fresh": fresh, "far": drawn(50, 10, seed=6, shift=40), "none": fresh[:0]})
    }
    assert list(scores) == ["clean", "fresh", "far"]  # a set without texts has no score
    assert 0.04 <= scores["clean"].outside.share <= 0.05
    assert 0.03 <= scores["fresh"].outside.share <= 0.075
    assert scores["far"].outside.share == 1
    assert scores["far"].median > scores["far"].radius > scores["fresh"].median
    np.testing.assert_array_equal(clean, kept)


def test_more_dimensions_than_texts_still_score_clean_right() -> None:
    classes = [0, 1] * 30
    scores = outlying(drawn(60, 200), classes, {"fresh": drawn(200, 200, seed=3)})
    assert scores[0].outside.share <= 0.05
    assert scores[1].outside.share <= 0.2


def test_scores_do_not_depend_on_scale() -> None:
    classes = [0, 1] * 20
    one, many = (outlying(k * drawn(40), classes, {"x": k * drawn(9, seed=1, shift=2)})[1] for k in (1.0, 1000.0))
    assert one.outside == many.outside
    assert one.median == pytest.approx(many.median, rel=1e-3)


def test_vectors_without_spread_are_scored() -> None:
    same = np.repeat(np.array([[0.0, 0.0], [1.0, 0.0]], np.float32), 5, axis=0)
    scores = outlying(same, [0] * 5 + [1] * 5, {"off": np.array([[0.0, 3.0]], np.float32)})
    assert [s.outside.share for s in scores] == [0, 1]


def test_clusters_need_texts() -> None:
    with pytest.raises(BadData, match="at least two"):
        outlying(drawn(3), [0, 0, 1], {})
    with pytest.raises(BadData, match="at least two"):
        outlying(drawn(0), [], {})
    with pytest.raises(BadData, match="needs its class"):
        outlying(drawn(3), [0, 0], {})


def test_two_classifiers_of_one_text_set_project_together(texts: list[LabelledText]) -> None:
    found = project(cls_vectors(tiny_bert(), texts[:12]), cls_vectors(tiny_bert(seed=1), texts[:12]))
    assert np.isfinite(found.before).all()
    assert np.isfinite(found.after).all()


def test_umap_leaves_as_many_threads_as_there_were() -> None:
    """UMAP's own compiled code sets as many as there are cores, for whatever is computed after it."""

    def threads() -> dict[str, int]:
        return {one["filepath"]: one["num_threads"] for one in threadpool_info() if one["user_api"] == "openmp"}

    project(drawn(30), drawn(30, seed=1))  # that scikit-learn is loaded
    before = threads()
    project(drawn(30), drawn(30, seed=1), "umap")
    assert before
    assert threads().items() >= before.items()
