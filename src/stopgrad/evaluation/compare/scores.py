"""One run -> its accuracies by kNN and the linear probe, from its records or scored now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stopgrad.evaluation.evaluate import Selection, score_run
from stopgrad.evaluation.records.lines import read
from stopgrad.evaluation.records.record import Key, Record, newest
from stopgrad.images import Dataset, Track, no_progress
from stopgrad.runs import TrainedRun

COMPARED = ("knn_accuracy", "linear_accuracy")


class Accuracies(NamedTuple):
    """A run's records by metric, and which of them were scored just now."""

    records: dict[str, Record]
    scored_now: tuple[str, ...]


def accuracies(
    runs: Sequence[TrainedRun],
    datasets: Sequence[Dataset] | None,
    *,
    track: Track = no_progress,
) -> list[Accuracies]:
    """kNN and linear accuracy of each run, on all labels, of its newest checkpoint and one split.

    The split is the first of test and validation on which all runs have both numbers in their
    records, else the one that `evaluate` takes by itself.

    Args:
        runs: The runs.
        datasets: The images of each, with labels: what no record has is scored. None: it is left
            out.
        track: Shows progress.
    """
    recorded = [_recorded(run) for run in runs]
    own: Sequence[Dataset | None] = datasets or [None] * len(runs)
    split = _common_split(recorded) or _own_split(own[0])
    chosen = [{k.metric: r for k, r in known.items() if k.split == split} for known in recorded]
    return [
        _completed(run, records, dataset, track=track)
        for run, records, dataset in zip(runs, chosen, own, strict=True)
    ]


def _completed(
    run: TrainedRun, records: dict[str, Record], dataset: Dataset | None, *, track: Track
) -> Accuracies:
    missing = tuple(metric for metric in COMPARED if metric not in records)
    if dataset is None or not missing:
        return Accuracies(records, ())
    wanted = Selection(of=("encoder",), metrics=missing)
    found = {r.metric: r for r in score_run(run, dataset, select=wanted, track=track)}
    return Accuracies(records | found, tuple(found))


def _recorded(run: TrainedRun) -> dict[Key, Record]:
    """The records of the encoder at the checkpoint at hand, with all labels."""
    path: Path = run.path / "records.jsonl"
    return newest(
        record
        for record in (read(path) if path.exists() else ())
        if record.metric in COMPARED
        and (record.of, record.labels, record.epoch) == ("encoder", 1.0, run.epoch)
    )


def _common_split(recorded: Sequence[dict[Key, Record]]) -> str | None:
    for split in ("test", "validation"):
        if all(
            Key(metric, 1.0, "encoder", split) in known for known in recorded for metric in COMPARED
        ):
            return split
    return None


def _own_split(dataset: Dataset | None) -> str:
    return "validation" if dataset is not None and dataset.test is None else "test"
