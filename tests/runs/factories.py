"""Runs that took no training: real config, shapes and files, random numbers."""

import json
from pathlib import Path
from typing import Any

import torch

from stopgrad.config import Config, preset
from stopgrad.images import Normalization
from stopgrad.runs import Checkpoint, RunInfo, RunWriter
from stopgrad.runs.tensors import tensors_of
from stopgrad.storage import write_json

STEPS = 8  # of an epoch


def info(config: Config | None = None, *, steps: int = STEPS, **data: Any) -> RunInfo:
    """A run of the tiny preset, with this many steps in an epoch."""
    config = config or preset("tiny")
    known = {"spec": "mnist5k", "name": "mnist5k", "fingerprint": "f" * 64}
    channels = config.encoder.channels
    mean = tuple(round(0.1 * (channel + 1), 1) for channel in range(channels))
    normalization = Normalization(mean, (1.0,) * channels)
    images = {"images": steps * config.batch}
    return RunInfo(config, known | images | data, normalization, {"threads": 1})


def checkpoint(step: int, run: RunInfo | None = None, **changes: Any) -> Checkpoint:
    """The checkpoint of a step, in which every number depends on the step."""
    run = run or info()
    generator = torch.Generator().manual_seed(step)
    wanted = tensors_of(run.config)
    model = {
        key: torch.randn(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.full(value.shape, step)
        for key, value in wanted.model.items()
    }
    momentum = {
        f"{index}.momentum_buffer": torch.randn(parameter.shape, generator=generator)
        for index, parameter in enumerate(wanted.parameters)
    }
    losses = [0.1, -1 / 3][: step % run.steps_per_epoch]
    state = {"step": step, "losses": losses}
    return Checkpoint(step, model, momentum, state, info=run)._replace(**changes)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints hold the same bits."""
    tensors = ((one.model, other.model), (one.optimizer, other.optimizer))
    return one.state == other.state and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in tensors
    )


def begin(path: Path, run: RunInfo | None = None) -> RunInfo:
    """A run directory without a checkpoint; its info."""
    with RunWriter.create(path, run or info()) as writer:
        writer.begin()
    return writer.info


def train(path: Path, *steps: int, run: RunInfo | None = None) -> RunInfo:
    """A run with metrics up to the last of these steps and a checkpoint at each; its info."""
    with RunWriter.create(path, run or info()) as writer:
        writer.begin()
        go_on(writer, *steps)
    return writer.info


def go_on(writer: RunWriter, *steps: int, done: int = 0) -> None:
    """Takes steps after `done`: rows, a checkpoint at each of `steps`, the status."""
    for step in steps:
        writer.append(rows(writer.info, done, step))
        writer.save(checkpoint(step, writer.info))
        done = step
    last = done == writer.info.steps
    epoch = done // writer.info.steps_per_epoch
    writer.set_status("finished" if last else "running", step=done, epoch=epoch)


def resume(path: Path, now: RunInfo | None = None) -> RunInfo:
    """Goes on with a run and takes no step; its info."""
    with RunWriter.resume(path, now) as writer:
        writer.begin()
    return writer.info


def train_on(path: Path, *steps: int) -> Checkpoint:
    """Goes on with a run to these steps; the checkpoint that it went on from."""
    with RunWriter.resume(path) as writer:
        resumed = writer.begin()
        go_on(writer, *steps, done=resumed.step)
    return resumed


def rows(run: RunInfo, done: int, step: int) -> list[dict[str, Any]]:
    """The metrics of the steps after `done`, up to this one."""
    found: list[dict[str, Any]] = []
    for number in range(done + 1, step + 1):
        found.append({"kind": "step", "step": number, "loss": -0.5})
        if number % run.steps_per_epoch == 0:
            epoch = number // run.steps_per_epoch
            found.append({"kind": "epoch", "epoch": epoch, "step": number, "loss": -0.5})
    return found


def edit(path: Path, key: str, value: Any) -> None:
    """Changes one value of a JSON file by its key path, as a person with an editor would."""
    values = json.loads(path.read_text())
    *parents, leaf = key.split(".")
    level = values
    for parent in parents:
        level = level[parent]
    level[leaf] = value
    write_json(path, values)
