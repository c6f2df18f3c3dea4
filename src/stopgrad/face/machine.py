"""How fast this machine is, on random pixels, compared with its own limit.

In: how much to measure. Out: `MachineSpeed`, as tables and as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stopgrad import method, speed
from stopgrad.errors import ConfigError
from stopgrad.evaluation import number, percent
from stopgrad.face.arguments import in_plain_torch
from stopgrad.face.progress import Screen, at_work
from stopgrad.face.tables import Shown
from stopgrad.report import Column, Table, TableCell

if TYPE_CHECKING:
    from stopgrad.speed import Speed, Spread

MOST_BESIDE = MOST_THREADS = 1024


@at_work
@in_plain_torch
def bench(
    *, device: str = "auto", threads: int = 0, beside: int = 0, quick: bool = False
) -> MachineSpeed:
    """Measures training speed on random pixels, along with the rate of a matrix product.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads; 0: one per core.
        beside: Number of busy programs, next to which steps on the CPU are measured too.
        quick: Only checks within seconds that it runs; the numbers mean nothing.

    Raises:
        ConfigError: For a device that is not there, or a number below 0 or absurdly high.
    """
    if not 0 <= threads <= MOST_THREADS:
        expected = f"0 to {MOST_THREADS}"
        raise ConfigError(f"--threads {threads}", expected=expected, hint="0 takes every core")
    if not 0 <= beside <= MOST_BESIDE:
        raise ConfigError(f"--beside {beside}", expected=f"0 to {MOST_BESIDE} programs")
    method.use_threads(threads)
    size = speed.QUICK if quick else speed.FULL
    return MachineSpeed(speed.measure_speed(size, device=device, beside=beside, say=Screen().line))


class MachineSpeed(Shown):
    """The measurements, `found`, and the same as tables."""

    def __init__(self, found: Speed) -> None:
        self.found = found

    def as_json(self) -> dict[str, Any]:
        """The object that `stopgrad bench --json` prints."""
        return speed.as_json(self.found)

    @property
    def tables(self) -> list[Table]:
        """The step, the parts, and the step next to other programs if that was measured."""
        beside = [_beside_table(self.found)] if self.found.beside else []
        return [_steps_table(self.found), _parts_table(self.found), *beside]

    @property
    def lines(self) -> list[str]:
        """The findings of the tables, a sentence each."""
        beside = [_beside_finding(self.found)] if self.found.beside else []
        return [_steps_finding(self.found), *beside]


def _steps_table(found: Speed) -> Table:
    """The training step: a row per number, a column per network."""
    steps = found.steps
    rows = [
        ("views/s", *(written(step.views_per_s) for step in steps)),
        ("GFLOP/s", *(written(step.flops_per_s, unit=1e9) for step in steps)),
        (
            "% of the matrix rate before and after",
            *(written(step.share_of_matmul, unit=0.01) for step in steps),
        ),
    ]
    for place, phase in enumerate(speed.Phases._fields):
        parts = (percent(step.phases[place], images=1000) for step in steps)
        rows.append((f"{phase}, % of the step", *parts))
    networks = (f"{step.encoder}, batch {step.batch}, {step.precision}" for step in steps)
    return Table(
        "steps",
        (Column("median (lowest to highest)"), *(Column(name, "right") for name in networks)),
        tuple(tuple(map(TableCell, row)) for row in rows),
        "training step, from indices to new weights",
    )


def _parts_table(found: Speed) -> Table:
    """The machine's limit, and everything that is measured separately."""
    return Table(
        "parts",
        (Column("median (lowest to highest)"), Column("", "right")),
        tuple(tuple(map(TableCell, row)) for row in _parts(found)),
        "separately",
    )


def _beside_table(found: Speed) -> Table:
    """The step alone and beside busy programs: a row per number of threads."""
    rows = [
        (
            str(each.threads),
            written(each.alone_views_per_s),
            written(each.beside_views_per_s),
            written(each.kept, unit=0.01),
        )
        for each in found.beside
    ]
    names = ("threads", "alone, views/s", "beside them, views/s", "kept, %")
    return Table(
        "beside",
        tuple(Column(name, "right") for name in names),
        tuple(tuple(map(TableCell, row)) for row in rows),
        f"{found.beside[0].encoder} on the CPU beside {found.beside[0].loops} busy programs",
    )


def _beside_finding(found: Speed) -> str:
    """The finding of `_beside_table`, in one sentence."""
    best = max(found.beside, key=lambda each: each.beside_views_per_s.median)
    return (
        f"Beside {best.loops} busy programs {best.encoder} trains fastest with --threads "
        f"{best.threads}: {written(best.beside_views_per_s)} views/s."
    )


def _parts(found: Speed) -> Iterator[tuple[str, str]]:
    product = f"matrix product of {found.matmul_side:,} x {found.matmul_side:,}"
    yield f"{product}, bf16, GFLOP/s", written(found.matmul_bf16_flops, unit=1e9)
    yield f"{product}, fp32, GFLOP/s", written(found.matmul_fp32_flops, unit=1e9)
    yield "views of 32 px, views/s", written(found.views_per_s)
    for step in found.steps:
        yield f"embedding by {step.encoder}, images/s", written(step.embed_images_per_s)
    bank, queries, width = found.features
    size = f"{bank:,} x {width}"
    yield f"kNN of {queries:,} in {size}, s", written(found.knn_s)
    yield f"linear probe on {size}, {found.probe_epochs} epochs, s", written(found.linear_s)
    yield "decoding PNG of 32 px, images/s", written(found.decode_png_per_s)
    yield "decoding JPEG of 256 px, images/s", written(found.decode_jpeg_per_s)
    yield "stopgrad --help, s", written(found.start_help_s)
    yield "imports of training, s", written(found.start_import_s)
    yield "peak memory, GB", number(found.peak_bytes / 1e9)


def _steps_finding(found: Speed) -> str:
    """The finding of the other tables, in one sentence."""
    where = found.environment
    steps = " and ".join(
        f"{step.encoder} with {percent(step.share_of_matmul.median, images=1000)}"
        for step in found.steps
    )
    return (
        f"{where.device_name} ({where.device}, {where.threads} threads, torch "
        f"{where.versions['torch']}) trains {steps} of the rate of its matrix products."
    )


def written(spread: Spread, *, unit: float = 1.0) -> str:
    """Median and range in a unit: `97.2 (95.1 to 98.0)`."""
    middle, low, high = (number(value / unit) for value in spread[:3])
    return f"{middle} ({low} to {high})"
