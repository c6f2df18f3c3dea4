"""Training over N processes on this machine: views per second, and time in collectives.

    python bench/processes.py --counts 1 2 --preset cpu
    python bench/processes.py --counts 1 8 --preset cifar --data cifar10 --device cuda
    python bench/processes.py --counts 1 2 --preset cifar --data cifar10 --device cuda:0  # one card

Each count trains the same batch from the same state for some seconds, in turn and several times;
the median counts. Two processes on the cores that one already used cannot gain: the point is what
the exchange costs. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from stopgrad.config import Config, preset
from stopgrad.images import load_dataset
from stopgrad.method import Processes, joined, use_threads
from stopgrad.runs import environment, prepare
from stopgrad.training import start_training

WARM = 5  # steps before the clock starts


def main() -> None:
    """Measures every count, or, as one of several processes, its own steps."""
    options = _options()
    if os.environ.get("WORLD_SIZE") or options.alone:
        _measure(options)
        return
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in options.counts}
    for _ in range(options.rounds):
        for count in options.counts:
            found[count].append(_in_processes(count, options))
    rows = [_summary(count, of) for count, of in found.items()]
    base = rows[0]["views_per_s"]
    about = environment(device=options.device, threads=options.threads)._asdict()
    for row in rows:
        row["of_the_first"] = row["views_per_s"] / base
    print(json.dumps({"preset": options.preset, "rows": rows, **about}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=0, help="0: that of the preset")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--fast", action="store_true", help="not repeatable: GPUs replay steps")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_processes(count: int, options: argparse.Namespace) -> dict[str, Any]:
    """The steps of so many processes; what the first one has measured."""
    words = ["--preset", options.preset, "--data", options.data, "--batch", str(options.batch)]
    words += ["--steps", str(options.steps), "--threads", str(options.threads)]
    words += ["--device", options.device, *["--fast"] * options.fast]
    start = [sys.executable, __file__, "--alone"]
    if count > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        start = [sys.executable, *torchrun, __file__]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run([*start, *words], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{count} processes ended with {done.returncode}: {done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(options: argparse.Namespace) -> None:
    use_threads(options.threads)
    changes = {"batch": options.batch} if options.batch else {}
    changes |= {"device": options.device, "repeatable": not options.fast}
    config = preset(options.preset, **changes)
    images = prepare(load_dataset(options.data, side=config.image_side), config)
    with joined(config) as processes:
        training = start_training(
            images.train, config, normalization=images.normalization, processes=processes
        )
        clock = Clock(processes)
        for number, indices in enumerate(_batches(training)):
            if number == WARM:
                clock.start()
            if number == WARM + options.steps:
                break
            training.advance(indices)
            training.read_losses()
        if processes is None or processes.is_first:
            print(json.dumps(clock.read(config, steps=options.steps)))


def _batches(training: Any) -> Any:
    every = [*training.batches()]  # of one epoch, over and over
    while True:
        yield from every


class Clock:
    """Time of the steps, and how much of it went by in sums over the processes."""

    def __init__(self, processes: Processes | None) -> None:
        self.collective_s, self.began, self.sums = 0.0, 0.0, 0
        if processes is None:
            return
        add_up = processes.sum

        def timed(values: torch.Tensor) -> None:
            began = time.perf_counter()
            add_up(values)
            self.collective_s += time.perf_counter() - began
            self.sums += 1

        processes.sum = timed  # type: ignore[method-assign]

    def start(self) -> None:
        """From now on."""
        self.collective_s, self.sums, self.began = 0.0, 0, time.perf_counter()

    def read(self, config: Config, *, steps: int) -> dict[str, Any]:
        """Views per second of all processes, and milliseconds of a step."""
        taken = time.perf_counter() - self.began
        return {
            "views_per_s": 2 * config.batch * steps / taken,
            "step_ms": 1000 * taken / steps,
            "collective_ms": 1000 * self.collective_s / steps,
            "sums_per_step": self.sums / steps,
        }


def _summary(count: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    medians = {key: statistics.median(row[key] for row in found) for key in found[0]}
    return {"processes": count, **medians, "rounds": [row["views_per_s"] for row in found]}


if __name__ == "__main__":
    main()
