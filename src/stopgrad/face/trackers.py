"""A run mirrored to trackers: TensorBoard, Weights & Biases, MLflow, Trackio.

In: a run that trains. Out: copies of its metrics, config, verdict and images. The JSON lines of
the run stay authoritative. Each tracker works in a thread of its own: one that fails or hangs is
dropped with a message and never stops the run, nor does data that cannot be read or drawn.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from stopgrad import report, runs
from stopgrad.config import knob_values
from stopgrad.errors import ConfigError
from stopgrad.face.arguments import check_choices
from stopgrad.face.progress import Screen
from stopgrad.face.tables import flat_epoch
from stopgrad.storage import first_line, read_lines_after

if TYPE_CHECKING:
    from PIL.Image import Image

    from stopgrad.images import Dataset
    from stopgrad.training import Epoch

Act = Literal["rows", "image", "close"]
PROJECT = "stopgrad"
METRICS = "metrics.jsonl"
STEPS = 100  # of an epoch that are logged
SHOWN = 12  # images whose views are shown
PATIENCE = 60.0  # s that a run waits at its end for a tracker to take the rest


class Tracker(Protocol):
    """One tracker of one run."""

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs new lines of metrics, each with its `step`."""

    def image(self, name: str, image: Image, step: int) -> None:
        """Logs an image, drawn for the run."""

    def close(self) -> None:
        """Ends the logging."""


class TensorBoard:
    """Event files in `RUN/tensorboard`."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(run / "tensorboard")
        text = "\n".join(f"    {key}: {value}" for key, value in _config(run).items())
        self.writer.add_text("config", text)

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            for key, value in _numbers(row).items():
                self.writer.add_scalar(key.replace(".", "/"), value, row["step"])
            if row.get("verdict"):
                self.writer.add_text("verdict", row["verdict"], row["step"])
        self.writer.flush()

    def image(self, name: str, image: Image, step: int) -> None:
        import numpy as np

        self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Weights & Biases, or Trackio, which has the same functions."""

    def __init__(self, run: Path, *, module: str) -> None:
        self.module: Any = importlib.import_module(module)
        again = {"id": _mark(run)} if module == "wandb" else {}
        self.module.init(
            project=os.environ.get(f"{module.upper()}_PROJECT", PROJECT),
            name=run.name,
            config=_config(run),
            resume="allow",
            **again,
        )

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            verdict = {"verdict": row["verdict"]} if row.get("verdict") else {}
            self.module.log(_numbers(row) | verdict, step=row["step"])

    def image(self, name: str, image: Image, step: int) -> None:
        self.module.log({name: self.module.Image(image)}, step=step)

    def close(self) -> None:
        self.module.finish()


class MLflow:
    """A run of the experiment `stopgrad`, wherever MLFLOW_TRACKING_URI says."""

    def __init__(self, run: Path) -> None:
        self.module: Any = importlib.import_module("mlflow")
        self.module.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        mark = f"tags.`stopgrad.run` = '{_mark(run)}'"
        before = self.module.search_runs(filter_string=mark, output_format="list")
        self.module.start_run(
            run_id=before[0].info.run_id if before else None,
            run_name=run.name,
            log_system_metrics=False,
        )
        if not before:
            self.module.set_tag("stopgrad.run", _mark(run))
            self.module.log_params({key: str(value) for key, value in _config(run).items()})

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.module.log_metrics(_numbers(row), step=row["step"])
            if row.get("verdict"):
                self.module.set_tag("verdict", row["verdict"])

    def image(self, name: str, image: Image, step: int) -> None:
        self.module.log_image(image.convert("RGB"), f"{name}.png")

    def close(self) -> None:
        self.module.end_run()


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": functools.partial(WandB, module="wandb"),
    "mlflow": MLflow,
    "trackio": functools.partial(WandB, module="trackio"),
}


class Mirror:
    """Sends what a run writes to trackers.

    Args:
        names: Of `TRACKERS`.
        run: The run directory, which need not exist yet.
        screen: Where a failure is reported.

    Raises:
        ConfigError: For an unknown name, or a library that is not installed.
    """

    def __init__(self, names: str | Sequence[str], run: Path, screen: Screen) -> None:
        names = [names] if isinstance(names, str) else names
        check_choices("log", names, tuple(TRACKERS))
        missing = [name for name in names if find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"--log {' '.join(missing)}",
                expected="a library that is installed",
                hint=f"pip install {' '.join(missing)}",
            )
        first = os.environ.get("RANK", "0") == "0"  # of several processes only one writes
        self.names, self.run, self.screen = names if first else (), run, screen
        self.senders: list[_Sender] = []
        file = run / METRICS
        self.read = file.stat().st_size if file.exists() else 0  # bytes that were logged before

    def watch(self, epochs: Generator[Epoch], dataset: Dataset) -> Generator[Epoch]:
        """The same epochs, each logged by the trackers; images after the last one."""
        if not self.names:
            yield from epochs
            return
        self.senders = [_Sender(name, self.run, self.screen) for name in self.names]
        try:
            for epoch in epochs:
                with self._no_harm("metrics"):
                    self._send("rows", self._new_rows())
                yield epoch
            with self._no_harm("images"):
                for name, image in self._images(dataset):
                    self._send("image", name, image, runs.newest_step(self.run))
        finally:
            epochs.close()
            with self._no_harm("metrics"):  # of an epoch that a signal has cut short
                self._send("rows", self._new_rows())
            for each in self.senders:
                each.close()

    def _send(self, act: Act, *what: Any) -> None:
        for each in self.senders:
            each.waiting.put((act, what))

    @contextmanager
    def _no_harm(self, what: str) -> Iterator[None]:
        """Reports an error in here without stopping the run, which is worth more than its copy."""
        try:
            yield
        except Exception as error:
            self.screen.line(f"trackers lack {what}: {first_line(error)}; the run goes on")

    def _new_rows(self) -> list[Mapping[str, Any]]:
        """The lines of metrics since the last call; those of steps thinned to some hundred."""
        # A resumed run cuts the last rows and writes them again: a line may begin elsewhere now.
        rows, self.read = read_lines_after(self.run / METRICS, self.read, runs.check_row)
        steps = [row for row in rows if row["kind"] == "step"]
        thinned: list[Mapping[str, Any]] = [*steps[:: max(1, len(steps) // STEPS)]]
        return thinned + [flat_epoch(row) for row in rows if row["kind"] == "epoch"]

    def _images(self, dataset: Dataset) -> Iterator[tuple[str, Image]]:
        run = runs.load_run(self.run)
        mean_std = run.info.normalization
        panel = report.view_examples(
            dataset.train, run.info.config, normalization=mean_std, count=SHOWN
        )
        yield "views", report.view_grid(panel)
        found = report.neighbor_examples(run, dataset, track=self.screen.track)
        yield "neighbors", report.neighbor_grid(found)


class _Sender:
    """A tracker that works in a thread of its own."""

    def __init__(self, name: str, run: Path, screen: Screen) -> None:
        self.name, self.run, self.screen = name, run, screen
        self.waiting: queue.SimpleQueue[tuple[Act, tuple[Any, ...]]] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, daemon=True, name=name)
        self.thread.start()

    def close(self) -> None:
        """Waits until it has sent everything, for `PATIENCE` at most."""
        self.waiting.put(("close", ()))
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            self.screen.line(
                f"{self.name} did not finish within {PATIENCE:.0f} s; the rest was not sent"
            )

    def _work(self) -> None:
        try:
            act, what = self.waiting.get()
            tracker = None if act == "close" else TRACKERS[self.name](self.run)
            while act != "close":
                getattr(tracker, act)(*what)
                act, what = self.waiting.get()
            if tracker is not None:
                tracker.close()
        except Exception as error:
            self.screen.line(f"{self.name} is left out: {first_line(error)}; the run goes on")


def _config(run: Path) -> dict[str, Any]:
    return knob_values(runs.read_run(run).config)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row by the names of the fields, without the step."""
    return {
        key: value for key, value in row.items() if isinstance(value, int | float) and key != "step"
    }


def _mark(run: Path) -> str:
    """Identifies a run when it resumes; another run at the same path has another mark."""
    place = f"{run.resolve()} {run.stat().st_ino} {runs.read_run(run).data['fingerprint']}"
    return hashlib.sha256(place.encode()).hexdigest()[:16]
