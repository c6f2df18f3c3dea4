"""What many GPUs would gain, on paper: nothing here is measured on more than one.

    python bench/scale_model.py

A step of N processes takes its share of one GPU's time, or what it takes to launch its kernels if
that is longer; then the sum of all gradients, in one piece, and two small sums for each BN layer,
which cost their latency. Network and parameters are counted from the presets. Prints Markdown.
"""

from __future__ import annotations

import argparse
import itertools
from typing import NamedTuple

from stopgrad.config import Config, preset
from stopgrad.method import build_simsiam, training_flops


class Cluster(NamedTuple):
    """A fabric of GPUs; the defaults are H200s in machines of eight, joined by 400 Gb/s each."""

    flops: float = 254e12  # FLOP/s of a GPU: 75,771 views/s of `cifar` (results/2026-11-26-gpu)
    launch: float = 2e-3  # s, least step of some 400 recorded kernels
    inside: float = 450e9  # B/s, each way between the GPUs of a machine (vendor's number)
    between: float = 50e9  # B/s, each way out of a machine for each of its GPUs (vendor's number)
    small_inside: float = 20e-6  # s, a sum of a few kilobytes in a machine (assumed)
    small_between: float = 50e-6  # s, the same over eight machines (assumed)
    in_machine: int = 8


class Step(NamedTuple):
    """The seconds of one step."""

    compute: float
    gradients: float
    batch_norm: float

    @property
    def total(self) -> float:
        """All one after the other, as it is done."""
        return sum(self)


def step(config: Config, count: int, cluster: Cluster) -> Step:
    """One step of `count` processes."""
    model = build_simsiam(config)
    compute = 2 * config.batch * training_flops(config) / cluster.flops / count
    if count == 1:
        return Step(compute, 0.0, 0.0)
    size = 4 * sum(p.numel() for p in model.parameters())
    layers = sum("BatchNorm" in type(layer).__name__ for layer in model.modules())
    inside = min(count, cluster.in_machine)
    machines = count // inside
    # Reduced in each machine, over machines by each GPU an eighth, then spread in each machine.
    gradients = 2 * size * (1 - 1 / inside) / cluster.inside
    gradients += 2 * size / inside * (1 - 1 / machines) / cluster.between
    latency = cluster.small_inside if machines == 1 else cluster.small_between
    return Step(max(compute, cluster.launch), gradients, 2 * layers * latency)


def main() -> None:
    """Prints a table for CIFAR-10 and ImageNet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--launch", type=float, default=Cluster().launch, metavar="SECONDS")
    options = parser.parse_args()
    counts, cluster = options.counts, Cluster(launch=options.launch)
    print("| preset, batch | GPUs | compute, ms | gradients | BN | step | speed-up | efficiency |")
    print("|---|---|---|---|---|---|---|---|")
    settings = [("cifar", 512), ("cifar", 4096), ("imagenet", 512), ("imagenet", 4096)]
    for (name, batch), count in itertools.product(settings, counts):
        config = preset(name, batch=batch)
        found, alone = step(config, count, cluster), step(config, 1, Cluster())
        gain = alone.total / found.total
        numbers = " | ".join(f"{1e3 * seconds:.2f}" for seconds in [*found, found.total])
        print(f"| {name}, {batch} | {count} | {numbers} | {gain:.1f} | {gain / count:.0%} |")


if __name__ == "__main__":
    main()
