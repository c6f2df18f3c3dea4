"""Studies, trained, watched and shown; runs and stores verified.

In: paths. Out: `Studies`, the studies of a directory; a finding for each file.
"""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from rich.live import Live

from stopgrad import images, report, studies
from stopgrad.config import key_paths
from stopgrad.errors import CheckpointError, ConfigError, DataError, FailedRunsError
from stopgrad.evaluation import duration
from stopgrad.face.arguments import in_plain_torch
from stopgrad.face.data import Data, as_data, spec_of
from stopgrad.face.opened import findings_of
from stopgrad.face.progress import Screen, at_work
from stopgrad.face.tables import Shown
from stopgrad.report import Column, Table, TableCell
from stopgrad.storage import user_path

if TYPE_CHECKING:
    from stopgrad.storage import Finding
    from stopgrad.studies import (
        ArmState,
        Choices,
        EngineName,
        Overview,
        PreparedStudy,
        StudyFile,
        Where,
    )

REFRESH_S = 1.0


@at_work
def verify(
    path: str | os.PathLike[str], *, each: Callable[[Finding], None] | None = None
) -> list[Finding]:
    """Checks every file of a run or of a packed store.

    Args:
        path: The run or the store.
        each: Called with each finding as it comes, before an error too.

    Raises:
        CheckpointError: At the end, when a file of a run is not as it should be.
        DataError: At the end, when a file of a store is not.
    """
    path = user_path(path)
    Screen().doing("reading the files")
    packed, findings = images.is_store(path), []
    for finding in images.verify_store(path) if packed else findings_of(path):
        findings.append(finding)
        if each is not None:
            with Screen().paused():
                each(finding)
    wrong = [finding.file for finding in findings if not finding.ok]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise (DataError if packed else CheckpointError)(
            f"{len(wrong)} of {len(findings)} files of {path} are damaged or changed: "
            f"{', '.join(wrong[:3])}{more}",
            expected=f"the files that {'`stopgrad pack`' if packed else 'stopgrad'} wrote",
            hint="pack it again into a new store"
            if packed
            else "resume continues from the newest intact checkpoint",
        )
    return findings


class Studies:
    """The studies of a directory."""

    def __init__(self, path: str | Path) -> None:
        """Opens a directory that `study` wrote."""
        self.path = user_path(path)
        self._directory = studies.StudyDirectory(self.path)

    @property
    def names(self) -> list[str]:
        """The studies that were begun here."""
        return [stored.study.name for stored in self._directory.read_all()]

    @at_work
    def table(
        self,
        name: str | None = None,
        *,
        form: Literal["markdown", "csv", "json"] = "markdown",
    ) -> str:
        """The results next to the published ones, from the records so far.

        Args:
            name: One of the studies; None: all.
            form: How the table is written.

        Raises:
            DataError: When there is no such study.
        """
        names = self.names if name is None else [name]
        tables = [report.study_table(self._directory, each, form=form) for each in names]
        if form == "json" and name is None:
            return "[" + ",\n".join(tables) + "]"
        return "\n\n".join(tables)

    @at_work
    def parts(self, name: str | None = None) -> list[Table | str]:
        """The same as tables and sentences, for a terminal; name and errors as of `table`."""
        names = self.names if name is None else [name]
        return [part for each in names for part in report.study_parts(self._directory, each)]

    @property
    @at_work
    def states(self) -> list[ArmsTable]:
        """The state of the runs of each study."""
        jobs = studies.job_texts(self._directory)
        return [
            ArmsTable(stored.study.name, studies.study_overview(self._directory, stored, jobs))
            for stored in self._directory.read_all()
        ]

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.states))

    def _repr_html_(self) -> str:
        return "".join(state._repr_html_() for state in self.states)


class StudyWatch:
    """Shows a study while it runs: a table where it can move, a line per event elsewhere."""

    def __init__(self, prepared: PreparedStudy, screen: Screen, *, jobs: int) -> None:
        self._prepared, self._screen = prepared, screen
        self._names: dict[str, str] = {}
        for slot in prepared.plan.slots:
            named, name = self._names.get(slot.run), f"{slot.arm}, seed {slot.seed}"
            self._names[slot.run] = f"{named}; {name}" if named else name
        self._live: Live | None = None
        self._begun, self._done, self._next = time.monotonic(), 0.0, 0.0
        screen.line(f"{prepared.study.name}: {len(prepared.plan.runs)} runs, {jobs} at once")

    def shown(self) -> AbstractContextManager[object]:
        """Shows the table on the terminal in here."""
        if not self._screen.console.is_terminal:
            return nullcontext()
        self._done = self._look().done
        self._live = Live(console=self._screen.console, auto_refresh=False, transient=True)
        return self._live

    def event(self, run: str, text: str) -> None:
        """Prints a line, above the table if there is one."""
        self._screen.line(f"{self._names[run]} ({run}): {text}")

    def tick(self) -> None:
        """Redraws the table every second."""
        if self._live is None or time.monotonic() < self._next:
            return
        found = self._look()
        left = time_left(
            time.monotonic() - self._begun,
            began=self._done,
            now=found.done,
            least=not any(arm.done for arm in found.arms),
        )
        title = f"{self._prepared.study.name}, {left}"
        self._live.update(*ArmsTable(title, found).tables, refresh=True)
        self._next = time.monotonic() + REFRESH_S

    def _look(self) -> Overview:
        directory = self._prepared.directory
        return studies.study_overview(directory, directory.read(self._prepared.study.name))


def time_left(elapsed_s: float, *, began: float, now: float, least: bool = False) -> str:
    """Time left, from how much of the work this session has done so far.

    It is only the `least` until a run has ended and shown how long scoring takes.
    """
    if now >= 1:
        return "done"
    if now <= began:
        return "time left not known yet"
    left = duration(elapsed_s / (now - began) * (1 - now))
    return f"{'at least' if least else 'about'} {left} left"


class ArmsTable(Shown):
    """The arms of a study with their runs: done, running, failed, and the newest kNN."""

    def __init__(self, title: str, found: Overview) -> None:
        self.title, self.found = title, found

    @property
    def tables(self) -> list[Table]:
        """A row per arm."""
        counted = ("done", "running", "failed", "collapsed", "newest kNN")
        return [
            Table(
                "arms",
                (Column("arm"), *(Column(head, "right") for head in counted)),
                tuple(tuple(map(TableCell, _arm_cells(arm))) for arm in self.found.arms),
                self.title,
            )
        ]

    @property
    def lines(self) -> list[str]:
        """A line for each run that is not done."""
        return list(self.found.lines)


def _arm_cells(arm: ArmState) -> tuple[str, ...]:
    knn = "" if arm.knn is None else f"{100 * arm.knn:.2f} %"
    counts = (str(runs or "") for runs in (arm.at_work, arm.failed))
    collapsed = str(arm.collapsed or "") + f" ({arm.diverged} diverged)" * bool(arm.diverged)
    return (arm.name, f"{arm.done}/{arm.runs}", *counts, collapsed, knn)


@in_plain_torch
def study(
    name: str,
    /,
    *,
    data: str | Path | Data,
    out: str | Path,
    preset: str = "cifar",
    seeds: int | Sequence[int] = 5,
    jobs: int | None = None,
    retry: bool = False,
    on: EngineName = "local",
    slurm: Mapping[str, str] = MappingProxyType({}),
    ray_address: str = "auto",
    devices: int = 1,
    **knobs: Any,
) -> Studies:
    """Runs what is left of a study: each arm over the seeds.

    Args:
        name: A study by name, or a YAML file.
        data: As for `check`.
        out: The directory, which may hold several studies.
        preset: As for `pretrain`.
        seeds: How many, from 0 on, or which.
        jobs: Runs at once; None: one per GPU, or two on a machine without; 16 on a cluster.
        retry: Also repeats runs that failed, whatever the reason.
        on: Where: processes of this machine, jobs of Slurm, or actors of Ray.
        slurm: Options of sbatch for each job, such as `{"partition": "gpu", "time": "4:00:00"}`.
        ray_address: HOST:PORT of a cluster of Ray, or "auto".
        devices: Processes of each pretraining on its node, with Slurm and Ray.
        **knobs: As for `pretrain`; they hold for all arms.

    Raises:
        ConfigError: For a study, a knob or a number that is invalid.
        DataError: When the images do not suit the study.
        FailedRunsError: When runs failed; the others are done.
        InterruptedStudyError: After a signal, when every run has saved.
    """
    where = studies.Where(on, jobs, slurm, ray_address, devices)
    studies.check_place(where)
    choices = studies.Choices(preset, as_data(data).reading_knobs | key_paths(knobs), _seeds(seeds))
    out = user_path(out)
    place = out if on == "local" else out.absolute()  # nodes may have another working directory
    prepared, failed = conduct(name, choices, where, spec=spec_of(data), out=place, retry=retry)
    if failed:
        raise failed_runs(prepared, failed)
    return Studies(place)


def conduct(
    name: str | StudyFile,
    choices: Choices,
    where: Where,
    *,
    spec: str,
    out: Path,
    retry: bool = False,
) -> tuple[PreparedStudy, Mapping[str, str]]:
    """Runs and shows what is left of a study; returns it and the failed runs with the reasons."""
    screen = Screen()
    with screen.progress():
        prepared = studies.prepare_study(name, choices, spec=spec, out=out, track=screen.track)
    for change in prepared.changes:
        screen.line(f"{prepared.study.name} changed since it was begun: {change}")
    wanted = {run.config.device for run in prepared.plan.runs.values()}
    device = wanted.pop() if len(wanted) == 1 else "auto"
    executor = studies.executor_for(where, prepared.directory, device=device)
    watch = StudyWatch(prepared, screen, jobs=executor.slots)
    with watch.shown():
        failed = studies.run_study(prepared, executor, watch=watch, retry=retry)
    total = len(prepared.plan.runs)
    screen.line(f"{total - len(failed)} of {total} runs done")
    return prepared, failed


def failed_runs(prepared: PreparedStudy, failed: Mapping[str, str]) -> FailedRunsError:
    """The error for a study with failed runs."""
    run, reason = next(iter(failed.items()))
    return FailedRunsError(
        f"{len(failed)} of {len(prepared.plan.runs)} runs failed, such as {run} ({reason})",
        expected="every run to finish and be scored",
        hint=f"see all with: stopgrad study status {quote(str(prepared.directory.path))}",
    )


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    try:
        of = seeds if isinstance(seeds, Iterable) else range(operator.index(seeds))
        chosen = tuple(map(operator.index, of))
    except TypeError as error:
        raise ConfigError(f"seeds = {seeds!r}", expected="a number, or a list of them") from error
    if not chosen:
        raise ConfigError(f"--seeds {seeds}", expected="at least 1")
    return chosen
