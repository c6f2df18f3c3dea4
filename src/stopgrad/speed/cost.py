"""What a run will cost on this machine: a few real steps on its images -> time and memory.

A whole batch may be too slow or too large to try. So the steps take 2, 8, 32, ... images, until the
batch or the time limit is reached. Time and memory of a step are linear in the number of images, so
the line through the last two sizes predicts those of the batch. Embedding (for kNN and the measures
of collapse) is measured in the same way.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stopgrad.config import Config
from stopgrad.errors import ConfigError
from stopgrad.evaluation import CHUNK_VALUES, CLEAN, MEASURED, embed, images_at_a_time
from stopgrad.runs import TrainingImages
from stopgrad.speed.stopwatch import peak_bytes, per_call
from stopgrad.training import MOMENTS, Pretraining, start_training

FIRST = 2  # images in the first step; BN needs two
GROWTH = 4
TIMED = 5  # repeats of a size, fewer if they take more than PATIENCE together
PATIENCE = 1.0  # s
STEP_BUDGET, EMBED_BUDGET = 10.0, 3.0  # s; a larger size is tried only if it fits
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CGROUPS = (  # version 2 and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class Sample(NamedTuple):
    """The time and memory of handling a number of images at once."""

    images: int
    seconds: float
    host_bytes: int  # peak of the process
    device_bytes: int  # peak on the GPU, 0 without one


class Cost(NamedTuple):
    """The time and memory that a run will need."""

    seconds: float  # of all epochs, without decoding
    step_seconds: float
    steps: int
    host_bytes: int  # of the process, images included
    device_bytes: int  # of the GPU, 0 without one
    host_limit: int  # bytes of this machine
    device_limit: int  # bytes of the GPU
    device: str
    how: str  # how it was measured

    @property
    def fits(self) -> bool:
        """Whether there is enough memory."""
        return self.host_bytes <= self.host_limit and self.device_bytes <= self.device_limit


def estimate_cost(images: TrainingImages, config: Config) -> Cost:
    """Takes a few steps on the images and predicts what the whole run will need.

    Takes about ten seconds, or three steps of two images if those take longer.

    Raises:
        ConfigError: When the device is missing or the encoder cannot be built.
    """
    # Compiling would take a minute for each size; the time without it is an upper bound.
    plain = dataclasses.replace(config, compile="off")
    training = start_training(images.train, plain, normalization=images.normalization)
    device = training.compute.device

    def step_of(images: int) -> None:
        training.take_step(training.views(torch.arange(images)))

    steps = _grow(step_of, most=config.batch, budget=STEP_BUDGET, on=device)
    most = min(images_at_a_time(images.train), len(images.train))
    embeds = _grow(lambda n: _embed(training, images, n), most=most, budget=EMBED_BUDGET, on=device)
    step, embedding = _at(steps, config.batch), _at(embeds, most)
    count = config.epochs * training.steps_per_epoch
    knn = _knn_bytes(training, images) if config.knn_every else 0
    on_gpu = device.type == "cuda"
    return Cost(
        seconds=count * step.seconds + _embedded(images, config) * embedding.seconds / most,
        step_seconds=step.seconds,
        steps=count,
        host_bytes=max(step.host_bytes, embedding.host_bytes) + knn * (not on_gpu),
        device_bytes=max(step.device_bytes, embedding.device_bytes) + knn * on_gpu,
        host_limit=memory_limit(),
        device_limit=torch.cuda.mem_get_info(device)[1] if on_gpu else 0,
        device=str(device),
        how=_describe(steps, config.batch),
    )


def _embed(training: Pretraining, images: TrainingImages, count: int) -> Tensor:  # (count, F)
    part = images.train.take(np.arange(count))
    return embed(
        training.model.encoder,
        part,
        normalization=training.normalization,
        compute=training.compute,
        batch=count,
    ).values


def _embedded(images: TrainingImages, config: Config) -> int:
    """How many images a run embeds, for the measures of collapse and for kNN."""
    views = 2 * min(MEASURED, len(images.train))
    measured = _turns(config.epochs, every=config.measure_every)
    total = (measured + min(MOMENTS, measured)) * views
    total += min(CLEAN, len(images.train)) * (config.measure_every > 0)
    if images.bank is not None and images.watch is not None:
        scored = len(images.bank) + len(images.watch)
        total += _turns(config.epochs, every=config.knn_every) * scored
    return total


def _turns(epochs: int, *, every: int) -> int:
    """How often something happens that is due every `every` epochs and after the last."""
    return -(-epochs // every) if every else 0


def _knn_bytes(training: Pretraining, images: TrainingImages) -> int:
    """The memory of kNN: features, the same normalised, and a chunk of similarities, fp32."""
    if images.bank is None or images.watch is None:
        return 0
    width = _embed(training, images, 1).shape[1]
    features = 2 * width * (len(images.bank) + len(images.watch))
    return 4 * (features + min(CHUNK_VALUES, len(images.bank) * len(images.watch)))


def _grow(
    work: Callable[[int], object], *, most: int, budget: float, on: torch.device
) -> list[Sample]:
    """Samples of growing size, until `most` images or the limit of time (s) or memory.

    The first has no images: the memory in use before any work.
    """
    began = time.perf_counter()
    _reset_peaks(on)
    samples = [Sample(0, 0.0, *_peaks(on))]
    images = min(FIRST, most)
    while True:
        try:
            samples.append(_sample(work, images, on=on))
        except torch.OutOfMemoryError as error:
            if len(samples) > 1:
                return samples
            raise ConfigError(
                f"not enough memory on {on} for a step of {FIRST} images",
                hint="free some memory, or choose a smaller network, smaller views or --device cpu",
            ) from error
        following = min(GROWTH * images, most)
        ahead = samples[-1].seconds * following / images  # once to warm up, then timed
        too_long = time.perf_counter() - began + ahead + max(ahead, PATIENCE) > budget
        if images == most or too_long or _at(samples, following).host_bytes > memory_limit() / 2:
            return samples
        images = following


def _sample(work: Callable[[int], object], images: int, *, on: torch.device) -> Sample:
    """The median of several repeats, after one to warm up."""
    _reset_peaks(on)
    per_call(lambda _: work(images), device=on)
    seconds: list[float] = []
    while not seconds or (len(seconds) < TIMED and sum(seconds) < PATIENCE):
        seconds.append(per_call(lambda _: work(images), device=on))
    return Sample(images, statistics.median(seconds), *_peaks(on))


def _at(samples: list[Sample], images: int) -> Sample:
    """A sample of this size, from the line through the last two."""
    before, last = samples[-2] if len(samples) > 1 else samples[-1], samples[-1]
    steps = (images - last.images) / max(1, last.images - before.images)
    return Sample(
        images,
        last.seconds + steps * max(0.0, last.seconds - before.seconds),
        *(
            round(now + steps * max(0, now - then))
            for now, then in zip(last[2:], before[2:], strict=True)
        ),
    )


def _describe(steps: list[Sample], batch: int) -> str:
    tried = steps[1:]
    sizes = ", ".join(str(sample.images) for sample in tried)
    times = ", ".join(f"{sample.seconds:.2g}" for sample in tried)
    how = f"extrapolated from the last two to a batch of {batch}"
    if tried and tried[-1].images == batch:
        how = "memory is the peak of the process"
    return f"steps of {sizes} of these images took {times} s; {how}"


def _reset_peaks(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # Memory that was freed but not returned would hide small work, which fits into it.
    with suppress(AttributeError, OSError, TypeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        PEAK_RESET.write_text("5")  # proc(5): resets VmHWM; Linux only


def _peaks(device: torch.device) -> tuple[int, int]:
    """Peak bytes of the process and on the GPU since they were last reset."""
    on_gpu = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
    with suppress(OSError):
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0]), on_gpu
    return peak_bytes(torch.device("cpu")), on_gpu


def memory_limit() -> int:
    """Bytes of memory that this process may use: of the machine, or of its control group."""
    limits = [sys.maxsize]
    with suppress(AttributeError):  # Windows does not say
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in CGROUPS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int(path.read_text()))
    return min(limits)
