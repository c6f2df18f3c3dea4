"""`stopgrad bench`: how fast this machine is, as tables or as one JSON object."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

import stopgrad
from stopgrad.cli.screen import print_json, print_table

if TYPE_CHECKING:
    from stopgrad.report import Table
    from stopgrad.speed import Speed, Spread

HELP = "measure how fast this machine trains and evaluates, on random pixels"
EXAMPLE = "stopgrad bench"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --json, --device, --threads, --beside and --quick."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N. Default: auto")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads. Default: one per core"
    )
    parser.add_argument(
        "--beside",
        type=int,
        default=0,
        metavar="N",
        help="measure steps on the CPU beside N busy programs too, with one thread and with all",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="only check in a few seconds that everything runs; the numbers mean nothing",
    )


def run(options: argparse.Namespace) -> None:
    """Measures everything and prints it."""
    speed = stopgrad.bench(
        device=options.device, threads=options.threads, beside=options.beside, quick=options.quick
    )
    from stopgrad.speed import as_json

    if options.json:
        print_json(as_json(speed))
    else:
        others = (beside_table(speed), beside_finding(speed)) if speed.beside else ()
        print_table(steps_table(speed), parts_table(speed), finding(speed), *others)


def steps_table(speed: Speed) -> Table:
    """The training step: a row per number, a column per network."""
    from stopgrad.evaluation import percent
    from stopgrad.report import Column, Table, TableCell
    from stopgrad.speed import Phases

    steps = speed.steps
    rows = [
        ("views/s", *(written(step.views_per_s) for step in steps)),
        ("GFLOP/s", *(written(step.flops_per_s, unit=1e9) for step in steps)),
        (
            "% of the matrix rate before and after",
            *(written(step.share_of_matmul, unit=0.01) for step in steps),
        ),
    ]
    for place, phase in enumerate(Phases._fields):
        parts = (percent(step.phases[place], images=1000) for step in steps)
        rows.append((f"{phase}, % of the step", *parts))
    networks = (f"{step.encoder}, batch {step.batch}, {step.precision}" for step in steps)
    return Table(
        "steps",
        (Column("median (lowest to highest)"), *(Column(name, "right") for name in networks)),
        tuple(tuple(map(TableCell, row)) for row in rows),
        "training step, from indices to new weights",
    )


def parts_table(speed: Speed) -> Table:
    """The machine's limit, and everything that is measured separately."""
    from stopgrad.report import Column, Table, TableCell

    return Table(
        "parts",
        (Column("median (lowest to highest)"), Column("", "right")),
        tuple(tuple(map(TableCell, row)) for row in _parts(speed)),
        "separately",
    )


def beside_table(speed: Speed) -> Table:
    """The step alone and beside busy programs: a row per number of threads."""
    from stopgrad.report import Column, Table, TableCell

    rows = [
        (
            str(found.threads),
            written(found.alone_views_per_s),
            written(found.beside_views_per_s),
            written(found.kept, unit=0.01),
        )
        for found in speed.beside
    ]
    names = ("threads", "alone, views/s", "beside them, views/s", "kept, %")
    return Table(
        "beside",
        tuple(Column(name, "right") for name in names),
        tuple(tuple(map(TableCell, row)) for row in rows),
        f"{speed.beside[0].encoder} on the CPU beside {speed.beside[0].loops} busy programs",
    )


def beside_finding(speed: Speed) -> str:
    """That table in one sentence."""
    best = max(speed.beside, key=lambda found: found.beside_views_per_s.median)
    return (
        f"Beside {best.loops} busy programs {best.encoder} trains fastest with --threads "
        f"{best.threads}: {written(best.beside_views_per_s)} views/s."
    )


def _parts(speed: Speed) -> Iterator[tuple[str, str]]:
    from stopgrad.evaluation import number

    product = f"matrix product of {speed.matmul_side:,} x {speed.matmul_side:,}"
    yield f"{product}, bf16, GFLOP/s", written(speed.matmul_bf16_flops, unit=1e9)
    yield f"{product}, fp32, GFLOP/s", written(speed.matmul_fp32_flops, unit=1e9)
    yield "views of 32 px, views/s", written(speed.views_per_s)
    for step in speed.steps:
        yield f"embedding by {step.encoder}, images/s", written(step.embed_images_per_s)
    bank, queries, width = speed.features
    size = f"{bank:,} x {width}"
    yield f"kNN of {queries:,} in {size}, s", written(speed.knn_s)
    yield f"linear probe on {size}, {speed.probe_epochs} epochs, s", written(speed.linear_s)
    yield "decoding PNG of 32 px, images/s", written(speed.decode_png_per_s)
    yield "decoding JPEG of 256 px, images/s", written(speed.decode_jpeg_per_s)
    yield "stopgrad --help, s", written(speed.start_help_s)
    yield "imports of training, s", written(speed.start_import_s)
    yield "peak memory, GB", number(speed.peak_bytes / 1e9)


def finding(speed: Speed) -> str:
    """The tables in one sentence."""
    from stopgrad.evaluation import percent

    where = speed.environment
    steps = " and ".join(
        f"{step.encoder} with {percent(step.share_of_matmul.median, images=1000)}"
        for step in speed.steps
    )
    return (
        f"{where.device_name} ({where.device}, {where.threads} threads, torch "
        f"{where.versions['torch']}) trains {steps} of the rate of its matrix products."
    )


def written(found: Spread, *, unit: float = 1.0) -> str:
    """Median and range in a unit: `97.2 (95.1 to 98.0)`."""
    from stopgrad.evaluation import number

    middle, low, high = (number(value / unit) for value in found[:3])
    return f"{middle} ({low} to {high})"
