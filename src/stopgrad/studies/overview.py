"""A study at a glance: how many runs of each arm are done, at work or lost, and how far it is."""

from __future__ import annotations

from typing import NamedTuple

from stopgrad.errors import DataError
from stopgrad.evaluation import labels_text
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.plan import Slot
from stopgrad.studies.results import COLLAPSE, Results, RunResult, load_results, missing_runs
from stopgrad.studies.stored import StoredStudy

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
    shares = [
        _share(run, epochs=_length(directory, name)) if name in lacking else 1.0
        for name, run in results.runs.items()
    ]
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


def run_text(run: RunResult) -> str:
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


def _length(directory: StudyDirectory, run: str) -> int:
    """How many epochs a run is to have; 1 where its card cannot be read."""
    try:
        return max(1, directory.run(run).card().epochs)
    except DataError:
        return 1


def _share(run: RunResult, *, epochs: int) -> float:
    """How much of a run is done; a run that failed is as done as it will be."""
    if run.state.phase in ("failed", "diverged", "collapsed") and not run.claimed:
        return 1.0
    return TRAINING * min(1.0, run.state.epoch / epochs)
