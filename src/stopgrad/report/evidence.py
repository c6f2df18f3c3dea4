"""The data of a report on a run or a study, read once and typed.

Finished or not: what is missing is empty. No torch, and nothing of the room `studies` for a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.config import Config, config_from_dict, key_paths
from stopgrad.errors import ConfigError
from stopgrad.evaluation import (
    ACCURACIES,
    MEASURED,
    NO_BETTER,
    Record,
    count,
    is_no_better,
    newest,
    records_of,
    scored_last,
    state_text,
)
from stopgrad.report.panels import Exploration, NeighborPanel, ViewPanel

if TYPE_CHECKING:
    from stopgrad.runs import RunInfo
    from stopgrad.studies import Epochs, Results

LoggedRow = Mapping[str, Any]  # of metrics; `stopgrad.runs.MetricsRow` says what is in one
LoggedRows = Sequence[LoggedRow]

IMAGES = 1000  # where no record says how many: percentages have one decimal then


class Judgement(NamedTuple):
    """The verdict on a run, as it was recorded."""

    state: str
    reason: str
    advice: str

    @property
    def tone(self) -> str:
        """The role of a colour, and a class of the page; "" if neither good nor wrong."""
        if self.state.startswith(NO_BETTER):
            return ""
        return "good" if self.state == "healthy" else "wrong"


class Evidence(NamedTuple):
    """The data of a report on a run. Metrics, records and panels may be missing."""

    name: str
    path: str  # as the user named the run
    info: RunInfo
    state: str  # of its status: finished, diverged, ...; "" where it is not known
    reason: str  # why it ended so
    metrics: LoggedRows
    records: Sequence[Record]  # the newest of each accuracy
    neighbors: NeighborPanel | None = None
    views: ViewPanel | None = None
    exploration: Exploration | None = None

    @property
    def run(self) -> Evidence:
        """The run whose images are shown."""
        return self

    @property
    def config(self) -> Config | None:
        """The config of the run."""
        return self.info.config

    @property
    def data_name(self) -> str:
        """The name of the images that it learned from."""
        return self.info.data["name"]

    @property
    def epochs(self) -> list[LoggedRow]:
        """The rows of the finished epochs."""
        return epoch_rows(self.metrics)

    @property
    def judgement(self) -> Judgement | None:
        """The newest verdict, None before any epoch; divergence is a verdict too."""
        if self.state == "diverged":
            reason = self.reason or "the loss is not finite"
            return Judgement("diverged", reason, "lower optimizer.base_lr, or add a warm-up")
        judged = [row for row in self.epochs if row.get("verdict")]
        if not judged:
            return None
        verdict, epoch = judged[-1]["verdict"], judged[-1]["epoch"]
        found = Judgement(*(verdict.get(key, "") for key in Judgement._fields))
        return found._replace(state=state_text(found.state, self.records, epoch=epoch))

    @property
    def states(self) -> list[str]:
        """The verdict on each of `epochs`, "" where there is none; see `evaluation.state_text`."""
        rows = self.epochs
        found = [(row.get("verdict") or {}).get("state", "") for row in rows]
        if not rows or not is_no_better(self.records, epoch=rows[-1]["epoch"]):
            return found
        return ["not collapsed" if state == "healthy" else state for state in found]

    @property
    def class_names(self) -> Sequence[str]:
        """C names of the images that it learned from, () where they have no labels."""
        return self.info.data.get("class_names") or ()

    @property
    def scored(self) -> list[Record]:
        """Records of the split evaluated last; the encoder's only of its last epoch."""
        return scored_last(self.records)

    @property
    def watched_split(self) -> str:
        """`test`, or `validation` where images are held out or there is no test split."""
        scored = {record.split for record in self.records}
        own = "validation" in scored and "test" not in scored
        held_out = self.info.config.validation > 0 or own
        return "validation" if held_out else "test"

    @property
    def watched(self) -> list[Record]:
        """Records that were scored on the images that the run's own kNN watched."""
        return [record for record in self.records if record.split == self.watched_split]

    @property
    def images_watched(self) -> int:
        """How many images the run's own kNN watched, as far as records say so."""
        return max((record.images_scored for record in self.watched), default=IMAGES)


class ShownRun(NamedTuple):
    """The run whose images stand for those of its study."""

    run: Evidence
    arm: str
    seed: int

    @property
    def text(self) -> str:
        """`'as it is', seed 0`."""
        return f"{self.arm!r}, seed {self.seed}"


class StudyEvidence(NamedTuple):
    """The data of a report on a study. Curves, configs of some arms and images may be missing."""

    path: str  # as the user named its directory
    results: Results
    epochs: Epochs
    config: Config | None  # of the baseline arm
    knobs: Mapping[str, Mapping[str, Any]]  # by key path, by arm
    shown: ShownRun | None = None

    @property
    def name(self) -> str:
        """The study's name."""
        return self.results.stored.study.name

    @property
    def run(self) -> Evidence | None:
        """The run whose images are shown."""
        return self.shown and self.shown.run

    @property
    def data_name(self) -> str:
        """The name of the images."""
        return self.results.stored.data.name


def epoch_rows(metrics: LoggedRows) -> list[LoggedRow]:
    """The rows of the finished epochs, in order."""
    return [row for row in metrics if row.get("kind") == "epoch"]


def images_measured(rows: LoggedRows) -> str:
    """`two views of 1,024 training images`, as the last of these rows says."""
    known = [row["measured"] for row in rows if row.get("measured")]
    images = count(known[-1]) if known else f"up to {count(MEASURED)}"
    return f"two views of {images} training images"


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

    info, status, found = read_run(run), read_status(run), records_of(run)
    return Evidence(
        name=run.resolve().name,
        path=str(run),
        info=info,
        state=status.get("state", ""),
        reason=status.get("reason", ""),
        metrics=read_metrics(run),
        records=list(newest(r for r in found if r.metric in ACCURACIES).values()),
        neighbors=exploration.examples if exploration and neighbors is None else neighbors,
        views=views,
        exploration=exploration,
    )


def read_studies(path: Path) -> list[StudyEvidence]:
    """Every study of a directory.

    Raises:
        DataError: When it holds none, or the file of one is damaged.
    """
    from stopgrad.studies import StudyDirectory, load_results, read_epochs

    directory = StudyDirectory(path)
    found = []
    for stored in directory.read_all():
        results = load_results(directory, stored)
        first = {slot.arm: results.runs[slot.run] for slot in reversed(stored.slots)}
        cards = {arm: run.card.config for arm, run in first.items() if run.card is not None}
        epochs, config = read_epochs(directory, stored), _config(cards.get(stored.study.baseline))
        knobs = {arm: key_paths(card) for arm, card in cards.items()}
        found.append(StudyEvidence(str(path), results, epochs, config, knobs))
    return found


def _config(card: dict[str, Any] | None) -> Config | None:
    """A card as a config; None where it is damaged or of another version."""
    try:
        return None if card is None else config_from_dict(card)
    except ConfigError:
        return None
