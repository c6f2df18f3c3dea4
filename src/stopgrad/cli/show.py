"""What a person sees on the terminal: progress, a line per epoch, the table of scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from stopgrad.pretrain import Epoch
    from stopgrad.records import Record, Subject

T = TypeVar("T")

METRICS = {
    "knn_accuracy": "kNN",
    "linear_accuracy": "linear probe (SGD)",
    "linear_lars_accuracy": "linear probe (LARS)",
}
SUBJECTS: tuple[Subject, ...] = ("encoder", "untrained", "pixels")


class Screen:
    """Progress on standard error; plain lines where that is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None

    def line(self, text: str) -> None:
        """One line of plain text, above the progress bars."""
        self.console.print(text, markup=False, soft_wrap=True)

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
        with Progress(*columns, console=self.console, transient=True) as self._progress:
            yield
        self._progress = None

    def track(self, items: Iterable[T], description: str, total: int, /) -> Iterable[T]:
        """Passes items on under a bar that goes when they end."""
        if self._progress is None:
            yield from items
            return
        task = self._progress.add_task(description, total=total, rate="")
        try:
            for item in items:
                yield item
                self._progress.advance(task)
        finally:
            self._progress.remove_task(task)


class TrainingBar:
    """One bar over all steps of a run: time left, views per second, loss and newest kNN."""

    def __init__(self, screen: Screen, *, total: int, done: int, batch: int) -> None:
        self.screen = screen
        self.total, self.done, self.batch = total, done, batch
        self._task: object = None

    def track(self, items: Iterable[T], description: str, total: int, /) -> Iterable[T]:
        """Moves the bar with the batches of an epoch."""
        progress = self.screen._progress
        if progress is None:
            yield from items
            return
        if self._task is None:
            self._task = progress.add_task(
                description, total=self.total, completed=self.done, rate=""
            )
        progress.update(self._task, description=description)  # type: ignore[arg-type]
        for item in items:
            yield item
            progress.advance(self._task)  # type: ignore[arg-type]
            speed = progress.tasks[0].speed or 0
            progress.update(self._task, rate=f"{2 * self.batch * speed:,.0f} views/s")  # type: ignore[arg-type]


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One line: epoch, loss, kNN, speed, verdict."""
    knn = "" if epoch.knn is None else f"  kNN {epoch.knn:6.2%}"
    return (
        f"epoch {epoch.number:{len(str(epochs))}d}/{epochs}  loss {epoch.loss:+.4f}{knn}  "
        f"{epoch.views_per_s:,.0f} views/s  {epoch.verdict.state}: {epoch.verdict.reason}"
    )


def scores_table(records: Sequence[Record]) -> Table:
    """Encoder, untrained encoder and raw pixels beside each other, a row per metric and share."""
    first = records[0]
    title = f"top-1 accuracy on {first.images_scored:,} {first.split} images, in %"
    table = Table(title=title, title_justify="left")
    table.add_column("labels", justify="right")
    table.add_column("metric")
    for subject in SUBJECTS:
        table.add_column(subject, justify="right", style="bold" if subject == "encoder" else "")
    found = {(r.labels, r.metric, r.of): r.value for r in records}
    for share in sorted({r.labels for r in records}, reverse=True):
        for metric, name in METRICS.items():
            values = [found.get((share, metric, subject)) for subject in SUBJECTS]
            cells = ["" if value is None else f"{100 * value:.2f}" for value in values]
            table.add_row(f"{share:.0%}" if share >= 0.01 else f"{share:.2%}", name, *cells)
    return table


def finding(records: Sequence[Record]) -> str:
    """One sentence: what pretraining brought over the untrained encoder and raw pixels."""
    values = {r.of: r.value for r in records if r.metric == "knn_accuracy" and r.labels == 1}
    if len(values) < len(SUBJECTS):
        return ""
    gains = {name: 100 * (values["encoder"] - values[name]) for name in SUBJECTS[1:]}
    return (
        f"By kNN the pretrained encoder is {gains['untrained']:+.1f} points against the untrained "
        f"one and {gains['pixels']:+.1f} against raw pixels."
    )
