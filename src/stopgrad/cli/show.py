"""What a person sees on the terminal: progress, a line per epoch, the table of scores."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from stopgrad.evaluation import METRICS, SUBJECTS, labels_text, percent
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.evaluation import Record
    from stopgrad.training import Epoch

T = TypeVar("T")


def print_line(text: str) -> None:
    """A line of results on standard output, at once; names in it cannot steer the terminal."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


class Screen:
    """Progress on standard error; plain lines where that is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bars: Progress | None = None

    def line(self, text: str) -> None:
        """One line of plain text, above the progress bars."""
        self.console.print(printable(text), markup=False, soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Bars are shown in here, where standard error is a terminal."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        if not self.console.is_terminal:
            yield
            return
        with Progress(*columns, console=self.console, transient=True) as self.bars:
            yield
        self.bars = None

    def track(self, items: Iterable[T], description: str, total: int, /) -> Iterable[T]:
        """Passes items on under a bar that goes when they end."""
        if self.bars is None:
            yield from items
            return
        task = self.bars.add_task(description, total=total, rate="")
        try:
            for item in items:
                yield item
                self.bars.advance(task)
        finally:
            self.bars.remove_task(task)


class TrainingBar:
    """One bar over all steps of a run: time left, views per second, newest loss and kNN."""

    def __init__(self, screen: Screen, run: Path) -> None:
        self.screen, self.run = screen, run
        self.views_per_step = 0
        self.newest = ""
        self._task: TaskID | None = None

    def track(self, items: Iterable[T], description: str, total: int, /) -> Iterable[T]:
        """Moves the bar with the batches of an epoch."""
        bars = self.screen.bars
        if bars is None:
            yield from items
            return
        if self._task is None:
            self._task = self._begin(bars)
        bars.update(self._task, description=description)
        for item in items:
            yield item
            bars.advance(self._task)
            speed = bars.tasks[self._task].speed or 0
            bars.update(self._task, rate=f"{self.views_per_step * speed:,.0f} views/s{self.newest}")

    def _begin(self, bars: Progress) -> TaskID:
        """The bar, once the run is on disk and says how long it is."""
        from stopgrad.runs import newest_step, read_run

        info = read_run(self.run)
        self.views_per_step = 2 * info.config.batch
        return bars.add_task("", total=info.steps, completed=newest_step(self.run), rate="")

    def show(self, epoch: Epoch) -> None:
        """Takes over what an epoch ended with."""
        knn = "" if epoch.knn is None else f"  kNN {epoch.knn:.2%}"
        self.newest = f"  loss {epoch.loss:+.3f}{knn or self._old_knn()}"

    def _old_knn(self) -> str:
        """The kNN of an earlier epoch stays until there is a newer one."""
        return self.newest[self.newest.find("  kNN") :] if "  kNN" in self.newest else ""


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One line: epoch, loss, kNN, speed, verdict."""
    knn = "" if epoch.knn is None else f"  kNN {epoch.knn:6.2%}"
    verdict = "" if epoch.verdict is None else f"  {epoch.verdict.state}: {epoch.verdict.reason}"
    return (
        f"epoch {epoch.number:{len(str(epochs))}d}/{epochs}  loss {epoch.loss:+.4f}{knn}  "
        f"{epoch.views_per_s:,.0f} views/s{verdict}"
    )


def scores_table(records: Sequence[Record]) -> Table:
    """What was scored beside each other, a row per metric and share of the labels."""
    first = records[0]
    title = f"top-1 accuracy on {first.images_scored:,} {first.split} images"
    table = Table(title=title, title_justify="left")
    table.add_column("labels", justify="right")
    table.add_column("metric")
    subjects = [of for of in SUBJECTS if of in {r.of for r in records}]
    for subject in subjects:
        bold = "bold" if subject == "encoder" else ""
        table.add_column(SUBJECTS[subject], justify="right", style=bold)
    found = {(r.labels, r.metric, r.of): r.value for r in records}
    for share in sorted({r.labels for r in records}, reverse=True):
        for metric, name in METRICS.items():
            values = [found.get((share, metric, subject)) for subject in subjects]
            if values == [None] * len(values):
                continue
            cells = [
                "" if value is None else percent(value, images=first.images_scored)
                for value in values
            ]
            table.add_row(f"{100 * share:g} %", name, *cells)
    used = {r.labels: r.protocol["k"] for r in records if r.metric == "knn_accuracy"}
    ks = ", ".join(f"{k} with {labels_text(share)}" for share, k in used.items())
    knn = f"kNN: cosine, k = {ks}; probes and " if ks else ""
    table.caption = f"{knn}protocols: --json; epoch {first.epoch}"
    return table
