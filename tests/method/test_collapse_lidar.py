"""Claims about LiDAR and RankMe in `collapse`."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from stopgrad.method import lidar, rankme
from stopgrad.method.collapse import LIDAR_DELTA


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _slow_lidar(views: Tensor) -> float:
    """The definition in loops, and SciPy's generalised eigenproblem S_b v = lambda S_w v."""
    x = views.double().numpy()
    images, count, width = x.shape
    means = [sum(x[i, j] for j in range(count)) / count for i in range(images)]
    middle = sum(means) / images
    s_b = sum(np.outer(m - middle, m - middle) for m in means) / images
    s_w = np.zeros((width, width))
    for i in range(images):
        for j in range(count):
            s_w += np.outer(x[i, j] - means[i], x[i, j] - means[i]) / (images * count)
    delta = LIDAR_DELTA * (np.trace(s_w) + np.trace(s_b)) / width
    values = scipy.linalg.eigh(s_b, s_w + delta * np.eye(width), eigvals_only=True).clip(0)
    shares = [value / values.sum() for value in values if value > 0]
    return math.exp(-sum(p * math.log(p) for p in shares))


def _around(means: Tensor, noise: Tensor) -> Tensor:
    """Views (N, 2 D, D) at a distance noise[c] to both sides of their image in each channel c."""
    offsets = torch.cat([torch.diag(noise), -torch.diag(noise)])
    return means[:, None] + offsets


@pytest.mark.parametrize("shape", [(30, 4, 6), (5, 3, 8)])  # also fewer images than channels
def test_lidar_is_the_generalised_eigenproblem_of_its_definition(
    shape: tuple[int, int, int],
) -> None:
    images, _, width = shape
    stretch = torch.linspace(0.5, 3, width)
    views = _normal(images, 1, width) * stretch + _normal(*shape, seed=1)
    assert float(lidar(views)) == pytest.approx(_slow_lidar(views), rel=1e-4)


def test_lidar_counts_the_directions_in_which_images_differ() -> None:
    means = 2 * torch.cat([torch.eye(6)[:3], -torch.eye(6)[:3]])  # (6, 6), three directions
    assert float(lidar(_around(means, torch.ones(6)))) == pytest.approx(3, rel=1e-4)


def test_lidar_measures_each_direction_by_how_far_views_differ_in_it() -> None:
    means = torch.cat([torch.eye(2), -torch.eye(2)])
    views = _around(means, torch.tensor([1.0, math.sqrt(3)]))  # variance within as 1 to 3
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(lidar(views)) == pytest.approx(math.exp(entropy), rel=1e-4)


def test_lidar_does_not_see_scale_and_place() -> None:
    noise = torch.linspace(0.05, 2, 5) * _normal(20, 4, 5, seed=1)
    views = _normal(20, 1, 5) + noise
    assert float(lidar(1e-3 * views + 7)) == pytest.approx(float(lidar(views)), rel=1e-3)


def test_lidar_of_a_single_point_is_one() -> None:
    assert float(lidar(torch.ones(8, 3, 4))) == pytest.approx(1)


def test_rankme_is_the_entropy_of_the_singular_values() -> None:
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    z = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert float(rankme(z)) == pytest.approx(math.exp(entropy), rel=1e-5)


def test_rankme_is_not_centred() -> None:
    """A mean far from 0 is a direction that hides the others."""
    z = _normal(200, 6)
    assert float(rankme(z)) > 5.9
    assert float(rankme(z + 1000)) < 1.1
