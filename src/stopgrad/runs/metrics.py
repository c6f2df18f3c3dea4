"""metrics.jsonl: a row for each step and each epoch, cut back on resume."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from stopgrad.errors import CheckpointError
from stopgrad.runs.info import whole_number
from stopgrad.storage import Lines, append_lines, check_types, read_lines, replace_lines

FILE = "metrics.jsonl"


class MetricsRow(TypedDict, total=False):
    """A row of metrics; which keys it has depends on what was trained and measured."""

    kind: str  # "step" or "epoch"
    step: int
    epoch: int
    loss: float | None
    lr: float | None
    predictor_lr: float | None
    knn: float | None
    views_per_s: float | None
    seconds: float
    measures: dict[str, dict[str, float | None]] | None  # by layer
    verdict: dict[str, str] | None
    spectra: dict[str, list[float]] | None


KINDS = typing.get_type_hints(MetricsRow)


def append_rows(run: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Appends rows to the metrics of a run, durably.

    Raises:
        StorageError: When the disk refuses.
    """
    append_lines(run / FILE, rows)


def read_metrics(run: Path) -> list[MetricsRow]:
    """All rows of a run, in order; a last line torn by a crash is left out.

    Raises:
        CheckpointError: When another line is no row.
    """
    return read_rows(run).rows if (run / FILE).exists() else []


def read_rows(run: Path) -> Lines[MetricsRow]:
    """The rows of a run that has metrics, and what a crash left of the last one.

    Raises:
        CheckpointError: When the file cannot be read, or `check_row` refuses a line.
    """
    return read_lines(
        run / FILE,
        check_row,
        what="a row of metrics",
        hint="the file was changed from outside; restore it or start a new run",
        error=CheckpointError,
    )


def check_row(row: object) -> MetricsRow:
    """The row, unless readers could not count or draw it.

    Raises:
        KeyError: Without a step, or an epoch's row without its number.
        ValueError, TypeError: For no object, a value of another type, or spectra that no chart
            can show.
    """
    if not isinstance(row, dict):
        raise TypeError("no object")
    check_types(row, KINDS)
    whole_number(row["step"])
    if row.get("kind") == "epoch" and not whole_number(row["epoch"]):
        raise ValueError("epoch 0, of epochs that count from 1")
    if row.get("spectra") is not None:
        weights, others = row["spectra"]["representation"], ("ranks", "predictor")
        sizes = {len(row["spectra"][name]) for name in others} | {len(weights)}
        if len(sizes) > 1 or not all(weight > 0 for weight in weights):
            raise ValueError("spectra with lists of several lengths, or weights not above 0")
    return typing.cast(MetricsRow, row)


def cut_back(run: Path, *, step: int) -> None:
    """Drops the rows of steps after this one, which a resumed run will write again."""
    if not (run / FILE).exists():
        return
    rows, torn = read_rows(run)
    kept = [row for row in rows if row["step"] <= step]
    if torn or len(kept) < len(rows):
        replace_lines(run / FILE, kept)
