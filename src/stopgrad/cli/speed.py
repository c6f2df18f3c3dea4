"""`stopgrad bench`: how fast this machine is, as tables or as one JSON object."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.table import Table

from stopgrad.cli.show import Screen
from stopgrad.errors import ConfigError
from stopgrad.evaluation import number, percent
from stopgrad.method import use_threads
from stopgrad.speed import FULL, QUICK, Phases, Speed, Spread, as_json, measure_speed


def bench(options: argparse.Namespace) -> None:
    """Measures everything on random pixels and prints it."""
    if options.threads < 0:
        raise ConfigError(
            f"--threads {options.threads}", expected="at least 0", hint="0 takes every core"
        )
    use_threads(options.threads)
    speed = measure_speed(
        QUICK if options.quick else FULL, device=options.device, say=Screen().line
    )
    if options.json:
        sys.stdout.write(json.dumps(as_json(speed), allow_nan=False) + "\n")
        return
    console = Console(highlight=False)
    console.print(steps_table(speed))
    console.print(parts_table(speed))
    console.print(finding(speed), soft_wrap=True)


def steps_table(speed: Speed) -> Table:
    """The training step: a row per number, a column per network."""
    table = Table(title="training step, data included", title_justify="left")
    table.add_column("median (lowest to highest)")
    for step in speed.steps:
        table.add_column(f"{step.encoder}\nbatch {step.batch}, {step.precision}", justify="right")
    table.add_row("views/s", *(written(step.views_per_s) for step in speed.steps))
    table.add_row("GFLOP/s", *(written(step.flops_per_s, unit=1e9) for step in speed.steps))
    shares = (written(step.share_of_matmul, unit=0.01) for step in speed.steps)
    table.add_row("% of the matrix rate before and after", *shares, end_section=True)
    for place, phase in enumerate(Phases._fields):
        parts = (percent(step.phases[place], images=1000) for step in speed.steps)
        table.add_row(f"{phase}, share of the step", *parts)
    return table


def parts_table(speed: Speed) -> Table:
    """The machine's limit, and everything that is measured alone."""
    table = Table(title="alone", title_justify="left")
    table.add_column("median (lowest to highest)")
    table.add_column("", justify="right")
    product = f"matrix product of {speed.matrix_side:,} x {speed.matrix_side:,}"
    table.add_row(f"{product}, bf16, GFLOP/s", written(speed.matrix.bf16, unit=1e9))
    table.add_row(f"{product}, fp32, GFLOP/s", written(speed.matrix.fp32, unit=1e9))
    table.add_row("views of 32 px, views/s", written(speed.views_per_s))
    for step in speed.steps:
        table.add_row(f"embedding by {step.encoder}, images/s", written(step.embed_images_per_s))
    _add_evaluators(table, speed)
    table.add_row("decoding PNG of 32 px, pictures/s", written(speed.decoding.png_per_s))
    table.add_row("decoding JPEG of 256 px, pictures/s", written(speed.decoding.jpeg_per_s))
    table.add_row("stopgrad --help, s", written(speed.start_up.help_s))
    table.add_row("import stopgrad.training, s", written(speed.start_up.import_s))
    table.add_row("peak memory, GB", number(speed.peak_bytes / 1e9))
    return table


def finding(speed: Speed) -> str:
    """What the tables say, in one sentence."""
    where = speed.environment
    steps = " and ".join(
        f"{step.encoder} with {percent(step.share_of_matmul.median, images=1000)}"
        for step in speed.steps
    )
    return (
        f"{where.device_name} ({where.device}, {where.threads} threads, torch "
        f"{where.versions['torch']}) trains {steps} of the rate of a matrix product."
    )


def written(found: Spread, *, unit: float = 1.0) -> str:
    """`97.2 (95.1 to 98.0)` in multiples of a unit."""
    middle, low, high = (number(value / unit) for value in found[:3])
    return f"{middle} ({low} to {high})"


def _add_evaluators(table: Table, speed: Speed) -> None:
    did = speed.evaluators
    size = f"{did.bank:,} x {did.width}"
    table.add_row(f"kNN of {did.queries:,} in {size}, s", written(did.knn_s))
    table.add_row(f"linear probe on {size}, {did.epochs} epochs, s", written(did.linear_s))
