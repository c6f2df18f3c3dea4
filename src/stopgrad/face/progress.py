"""Progress on standard error while the library works: bars that move, or the lines of a log.

A terminal or a notebook shows a bar, or at least the elapsed time, as long as there is work. A log
gets lines, with the time of day.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from stopgrad import runs
from stopgrad.errors import ConfigError
from stopgrad.evaluation import balance_text, duration, labels_text
from stopgrad.storage import printable, wrapped

if TYPE_CHECKING:
    from stopgrad.evaluation import Record
    from stopgrad.method import Clean
    from stopgrad.training import Epoch, FractionEpoch, LabelledEpoch

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

LOG_EVERY_S = 30.0  # between two lines in a log about the same work
WIDE = 100  # columns that a bar needs to show the speed and the elapsed time too
NARROW = 70  # columns; below this there is room only for words and numbers
REDRAW = 0.25  # s between two drawings of a bar in a notebook


class Screen:
    """Progress on standard error. All screens of a process share its one display."""

    bars: ClassVar[Progress | None] = None  # the display, while there is work

    def __init__(self) -> None:
        first = os.environ.get("RANK", "0") == "0"  # of several processes only one prints
        own = Console(stderr=True, highlight=False, quiet=not first)
        self.console = Screen.bars.console if Screen.bars else own

    @property
    def moves(self) -> bool:
        """Whether a bar can be redrawn here."""
        return self.console.is_jupyter or (
            self.console.is_terminal and not self.console.is_dumb_terminal
        )

    def line(self, text: str) -> None:
        """Prints a line of plain text: wrapped above the bars, or after the time in a log.

        It is dropped if it cannot be written.
        """
        if self.moves:
            text = wrapped(text, self.console.width)
        else:
            text = printable(f"{time.strftime('%H:%M:%S')}  {text}")
        with suppress(OSError):
            self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Shows bars in here, where they can move, and the elapsed time between them."""
        if Screen.bars is not None or not self.moves:
            yield
            return
        kind = _InNotebook if self.console.is_jupyter else Progress
        with kind(
            *progress_columns(self.console.width),
            console=self.console,
            transient=True,
            redirect_stdout=False,
            expand=True,
            refresh_per_second=4,
        ) as Screen.bars:
            Screen.bars.add_task("starting", total=None, rate="")
            try:
                yield
            finally:
                Screen.bars = None

    def doing(self, text: str) -> None:
        """Names the work that follows, which has no bar of its own."""
        if Screen.bars is not None:
            Screen.bars.reset(Screen.bars.task_ids[0], description=text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Takes bars off the terminal in here, where results are printed."""
        bars = Screen.bars
        if bars is None or not sys.stdout.isatty():
            yield
            return
        bars.stop()
        try:
            yield
        finally:
            bars.start()

    @contextmanager
    def bar(self, description: str, *, total: int | None) -> Iterator[TaskID | None]:
        """A bar instead of the elapsed time; None where there is no display."""
        bars = Screen.bars
        if bars is None:
            yield None
            return
        idle = bars.task_ids[0]
        task = bars.add_task(description, total=total, rate="")
        bars.update(idle, visible=False)
        try:
            yield task
        finally:
            bars.remove_task(task)
            if len(bars.task_ids) == 1:
                bars.reset(idle, visible=True, description="working")

    def track(self, items: Iterable[T], description: str, total: int, /) -> Iterator[T]:
        """Yields the items under a bar that is removed at the end, or with lines in a log."""
        log, began = LogLines(self), time.monotonic()
        with self.bar(description, total=total) as task:
            for done, item in enumerate(items, start=1):
                yield item
                if task is not None and Screen.bars is not None:
                    Screen.bars.advance(task)
                elif done < total and log.is_due():
                    left = (time.monotonic() - began) / done * (total - done)
                    log.line(f"{description}: {done:,} of {total:,}, about {duration(left)} left")


class LogLines:
    """Lines in a log about long work; none where bars are shown."""

    def __init__(self, screen: Screen) -> None:
        self.screen, self._said = screen, time.monotonic()

    def is_due(self) -> bool:
        """Whether the next line is due."""
        return not self.screen.moves and time.monotonic() - self._said >= LOG_EVERY_S

    def line(self, text: str) -> None:
        """Writes a line."""
        self.screen.line(text)
        self._said = time.monotonic()


def progress_columns(width: int) -> Iterator[ProgressColumn]:
    """What a line of so many characters has room for. None of it wraps."""
    yield _Described(width // 2 + 4 if width < NARROW else width)
    if width >= NARROW:
        yield BarColumn(bar_width=20 if width >= WIDE else 6)
    yield _Counted(table_column=Column(no_wrap=True))
    yield _Times(both=width >= WIDE)
    yield TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True, ratio=1))


class _Described(ProgressColumn):
    """What is done, in so many characters at most."""

    def __init__(self, room: int) -> None:
        super().__init__(Column(no_wrap=True))
        self.room = room

    def render(self, task: Task) -> Text:
        text = Text(task.description)
        text.truncate(self.room, overflow="ellipsis")
        return text


class _Counted(MofNCompleteColumn):
    """`12/400`; nothing for work without a count."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class _Times(ProgressColumn):
    """`0:12 elapsed, 1:40 left`, or one of both; what is left is not known without a count."""

    max_refresh = 0.5

    def __init__(self, *, both: bool) -> None:
        super().__init__(Column(no_wrap=True))
        self.both = both

    def render(self, task: Task) -> Text:
        left, elapsed = task.time_remaining, f"{_clock(task.elapsed or 0)} elapsed"
        if left is None:
            return Text(elapsed)
        return Text(f"{elapsed}, {_clock(left)} left" if self.both else f"{_clock(left)} left")


def _clock(seconds: float) -> str:
    """`1:40`, `2:01:40`."""
    return str(timedelta(seconds=int(seconds))).removeprefix("0:").removeprefix("0")


class _InNotebook(Progress):
    """Bars in one output of a notebook, redrawn in place; rich's own need ipywidgets."""

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
    """One bar over all steps of a run: time left, newest loss and kNN, views per second."""

    def __init__(self, screen: Screen, run: Path) -> None:
        self.screen, self.run = screen, run
        self._newest = ""
        self._log = LogLines(screen)
        self._task: TaskID | None = None
        self._epochs = self._steps = self._step = self._first = self._views_per_step = 0
        self._began = 0.0

    def track(self, items: Iterable[T], description: str, total: int, /) -> Iterator[T]:
        """Moves the bar with the batches of an epoch."""
        if not self._steps:
            self._begin()
        for item in items:
            yield item
            self._step += 1
            if Screen.bars is not None and self._task is not None:
                Screen.bars.update(
                    self._task, description=description, completed=self._step, rate=self._rate()
                )
            elif self._log.is_due():
                self._log.line(
                    f"{description}: step {self._step:,} of {self._steps:,}, {self._left()}"
                )

    def show(
        self, epochs: Generator[Epoch], on_epoch: Callable[[Epoch], object] | None = None
    ) -> None:
        """Trains to the end, with a line for each epoch and the newest verdict below."""
        if on_epoch is not None and not callable(on_epoch):
            raise ConfigError(f"on_epoch = {on_epoch!r}", expected="a function of an Epoch")
        verdict, knn = None, ""
        # Closed here, an interrupted run is saved and unlocked, whoever holds the exception.
        with self.screen.bar("preparing", total=None) as self._task, closing(epochs):
            for epoch in epochs:
                verdict = epoch.verdict or verdict
                if epoch.knn is not None:
                    knn = f"  kNN {epoch.knn:.1%}"
                if epoch.balance.balanced is not None:
                    knn += f", balanced {epoch.balance.balanced:.1%}"
                self._newest = f"loss {epoch.loss:+.2f}{knn}"
                left = "" if self.screen.moves else f"  {self._left()}"
                self._log.line(epoch_line(epoch, self._epochs) + left)
                if epoch.clean is not None:
                    self._log.line(clean_line(epoch.clean))
                if on_epoch is not None:
                    on_epoch(epoch)
        if verdict is not None and verdict.advice:
            self.screen.line(f"verdict: {verdict.state}; try: {verdict.advice}")

    def _begin(self) -> None:
        """Reads the length of the run, once it is on disk."""
        info = runs.read_run(self.run)
        self._steps, self._epochs = info.steps, info.config.epochs
        self._views_per_step = 2 * info.config.batch
        self._step = self._first = runs.newest_step(self.run)
        self._began = time.monotonic()
        if Screen.bars is not None and self._task is not None:
            Screen.bars.reset(self._task, total=self._steps, completed=self._step)

    def _rate(self) -> str:
        """The newest loss and kNN, and the speed if there is room."""
        assert Screen.bars is not None
        task = next(task for task in Screen.bars.tasks if task.id == self._task)
        speed = f"  {self._views_per_step * (task.speed or 0):,.0f} views/s"
        return self._newest + (speed if self.screen.console.width >= WIDE else "")

    def _left(self) -> str:
        """The time left, at the speed of this session including kNN and the like."""
        passed = time.monotonic() - self._began
        left = passed / max(1, self._step - self._first) * (self._steps - self._step)
        return f"about {duration(left)} left"


def clean_line(clean: Clean) -> str:
    """One line: z on many images without augmentation."""
    z = clean.z
    return (
        f"z on {clean.images:,} training images without augmentation: effective rank "
        f"{z.effective_rank:.1f}, correlation strength {z.correlation_strength:.3f}"
    )


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One line: epoch, loss, kNN, speed, verdict."""
    knn = "" if epoch.knn is None else f"  kNN {epoch.knn:6.2%}{balance_text(epoch.balance)}"
    verdict = "" if epoch.verdict is None else f"  {epoch.verdict.state}: {epoch.verdict.reason}"
    return (
        f"epoch {epoch.number:{len(str(epochs))}d}/{epochs}  loss {epoch.loss:+.4f}{knn}  "
        f"{epoch.views_per_s:,.0f} views/s{verdict}"
    )


def at_work(function: Callable[P, R]) -> Callable[P, R]:
    """Shows bars, or the elapsed time, while the function works."""

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        with Screen().progress():
            return function(*arguments, **named)

    return call


def show_fractions(
    found: Iterable[FractionEpoch], screen: Screen, *, epochs: int
) -> Iterator[Record]:
    """Trains with each fraction of the labels, with a line for each epoch."""
    for done in found:
        if done.epoch is not None:
            screen.line(_fraction_line(done.labels, done.epoch, epochs=epochs))
        if done.record is not None:
            yield done.record


def _fraction_line(labels: float, epoch: LabelledEpoch, *, epochs: int) -> str:
    """One line: fraction of the labels, epoch, loss, speed, and the accuracy at the end."""
    score = epoch.score
    accuracy = (
        f"  accuracy {score.accuracy:.2%}{balance_text(score.balance)}" if score is not None else ""
    )
    return (
        f"{labels_text(labels)}: epoch {epoch.number:{len(str(epochs))}d}/{epochs}  "
        f"loss {epoch.loss:.4f}  {epoch.images_per_s:,.0f} images/s{accuracy}"
    )
