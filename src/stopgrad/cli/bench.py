"""`stopgrad bench`: how fast this machine is, as tables or as one JSON object."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import stopgrad
from stopgrad.cli.screen import print_json, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from stopgrad.speed import Speed, Spread

HELP = "measure how fast this machine is, on random pixels"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --json, --device, --threads and --quick."""
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N. Default: auto")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads. Default: one per core"
    )
    parser.add_argument(
        "--quick", action="store_true", help="whether it runs, in seconds; its numbers mean nothing"
    )


def run(options: argparse.Namespace) -> None:
    """Measures everything on random pixels and prints it."""
    from stopgrad.speed import as_json

    speed = stopgrad.bench(device=options.device, threads=options.threads, quick=options.quick)
    if options.json:
        print_json(as_json(speed))
    else:
        print_table(steps_table(speed), parts_table(speed), finding(speed))


def steps_table(speed: Speed) -> Table:
    """The training step: a row per number, a column per network."""
    from rich.table import Table

    from stopgrad.evaluation import percent
    from stopgrad.speed import Phases

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
    from rich.table import Table

    from stopgrad.evaluation import number

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
    table.add_row("decoding PNG of 32 px, images/s", written(speed.decoding.png_per_s))
    table.add_row("decoding JPEG of 256 px, images/s", written(speed.decoding.jpeg_per_s))
    table.add_row("stopgrad --help, s", written(speed.start_up.help_s))
    table.add_row("import stopgrad.training, s", written(speed.start_up.import_s))
    table.add_row("peak memory, GB", number(speed.peak_bytes / 1e9))
    return table


def finding(speed: Speed) -> str:
    """What the tables say, in one sentence."""
    from stopgrad.evaluation import percent

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
    from stopgrad.evaluation import number

    middle, low, high = (number(value / unit) for value in found[:3])
    return f"{middle} ({low} to {high})"


def _add_evaluators(table: Table, speed: Speed) -> None:
    did = speed.evaluators
    size = f"{did.bank:,} x {did.width}"
    table.add_row(f"kNN of {did.queries:,} in {size}, s", written(did.knn_s))
    table.add_row(f"linear probe on {size}, {did.epochs} epochs, s", written(did.linear_s))
