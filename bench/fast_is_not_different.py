"""The fast path against a plain one: the same kNN accuracy over seeds, on real CIFAR-10.

    python bench/fast_is_not_different.py --data CIFAR10 --out results/YYYY-MM-DD-fast-and-plain

Arms, all with the `cpu` preset made shorter (fewer images and epochs):
fast: as `stopgrad pretrain` does it, both views in one pass, bf16, channels_last, batched views;
joint: the same with BN statistics of both views together;
plain: fp32, default memory format, an unfused SGD, the views image by image with torchvision's
transforms, one pass of the network after the other.

Each (arm, seed) appends one line to OUT/runs.jsonl and is skipped when it is there. At the end the
means and the sample standard deviations are printed and written to OUT/summary.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from stopgrad.config import Config, ViewsConfig, config_to_dict, preset
from stopgrad.images import Dataset, Normalization, load_dataset, normalization
from stopgrad.method import SGD, Views, parameter_groups, simsiam_loss
from stopgrad.method.simsiam import Outputs, widened
from stopgrad.runs import prepare
from stopgrad.storage import append_lines, read_lines
from stopgrad.training import Pretraining, start_training
from stopgrad.training.watch import watched_knn

ARMS = ("fast", "joint", "plain")


def main() -> None:
    """Runs what is missing, then summarises."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "runs.jsonl"
    dataset = load_dataset(options.data, side=32)
    shorter = dataset._replace(train=dataset.train.take(np.arange(options.images)))
    done = read_lines(path, dict, what="a run", hint="remove it").rows if path.exists() else []
    for seed in range(options.seeds):
        for arm in ARMS:
            if any((line["arm"], line["seed"]) == (arm, seed) for line in done):
                continue
            done.append(run(shorter, arm, seed=seed, epochs=options.epochs))
            append_lines(path, done[-1:])
            print(arm, seed, f"kNN {done[-1]['knn']:.2%}, {done[-1]['wall_s']:.0f} s", flush=True)
    summary = {arm: _summary([line for line in done if line["arm"] == arm]) for arm in ARMS}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


def run(dataset: Dataset, arm: str, *, seed: int, epochs: int) -> dict[str, Any]:
    """Trains one arm with one seed and scores it on all test images."""
    config = config_of(arm, seed=seed, epochs=epochs)
    began = time.perf_counter()
    training = start_training(dataset.train, config, normalization=normalization(dataset.train))
    if arm == "plain":
        make_plain(training)
    losses: list[float] = []
    while training.epoch < epochs:
        for batch in training.batches():
            training.take_step(training.views(batch))
        losses = training.read_losses()
        training.epoch += 1
    wall = time.perf_counter() - began
    return {
        "arm": arm,
        "seed": seed,
        "knn": watched_knn(training, prepare(dataset, config)),
        "loss": statistics.fmean(losses),
        "wall_s": wall,
        "images": len(dataset.train),
        "images_scored": len(dataset.test or ()),
        "fingerprint": dataset.train.fingerprint,
        "config": config_to_dict(config),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def config_of(arm: str, *, seed: int, epochs: int) -> Config:
    """The `cpu` preset, shorter, as an arm wants it."""
    changes: dict[str, Any] = {"seed": seed, "epochs": epochs, "device": "cpu"}
    if arm == "joint":
        changes["batch_norm"] = "joint"
    if arm == "plain":
        # "joint" leaves the BN layers as PyTorch has them; `in_turn` passes one view at a time.
        changes |= {"precision": "fp32", "channels_last": False, "batch_norm": "joint"}
    return preset("cpu", **changes)


def make_plain(training: Pretraining) -> None:
    """Puts slow and simple parts in the place of ours."""
    config, model = training.config, training.model
    transform = image_transform(config.views, training.normalization)

    def in_turn(views: Views) -> Tensor:
        z1, z2 = (model.projector(widened(model.encoder(x))) for x in views)
        outputs = Outputs(model.predictor(z1), model.predictor(z2), z1, z2)
        return simsiam_loss(outputs, stop_gradient=config.stop_gradient)

    def image_by_image(pixels: Tensor, table: Tensor, **_: Any) -> Views:
        with torch.random.fork_rng():
            torch.manual_seed(int(table[0, 0] * 2**24))  # a new one for each step
            made = [torch.stack([transform(image) for image in pixels]) for _ in range(2)]
        return Views(*made)

    training.forward, training.make_views = in_turn, image_by_image
    groups = list(parameter_groups(model, config.optimizer))
    training.optimizer = SGD(groups, momentum=config.optimizer.momentum, fused=False)


def image_transform(config: ViewsConfig, mean_std: Normalization) -> v2.Compose:
    """The paper's augmentations of one image (3, H, W) uint8 by torchvision."""
    jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
    return v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomResizedCrop(
                config.size, scale=(config.crop_min, config.crop_max), antialias=True
            ),
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomApply([jitter], p=config.jitter),
            v2.RandomGrayscale(config.grayscale),
            v2.Normalize(*mean_std),
        ]
    )


def _summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation (n - 1) over the seeds."""
    accuracies = [line["knn"] for line in lines]
    return {
        "n": len(lines),
        "knn_mean": statistics.fmean(accuracies),
        "knn_std": statistics.stdev(accuracies) if len(lines) > 1 else None,
        "loss_mean": statistics.fmean(line["loss"] for line in lines),
        "wall_s": [line["wall_s"] for line in lines],
    }


if __name__ == "__main__":
    main()
