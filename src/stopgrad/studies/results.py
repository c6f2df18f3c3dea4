"""The results of a study's runs: a cell for each arm, metric and fraction of the labels.

Also how far the runs are (`study_overview`) and their epochs as curves over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from stopgrad.evaluation import (
    ACCURACIES,
    FROZEN,
    SUPERVISED,
    Cell,
    Ending,
    Key,
    Mark,
    Outcome,
    Pairs,
    Subject,
    Summary,
    cell,
    labels_text,
    mark_best,
    spread_of_differences,
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
TRAINING = 0.9  # part of a run's time that is training, before any has ended

Epochs = Mapping[str, Mapping[int, Sequence[EpochRow]]]  # rows of epochs by seed, by arm


class ResultRow(NamedTuple):
    """One cell of a table, with its seeds and marks."""

    place: Place
    of: Subject
    split: str
    cell: Cell
    seeds: tuple[int, ...]  # of its runs
    mark: Mark | None = None  # of accuracies of arms, by the paired test
    unpaired: Mark | None = None  # by Welch's
    final: bool = False  # the test split's score of the arm that the validation split chose

    @property
    def is_of_arm(self) -> bool:
        """Whether it is an arm's own number, on the split of the protocol."""
        return self.of in ("encoder", "supervised") and not self.final

    @property
    def by_seed(self) -> Pairs:
        """The numbers by seed, without those that are missing."""
        runs = zip(self.seeds, self.cell.values, strict=True)
        return {seed: value for seed, value in runs if value is not None}


class Results(NamedTuple):
    """A study's runs, and its cells in the order of the table."""

    stored: StoredStudy
    runs: Mapping[str, StudyRun]
    rows: tuple[ResultRow, ...]

    @property
    def cells(self) -> dict[Place, Cell]:
        """The cells of the arms."""
        return {row.place: row.cell for row in self.rows if row.is_of_arm}

    @property
    def pairs(self) -> dict[Place, Pairs]:
        """The numbers of the arms by seed, which is what the runs of several arms share."""
        return {row.place: row.by_seed for row in self.rows if row.is_of_arm}

    def spread(self, metric: str, labels: float) -> float | None:
        """Pooled spread of differences by seed between arms; None before two have two seeds.

        Arms with collapsed runs are left out: their numbers vary far less or far more.
        """
        sound = {place for place, cell in self.cells.items() if not cell.collapsed_in_all}
        column = [place for place in self.pairs if place[1:] == (metric, labels)]
        return spread_of_differences([self.pairs[place] for place in column if place in sound])


def load_results(directory: StudyDirectory, stored: StoredStudy) -> Results:
    """Reads what is there, half done or not; damaged files count as failures."""
    runs = {slot.run: directory.run(slot.run) for slot in stored.slots}
    return Results(stored, runs, tuple(_rows(stored, runs)))


def place_key(place: Place, stored: StoredStudy) -> Key:
    """The key of a cell's number among the records of a run."""
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
        if row.is_of_arm and row.place.metric in ACCURACIES and row.cell.summary is not None
    ]
    alone = len({row.place.arm for row in scored}) == 1
    best = [row for row in scored if row.mark == "best" or alone]
    best.sort(key=lambda row: (metrics.index(row.place.metric), -row.place.labels))
    return best[0].place.arm if best else None


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


def _rows(stored: StoredStudy, runs: Mapping[str, StudyRun]) -> Iterator[ResultRow]:
    """The cells of the arms; then untrained encoders and raw pixels; then the test split's.

    Untrained encoders and raw pixels were scored by the runs of the baseline arm.
    """
    study, all_places = stored.study, places(stored.study)

    def row(place: Place, *, final: bool = False, **changes: Any) -> ResultRow:
        key = place_key(place, stored)._replace(**changes)
        own = [s for s in stored.slots if s.arm == place.arm and s.labels in (None, place.labels)]
        found, seeds = cell([_outcome(runs[slot.run], key) for slot in own]), [s.seed for s in own]
        return ResultRow(place, key.of, key.split, found, tuple(seeds), final=final)

    arms = [row(place) for place in all_places]
    marks, unpaired = (_marks(arms, stored, by_seed=by_seed) for by_seed in (True, False))
    yield from (r._replace(mark=marks.get(r.place), unpaired=unpaired.get(r.place)) for r in arms)
    frozen = [place for place in all_places if place.metric in FROZEN]
    for of in study.protocol.beside:
        if of != "chance":
            yield from (row(place, of=of) for place in frozen if place.arm == study.baseline)
    chosen = [place for place in frozen if place.arm == stored.selected]
    yield from (row(place, split="test", final=True) for place in chosen)


def _outcome(run: StudyRun, key: Key) -> Outcome:
    record, phase = run.numbers.get(key), run.state.phase
    if record is not None:
        # Records of fine-tuning have none; their encoder is that of the run.
        verdict = (record.verdict or run.state.verdict) if record.of == "encoder" else None
        return Outcome(COLLAPSE.get(verdict, "ended"), record.value)
    if run.claimed or phase not in ("collapsed", "diverged", "failed"):
        return Outcome("missing")
    return Outcome(phase)


def _marks(rows: Sequence[ResultRow], stored: StoredStudy, *, by_seed: bool) -> dict[Place, Mark]:
    """Marks among the arms of each metric and fraction; measures of collapse have no best."""
    correction, marks = stored.study.protocol.correction, dict[Place, Mark]()
    for column in {row.place[1:] for row in rows if row.place.metric in ACCURACIES}:
        own = [row for row in rows if row.place[1:] == column]
        summaries = {r.place.arm: r.cell.summary for r in own if r.cell.summary is not None}
        if len(summaries) > 1:
            pairs = {row.place.arm: row.by_seed for row in own} if by_seed else None
            marked = mark_best(summaries, correction=correction, pairs=pairs)
            marks |= {Place(arm, *column): mark for arm, mark in marked.items()}
    return marks


class ArmState(NamedTuple):
    """The runs of one arm, counted."""

    name: str
    runs: int
    done: int
    at_work: int
    failed: int  # or diverged, but for the collapsed
    collapsed: int
    diverged: int  # of the collapsed, after their last verdict
    knn: float | None  # mean over the seeds of the newest that each was watched by


class Overview(NamedTuple):
    """All arms, how much of the work is done, and a line for each run that is not."""

    arms: tuple[ArmState, ...]
    done: float  # of the work, 0 to 1
    lines: tuple[str, ...]


def study_overview(
    directory: StudyDirectory, stored: StoredStudy, jobs: Mapping[str, str] = MappingProxyType({})
) -> Overview:
    """The progress of a study; `jobs` describes runs that an engine has, by address."""
    results = load_results(directory, stored)
    missing = missing_runs(results)
    lacking = {slot.run for slot, _ in missing}
    share = _training_share([run for name, run in results.runs.items() if name not in lacking])
    done = [
        _done(run, share=share) if name in lacking else 1.0 for name, run in results.runs.items()
    ]
    lines = [
        f"{slot_text(slot)}: {_state_text(run, jobs.get(slot.run))} "
        f"({directory.folder(slot.run).path})"
        for slot, run in missing
    ]
    arms = tuple(_arm(results, arm.name, lacking) for arm in stored.study.arms)
    return Overview(arms, sum(done) / max(1, len(done)), tuple(lines))


def slot_text(slot: Slot) -> str:
    """`as it is, seed 0`, and the label fraction where there are several."""
    fraction = "" if slot.labels is None else f", {labels_text(slot.labels)}"
    return f"{slot.arm}, seed {slot.seed}{fraction}"


def _state_text(run: StudyRun, job: str | None) -> str:
    return run_text(run) if job is None else f"{job}, epoch {run.state.epoch}"


def run_text(run: StudyRun) -> str:
    """The state of a run."""
    state = run.state
    if run.claimed:
        return f"running, epoch {state.epoch}"
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
        failed=sum(_has_failed(results.runs[s.run]) for s in slots if s.run in lacking),
        collapsed=sum(run.state.verdict in COLLAPSE for run in runs),
        diverged=sum(map(diverged_later, runs)),
        knn=sum(watched) / len(watched) if watched else None,
    )


def diverged_later(run: StudyRun) -> bool:
    """Whether a run diverged after it had collapsed: it is counted with the collapsed."""
    return run.state.phase == "diverged" and run.state.verdict in COLLAPSE


def _has_failed(run: StudyRun) -> bool:
    """Whether a run has failed or diverged, and had not collapsed before."""
    ended = run.state.phase in ("failed", "diverged") and not run.claimed
    return ended and not diverged_later(run)


def _training_share(ended: Sequence[StudyRun]) -> float:
    """The part of the time of these runs that was pretraining; TRAINING where there are none."""
    tasks = [task for run in ended for task in run.attempts]
    whole = sum(task.wall_s for task in tasks)
    training = sum(task.wall_s for task in tasks if task.stage in ("pretrain", "resume"))
    return training / whole if whole else TRAINING


def _done(run: StudyRun, *, share: float) -> float:
    """How much of a run is done; a failed run is as done as it will be."""
    if run.state.phase in ("failed", "diverged", "collapsed") and not run.claimed:
        return 1.0
    epochs = max(1, run.card.epochs) if run.card else 1
    return share * min(1.0, run.state.epoch / epochs)


class CurvePoint(NamedTuple):
    """A number at one epoch, over the runs of an arm that have it."""

    arm: str
    epoch: int
    summary: Summary


def read_epochs(directory: StudyDirectory, stored: StoredStudy) -> Epochs:
    """The finished epochs of every pretraining; a run that cannot be read has none."""
    found: dict[str, dict[int, list[EpochRow]]] = {arm.name: {} for arm in stored.study.arms}
    for slot in stored.slots:
        if slot.labels is None and slot.arm in found:  # the study may have lost an arm since
            found[slot.arm][slot.seed] = directory.epoch_rows(slot.run)
    return {arm: {s: rows for s, rows in runs.items() if rows} for arm, runs in found.items()}


def seed_curves(epochs: Epochs, pick: Callable[[EpochRow], float | None]) -> list[CurvePoint]:
    """One number of each epoch as a mean over seeds; `pick` gives None where it was not taken."""
    points = []
    for arm, runs in epochs.items():
        values: dict[int, list[float]] = {}
        for row in (row for rows in runs.values() for row in rows):
            value = pick(row)
            if value is not None:
                values.setdefault(int(row["epoch"]), []).append(float(value))
        points += [CurvePoint(arm, epoch, summarize(values[epoch])) for epoch in sorted(values)]
    return points
