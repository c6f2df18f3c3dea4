"""Runs without any training, trainings that die, and all that a training carries on, as text."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stopgrad.config import Config, preset
from stopgrad.images import Dataset, Images, images_from_arrays
from stopgrad.method import build_simsiam
from stopgrad.runs import Checkpoint, RunWriter, TrainedRun, load_checkpoint, load_run, read_metrics
from stopgrad.training import LabelledEpoch, draw_fraction
from stopgrad.training.fractions import describe_fraction, open_fraction
from stopgrad.training.recipe import LabelledImages
from tests.factories import digits as digits
from tests.runs.factories import info, rows


def encoder_run(path: Path, *, step: int = 3, data: Any = None, **knobs: Any) -> TrainedRun:
    """A run of the tiny preset at a step, with initial weights and BN statistics at random."""
    run = info(preset("tiny", **knobs), **(data or {}))
    model = build_simsiam(run.config)
    generator = torch.Generator().manual_seed(run.config.seed)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.copy_(0.1 * torch.randn(layer.num_features, generator=generator))
            layer.running_var.copy_(0.5 + torch.rand(layer.num_features, generator=generator))
            layer.weight.data.copy_(0.5 + torch.rand(layer.num_features, generator=generator))
    momentum = {
        f"{index}.momentum_buffer": torch.zeros_like(parameter)
        for index, parameter in enumerate(model.parameters())
    }
    state = {"step": step, "losses": [0.1] * (step % run.steps_per_epoch)}
    with RunWriter.create(path, run) as writer:
        writer.begin()
        writer.append(rows(writer.info, 0, step))
        writer.save(Checkpoint(step, dict(model.state_dict()), momentum, state))
        writer.set_status("running", step=step, epoch=step // run.steps_per_epoch)
    return load_run(path)


class KilledError(Exception):
    """Stands for a process that dies between two steps."""


def dying_after(steps: int) -> Any:
    """Progress through an epoch that ends in `KilledError` after so many steps in all."""
    left = itertools.count(steps, -1)

    def track(items: Iterable[Any], description: str, total: int, /) -> Iterator[Any]:
        for item in items:
            if next(left) == 0:
                raise KilledError
            yield item

    return track


def end_state(run: Path) -> str:
    """sha256 over everything that training carries on, at the newest checkpoint."""
    checkpoint = load_checkpoint(run)
    digest = hashlib.sha256(json.dumps([checkpoint.step, checkpoint.state]).encode())
    for tensors in (checkpoint.model, checkpoint.optimizer):
        for key, value in sorted(tensors.items()):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def step_losses(run: Path) -> list[tuple[int, str]]:
    """Number and loss, to the last bit, of every step."""
    rows = [row for row in read_metrics(run) if row["kind"] == "step"]
    return [(row["step"], float(row["loss"]).hex()) for row in rows]


def assert_same_end(one: Path, other: Path) -> None:
    """Two runs took the same steps and carry on the same bits."""
    assert end_state(one) == end_state(other)
    assert step_losses(one) == step_losses(other)


def weights_sha256(model: nn.Module) -> str:
    """sha256 over every parameter and buffer."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def poisoned(images: Images, spared: Images) -> Images:
    """The same images, those that are not spared replaced by noise."""
    known = {pixels.tobytes() for pixels in spared.pixels}
    chance = np.random.default_rng(0)
    pixels = images.pixels.copy()
    for number, image in enumerate(images.pixels):
        if image.tobytes() not in known:
            pixels[number] = chance.integers(0, 256, image.shape, dtype=np.uint8)
    return images_from_arrays(pixels, labels=images.labels, class_names=images.class_names)


def fraction_of(dataset: Dataset, fraction: float = 1.0, *, seed: int = 0) -> LabelledImages:
    """A fraction of the training labels of a data set."""
    return draw_fraction(dataset.train, dataset.test, fraction=fraction, seed=seed)


def opened(
    path: Path, dataset: Dataset, config: Config, *, images: LabelledImages, **how: Any
) -> RunWriter:
    """The run directory of a training with labels; `how` is for its card."""
    card = {"spec": "digits", "name": "digits", "fingerprint": dataset.train.fingerprint}
    how["data"] = card | how.get("data", {})
    return open_fraction(path, describe_fraction(images, config, **how))


def last(epochs: Iterable[LabelledEpoch]) -> LabelledEpoch:
    """The last epoch of a training."""
    return list(epochs)[-1]
