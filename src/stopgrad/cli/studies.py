"""The commands of `stopgrad study`, and what a person sees while one runs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from rich.live import Live
from rich.table import Table
from rich.text import Text

from stopgrad.cli.show import Screen, print_line
from stopgrad.errors import ConfigError, FailedRunsError
from stopgrad.evaluation import duration
from stopgrad.report import study_table
from stopgrad.storage import printable
from stopgrad.studies import (
    ArmState,
    Choices,
    Overview,
    Prepared,
    StudyDirectory,
    built_in_studies,
    conduct_study,
    local_processes,
    prepare_study,
    read_study,
    study_file,
    study_overview,
)

REFRESH_S = 2.0


def list_all(options: argparse.Namespace) -> None:
    """Names the studies with their questions, or prints the file of one."""
    if options.name is not None:
        print_line(study_file(options.name).rstrip("\n"))
        return
    for name in built_in_studies():
        study = read_study(name).study
        split, arms = study.protocol.split, len(study.arms)
        print_line(f"{name:14} {study.question} ({arms} arms, {split} split)")


def run_study(options: argparse.Namespace) -> None:
    """Runs what is left of a study.

    Raises:
        FailedRunsError: When runs failed; the others are done.
    """
    screen, seeds = Screen(), _seeds(options.seeds)
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}", expected="at least 1", hint="raise it")
    choices = Choices(options.preset, options.changes, seeds)
    with screen.progress():
        prepared = prepare_study(
            options.name, choices, spec=options.data, out=options.out, track=screen.track
        )
    for change in prepared.changes:
        screen.line(f"{prepared.study.name} changed since it was begun: {change}")
    executor = local_processes(jobs=options.jobs, device=str(options.changes.get("device", "auto")))
    watch = Watcher(prepared, screen, jobs=executor.slots)
    with watch.shown():
        failed = conduct_study(prepared, executor, watch=watch, retry=options.retry)
    count, runs = len(failed), len(prepared.plan.runs)
    screen.line(
        f"{runs - count} of {runs} runs done; see them with: stopgrad study table {options.out}"
    )
    if failed:
        raise _failed(prepared, failed)


def status(options: argparse.Namespace) -> None:
    """Says how each run of a directory stands."""
    from rich.console import Console

    console = Console(highlight=False)
    directory = StudyDirectory(options.directory)
    for stored in directory.read_all():
        found = study_overview(directory, stored)
        console.print(arms_table(found, title=stored.study.name))
        for line in found.lines:
            print_line(line)


def table(options: argparse.Namespace) -> None:
    """Prints the tables of a directory, or that of one of its studies."""
    directory = StudyDirectory(options.directory)
    names = [options.study] if options.study else [s.study.name for s in directory.read_all()]
    tables = [study_table(directory, name, form=options.format) for name in names]
    if options.format == "json" and options.study is None:
        tables = ["[" + ",\n".join(tables) + "]"]
    print_line("\n\n".join(tables))


class Watcher:
    """Shows a study while it runs: a table on a terminal, a line per event elsewhere."""

    def __init__(self, prepared: Prepared, screen: Screen, *, jobs: int) -> None:
        self._prepared, self._screen = prepared, screen
        self._names: dict[str, str] = {}
        for slot in prepared.plan.slots:
            named, name = self._names.get(slot.run), f"{slot.arm}, seed {slot.seed}"
            self._names[slot.run] = f"{named}; {name}" if named else name
        self._live: Live | None = None
        self._begun, self._share, self._next = time.monotonic(), 0.0, 0.0
        screen.line(f"{prepared.study.name}: {len(prepared.plan.runs)} runs, {jobs} at once")

    def shown(self) -> AbstractContextManager[object]:
        """The table is on the terminal in here."""
        if not self._screen.console.is_terminal:
            return nullcontext()
        self._share = self._look().share
        self._live = Live(console=self._screen.console, auto_refresh=False, transient=True)
        return self._live

    def event(self, run: str, text: str) -> None:
        """A line, above the table where there is one."""
        self._screen.line(f"{self._names[run]} ({run}): {text}")

    def tick(self) -> None:
        """Draws the table anew every other second."""
        if self._live is None or time.monotonic() < self._next:
            return
        found = self._look()
        left = time_left(time.monotonic() - self._begun, began=self._share, now=found.share)
        title = f"{self._prepared.study.name}, {left}"
        self._live.update(arms_table(found, title=title), refresh=True)
        self._next = time.monotonic() + REFRESH_S

    def _look(self) -> Overview:
        directory = self._prepared.directory
        return study_overview(directory, directory.read(self._prepared.study.name))


def arms_table(found: Overview, *, title: str) -> Table:
    """Arms with their runs: done, at work, failed, and the newest kNN."""
    table = Table(title=Text(printable(title)), title_justify="left")
    table.add_column("arm")
    for column in ("done", "at work", "failed", "collapsed", "newest kNN"):
        table.add_column(column, justify="right")
    for arm in found.arms:
        table.add_row(*map(Text, _cells(arm)))
    return table


def time_left(elapsed_s: float, *, began: float, now: float) -> str:
    """Time left, by the share of the work that this session has done in its time."""
    if now >= 1:
        return "done"
    if now <= began:
        return "time left not known yet"
    return f"about {duration(elapsed_s / (now - began) * (1 - now))} left"


def _cells(arm: ArmState) -> tuple[str, ...]:
    knn = "" if arm.knn is None else f"{100 * arm.knn:.2f} %"
    counts = (str(count or "") for count in (arm.at_work, arm.failed, arm.collapsed))
    return (printable(arm.name), f"{arm.done}/{arm.runs}", *counts, knn)


def _seeds(words: list[int]) -> tuple[int, ...]:
    if len(words) > 1:
        return tuple(words)
    if words[0] < 1:
        raise ConfigError(f"--seeds {words[0]}", expected="at least 1", hint="raise it")
    return tuple(range(words[0]))


def _failed(prepared: Prepared, failed: Mapping[str, str]) -> FailedRunsError:
    run, reason = next(iter(failed.items()))
    return FailedRunsError(
        f"{len(failed)} of {len(prepared.plan.runs)} runs failed, such as {run} ({reason})",
        expected="runs to their last number",
        hint=f"see all with: stopgrad study status {prepared.directory.path}",
    )
