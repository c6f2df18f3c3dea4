"""A run whose encoder takes one channel, from training to what is done with its encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import stopgrad
from stopgrad.errors import ConfigError
from stopgrad.export import PretrainedEncoder


@pytest.mark.input(
    "command",
    what="--encoder.channels 1 on gray images",
    happens="all commands work, but no export to torchvision",
)
def test_a_run_of_one_channel_is_trained_scored_embedded_and_exported(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    gray = chance.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    pixels, labels = np.repeat(gray, 3, axis=3), [*range(2)] * 32
    data = stopgrad.load(pixels, labels=labels, class_names=["a", "b"])
    knobs = {"views.size": 8, "epochs": 1, "batch": 16, "encoder.channels": 1}
    run = stopgrad.pretrain(data, out=tmp_path / "run", preset="tiny", **knobs)
    assert run.encoder.conv1.weight.shape[1] == 1
    assert len(run.evaluate(labels=1.0, data=data)) > 0
    features = run.embed(data)
    run.export("safetensors", tmp_path / "e.safetensors")
    run.export("onnx", tmp_path / "e.onnx")  # compared with our own before it takes its name
    with pytest.raises(ConfigError, match="1 channel"):
        run.export("torchvision", tmp_path / "t.safetensors")
    model = PretrainedEncoder.from_file(tmp_path / "e.safetensors")
    again = model.embed(torch.from_numpy(pixels))
    assert torch.allclose(again, torch.as_tensor(features), atol=1e-4)
    run.report(tmp_path / "report.html", data=data)
