"""The epochs of a study's runs -> curves over seeds: a mean with its spread at each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from stopgrad.evaluation import Summary, summarize
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.folder import EpochRow
from stopgrad.studies.stored import StoredStudy

Epochs = Mapping[str, Sequence[Sequence[EpochRow]]]  # rows of epochs, a list per run, by arm


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
            found[slot.arm].append(directory.run(slot.run).epoch_rows())
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
