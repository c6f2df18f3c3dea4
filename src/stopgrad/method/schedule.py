"""The learning rates as a function of the step, and how far a run goes by them.

Paper: Sec. 3 (cosine; constant learning rate of the predictor). alpha_h is the report's. No torch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from stopgrad.config import Config

PUBLISHED_IMAGES = 50_000  # of CIFAR-10, on which the defaults of `Config` were published


class LearningRates(NamedTuple):
    """The learning rates of one step of pretraining."""

    lr: float  # encoder and projector
    predictor_lr: float


class Extent(NamedTuple):
    """How far a run goes."""

    steps: int
    passes: float  # over each image, on average
    folds: float  # N: e-folds of the initial weights that decay erases; NaN for LARS


def learning_rates(config: Config, *, step: int, steps_per_epoch: int) -> LearningRates:
    """The learning rates at a step, counted from 0.

    lr: linear warm-up, then base_lr x batch / 256 x (1 + cos(pi t)) / 2, where t goes from 0 to 1
    after the warm-up. Predictor: alpha_h x lr, constant or on the same curve.
    Paper: the cosine moves once per epoch; here: each step, because that has no jumps.
    """
    curve = cosine_with_warmup(step, **_course(config, steps_per_epoch))
    predictor_peak = config.optimizer.alpha_h * config.lr
    match config.optimizer.predictor_schedule:
        case "constant":
            return LearningRates(config.lr * curve, predictor_peak)
        case "cosine":
            return LearningRates(config.lr * curve, predictor_peak * curve)


def cosine_with_warmup(step: int, *, total: int, warmup: int = 0) -> float:
    """The factor on the peak learning rate at a step, counted from 0; it is 0 at step `total`."""
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2


def extent(config: Config, *, images: int, steps: int | None = None) -> Extent:
    """How far a run on that many training images has come after `steps`; None: at its end.

    N = weight decay x (sum of the learning rates) / (1 - momentum), see docs/method.md. LARS scales
    its steps by the weights' norms, so it has no such number.
    """
    steps_per_epoch = images // config.batch
    steps = config.epochs * steps_per_epoch if steps is None else steps
    optimizer, course = config.optimizer, _course(config, steps_per_epoch)
    passes = steps * config.batch / images
    if optimizer.algorithm == "lars" or optimizer.momentum == 1:
        return Extent(steps, passes, math.nan)
    rates = config.lr * _sum_of_curve(steps, **course)
    return Extent(steps, passes, optimizer.weight_decay * rates / (1 - optimizer.momentum))


def published_extent() -> Extent:
    """How far the published run on CIFAR-10 goes: the defaults, on all training images."""
    return extent(Config(), images=PUBLISHED_IMAGES)


def _course(config: Config, steps_per_epoch: int) -> dict[str, int]:
    """Length and warm-up in steps, as `cosine_with_warmup` takes them."""
    warmup = round(config.optimizer.warmup_epochs * steps_per_epoch)
    return {"total": config.epochs * steps_per_epoch, "warmup": warmup}


def _sum_of_curve(steps: int, *, total: int, warmup: int) -> float:
    """`cosine_with_warmup` summed over the first steps, in closed form (Lagrange's identity)."""
    if steps <= warmup:
        return steps * (steps + 1) / (2 * warmup) if warmup else 0.0
    fallen, quarter = steps - warmup, math.pi / (2 * max(1, total - warmup))
    cosines = (1 + math.sin((2 * fallen - 1) * quarter) / math.sin(quarter)) / 2
    return (warmup + 1) / 2 * (warmup > 0) + (fallen + cosines) / 2
