"""A run with random weights on real digits, explored: no training, so that tests stay short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from stopgrad.config import config_to_dict, preset
from stopgrad.images import Dataset, Images, images_from_arrays
from stopgrad.method import build_simsiam, compute_for
from stopgrad.runs import RunInfo, TrainedRun, describe_run
from tests.factories import digits as digits

# In fp32, for the features below are computed without the house's precision.
CONFIG = preset("tiny", **{"knn.k": 20, "precision": "fp32"})


class Nearest(NamedTuple):
    """The 8 nearest of a bank by the slow way."""

    similarity: npt.NDArray[np.float64]  # (Q, 8)
    index: npt.NDArray[np.int64]  # (Q, 8)
    all: npt.NDArray[np.float64]  # (Q, N)


def without_labels(dataset: Dataset) -> Dataset:
    """The same pictures, of which nothing is known."""
    return Dataset("bare", images_from_arrays(dataset.train.pixels), None)


def untrained_run(dataset: Dataset) -> TrainedRun:
    """A run before its first step."""
    info = describe_run(dataset, CONFIG, spec="digits")
    model, compute = build_simsiam(CONFIG), compute_for(CONFIG)
    compute.place(model).eval()
    return TrainedRun(info, model, compute, 0, 0, (), Path("nowhere"))


def write_card(path: Path, info: RunInfo) -> Path:
    """The files of a run that a page needs."""
    path.mkdir()
    card = {"format": 1, "config": config_to_dict(info.config), "data": info.data}
    card |= {"normalization": {key: list(v) for key, v in info.normalization._asdict().items()}}
    (path / "config.json").write_text(json.dumps(card | {"environment": info.environment}))
    (path / "metrics.jsonl").write_text("")
    (path / "status.json").write_text(json.dumps({"state": "finished", "step": 0, "epoch": 0}))
    return path


def features(run: TrainedRun, images: Images) -> npt.NDArray[np.float64]:
    """(N, F) unit features, by the encoder alone: normalised here, by hand."""
    mean, std = (np.asarray(values, dtype=np.float32) for values in run.info.normalization)
    x = (images.pixels.astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
        values = run.model.encoder(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    unit: npt.NDArray[np.float64] = values.astype(np.float64)
    return unit / np.linalg.norm(unit, axis=1, keepdims=True)


def brute_force(run: TrainedRun, bank: Images, queries: Images) -> Nearest:
    """Neighbours by a full sort of all similarities in float64."""
    every = features(run, queries) @ features(run, bank).T
    index = np.argsort(-every, axis=1, kind="stable")[:, :8]
    return Nearest(np.take_along_axis(every, index, axis=1), index, every)
