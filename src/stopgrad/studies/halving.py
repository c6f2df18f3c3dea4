"""A budget of time -> rungs of short runs: nine settings, the best three longer, the best longest.

Successive halving (Jamieson & Talwalkar 2016), a third advancing each time. Each rung is a study
of measures that need no labels, so it is restartable like any other. The nine settings are an
orthogonal array: of any two of the three knobs each pair of levels occurs once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stopgrad.config import Config
from stopgrad.studies.parse import StudyFile, parse_study

RUNGS = (9, 3, 1)  # settings
ARRAY = tuple((one, other, (one + other) % 3) for one in range(3) for other in range(3))  # levels
FACTORS = {  # the preset's own value first
    "optimizer.base_lr": (1.0, 0.5, 2.0),
    "optimizer.alpha_h": (1.0, 0.5, 2.0),
    "views.crop_min": (1.0, 0.4, 1.6),
}
LARGEST_CROP = 0.9  # crop_min above it hardly crops
START_S = 15.0  # of a run before its first step and after its last, in two processes


def arms_around(config: Config) -> dict[str, dict[str, Any]]:
    """The nine settings by name, as factors on a config's rate, alpha_h and crop_min.

    All reach the same N: a lower rate has more epochs, because measures without labels order runs
    of one N (docs/log.md); a network that has learned less spreads its features more.
    """
    found = dict[str, dict[str, Any]]()
    crop = config.views.crop_min
    for levels in ARRAY:
        factors = [each[level] for each, level in zip(FACTORS.values(), levels, strict=True)]
        factors[2] = min(factors[2], max(1.0, LARGEST_CROP / crop))
        rate, alpha = config.optimizer.base_lr * factors[0], config.optimizer.alpha_h * factors[1]
        name = f"base_lr {rate:.3g}, alpha_h {alpha:.3g}, crop_min {crop * factors[2]:.3g}"
        changes = zip(FACTORS, factors, strict=True)
        found[name] = {key: {"times": factor} for key, factor in changes if factor != 1}
        if factors[0] != 1:
            found[name]["epochs"] = {"times": 1 / factors[0]}
    return found


def rung_study(
    number: int,
    arms: Mapping[str, Mapping[str, Any]],
    *,
    epochs: int,
    weight_decay: float | None = None,
) -> StudyFile:
    """The study of a rung, whose first arm is the baseline; None: the preset's weight decay."""
    settings: dict[str, Any] = {"epochs": epochs}
    if weight_decay is not None:
        settings["optimizer.weight_decay"] = weight_decay
    values = {
        "question": f"Which of {len(arms)} settings spreads its features most at one N?",
        "baseline": next(iter(arms)),
        "settings": settings,
        "arms": {name: dict(changes) for name, changes in arms.items()},
        "protocol": {"split": "validation", "metrics": ["effective_rank"]},
    }
    return parse_study(values, name=f"rung-{number}")


def affordable_epochs(
    seconds: float,
    arms: Mapping[str, Mapping[str, Any]],
    *,
    epoch_s: float,
    start_s: float = START_S,
    slots: int,
) -> int:
    """How many epochs a rung can afford at the preset's rate; even, as twice the rate has half.

    Args:
        seconds: The time that the rung may take.
        arms: Its settings, from `arms_around`.
        epoch_s: The time of an epoch, when as many runs as slots are at work.
        start_s: The time of a run, besides its epochs.
        slots: Runs at work at once.
    """
    one = least_time(arms, epoch_s=epoch_s, start_s=0.0, slots=slots)
    left = seconds - start_s * math.ceil(len(arms) / slots)
    return 2 * int(left / one)


def least_time(
    arms: Mapping[str, Mapping[str, Any]], *, epoch_s: float, start_s: float, slots: int
) -> float:
    """The time of two epochs at the preset's rate, as `affordable_epochs` counts it, in s."""
    lengths = [changes.get("epochs", {"times": 1.0})["times"] for changes in arms.values()]
    turns = max(max(lengths), sum(lengths) / slots)
    return float(start_s * math.ceil(len(lengths) / slots) + 2 * epoch_s * turns)
