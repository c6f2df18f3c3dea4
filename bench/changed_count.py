"""Accuracy of runs whose number of processes changes half way, beside runs that keep one.

    python bench/changed_count.py --data CIFAR10 --out OUT

Each seed is trained twice: by one process, and by two that are stopped in the middle (SIGTERM) and
go on as one. The rounding differs, so the bits do; the accuracy is to differ by no more than the
seeds do. Goes on where it was stopped. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import stopgrad

STOPGRAD = (sys.executable, "-m", "stopgrad")


def main() -> None:
    """Trains and scores what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    knn: dict[str, list[float]] = {"one": [], "two then one": []}
    for seed in range(options.seeds):
        for name, found in knn.items():
            run = options.out / f"{name.replace(' ', '-')}-{seed}"
            _train(run, options, seed=seed, devices=1 if name == "one" else 2)
            found.append(_knn(run))
    row = {
        name: {"mean": statistics.mean(of), "std": statistics.stdev(of), "seeds": of}
        for name, of in knn.items()
    }
    paired = [b - a for a, b in zip(*knn.values(), strict=True)]
    print(json.dumps({"epochs": options.epochs, "kNN": row, "differences": paired}))


def _train(run: Path, options: argparse.Namespace, *, seed: int, devices: int) -> None:
    if not (run / "config.json").exists():
        knobs = ["--preset", "cpu", "--epochs", str(options.epochs), "--seed", str(seed)]
        knobs += ["--threads", "1", "--knn_every", "0", "--device", "cpu"]
        words = [*STOPGRAD, "pretrain", "--data", options.data, "--out", str(run), *knobs]
        process = subprocess.Popen([*words, "--devices", str(devices)])
        while devices > 1 and process.poll() is None and not _half(run, options.epochs):
            time.sleep(0.1)
        if devices > 1:
            process.send_signal(signal.SIGTERM)
        process.wait()
    subprocess.run([*STOPGRAD, "resume", str(run)], check=True)


def _half(run: Path, epochs: int) -> bool:
    """Whether half of the steps are on disk; they are written at the ends of epochs."""
    rows = run / "metrics.jsonl"
    return rows.exists() and rows.read_bytes().count(b'"kind": "epoch"') * 2 >= epochs


def _knn(run: Path) -> float:
    scores = stopgrad.Run(str(run)).evaluate(of="encoder", metrics="knn_accuracy", missing=True)
    rows = [*scores.rows, *stopgrad.Run(str(run)).records]
    return next(float(row["value"]) for row in rows if row["metric"] == "knn_accuracy")


if __name__ == "__main__":
    main()
