"""The training step of a run -> views/s, FLOP/s, fraction of the matrix rate, phases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
from torch import Tensor

from stopgrad.config import Config, numpy_generator
from stopgrad.evaluation import embed
from stopgrad.images import Images, images_from_arrays, normalization
from stopgrad.method import training_flops
from stopgrad.speed.stopwatch import (
    MatrixProduct,
    Spread,
    peak_bytes,
    per_call,
    rate,
    spread,
    wait_for,
)
from stopgrad.training import Pretraining, start_training

IMAGE_SIDE = 32  # px, as CIFAR
WARM_UP = 2  # steps; the first ones build kernels and allocate memory


class Phases(NamedTuple):
    """The parts of a step, in seconds or as fractions of their sum."""

    views: float  # from indices to two views
    forward: float  # memory layout, network and loss
    backward: float  # gradients, and the check that they are finite
    optimizer: float  # new weights

    def fractions(self) -> Phases:
        """The parts as fractions, which sum to 1."""
        return Phases(*(part / sum(self) for part in self))


class StepSpeed(NamedTuple):
    """How fast one network trains."""

    encoder: str
    batch: int
    precision: str
    flops_per_view: float  # forward and backward, heads included
    views_per_s: Spread
    flops_per_s: Spread
    share_of_matmul: Spread  # of the rate of a matrix product at the same precision
    phases: Phases  # fractions
    embed_images_per_s: Spread  # forward in eval mode, 32 px
    peak_bytes: int  # of the process or the GPU so far


class Effort(NamedTuple):
    """How much to measure."""

    images: int  # images to train on
    embedded: int  # images to embed in each repeat
    repeats: int
    seconds: float  # least duration of the steps of a repeat


def measure_steps(config: Config, matrix: MatrixProduct, effort: Effort) -> StepSpeed:
    """Trains on random pixels, with matrix products before and after each group of steps."""
    training = start_on_random_pixels(config, images=effort.images)
    device, precision = training.compute.device, training.compute.precision
    take_steps(training, WARM_UP)
    flops = training_flops(config)
    views_per_s, flops_per_s, fractions, phases = [], [], [], []
    before = matrix.rates().of(precision)
    for _ in range(effort.repeats):
        seconds = per_call(
            lambda count: take_steps(training, count), device=device, at_least=effort.seconds
        )
        after = matrix.rates().of(precision)
        views_per_s.append(2 * config.batch / seconds)
        flops_per_s.append(flops * views_per_s[-1])
        fractions.append(flops_per_s[-1] / ((before + after) / 2))
        phases.append(step_phases(training))
        before = after
    return StepSpeed(
        encoder=config.encoder.name,
        batch=config.batch,
        precision=precision,
        flops_per_view=flops,
        views_per_s=spread(views_per_s),
        flops_per_s=spread(flops_per_s),
        share_of_matmul=spread(fractions),
        phases=Phases(*map(sum, zip(*phases, strict=True))).fractions(),
        embed_images_per_s=_embedding(training, effort),
        peak_bytes=peak_bytes(device),
    )


def random_images(count: int, *, side: int, channels: int = 3) -> Images:
    """Images of side x side px with random pixels and ten classes, for an encoder's channels."""
    chance, stored = numpy_generator(0, "speed", "pixels"), 3 if channels == 1 else channels
    return images_from_arrays(
        chance.integers(0, 256, (count, side, side, stored), dtype=np.uint8),
        labels=np.arange(count) % 10,
        class_names=list(map(str, range(10))),
        channels=stored,
    )


def start_on_random_pixels(config: Config, *, images: int) -> Pretraining:
    """A training at step 0 on random images."""
    pixels = random_images(images, side=IMAGE_SIDE, channels=config.encoder.channels)
    mean_std = normalization(pixels, channels=config.encoder.channels)
    return start_training(pixels, config, normalization=mean_std)


def endless_steps(
    training: Pretraining, step: Callable[[Tensor], object] | None = None
) -> Iterator[None]:
    """Takes a training step for each item, epoch after epoch.

    Args:
        training: Continues from its present state.
        step: What to do with the indices of a batch. Default: the training step.

    Raises:
        DivergedError: When a loss or a gradient is not finite.
    """
    step = step or training.advance
    while True:
        for batch in training.batches():
            step(batch)
            if len(training.unread) >= training.most_unread:
                training.read_losses()
            yield
        training.read_losses()
        training.epoch += 1


def take_steps(training: Pretraining, count: int) -> None:
    """Takes a number of steps, views included."""
    for _ in islice(endless_steps(training), count):
        pass


def step_phases(training: Pretraining) -> Phases:
    """Takes one step; returns the seconds of each of its parts.

    It is the run's own step, launched kernel by kernel. Reading the clock after each part waits for
    the device, so on a GPU the sum is longer than an undisturbed step.
    """
    marks: list[float] = []

    def mark() -> None:
        wait_for(training.compute.device)
        marks.append(time.perf_counter())

    def step(indices: Tensor) -> None:
        training.set_learning_rates()
        mark()
        views = training.views(indices)
        mark()
        loss = training.loss(views)
        mark()
        training.backward(loss)
        mark()
        training.count(training.update(loss))
        mark()

    next(endless_steps(training, step))
    return Phases(*(end - start for start, end in pairwise(marks)))


def _embedding(training: Pretraining, effort: Effort) -> Spread:
    """Images per second that the encoder embeds."""
    work = partial(
        embed,
        training.model.encoder,
        random_images(effort.embedded, side=IMAGE_SIDE, channels=training.config.encoder.channels),
        normalization=training.normalization,
        compute=training.compute,
    )
    return rate(
        work,
        effort.embedded,
        device=training.compute.device,
        repeats=min(3, effort.repeats),
        at_least=effort.seconds / 2,
    )
