"""One turn of one contestant, in a process of its own: settings as JSON in, one JSON line out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from compare_peers_recipes import config_of, lightly_steps, stopgrad_steps
from compare_peers_views import kornia_views, stopgrad_views, torchvision_views

from stopgrad.config import preset, torch_generator
from stopgrad.evaluation import Features, embed, weighted_knn
from stopgrad.images import Images, load_dataset, normalization
from stopgrad.method import compute_for, use_threads
from stopgrad.runs import environment
from stopgrad.speed.steps import take_steps
from stopgrad.speed.stopwatch import peak_bytes, wait_for
from stopgrad.training import start_training
from stopgrad.training.watch import measure_layers

LEAST = 3  # steps that are timed at least, and nearly as many before them


class Turn(NamedTuple):
    """What the parent asks for."""

    contest: str  # resnet18, cpu, views or memory
    system: str
    batch: int
    seconds: float  # timed at least
    threads: int
    workers: int
    data: str


def main() -> None:
    """Runs the turn and prints what came of it."""
    turn = Turn(**json.loads(sys.argv[1]))
    use_threads(turn.threads)
    images = load_dataset(turn.data).train
    device = compute_for(preset("cifar")).device
    result = _views(turn, images) if turn.contest == "views" else _training(turn, images, device)
    here = environment(device=str(device), threads=turn.threads)
    about: dict[str, Any] = {"device": here.device, "device_name": here.device_name}
    about |= {"images": len(images), "fingerprint": images.fingerprint}
    print(json.dumps({**result, "peak_bytes": peak_bytes(device), **about}))


def _views(turn: Turn, images: Images) -> dict[str, Any]:
    views = {
        "stopgrad": stopgrad_views,
        "torchvision": torchvision_views,
        "kornia": kornia_views,
    }[turn.system]
    return {"views_per_s": views(images, seconds=turn.seconds, threads=turn.threads)}


def _training(turn: Turn, images: Images, device: torch.device) -> dict[str, Any]:
    """Steps from a loop that has settled: kernels are chosen, the loader's queue is full or not."""
    if turn.contest == "memory" and turn.system == "stopgrad":
        return _whole_epoch(turn, images)
    config = config_of(turn.contest, batch=turn.batch)
    loop = {
        "stopgrad": partial(stopgrad_steps, images, config),
        "lightly": partial(lightly_steps, images, config, workers=turn.workers),
        "lightly-bf16": partial(lightly_steps, images, config, workers=turn.workers, fast=True),
    }[turn.system]()
    _run(loop, device, at_least=turn.seconds / 4)
    taken = _run(loop, device, at_least=turn.seconds)
    return {"views_per_s": 2 * turn.batch * taken.steps / taken.seconds, **taken._asdict()}


def _whole_epoch(turn: Turn, images: Images) -> dict[str, Any]:
    """A few steps, then all that an epoch of `stopgrad pretrain` ends with, at full size.

    kNN gets random features, because embedding 60,000 images takes minutes and a constant memory.
    """
    config = config_of("resnet18", batch=turn.batch)
    training = start_training(images, config, normalization=normalization(images))
    take_steps(training, LEAST)
    measure_layers(training)
    some = images.take(np.arange(min(1024, len(images))))
    embed(
        training.model.encoder,
        some,
        normalization=training.normalization,
        compute=training.compute,
    )
    bank, queries = (_random_features(count) for count in (len(images), len(images) // 5))
    weighted_knn(bank, queries, config.knn)
    return {"steps": LEAST}


def _random_features(count: int) -> Features:
    values = torch.randn(count, 512, generator=torch_generator(0, "features", count))
    return Features(values, torch.arange(count) % 10)


class Taken(NamedTuple):
    """Steps that were taken, in so many seconds."""

    steps: int
    seconds: float


def _run(loop: Iterator[None], device: torch.device, *, at_least: float) -> Taken:
    wait_for(device)
    taken, began = 0, time.perf_counter()
    while taken < LEAST or time.perf_counter() - began < at_least:
        next(loop)
        taken += 1
    wait_for(device)
    return Taken(taken, time.perf_counter() - began)


if __name__ == "__main__":
    main()
