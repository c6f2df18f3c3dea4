"""Runs whose encoder gives finite features that are its own, without any training."""

from pathlib import Path
from typing import Any

import torch

from stopgrad.config import preset
from stopgrad.method import build_simsiam
from stopgrad.runs import Checkpoint, RunWriter, TrainedRun, load_run
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
