"""Rows of metrics.jsonl -> the rows of epochs and of steps that a chart can draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]
Rows = Sequence[Row]

MOST_POINTS = 300  # of the line of single steps; more would not be seen at this width


class Point(NamedTuple):
    """A value at a time, in epochs."""

    epoch: float
    value: float


def epoch_rows(metrics: Rows) -> list[Row]:
    """The rows of the finished epochs, in order."""
    return [row for row in metrics if row.get("kind") == "epoch"]


def step_losses(metrics: Rows) -> list[Point]:
    """Losses of the single steps over time, averaged over neighbours to at most 300 points."""
    epochs = epoch_rows(metrics)
    steps = [row for row in metrics if row.get("kind") == "step" and row.get("loss") is not None]
    if not epochs or not steps:
        return []
    per_epoch = epochs[-1]["step"] / epochs[-1]["epoch"]
    size = -(-len(steps) // MOST_POINTS)
    bins = (steps[start : start + size] for start in range(0, len(steps), size))
    return [Point(_mean(rows, "step") / per_epoch, _mean(rows, "loss")) for rows in bins]


def series(metrics: Rows, key: str) -> list[Point]:
    """One number over the epochs at which it was taken."""
    rows = epoch_rows(metrics)
    return [Point(row["epoch"], row[key]) for row in rows if row.get(key) is not None]


def measured(metrics: Rows, measure: str) -> Iterator[tuple[str, Point]]:
    """A measure of collapse over the epochs, as (layer, point)."""
    for row in epoch_rows(metrics):
        for layer, measures in row.get("measures", {}).items():
            if measures.get(measure) is not None:
                yield layer, Point(row["epoch"], measures[measure])


def _mean(rows: Rows, key: str) -> float:
    return sum(float(row[key]) for row in rows) / len(rows)
