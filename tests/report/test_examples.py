"""Claims about `examples`: what is shown is what kNN finds, and what is chosen follows a rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stopgrad.evaluation import embed, weighted_knn
from stopgrad.images import Dataset
from stopgrad.report import NeighborPanel, explore, neighbors_of
from stopgrad.report.examples import choose_gallery, pacmap_plane, principal_plane
from stopgrad.report.panels import Exploration
from stopgrad.runs import TrainedRun
from tests.report.factories import (
    CONFIG,
    brute_force,
    digits,
    features,
    untrained_run,
    without_labels,
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="module")
def run(dataset: Dataset) -> TrainedRun:
    return untrained_run(dataset)


@pytest.fixture(scope="module")
def explored(run: TrainedRun, dataset: Dataset) -> Exploration:
    return explore(run, dataset, count=60)


def assert_neighbors(panel: NeighborPanel, run: TrainedRun) -> None:
    expected = brute_force(run, panel.bank, panel.queries)
    np.testing.assert_allclose(panel.similarity, expected.similarity, atol=2e-5)
    # The images shown have these similarities, whatever the order of near equals.
    shown = np.take_along_axis(expected.all, panel.index, axis=1)
    np.testing.assert_allclose(shown, panel.similarity, atol=2e-5)


def test_neighbours_in_the_gallery_are_those_of_a_full_sort(
    explored: Exploration, run: TrainedRun
) -> None:
    assert explored.gallery.index.shape == (60, 8)
    assert_neighbors(explored.gallery, run)
    assert_neighbors(explored.examples, run)


def test_neighbours_of_any_picture_are_those_of_a_full_sort(
    run: TrainedRun, dataset: Dataset
) -> None:
    assert dataset.test is not None
    panel = neighbors_of(run, dataset.train, dataset.test.take(np.array([3, 50, 97])))
    assert_neighbors(panel, run)
    # The vote by hand: exp(similarity / T) of the 20 nearest.
    similarity = brute_force(run, panel.bank, panel.queries).all
    assert panel.predicted is not None
    assert panel.bank.labels is not None
    for row, predicted in zip(similarity, panel.predicted, strict=True):
        near = np.argsort(-row)[:20]
        votes = np.zeros(10)
        np.add.at(votes, panel.bank.labels[near], np.exp(row[near] / CONFIG.knn.temperature))
        assert predicted == votes.argmax()


def test_the_matrix_counts_what_knn_scores(
    explored: Exploration, run: TrainedRun, dataset: Dataset
) -> None:
    assert dataset.test is not None
    how = {"normalization": run.info.normalization, "compute": run.compute}
    bank, queries = (
        embed(run.model.encoder, images, **how)  # type: ignore[arg-type]
        for images in (dataset.train, dataset.test)
    )
    score = weighted_knn(bank, queries, run.info.config.knn)
    assert explored.confusion is not None
    counts = explored.confusion.counts
    assert counts.sum() == 100
    assert np.trace(counts) / 100 == pytest.approx(score.accuracy)
    np.testing.assert_allclose(np.diag(counts) / counts.sum(axis=1), score.per_class)
    assert counts[dataset.test.labels[0], score.predicted[0]] >= 1  # type: ignore[index]


def test_the_examples_can_be_picked_too(explored: Exploration) -> None:
    shown = {pixels.tobytes() for pixels in explored.gallery.queries.pixels}
    assert {pixels.tobytes() for pixels in explored.examples.queries.pixels} <= shown


def test_a_gallery_is_even_over_the_classes_and_holds_the_surest_mistakes() -> None:
    # 40 images of four classes; of class 3 all are mistakes, the later the surer.
    labels = torch.arange(40) % 4
    votes = torch.eye(4, dtype=torch.float64)[torch.where(labels == 3, 0, labels)]
    votes += torch.arange(40, 0, -1)[:, None] * 0.01
    chosen = choose_gallery(votes, labels, count=18, seed=0, first=[21])
    assert 21 in chosen.tolist()
    assert labels[chosen].tolist() == sorted(labels[chosen].tolist())
    assert labels[chosen].bincount().tolist()[:3] == [3, 4, 3]  # 12 even ones, and 21
    mistakes = chosen[labels[chosen] == 3].tolist()
    assert len(mistakes) == 3 + 5
    assert {39, 35, 31} <= set(mistakes)
    assert torch.equal(chosen, choose_gallery(votes, labels, count=18, seed=0, first=[21]))
    assert not torch.equal(chosen, choose_gallery(votes, labels, count=18, seed=1, first=[21]))


def test_without_labels_there_are_neighbours_and_a_map_but_no_mistakes(
    run: TrainedRun, dataset: Dataset
) -> None:
    found = explore(run, without_labels(dataset), count=30)
    assert found.confusion is None
    assert found.gallery.predicted is None
    assert found.map.labels is None
    assert found.map.same_class == ()
    assert (len(found.gallery.queries), len(found.map.points)) == (30, 400)
    similarity = brute_force(run, found.gallery.bank, found.gallery.queries).all
    # The best of all is the picture itself, which is left out.
    expected = -np.sort(-similarity, axis=1)[:, 1:9]
    np.testing.assert_allclose(found.gallery.similarity, expected, atol=2e-5)


def test_the_map_is_that_of_a_singular_value_decomposition(
    explored: Exploration, run: TrainedRun, dataset: Dataset
) -> None:
    assert dataset.test is not None
    every = features(run, dataset.test)
    middle = every.mean(axis=0)
    _, singular, axes = np.linalg.svd(every - middle, full_matrices=False)
    shares = singular**2 / (singular**2).sum()
    assert list(explored.map.variance) == pytest.approx(shares[:2].tolist(), rel=1e-3)
    gallery = features(run, explored.gallery.queries) - middle
    signs = np.sign(axes[:2, :][[0, 1], np.abs(axes[:2]).argmax(axis=1)])
    expected = gallery @ axes[:2].T * signs
    np.testing.assert_allclose(explored.map.points[:60], expected, atol=1e-4)


def test_the_map_says_how_often_the_nearest_has_the_same_class(
    explored: Exploration, run: TrainedRun, dataset: Dataset
) -> None:
    points = explored.map.points.astype(np.float64)
    labels = explored.map.labels
    assert labels is not None
    far = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    np.fill_diagonal(far, np.inf)
    assert explored.map.same_class[0] == pytest.approx(
        (labels[far.argmin(axis=1)] == labels).mean()
    )
    # All 100 test images are on the map, so that their order does not matter.
    assert dataset.test is not None
    assert dataset.test.labels is not None
    every = features(run, dataset.test)
    near = every @ every.T - 2 * np.eye(100)
    same = dataset.test.labels[near.argmax(axis=1)] == dataset.test.labels
    assert explored.map.same_class[1] == pytest.approx(same.mean())


def test_mapping_draws_no_global_random_number() -> None:
    values = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    first, second = (principal_plane(values, torch.arange(30)) for _ in range(2))
    assert torch.equal(first.points, second.points)
    assert torch.equal(torch.get_rng_state(), before)


def test_features_that_are_all_one_are_mapped_to_one_point() -> None:
    plane = principal_plane(torch.ones(4, 3), torch.arange(4))
    assert plane.points.abs().max() < 1e-6
    assert all(np.isfinite(plane.variance))


def test_pacmap_gives_the_same_map_again_and_touches_no_generator() -> None:
    pytest.importorskip("pacmap", reason="needs the extra `map`")
    values = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - it is this that must not move
    first, second = (pacmap_plane(values, seed=1) for _ in range(2))
    assert torch.equal(first.points, second.points)
    assert first.points.shape == (80, 2)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
