"""The epochs of a study's runs -> curves over seeds: a mean with its spread at each epoch.

A metrics file holds a line per step, millions in a study; only those of epochs are decoded. One
that was changed from outside is passed over with a warning: a curve lacks a point, no more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.evaluation import Summary, summarize
from stopgrad.runs import check_row
from stopgrad.storage import strict_json
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.stored import StoredStudy

EpochRow = Mapping[str, Any]
Epochs = Mapping[str, Sequence[Sequence[EpochRow]]]  # rows of epochs, a list per run, by arm

log = logging.getLogger(__name__)

EPOCH = b'{"kind": "epoch"'  # how such a line begins, as `stopgrad.runs` writes it


class CurvePoint(NamedTuple):
    """A number at one epoch, over the runs of an arm that have it."""

    arm: str
    epoch: int
    summary: Summary


def read_epochs(directory: StudyDirectory, stored: StoredStudy) -> Epochs:
    """The finished epochs of every pretraining; a run that cannot be read has none."""
    found: dict[str, list[list[EpochRow]]] = {arm.name: [] for arm in stored.study.arms}
    for slot in stored.slots:
        if slot.labels is None and slot.arm in found:  # the study may have lost an arm since
            found[slot.arm].append(_epochs(directory.folder(slot.run).run / "metrics.jsonl"))
    return {arm: [rows for rows in runs if rows] for arm, runs in found.items()}


def seed_curves(epochs: Epochs, pick: Callable[[EpochRow], float | None]) -> list[CurvePoint]:
    """One number of each epoch as a mean over seeds, by arm and epoch.

    Args:
        epochs: From `read_epochs`.
        pick: The number of an epoch, None where it was not taken.
    """
    points = []
    for arm, runs in epochs.items():
        values: dict[int, list[float]] = {}
        for row in (row for rows in runs for row in rows):
            value = pick(row)
            if value is not None:
                values.setdefault(int(row["epoch"]), []).append(float(value))
        points += [CurvePoint(arm, epoch, summarize(values[epoch])) for epoch in sorted(values)]
    return points


def _epochs(path: Path) -> list[EpochRow]:
    try:
        with path.open("rb") as file:
            lines = [(n, line) for n, line in enumerate(file, start=1) if line.startswith(EPOCH)]
    except OSError:
        return []
    rows = []
    for number, line in lines:
        try:
            row = strict_json(line)
            check_row(row)
            rows.append(row)
        except (ValueError, KeyError, TypeError) as error:
            if line.endswith(b"\n"):  # else it was torn by a kill
                log.warning("%s, line %d, is passed over (%s)", path, number, error)
    return rows
