"""How many directions of z weight decay leaves alive: a prediction, not verified (docs/method.md).

A direction j lives while weight decay < c ICC_j^m, where ICC_j is the share of its variance that
lies between images. m = 1 by Tian, Chen & Ganguli 2021; 2 for the cosine loss. c is fitted to one
run, of which the weight decay and the number of living directions are known.

In: `between`, the ICC of each direction of z, measured at a low weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stopgrad.method.collapse import Spectra

EXPONENT = 2  # m


def every_direction(spectra: Spectra) -> list[float]:
    """The ICC of each direction up to the last rank, between noted ranks by interpolation."""
    if not spectra.ranks:
        return []
    every = np.arange(1, spectra.ranks[-1] + 1)
    return [float(x) for x in np.interp(every, spectra.ranks, spectra.between)]


def fit_threshold(
    between: Sequence[float], *, weight_decay: float, alive: int, m: int = EXPONENT
) -> float:
    """The c of a run in which so many directions are alive; NaN where it says nothing.

    It lies between the values at which one direction less or one more would live: their geometric
    mean. With none alive, or all of them, only one side is known and c is that bound.
    """
    falling = sorted((share for share in between if share > 0), reverse=True)
    last, following = falling[:alive][-1:], falling[alive : alive + 1]
    sides = [weight_decay / share**m for share in (*last, *following)]
    if not sides or len(last) < min(alive, 1):
        return math.nan
    return math.prod(sides) ** (1 / len(sides))


def largest_decay(between: Sequence[float], *, keep: int, c: float, m: int = EXPONENT) -> float:
    """The weight decay below which so many directions live; 0 where there are not that many."""
    falling = sorted((max(share, 0.0) for share in between), reverse=True)
    return c * falling[keep - 1] ** m if len(falling) >= keep else 0.0
