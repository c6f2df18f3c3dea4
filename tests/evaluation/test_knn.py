"""Claims about `knn`."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

import stopgrad.evaluation.knn
from stopgrad.config import KNNConfig
from stopgrad.errors import ConfigError, DataError, DivergedError
from stopgrad.evaluation import Features, neighbors, weighted_knn
from stopgrad.evaluation.knn import GROUP, class_votes
from tests.factories import digit_features


def _digits() -> tuple[Features, Features]:
    train, test = digit_features()  # less 4: both signs of similarity
    return train._replace(values=train.values - 4), test._replace(values=test.values - 4)


def _on_circle(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.1), (50, 0.07), (1200, 0.5)])
def test_predictions_are_those_of_scikit_learn(k: int, temperature: float) -> None:
    train, test = _digits()

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances.astype(np.float64)) / temperature)

    reference = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
    reference.fit(train.values.numpy(), train.labels.numpy())
    result = weighted_knn(train, test, KNNConfig(k=k, temperature=temperature))
    assert np.array_equal(result.predicted.numpy(), reference.predict(test.values.numpy()))
    expected = reference.score(test.values.numpy(), test.labels.numpy())
    assert math.isclose(result.accuracy, expected)
    order = np.argsort(-reference.predict_proba(test.values.numpy()), axis=1, kind="stable")
    hits = (order[:, :5] == test.labels.numpy()[:, None]).any(axis=1)
    assert math.isclose(result.top5, hits.mean())


def test_votes_and_classes_are_those_of_the_published_protocol_written_again() -> None:
    """Report: k = 200, weights exp(cosine / 0.1), the class of the most votes; in fp64, one by one.

    Here all is in floats of Python, so that neither topk nor a scatter can be wrong in both.
    """
    train, test = _digits()
    bank, queries = train.values.double().numpy(), test.values[::7].double().numpy()
    labels, wanted = train.labels.tolist(), test.labels[::7]
    votes = np.zeros((len(queries), 10))
    for row, query in enumerate(queries):
        cosines = [float(query @ x / math.sqrt((query @ query) * (x @ x))) for x in bank]
        for near in sorted(range(len(bank)), key=lambda i: (-cosines[i], i))[:200]:
            votes[row, labels[near]] += math.exp(cosines[near] / 0.1)
    ours = weighted_knn(train, Features(test.values[::7], wanted), KNNConfig())
    assert ours.predicted.tolist() == votes.argmax(axis=1).tolist()
    near = neighbors(train.values, test.values[::7], k=200)
    found = class_votes(near, train.labels, classes=10, temperature=0.1).numpy()
    np.testing.assert_allclose(
        found / found.sum(axis=1, keepdims=True),
        votes / votes.sum(axis=1, keepdims=True),
        atol=2e-6,
    )


def test_votes_by_hand() -> None:
    """Query at 0 degrees, T = 0.5: exp(2 cos) is 7.17 at 10, 6.55 at 20, 3.63 at 50 degrees.

    With k = 3 class 1 has 6.55 + 3.63 = 10.2 votes against 7.17; with k = 1 class 0 wins. At 85
    degrees the query's neighbours are 90 (class 2) and 50 (class 1): 7.34 against 5.15.
    """
    bank = Features(_on_circle(10, 20, 50, 90) * 3, torch.tensor([0, 1, 1, 2]))
    queries = Features(_on_circle(0, 85), torch.tensor([1, 2]))
    three = weighted_knn(bank, queries, KNNConfig(k=3, temperature=0.5))
    assert three.predicted.tolist() == [1, 1]  # 85: class 1 has 5.15 + 2.33 = 7.48 > 7.34
    assert three.accuracy == 0.5
    two = weighted_knn(bank, queries, KNNConfig(k=2, temperature=0.5))
    assert two.predicted.tolist() == [0, 2]
    # A low temperature leaves only the nearest.
    cold = weighted_knn(bank, queries, KNNConfig(k=3, temperature=0.001))
    assert cold.predicted.tolist() == [0, 2]


def test_a_low_temperature_does_not_overflow() -> None:
    bank = Features(_on_circle(0, 1, 90), torch.tensor([2, 0, 0]))
    result = weighted_knn(
        bank, Features(_on_circle(0), torch.tensor([2])), KNNConfig(temperature=1e-4)
    )
    assert result.accuracy == 1


def test_equal_votes_go_to_the_lowest_class() -> None:
    bank = Features(_on_circle(30, -30), torch.tensor([2, 1]))
    result = weighted_knn(bank, Features(_on_circle(0), torch.tensor([1])), KNNConfig(k=2))
    assert result.predicted.tolist() == [1]


def test_k_is_limited_to_the_bank_and_the_protocol_says_so() -> None:
    bank = Features(_on_circle(10, 20, 50), torch.tensor([0, 1, 1]))
    result = weighted_knn(bank, bank, KNNConfig(k=200))
    assert (result.protocol["k"], result.protocol["k_requested"]) == (3, 200)
    assert result.protocol["bank_images"] == 3


def _slow_neighbors(bank: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """By a stable sort of every row, the lower index first."""
    return np.argsort(-(queries @ bank.T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("k", [1, 7, 40, 1000, 1003])
@pytest.mark.parametrize("distinct", [3, 100, 1003])
def test_equal_similarities_go_to_the_lowest_index(k: int, distinct: int) -> None:
    """Unit vectors with a few coordinates of equal size, whose products are exact."""
    rng = np.random.default_rng(0)
    corners = rng.choice([-0.5, 0.5], (distinct, 4)).astype(np.float32)
    bank = corners[rng.integers(distinct, size=1003)]
    queries = rng.choice([-0.5, 0.5], (9, 4)).astype(np.float32)
    near = neighbors(torch.from_numpy(bank), torch.from_numpy(queries), k=k)
    assert np.array_equal(near.indices.numpy(), _slow_neighbors(bank, queries, k))


@pytest.mark.parametrize("bank_size", [GROUP * 40, GROUP * 40 + 5, 37])
def test_neighbours_are_those_of_a_full_sort(bank_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 16, generator=generator) for n in (bank_size, 50))
    # The best of all sits in the last columns, which fill no group.
    bank[-2] = queries[0]
    near = neighbors(bank, queries, k=12)
    unit = (bank / bank.norm(dim=1, keepdim=True)).numpy()
    unit_queries = (queries / queries.norm(dim=1, keepdim=True)).numpy()
    assert np.array_equal(near.indices.numpy(), _slow_neighbors(unit, unit_queries, 12))
    exact = np.take_along_axis(unit_queries @ unit.T, near.indices.numpy(), axis=1)
    np.testing.assert_allclose(near.similarity.numpy(), exact, atol=1e-6)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = _digits()
    whole = neighbors(train.values, test.values, k=20)
    monkeypatch.setattr(stopgrad.evaluation.knn, "CHUNK_VALUES", 7 * 1200)
    parts = neighbors(train.values, test.values, k=20)
    assert torch.equal(parts.indices, whole.indices)


def test_a_zero_vector_is_like_nothing() -> None:
    bank = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    near = neighbors(bank, torch.tensor([[2.0, 0.0]]), k=3)
    assert near.indices.tolist() == [[1, 0, 2]]
    assert near.similarity.tolist() == [[1, 0, -1]]


def test_a_class_without_training_images_counts_as_wrong() -> None:
    bank = Features(_on_circle(0, 10), torch.tensor([0, 1]))
    result = weighted_knn(bank, Features(_on_circle(0, 0), torch.tensor([0, 7])), KNNConfig())
    assert result.accuracy == 0.5
    assert result.per_class.shape == (8,)


def test_bad_input_is_refused_in_one_line() -> None:
    good = Features(_on_circle(0, 10), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="training images without labels"):
        weighted_knn(good._replace(labels=None), good, KNNConfig())
    with pytest.raises(DataError, match="no training images"):
        weighted_knn(
            Features(good.values[:0], torch.tensor([], dtype=torch.int64)), good, KNNConfig()
        )
    bad = torch.tensor([[math.nan, 0.0], [1.0, 0.0]])
    with pytest.raises(DivergedError, match="1 of 2 test images"):
        weighted_knn(good, good._replace(values=bad), KNNConfig())
    with pytest.raises(ConfigError, match="k = 3"):
        neighbors(good.values, good.values, k=3)


def test_neighbours_without_a_label_have_no_vote() -> None:
    near = neighbors(_on_circle(0, 60, 90), _on_circle(0), k=3)  # cosines 1, 1/2 and 0
    votes = class_votes(near, torch.tensor([-1, 1, 0]), classes=2, temperature=0.5)
    expected = torch.tensor([[math.exp(-2), math.exp(-1)]], dtype=torch.float64)
    torch.testing.assert_close(votes, expected, rtol=0, atol=1e-6)
