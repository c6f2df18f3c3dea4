"""One turn of one contestant, in a process of its own: settings as JSON in, one JSON line out."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from compare_peers import Turn
from compare_peers_commands import commands
from compare_peers_recipes import LightlyTraining, config_of, stopgrad_steps
from compare_peers_stable import stable_pretraining
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


def main() -> None:
    """Runs the turn and prints what came of it."""
    turn = Turn(**json.loads(sys.argv[1]))
    use_threads(turn.threads)
    images = load_dataset(turn.data).train
    device = compute_for(preset("cifar")).device
    match turn.contest:
        case "views":
            result = _views(turn, images)
        case "folder":
            result = commands(turn, images)
        case _:
            result = _training(turn, images, device)
    here = environment(device=str(device), threads=turn.threads)
    about: dict[str, Any] = {"device": here.device, "device_name": here.device_name}
    about |= {"images": len(images), "fingerprint": images.fingerprint}
    print(json.dumps({"peak_bytes": peak_bytes(device), **result, **about}))


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
    config, clock = config_of(turn.contest, batch=turn.batch), _Clock(device, turn.seconds)
    if turn.system == "stable-pretraining":
        stable_pretraining(images, config, workers=turn.workers, after_step=clock.is_done)
    else:
        if turn.system == "stopgrad":
            loop = stopgrad_steps(images, config)
        else:
            fast = turn.system == "lightly-bf16"
            loop = LightlyTraining(images, config, workers=turn.workers, fast=fast).steps()
        for _ in loop:
            if clock.is_done():
                break
    taken = {"steps": clock.steps, "seconds": clock.seconds}
    return {"views_per_s": 2 * turn.batch * clock.steps / clock.seconds, **taken}


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


class _Clock:
    """Asked after each step; lets a quarter of the time pass before it counts steps and seconds."""

    def __init__(self, device: torch.device, at_least: float) -> None:
        self.device, self.at_least = device, at_least
        self.steps, self.seconds, self._settling = 0, 0.0, True
        self._start()

    def is_done(self) -> bool:
        """Whether enough steps were timed."""
        self.steps += 1
        wanted = self.at_least / 4 if self._settling else self.at_least
        if self.steps < LEAST or time.perf_counter() - self._began < wanted:
            return False
        wait_for(self.device)
        self.seconds = time.perf_counter() - self._began
        if not self._settling:
            return True
        self._settling = False
        self._start()
        return False

    def _start(self) -> None:
        wait_for(self.device)
        self.steps, self._began = 0, time.perf_counter()


if __name__ == "__main__":
    main()
