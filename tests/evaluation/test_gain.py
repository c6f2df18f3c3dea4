"""Claims about `gain`: a run that learned nothing is not called healthy."""

from dataclasses import replace
from typing import Any

import pytest

from stopgrad.config import config_to_dict, preset
from stopgrad.evaluation import Record, is_no_better, state_text
from tests.factories import record

# 640 images in batches of 32: 20 steps an epoch, 1,280 views.
CONFIG = preset("tiny", **{"epochs": 2, "optimizer.base_lr": 6.4})


def _records(encoder: float, untrained: float, **changes: Any) -> list[Record]:
    known = {"images_scored": 10_000, "labels": 1.0, "epoch": 2} | changes
    seen = {"config": config_to_dict(CONFIG), "views": 2 * 1280}
    return [
        replace(record(**known), of="encoder", value=encoder, **seen),
        replace(record(**known), of="untrained", value=untrained, epoch=0),
    ]


def test_a_healthy_run_no_better_than_untrained_is_told_so_with_its_n() -> None:
    found = state_text("healthy", _records(0.401, 0.4), epoch=2)
    # The peak rate is .8; 41 / 2 of it over 40 steps; 5e-4 x .8 x 20.5 / .1 = .082.
    assert found == "not collapsed, but not yet useful (N = 0.082)"


@pytest.mark.parametrize(
    ("encoder", "no_better"),
    # Two standard errors of two shares of 10,000 images near .4 are .0139.
    [(0.35, True), (0.4, True), (0.4135, True), (0.4145, False)],
)
def test_no_better_is_within_two_standard_errors_or_below(encoder: float, no_better: bool) -> None:
    assert is_no_better(_records(encoder, 0.4), epoch=2) is no_better


def test_one_metric_that_gained_is_enough_and_few_labels_do_not_count() -> None:
    lost, gained = _records(0.3, 0.4), _records(0.5, 0.4, metric="linear_accuracy")
    few = _records(0.5, 0.4, labels=0.01)
    assert is_no_better([*lost, *few], epoch=2)
    assert not is_no_better([*lost, *gained], epoch=2)
    assert state_text("healthy", [*lost, *gained], epoch=2) == "healthy"


def test_scores_of_another_epoch_or_without_the_untrained_say_nothing() -> None:
    both = _records(0.3, 0.4)
    assert not is_no_better(both, epoch=3)
    assert not is_no_better(both[:1], epoch=2)
    assert not is_no_better([], epoch=2)


@pytest.mark.parametrize("state", ["complete collapse", "dimensional collapse", "diverged"])
def test_a_collapse_keeps_its_name(state: str) -> None:
    assert state_text(state, _records(0.3, 0.4), epoch=2) == state
