"""Claims about the prediction of how many directions of z survive weight decay."""

import math

import pytest
import torch

from stopgrad.method import (
    Spectra,
    every_direction,
    fit_threshold,
    largest_decay,
    spectra,
)

SHARES = [0.9, 0.8, 0.5, 0.2]


def living(between: list[float], *, weight_decay: float, c: float, m: int = 2) -> int:
    """How many directions survive a weight decay."""
    numbers = range(1, len(between) + 1)
    return sum(weight_decay < largest_decay(between, keep=n, c=c, m=m) for n in numbers)


def test_a_direction_lives_while_weight_decay_is_below_its_threshold() -> None:
    """With c = 1e-3 the thresholds are 8.1e-4, 6.4e-4, 2.5e-4 and 4e-5."""
    alive = [living(SHARES, weight_decay=w, c=1e-3) for w in (1e-5, 1e-4, 5e-4, 1e-3)]
    assert alive == [4, 3, 2, 0]
    assert living(SHARES, weight_decay=6e-4, c=1e-3, m=1) == 2  # 9e-4, 8e-4, 5e-4, 2e-4


def test_c_of_one_run_predicts_the_others() -> None:
    """Two of four alive at 5e-4: c between 5e-4 / .64 and 5e-4 / .25, so sqrt of 7.8e-4 x 2e-3."""
    c = fit_threshold(SHARES, weight_decay=5e-4, alive=2)
    assert c == pytest.approx(math.sqrt(5e-4 / 0.64 * 5e-4 / 0.25))
    assert living(SHARES, weight_decay=5e-4, c=c) == 2
    assert largest_decay(SHARES, keep=3, c=c) == pytest.approx(c * 0.25)
    assert living(SHARES, weight_decay=0.99 * c * 0.25, c=c) == 3
    assert living(SHARES, weight_decay=1.01 * c * 0.25, c=c) == 2


def test_none_or_all_alive_bound_c_from_one_side() -> None:
    assert fit_threshold([0.5], weight_decay=1e-3, alive=0) == pytest.approx(4e-3)
    assert fit_threshold([0.5], weight_decay=1e-3, alive=1) == pytest.approx(4e-3)
    assert math.isnan(fit_threshold([0.0], weight_decay=1e-3, alive=1))
    assert largest_decay(SHARES, keep=5, c=1) == 0


def test_shares_are_those_of_a_z_whose_parts_are_known() -> None:
    """Image parts of variance 9, 4, 1 and view parts of 1, 1, 1: ICC = .9, .8, .5."""
    chance = torch.Generator().manual_seed(0)
    images = torch.randn(50_000, 3, generator=chance) * torch.tensor([3.0, 2.0, 1.0])
    z1, z2 = (images + torch.randn(50_000, 3, generator=chance) for _ in range(2))
    found = every_direction(spectra(z1, z1, z2))
    assert found == pytest.approx([0.9, 0.8, 0.5], abs=0.02)
    assert living(found, weight_decay=5e-4, c=1e-3) == 2


def test_ranks_that_were_not_noted_lie_between_those_that_were() -> None:
    noted = Spectra((1, 2, 4), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.9, 0.8, 0.4))
    assert every_direction(noted) == pytest.approx([0.9, 0.8, 0.6, 0.4])
    assert every_direction(Spectra((), (), (), ())) == []
