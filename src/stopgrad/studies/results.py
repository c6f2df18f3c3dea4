"""What the runs of a study came to: a cell for each arm, metric and fraction of the labels.

Also how far the runs are (`study_overview`) and their epochs as curves over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from stopgrad.evaluation import (
    ACCURACIES,
    FROZEN,
    SUPERVISED,
    Cell,
    Ending,
    Key,
    Mark,
    Outcome,
    Subject,
    Summary,
    cell,
    labels_text,
    mark_best,
    summarize,
)
from stopgrad.studies.definition import Place, places
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.folder import EpochRow, StudyRun
from stopgrad.studies.plan import Slot, number_key
from stopgrad.studies.stored import StoredStudy

COLLAPSE: dict[str | None, Ending] = {
    "complete collapse": "collapsed",
    "dimensional collapse": "dimensional",
}


class ResultRow(NamedTuple):
    """One cell of a table, with what stands beside it."""

    place: Place
    of: Subject
    split: str
    cell: Cell
    mark: Mark | None = None  # of accuracies of arms
    final: bool = False  # the test split's score of the arm that the validation split chose


class Results(NamedTuple):
    """A study's runs, and its cells in the order of the table."""

    stored: StoredStudy
    runs: Mapping[str, StudyRun]
    rows: tuple[ResultRow, ...]

    @property
    def cells(self) -> dict[Place, Cell]:
        """The cells of the arms."""
        return {
            row.place: row.cell
            for row in self.rows
            if row.of in ("encoder", "supervised") and not row.final
        }


def load_results(directory: StudyDirectory, stored: StoredStudy) -> Results:
    """Reads what there is, whatever is half done; damaged files count as failures."""
    runs = {slot.run: directory.run(slot.run) for slot in stored.slots}
    rows = [*_arm_rows(stored, runs), *_baseline_rows(stored, runs), *_final_rows(stored, runs)]
    return Results(stored, runs, tuple(rows))


def place_key(place: Place, stored: StoredStudy) -> Key:
    """Where the number of a cell stands among the records of a run."""
    of: Subject = "supervised" if place.metric == SUPERVISED else "encoder"
    return number_key(place.metric, place.labels, of=of, split=stored.study.protocol.split)


def best_arm(results: Results) -> str | None:
    """The arm that is best by the first metric with the most labels; None before one has ended.

    An arm that alone has numbers, because it is the only one or the others diverged, is best.
    """
    metrics = results.stored.study.protocol.metrics
    scored = [
        row
        for row in results.rows
        if row.of in ("encoder", "supervised")
        and not row.final
        and row.place.metric in ACCURACIES
        and row.cell.summary is not None
    ]
    marked = [row for row in scored if row.mark == "best"]
    alone = scored if len({row.place.arm for row in scored}) == 1 else []
    order = sorted(
        marked or alone, key=lambda row: (metrics.index(row.place.metric), -row.place.labels)
    )
    return order[0].place.arm if order else None


def missing_runs(results: Results) -> list[tuple[Slot, StudyRun]]:
    """The runs that lack a number that the study wants."""
    stored = results.stored
    wanted = places(stored.study)
    return [
        (slot, results.runs[slot.run])
        for slot in stored.slots
        if any(
            place_key(place, stored) not in results.runs[slot.run].numbers
            for place in wanted
            if place.arm == slot.arm and slot.labels in (None, place.labels)
        )
    ]


def _cell(stored: StoredStudy, runs: Mapping[str, StudyRun], place: Place, key: Key) -> Cell:
    """What each seed of an arm came to under a key."""
    return cell(
        [
            _outcome(runs[slot.run], key)
            for slot in stored.slots
            if slot.arm == place.arm and slot.labels in (None, place.labels)
        ]
    )


def _outcome(run: StudyRun, key: Key) -> Outcome:
    record, phase = run.numbers.get(key), run.state.phase
    if record is not None:
        verdict = record.verdict if record.of == "encoder" else None
        return Outcome(COLLAPSE.get(verdict, "ended"), record.value)
    if run.claimed or phase not in ("collapsed", "diverged", "failed"):
        return Outcome("missing")
    return Outcome(phase)


def _arm_rows(stored: StoredStudy, runs: Mapping[str, StudyRun]) -> list[ResultRow]:
    keys = {place: place_key(place, stored) for place in places(stored.study)}
    cells = {place: _cell(stored, runs, place, key) for place, key in keys.items()}
    marks = _marks(cells, stored)
    return [
        ResultRow(place, keys[place].of, keys[place].split, found, marks.get(place))
        for place, found in cells.items()
    ]


def _marks(cells: Mapping[Place, Cell], stored: StoredStudy) -> dict[Place, Mark]:
    """Marks among the arms of each metric and fraction; measures of collapse have no best."""
    marks: dict[Place, Mark] = {}
    columns = {place[1:] for place in cells if place.metric in ACCURACIES}
    for column in columns:
        found = {
            place.arm: cells[place].summary
            for place in cells
            if place[1:] == column and cells[place].summary is not None
        }
        summaries = {arm: summary for arm, summary in found.items() if summary is not None}
        if len(summaries) > 1:
            marked = mark_best(summaries, correction=stored.study.protocol.correction)
            marks |= {Place(arm, *column): mark for arm, mark in marked.items()}
    return marks


def _baseline_rows(stored: StoredStudy, runs: Mapping[str, StudyRun]) -> list[ResultRow]:
    """Untrained encoders and raw pixels, as the runs of the baseline arm scored them."""
    study = stored.study
    subjects: list[Subject] = [of for of in study.protocol.beside if of != "chance"]
    keys = [
        (place, place_key(place, stored)._replace(of=of))
        for of in subjects
        for place in places(study)
        if place.arm == study.baseline and place.metric in FROZEN
    ]
    return [ResultRow(place, k.of, k.split, _cell(stored, runs, place, k)) for place, k in keys]


def _final_rows(stored: StoredStudy, runs: Mapping[str, StudyRun]) -> list[ResultRow]:
    keys = [
        (place, place_key(place, stored)._replace(split="test"))
        for place in places(stored.study)
        if place.arm == stored.selected and place.metric in FROZEN
    ]
    return [
        ResultRow(place, k.of, k.split, _cell(stored, runs, place, k), final=True)
        for place, k in keys
    ]


TRAINING = 0.9  # share of a run's time that is training, for the time left


class ArmState(NamedTuple):
    """The runs of one arm, counted."""

    name: str
    runs: int
    done: int
    at_work: int
    failed: int
    collapsed: int
    knn: float | None  # mean over the seeds of the newest that each was watched by


class Overview(NamedTuple):
    """All arms, the share of the work that is done, and a line for each run that is not."""

    arms: tuple[ArmState, ...]
    share: float
    lines: tuple[str, ...]


def study_overview(directory: StudyDirectory, stored: StoredStudy) -> Overview:
    """How a study stands now."""
    results = load_results(directory, stored)
    missing = missing_runs(results)
    lacking = {slot.run for slot, _ in missing}
    shares = [_done(run) if name in lacking else 1.0 for name, run in results.runs.items()]
    lines = [
        f"{slot_text(slot)}: {run_text(run)} ({directory.folder(slot.run).path})"
        for slot, run in missing
    ]
    arms = tuple(_arm(results, arm.name, lacking) for arm in stored.study.arms)
    return Overview(arms, sum(shares) / max(1, len(shares)), tuple(lines))


def slot_text(slot: Slot) -> str:
    """`as it is, seed 0`, and the label fraction where there are several."""
    fraction = "" if slot.labels is None else f", {labels_text(slot.labels)}"
    return f"{slot.arm}, seed {slot.seed}{fraction}"


def run_text(run: StudyRun) -> str:
    """How a run stands."""
    state = run.state
    if run.claimed:
        return f"at work, epoch {state.epoch}"
    if state.phase in ("waiting", "interrupted", "trained"):
        after = {"trained": "trained, not scored yet", "waiting": "not begun"}
        return after.get(state.phase, f"stopped at epoch {state.epoch}")
    return f"{state.phase}, {state.reason}"


def _arm(results: Results, name: str, lacking: set[str]) -> ArmState:
    slots = [slot for slot in results.stored.slots if slot.arm == name]
    runs = [results.runs[slot.run] for slot in slots]
    watched = [run.state.knn for run in runs if run.state.knn is not None]
    return ArmState(
        name=name,
        runs=len(slots),
        done=sum(slot.run not in lacking for slot in slots),
        at_work=sum(run.claimed for run in runs),
        failed=sum(run.state.phase in ("failed", "diverged") and not run.claimed for run in runs),
        collapsed=sum(run.state.verdict in COLLAPSE for run in runs),
        knn=sum(watched) / len(watched) if watched else None,
    )


def _done(run: StudyRun) -> float:
    """How much of a run is done; a run that failed is as done as it will be."""
    if run.state.phase in ("failed", "diverged", "collapsed") and not run.claimed:
        return 1.0
    epochs = max(1, run.card.epochs) if run.card else 1
    return TRAINING * min(1.0, run.state.epoch / epochs)


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
            found[slot.arm].append(directory.epoch_rows(slot.run))
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
