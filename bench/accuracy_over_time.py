"""What stopgrad and lightly learn in the same time on the same machine, in turn.

    python bench/accuracy_over_time.py --data CIFAR10 --out OUT --minutes 2 5 10

For each time: `stopgrad pretrain --preset cpu`, whose 20 epochs take about ten minutes, with epochs
in proportion and weight decay in inverse proportion, so that N stays; then, for exactly as long as
that command took from start to end, lightly's own loop with its documented CIFAR-10 recipe
(ResNet-18, batch 512, SGD at 0.06, fp32; its cosine follows the clock), and once more with the
network, views and batch of our preset, but its own optimiser (`lightly-cpu`). Imports and reading
the data count. Not timed: the score of all by our kNN (K = 200; bf16 where the processor has it),
all training images as the bank, on the test images.

Each turn becomes a line of OUT/curve.jsonl as it ends; a second call takes what is missing. All of
them make OUT/curve.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from compare_peers import about
from compare_peers_recipes import LightlyTraining
from torch import nn

import stopgrad
from stopgrad.config import Config, preset
from stopgrad.evaluation import embed, weighted_knn
from stopgrad.images import Normalization, load_dataset
from stopgrad.method import compute_for, use_threads
from stopgrad.storage import append_lines

STOPGRAD = (sys.executable, "-m", "stopgrad")
NAMES = {
    "stopgrad": "stopgrad, preset cpu",
    "lightly": "lightly, its recipe",
    "lightly-cpu": "lightly, network and views of that preset",
}
SYSTEMS = tuple(NAMES)
PRESET_MINUTES = 10  # that the epochs of the preset take
PASSED = ("data", "out", "threads", "workers")  # to the process of a turn


def main(arguments: Sequence[str] | None = None) -> None:
    """Takes the turns that are missing, and prints all of them."""
    options = _options(arguments)
    if options.turn:
        print(json.dumps(lightly_turn(options)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "curve.jsonl"
    if not file.exists():
        append_lines(file, [about(options)])
    for minutes in options.minutes:
        for system in options.systems:
            done = {(line["minutes"], line["system"]): line for line in _turns(file)}
            if (minutes, system) not in done:
                ours = done.get((minutes, "stopgrad"))
                seconds = ours["seconds"] if ours else 60 * minutes
                line = {"kind": "turn", "minutes": minutes, "system": system}
                found = _take(options, system, minutes=minutes, seconds=seconds)
                append_lines(file, [line | found])
    for line in _turns(file):
        score = f"kNN {100 * line['knn_accuracy']:.2f} %"
        print(f"{line['minutes']:>5g} min  {line['system']:12s} {score}  {line['seconds']:.0f} s")
    (options.out / "curve.svg").write_text(_figure([*_turns(file)]))


def lightly_turn(options: argparse.Namespace) -> dict[str, Any]:
    """Trains lightly's loop until a time of the clock, then scores its encoder."""
    config, ends = lightly_config(options.turn), options.began + options.seconds
    use_threads(options.threads)
    dataset = load_dataset(options.data)
    training = LightlyTraining(dataset.train, config, workers=options.workers)
    [group] = training.optimizer.param_groups
    highest, steps = group["lr"], 0
    for _ in training.steps():
        steps, now = steps + 1, time.time()
        if now >= ends:
            break
        gone = (now - options.began) / options.seconds
        group["lr"] = highest * (1 + math.cos(math.pi * gone)) / 2
    seconds = time.time() - options.began
    encoder, compute = nn.Sequential(training.model.backbone, nn.Flatten()), compute_for(config)
    encoder.to(memory_format=torch.channels_last)
    assert dataset.test is not None
    features = [
        embed(encoder, images, normalization=_imagenet(), compute=compute)
        for images in (dataset.train, dataset.test)
    ]
    score = weighted_knn(*features, config.knn)
    views = 2 * config.batch * steps
    return {"seconds": seconds, "views": views, "knn_accuracy": score.accuracy}


def lightly_config(system: str) -> Config:
    """Network, views, heads and batch that lightly is given."""
    if system == "lightly-cpu":
        return preset("cpu")
    return preset("cifar", batch=512, **{"projector.hidden": 2048})


def knobs(minutes: float) -> dict[str, Any]:
    """Those of the preset `cpu` for another time, at the same N."""
    config, times = preset("cpu"), minutes / PRESET_MINUTES
    decay = config.optimizer.weight_decay / times
    return {"epochs": round(config.epochs * times), "optimizer.weight_decay": round(decay, 7)}


def _take(
    options: argparse.Namespace, system: str, *, minutes: float, seconds: float
) -> dict[str, Any]:
    """One turn in a process of its own."""
    began = time.time()
    if system != "stopgrad":
        words = [f"--{key}={value}" for key, value in vars(options).items() if key in PASSED]
        words += ["--turn", system, "--seconds", str(seconds), "--began", str(began)]
        command = [sys.executable, __file__, *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))
    run, changes = options.out / f"run-{minutes:g}", knobs(minutes)
    flags = [f"--{key}={value}" for key, value in changes.items()]
    command = [*STOPGRAD, "pretrain", "--data", options.data, "--preset", "cpu", "--out", str(run)]
    subprocess.run([*command, "--threads", str(options.threads), *flags], check=True)
    took = time.time() - began
    found = stopgrad.Run(str(run)).evaluate(of="encoder", metrics="knn_accuracy")
    [score] = [row for row in found.rows if row["metric"] == "knn_accuracy"]
    images = len(load_dataset(options.data).train)
    batch = preset("cpu").batch
    views = 2 * batch * (images // batch) * changes["epochs"]
    return {"seconds": took, "views": views, "knn_accuracy": score["value"]} | changes


def _turns(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "turn":
            yield row


def _imagenet() -> Normalization:
    """What lightly's views are normalised by."""
    from lightly.transforms.utils import IMAGENET_NORMALIZE

    return Normalization(tuple(IMAGENET_NORMALIZE["mean"]), tuple(IMAGENET_NORMALIZE["std"]))


def _figure(turns: Sequence[dict[str, Any]]) -> str:
    """kNN accuracy against minutes, a line for each system."""
    import vl_convert

    values = [
        {"minutes": turn["seconds"] / 60, "kNN": 100 * turn["knn_accuracy"]}
        | {"system": NAMES[turn["system"]]}
        for turn in turns
    ]
    minutes = sorted({turn["minutes"] for turn in turns})
    x = {"field": "minutes", "type": "quantitative", "title": "minutes from start to end"}
    y = {"field": "kNN", "type": "quantitative", "title": "kNN accuracy, %"}
    color = {"field": "system", "type": "nominal", "title": None, "sort": [*NAMES.values()]}
    chart = {
        "data": {"values": values},
        "mark": {"type": "line", "point": True, "strokeWidth": 2},
        "encoding": {
            "x": x
            | {
                "scale": {"type": "log", "nice": False, "padding": 20},
                "axis": {"values": [*minutes]},
            },
            "y": y | {"scale": {"zero": False}},
            "color": color | {"legend": {"labelLimit": 300, "orient": "top", "columns": 1}},
        },
        "width": 420,
        "height": 260,
        "background": "white",
    }
    return vl_convert.vegalite_to_svg(json.dumps(chart))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="CIFAR-10: a folder of Parquet files")
    parser.add_argument("--out", type=Path, required=True, help="folder, which keeps our runs too")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--workers", type=int, default=cores, help="of lightly's loader")
    parser.add_argument("--turn", choices=SYSTEMS[1:], help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
