"""The training step as a run takes it -> views/s, FLOP/s, its share of the matrix rate, phases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from typing import Any, NamedTuple

from torch import Tensor

from stopgrad.config import Config
from stopgrad.evaluation import embed
from stopgrad.images import normalization
from stopgrad.method import Arithmetic, Views, training_flops
from stopgrad.speed.matmul import MatrixProduct, MatrixRates
from stopgrad.speed.pixels import random_images
from stopgrad.speed.process import peak_bytes
from stopgrad.speed.stopwatch import Spread, per_call, spread, times, wait_for
from stopgrad.training import Training, start_training

PICTURE_SIDE = 32  # px, as CIFAR
UNREAD = 100  # losses that wait on a GPU before they are read, as in a run
WARM_UP = 2  # steps; the first ones choose and build kernels, and ask for memory


class Phases(NamedTuple):
    """The parts of a step, in seconds or as shares of their sum."""

    views: float  # from indices to two views
    forward: float  # layout, network and loss
    backward: float  # gradients, and whether they are finite
    optimizer: float  # new weights

    def shares(self) -> Phases:
        """The same as shares, which sum to 1."""
        return Phases(*(part / sum(self) for part in self))


class StepSpeed(NamedTuple):
    """How fast one network trains, with its batch and its views."""

    encoder: str
    batch: int
    precision: str
    flops_per_view: float  # forward and backward, heads included
    views_per_s: Spread
    flops_per_s: Spread
    share_of_matmul: Spread  # of the rate of a matrix product at the same precision
    phases: Phases  # shares
    embed_images_per_s: Spread  # forward in eval mode, 32 px
    peak_bytes: int  # of the process or the GPU so far


class Effort(NamedTuple):
    """How much is measured."""

    images: int  # pictures to train on
    embedded: int  # pictures that each repeat embeds
    repeats: int
    seconds: float  # of steps at least, in each repeat


class StepTimes(NamedTuple):
    """One repeat: steps between two timings of the matrix product."""

    seconds: float  # of a step
    phases: Phases  # s, of another step
    before: MatrixRates
    after: MatrixRates


def measure_steps(config: Config, matrix: MatrixProduct, effort: Effort) -> StepSpeed:
    """Trains on random pixels; each group of steps stands between two matrix products."""
    training = start_on_random_pixels(config, images=effort.images)
    take_steps(training, WARM_UP)
    repeats = list(_repeats(training, matrix, effort))
    arithmetic = training.compute.precision
    views_per_s = [2 * config.batch / repeat.seconds for repeat in repeats]
    flops_per_s = [training_flops(config) * rate for rate in views_per_s]
    limits = [_limit(repeat, arithmetic) for repeat in repeats]
    seconds = [repeat.phases for repeat in repeats]
    return StepSpeed(
        encoder=config.encoder.name,
        batch=config.batch,
        precision=arithmetic,
        flops_per_view=training_flops(config),
        views_per_s=spread(views_per_s),
        flops_per_s=spread(flops_per_s),
        share_of_matmul=spread([f / m for f, m in zip(flops_per_s, limits, strict=True)]),
        phases=Phases(*(sum(parts) for parts in zip(*seconds, strict=True))).shares(),
        embed_images_per_s=_embedding(training, effort),
        peak_bytes=peak_bytes(training.compute.device),
    )


def start_on_random_pixels(config: Config, *, images: int) -> Training:
    """A training at step 0 on so many random pictures."""
    pictures = random_images(images, side=PICTURE_SIDE)
    return start_training(pictures, config, normalization=normalization(pictures))


def endless_steps(
    training: Training, step: Callable[[Tensor], object] | None = None
) -> Iterator[None]:
    """Takes a step whenever it is asked for the next item, as a run does, epoch after epoch.

    Args:
        training: Goes on from where it stands.
        step: What is done with the indices of a batch. Default: what a run does.

    Raises:
        DivergedError: When a loss or a gradient was not finite.
    """
    step = step or training.advance
    unread = UNREAD if training.compute.device.type == "cuda" else 1
    while True:
        for batch in training.batches():
            step(batch)
            if len(training.unread) >= unread:
                training.read_losses()
            yield
        training.read_losses()
        training.epoch += 1


def take_steps(training: Training, count: int) -> None:
    """Takes so many steps, views included."""
    for _ in islice(endless_steps(training), count):
        pass


def step_phases(training: Training) -> Phases:
    """Takes one step and says how many seconds each of its parts took.

    It is the run's own step, launched kernel by kernel, with a look at the clock after each part.
    Each look waits for the device, so on a GPU the sum is more than a step without them.
    """
    marks: list[float] = []
    with _looking(training, marks):
        _look(marks, training)
        next(endless_steps(training, lambda batch: training.take_step(training.views(batch))))
        _look(marks, training)
    return Phases(*(end - start for start, end in pairwise(marks)))


@contextmanager
def _looking(training: Training, marks: list[float]) -> Iterator[None]:
    """Looks at the clock after the views, after the loss and before the optimiser's step."""
    make_views, forward = training.make_views, training.forward

    def watched_views(*inputs: Any, **settings: Any) -> Views:
        views = make_views(*inputs, **settings)
        _look(marks, training)
        return views

    def watched_forward(views: Views) -> Tensor:  # -> ()
        loss = forward(views)
        _look(marks, training)
        return loss

    hook = training.optimizer.register_step_pre_hook(lambda *_: _look(marks, training))
    training.make_views, training.forward = watched_views, watched_forward
    try:
        yield
    finally:
        training.make_views, training.forward = make_views, forward
        hook.remove()


def _look(marks: list[float], training: Training) -> None:
    wait_for(training.compute.device)
    marks.append(time.perf_counter())


def _repeats(training: Training, matrix: MatrixProduct, effort: Effort) -> Iterator[StepTimes]:
    before = matrix.rates()
    for _ in range(effort.repeats):
        seconds = per_call(
            lambda count: take_steps(training, count),
            device=training.compute.device,
            at_least=effort.seconds,
        )
        after = matrix.rates()
        yield StepTimes(seconds, step_phases(training), before, after)
        before = after


def _limit(repeat: StepTimes, arithmetic: Arithmetic) -> float:
    """The matrix rate of the moment, FLOP/s: the mean of both neighbours."""
    return (repeat.before.of(arithmetic) + repeat.after.of(arithmetic)) / 2


def _embedding(training: Training, effort: Effort) -> Spread:
    """Images per second that the encoder turns into features."""
    pictures = random_images(effort.embedded, side=PICTURE_SIDE)

    def work() -> None:
        embed(
            training.model.encoder,
            pictures,
            normalization=training.normalization,
            compute=training.compute,
        )

    device = training.compute.device
    per_call(times(work), device=device)
    seconds = [
        per_call(times(work), device=device, at_least=effort.seconds / 2)
        for _ in range(min(3, effort.repeats))
    ]
    return spread([effort.embedded / second for second in seconds])
