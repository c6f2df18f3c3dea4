"""What one sees on standard error while the library works: progress bars and plain lines.

In a terminal and in a notebook the bars move; in a log there are the lines alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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

from stopgrad import runs
from stopgrad.evaluation import labels_text
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.evaluation import Record
    from stopgrad.method import Clean
    from stopgrad.training import Epoch, FractionEpoch, LabelledEpoch

T = TypeVar("T")

REDRAW = 0.25  # s between two pictures of a bar in a notebook


class Screen:
    """Progress on standard error."""

    def __init__(self) -> None:
        first = os.environ.get("RANK", "0") == "0"  # of several processes only one prints
        self.console = Console(stderr=True, highlight=False, quiet=not first)
        self.bars: Progress | None = None

    @property
    def moves(self) -> bool:
        """Whether a bar can be drawn anew here."""
        return self.console.is_terminal or self.console.is_jupyter

    def line(self, text: str) -> None:
        """One line of plain text, above the progress bars; lost where it cannot be written."""
        with suppress(OSError):
            self.console.print(printable(text), markup=False, soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Bars are shown in here, where they can move."""
        if not self.moves:
            yield
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        bars = _InNotebook if self.console.is_jupyter else Progress
        with bars(*columns, console=self.console, transient=True) as self.bars:
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


class _InNotebook(Progress):
    """Bars in one output of a notebook, drawn anew in place; rich's own need ipywidgets."""

    def start(self) -> None:
        from IPython.display import display

        self._place = display(self, display_id=True)
        self._drawn = time.monotonic()

    def stop(self) -> None:
        self._place.update({"text/html": "", "text/plain": ""}, raw=True)

    def refresh(self) -> None:
        if time.monotonic() - self._drawn > REDRAW:
            self._place.update(self)
            self._drawn = time.monotonic()

    def update(self, *arguments: Any, **values: Any) -> None:
        super().update(*arguments, **values)
        self.refresh()

    def advance(self, *arguments: Any) -> None:
        super().advance(*arguments)
        self.refresh()


class TrainingBar:
    """One bar over all steps of a run: time left, views per second, newest loss and kNN."""

    def __init__(self, screen: Screen, run: Path) -> None:
        self.screen, self.run = screen, run
        self._views_per_step = 0
        self._newest = self._knn = ""
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
            views_per_s = self._views_per_step * (bars.tasks[self._task].speed or 0)
            bars.update(self._task, rate=f"{views_per_s:,.0f} views/s{self._newest}")

    def show(
        self, epochs: Iterable[Epoch], on_epoch: Callable[[Epoch], object] | None = None
    ) -> None:
        """Trains to the end, with a line for each epoch and the newest verdict below."""
        verdict = None
        with self.screen.progress():
            for epoch in epochs:
                verdict = epoch.verdict or verdict
                self._knn = self._knn if epoch.knn is None else f"  kNN {epoch.knn:.2%}"
                self._newest = f"  loss {epoch.loss:+.3f}{self._knn}"
                self.screen.line(epoch_line(epoch, runs.read_run(self.run).config.epochs))
                if epoch.clean is not None:
                    self.screen.line(clean_line(epoch.clean))
                if on_epoch is not None:
                    on_epoch(epoch)
        if verdict is not None and verdict.advice:
            self.screen.line(f"verdict: {verdict.state}; try: {verdict.advice}")

    def _begin(self, bars: Progress) -> TaskID:
        """The bar, once the run is on disk and says how long it is."""
        info = runs.read_run(self.run)
        self._views_per_step = 2 * info.config.batch
        done = runs.newest_step(self.run)
        return bars.add_task("", total=info.steps, completed=done, rate="")


def clean_line(clean: Clean) -> str:
    """One line: z on many images without augmentation."""
    z = clean.z
    return (
        f"z on {clean.images:,} training images without augmentation: effective rank "
        f"{z.effective_rank:.1f}, correlation strength {z.correlation_strength:.3f}"
    )


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One line: epoch, loss, kNN, speed, verdict."""
    knn = "" if epoch.knn is None else f"  kNN {epoch.knn:6.2%}"
    verdict = "" if epoch.verdict is None else f"  {epoch.verdict.state}: {epoch.verdict.reason}"
    return (
        f"epoch {epoch.number:{len(str(epochs))}d}/{epochs}  loss {epoch.loss:+.4f}{knn}  "
        f"{epoch.views_per_s:,.0f} views/s{verdict}"
    )


def show_fractions(
    found: Iterable[FractionEpoch], screen: Screen, *, epochs: int
) -> Iterator[Record]:
    """Trains with each fraction of the labels, with a line for each epoch."""
    with screen.progress():
        for done in found:
            if done.epoch is not None:
                screen.line(_fraction_line(done.labels, done.epoch, epochs=epochs))
            if done.record is not None:
                yield done.record


def _fraction_line(labels: float, epoch: LabelledEpoch, *, epochs: int) -> str:
    """One line: fraction of the labels, epoch, loss, speed, and the accuracy at the end."""
    accuracy = "" if epoch.score is None else f"  accuracy {epoch.score.accuracy:.2%}"
    return (
        f"{labels_text(labels)}: epoch {epoch.number:{len(str(epochs))}d}/{epochs}  "
        f"loss {epoch.loss:.4f}  {epoch.images_per_s:,.0f} images/s{accuracy}"
    )
