"""What the runs of a study came to: a cell for each arm, metric and fraction of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stopgrad.errors import DataError
from stopgrad.evaluation import (
    ACCURACIES,
    FINETUNE,
    FROZEN,
    SUPERVISED,
    Cell,
    Ending,
    Energy,
    Key,
    Mark,
    Outcome,
    Record,
    Subject,
    cell,
    energy,
    mark_best,
)
from stopgrad.studies.definition import Place, places
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.folder import RunState
from stopgrad.studies.plan import Slot
from stopgrad.studies.steps import number_key
from stopgrad.studies.stored import StoredStudy

COLLAPSE: dict[str | None, Ending] = {
    "complete collapse": "collapsed",
    "dimensional collapse": "dimensional",
}


class RunResult(NamedTuple):
    """One run: how it stands and its numbers."""

    state: RunState
    claimed: bool
    numbers: Mapping[Key, Record]
    wall_s: float  # of all its commands
    train_s: float | None  # of its trainings, those with labels too
    energy: Energy | None

    @property
    def views(self) -> int:
        """Views that its trainings processed, those of fine-tuning too."""
        return max((r.views or 0 for r in self.numbers.values()), default=0) + sum(
            int(r.protocol.get("views", 0)) for r in self._tuned
        )

    @property
    def flops(self) -> float:
        """Floating-point operations of its trainings."""
        return max((r.flops or 0.0 for r in self.numbers.values()), default=0.0) + sum(
            float(r.protocol.get("flops", 0.0)) for r in self._tuned
        )

    @property
    def _tuned(self) -> list[Record]:
        """One record of each fine-tuning, which there is one of for each fraction of the labels."""
        found = {r.labels: r for r in self.numbers.values() if r.metric == FINETUNE}
        return list(found.values())


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
    runs: Mapping[str, RunResult]
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
    runs = {slot.run: _run(directory, slot.run) for slot in stored.slots}
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


def missing_runs(results: Results) -> list[tuple[Slot, RunResult]]:
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


def _run(directory: StudyDirectory, name: str) -> RunResult:
    run = directory.run(name)
    state, claimed = run.state(), run.is_claimed()
    try:
        numbers, attempts, costs = run.numbers(), run.attempts(), run.costs()
    except DataError as error:
        broken = state._replace(phase="failed", reason=str(error))
        return RunResult(broken, claimed, {}, 0.0, None, None)
    return RunResult(
        state=state,
        claimed=claimed,
        numbers=numbers,
        wall_s=sum(attempt.wall_s for attempt in attempts),
        train_s=costs.wall_s if costs else None,
        energy=energy(costs) if costs else None,
    )


def _cell(stored: StoredStudy, runs: Mapping[str, RunResult], place: Place, key: Key) -> Cell:
    """What each seed of an arm came to under a key."""
    return cell(
        [
            _outcome(runs[slot.run], key)
            for slot in stored.slots
            if slot.arm == place.arm and slot.labels in (None, place.labels)
        ]
    )


def _outcome(run: RunResult, key: Key) -> Outcome:
    record, phase = run.numbers.get(key), run.state.phase
    if record is not None:
        verdict = record.verdict if record.of == "encoder" else None
        return Outcome(COLLAPSE.get(verdict, "ended"), record.value)
    if run.claimed or phase not in ("collapsed", "diverged", "failed"):
        return Outcome("missing")
    return Outcome(phase)


def _arm_rows(stored: StoredStudy, runs: Mapping[str, RunResult]) -> list[ResultRow]:
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


def _baseline_rows(stored: StoredStudy, runs: Mapping[str, RunResult]) -> list[ResultRow]:
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


def _final_rows(stored: StoredStudy, runs: Mapping[str, RunResult]) -> list[ResultRow]:
    keys = [
        (place, place_key(place, stored)._replace(split="test"))
        for place in places(stored.study)
        if place.arm == stored.selected and place.metric in FROZEN
    ]
    return [
        ResultRow(place, k.of, k.split, _cell(stored, runs, place, k), final=True)
        for place, k in keys
    ]
