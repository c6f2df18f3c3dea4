"""A run directory -> all that a report tells of it, read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.evaluation import ACCURACIES, Record, read
from stopgrad.report.figures.accuracy import newest
from stopgrad.report.figures.history import Row, Rows, epoch_rows
from stopgrad.report.figures.panels import Exploration, NeighborPanel, ViewPanel

if TYPE_CHECKING:
    from stopgrad.runs import RunInfo, Status


class Evidence(NamedTuple):
    """What a report is made of. Metrics, records and panels may be missing."""

    name: str
    path: str  # as the user named the run
    info: RunInfo
    status: Status
    metrics: Rows
    records: Sequence[Record]
    neighbors: NeighborPanel | None = None
    views: ViewPanel | None = None
    exploration: Exploration | None = None


class Judgement(NamedTuple):
    """The verdict on a run, in words."""

    state: str
    reason: str
    advice: str


def read_evidence(
    run: Path,
    *,
    neighbors: NeighborPanel | None = None,
    views: ViewPanel | None = None,
    exploration: Exploration | None = None,
) -> Evidence:
    """Reads a run, finished or not; without neighbours, those of the exploration are shown.

    Raises:
        CheckpointError: When the directory is no run, or its metrics are damaged.
        DataError: When its records are damaged.
    """
    from stopgrad.runs import read_metrics, read_run, read_status

    records = run / "records.jsonl"
    return Evidence(
        name=run.resolve().name,
        path=str(run),
        info=read_run(run),
        status=read_status(run),
        metrics=read_metrics(run),
        records=newest(accuracies(records)) if records.exists() else [],
        neighbors=exploration.examples if exploration and neighbors is None else neighbors,
        views=views,
        exploration=exploration,
    )


def accuracies(path: Path) -> list[Record]:
    """The records of accuracies; measures of collapse are charted from the metrics."""
    return [record for record in read(path) if record.metric in ACCURACIES]


def epochs(evidence: Evidence) -> list[Row]:
    """The rows of the finished epochs."""
    return epoch_rows(evidence.metrics)


def judgement(evidence: Evidence) -> Judgement | None:
    """The newest verdict; a run that diverged has that as its verdict. None before any epoch."""
    if evidence.status.get("state") == "diverged":
        reason = str(evidence.status.get("reason", "the loss is not finite"))
        return Judgement("diverged", reason, "lower optimizer.base_lr, or add a warm-up")
    rows = epochs(evidence)
    verdict = rows[-1].get("verdict") if rows else None
    if verdict is None:
        return None
    return Judgement(*(str(verdict.get(key) or "") for key in Judgement._fields))


def watched_records(evidence: Evidence) -> list[Record]:
    """Records that were scored on the images that the run's own kNN watched."""
    split = watched_split(evidence)
    return [record for record in evidence.records if record.split == split]


def watched_split(evidence: Evidence) -> str:
    """`test`, or `validation` where a share is held out or the data have no test split."""
    scored = {record.split for record in evidence.records}
    held_out = evidence.info.config.validation > 0 or scored == {"validation"}
    return "validation" if held_out else "test"


def scored_records(evidence: Evidence) -> list[Record]:
    """Records of the split and of the epoch of the encoder that were evaluated last."""
    if not evidence.records:
        return []
    split = evidence.records[-1].split
    records = [record for record in evidence.records if record.split == split]
    last = max((r.epoch or 0 for r in records if r.of == "encoder"), default=0)
    return [r for r in records if r.of != "encoder" or (r.epoch or 0) == last]
