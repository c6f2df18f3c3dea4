"""Several runs -> their accuracies on the same images, taken from records or scored now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stopgrad.evaluation.evaluate import Selection, is_scored_on, score_run
from stopgrad.evaluation.records import Key, Record, newest, records_of
from stopgrad.images import Dataset, Images, Track, no_progress
from stopgrad.runs import TrainedRun, split_to_score

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
    records; else validation, if all hold images out, so that choosing a run leaves the test images
    alone; else the one that `evaluate_run` picks by default. Accuracies that the records lack are
    scored on each run's images, which must have labels; without data sets they are left out.
    """
    own: Sequence[Dataset | None] = datasets or [None] * len(runs)
    recorded = [_recorded(run, of and of.test) for run, of in zip(runs, own, strict=True)]
    split = "test" if own[0] is None else split_to_score(own[0], runs[0].info.config)
    if all(run.info.config.validation > 0 for run in runs):
        split = "validation"
    for name in ("validation", "test"):
        keys = {Key(metric, 1.0, "encoder", name) for metric in COMPARED}
        if all(known.keys() >= keys for known in recorded):
            split = name
    completed = []
    for run, known, dataset in zip(runs, recorded, own, strict=True):
        records = {key.metric: record for key, record in known.items() if key.split == split}
        missing = tuple(metric for metric in COMPARED if metric not in records)
        found: dict[str, Record] = {}
        if dataset is not None and missing:
            wanted = Selection(split=split, of=("encoder",), metrics=missing)
            scored = score_run(run, dataset, select=wanted, track=track)
            found = {record.metric: record for record in scored}
        completed.append(Accuracies(records | found, tuple(found)))
    return completed


def _recorded(run: TrainedRun, test: Images | None) -> dict[Key, Record]:
    """The records of the encoder at the loaded checkpoint, with all labels.

    Records of other test images, or of other labels for these, are left out.
    """
    known = newest(
        record
        for record in records_of(run.path)
        if record.metric in COMPARED
        and (record.of, record.labels, record.epoch) == ("encoder", 1.0, run.epoch)
    )
    if test is None:
        return known
    mine = test.labelled()
    return {key: r for key, r in known.items() if key.split != "test" or is_scored_on(r, mine)}
