"""Measures of healthy and of collapsing runs over seeds, to choose the thresholds of the verdict.

    PYTHONPATH=src python bench/collapse_thresholds.py --cifar10 CIFAR10 --out OUT --seeds 100 101

Each run of a setting (preset, data, epochs) and an arm (one change to it) is a line of
OUT/runs.jsonl with the measures before the first step and after each epoch, the loss, and kNN at
the end. A run that is there is not repeated. `--settings tiny/mnist5k` chooses.
The thresholds were chosen on these seeds; R8 (python -m tests.promises) checks them on others.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from stopgrad.config import Config, config_to_dict, preset
from stopgrad.images import Dataset, load_dataset, normalization
from stopgrad.method import Layers, covariance_spectrum, judge, measure
from stopgrad.runs import code_version, prepare
from stopgrad.storage import append_lines, read_lines
from stopgrad.training import Pretraining, start_training
from stopgrad.training.watch import watched_knn, watched_outputs

HEAD = 16  # of the largest eigenvalues, those that are kept
PRECISION = "fp32"  # bf16 takes three times as long on a CPU without AVX-512


class Setting(NamedTuple):
    """What is trained, but for the arm."""

    preset: Any
    data: str
    epochs: int


SETTINGS = (
    Setting("tiny", "mnist5k", 4),
    Setting("tiny", "cifar10", 4),
    Setting("digits", "mnist5k", 4),
    Setting("digits", "cifar10", 4),
    Setting("cpu", "cifar10", 3),
    Setting("cpu", "mnist5k", 4),
)
ARMS: dict[str, dict[str, Any]] = {
    "healthy": {},
    "no stop-gradient": {"stop_gradient": False},
    "no predictor": {"predictor.enabled": False},
    "weight decay 0.05": {"optimizer.weight_decay": 0.05},
}


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cifar10", required=True, help="folder of Parquet files")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--images", type=int, default=2000, help="to train on, at most")
    parser.add_argument("--settings", nargs="*", help="such as tiny/mnist5k. Default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "runs.jsonl"
    done = (
        read_lines(path, _key, what="a run", hint="remove the file").rows if path.exists() else ()
    )
    wanted = [s for s in SETTINGS if not options.settings or f"{s[0]}/{s[1]}" in options.settings]
    for seed in options.seeds:
        for setting in wanted:
            for arm in ARMS:
                if (*setting, arm, seed, options.images) not in done:
                    append_lines(path, [_run(setting, arm, seed, options)])


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("preset", "data", "length", "arm", "seed", "images"))


def _run(setting: Setting, arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    config = preset(
        setting.preset, epochs=setting.epochs, seed=seed, precision=PRECISION, **ARMS[arm]
    )
    dataset = _data(setting.data, config, options)
    images = prepare(dataset, config)
    training = start_training(images.train, config, normalization=normalization(images.train))
    rows = list(_train(training))
    knn = watched_knn(training, images)
    last = rows[-1]
    print(f"{setting} {arm}, seed {seed}: kNN {knn:.3f}, {last['verdict']}", flush=True)
    return {
        "preset": setting.preset,
        "data": setting.data,
        "length": setting.epochs,
        "arm": arm,
        "seed": seed,
        "images": len(images.train),
        "knn": knn,
        "epochs": rows,
        "config": config_to_dict(config),
        "code": code_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
    }


def _data(name: str, config: Config, options: argparse.Namespace) -> Dataset:
    dataset = load_dataset(options.cifar10 if name == "cifar10" else name, side=config.image_side)
    assert dataset.test is not None
    fewer = np.arange(min(len(dataset.train), options.images))
    test = np.arange(min(len(dataset.test), 1000))
    return dataset._replace(train=dataset.train.take(fewer), test=dataset.test.take(test))


def _train(training: Pretraining) -> Iterator[dict[str, Any]]:
    """Measures before the first step and after each epoch."""
    yield _measured(training, loss=None)
    while training.epoch < training.config.epochs:
        for batch in training.batches():
            training.take_step(training.views(batch))
        losses = training.read_losses()
        training.epoch, training.losses = training.epoch + 1, []
        yield _measured(training, loss=sum(losses) / len(losses))


def _measured(training: Pretraining, *, loss: float | None) -> dict[str, Any]:
    outputs = watched_outputs(training)
    layers = Layers(*[measure(z[0], z[1]) for z in outputs])
    verdict = judge(layers, steps=training.step, images=outputs[0].shape[1])
    return {
        "epoch": training.epoch,
        "step": training.step,
        "loss": loss,
        "measures": {name: layer._asdict() for name, layer in layers._asdict().items()},
        "spectra": {name: _head(z) for name, z in zip(Layers._fields, outputs, strict=True)},
        "verdict": verdict.state,
    }


def _head(z: torch.Tensor) -> dict[str, list[float]]:  # (2, N, D)
    """Fractions of the variance of one view, and of what both views have in common."""
    total = covariance_spectrum(z[0])
    first, second = (view.double() - view.double().mean(dim=0) for view in z)
    shared = first.T @ second / (len(first) - 1)
    common = torch.linalg.eigvalsh((shared + shared.T) / 2)
    largest = [
        spectrum.flip(0)[:HEAD] / total.sum().clamp_min(1e-300) for spectrum in (total, common)
    ]
    return {"total": largest[0].tolist(), "common": largest[1].tolist()}


if __name__ == "__main__":
    main()
