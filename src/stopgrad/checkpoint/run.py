"""A run directory, read by anyone and written by one process at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Literal, NamedTuple, Self

from stopgrad.checkpoint.metrics import Row, append_rows, cut_back
from stopgrad.checkpoint.store import (
    Checkpoint,
    checkpoint_folders,
    load_checkpoint,
    remove_after,
    save_checkpoint,
)
from stopgrad.config import Config, config_from_dict, config_to_dict
from stopgrad.errors import (
    CheckpointError,
    ConfigError,
    DivergedError,
    InterruptedRunError,
    LockedError,
    StorageError,
)
from stopgrad.files import storage_errors, write_json
from stopgrad.images import Normalization

log = logging.getLogger(__name__)

State = Literal["running", "finished", "interrupted", "diverged", "failed"]


class RunInfo(NamedTuple):
    """What a run was asked to do; `config.json`."""

    config: Config
    data: dict[str, Any]  # spec, name, fingerprint, images, class_names
    normalization: Normalization
    environment: dict[str, Any]  # threads, device, versions


def read_run(path: Path) -> RunInfo:
    """Reads the config of a run.

    Raises:
        CheckpointError: When the directory is not a run, or its config cannot be read.
    """
    try:
        values = json.loads((path / "config.json").read_bytes())
        mean, std = (tuple(map(float, values["normalization"][key])) for key in ("mean", "std"))
        return RunInfo(
            config=config_from_dict(values["config"]),
            data=values["data"],
            normalization=Normalization(mean, std),  # type: ignore[arg-type]
            environment=values["environment"],
        )
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{path} is not a run that can be read ({type(error).__name__}: {error})",
            expected="a directory made by `stopgrad pretrain`",
            hint="check the path",
        ) from error


def read_status(path: Path) -> dict[str, Any]:
    """The status of a run: state, step, epoch, verdict; empty when there is none."""
    try:
        status = json.loads((path / "status.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


class RunWriter:
    """The one process that writes to a run directory; a context manager.

    It holds the lock, and turns SIGINT and SIGTERM into `stop_signal`, which the training loop
    looks at between two steps. `RunWriter.create` starts a run, `RunWriter.resume` goes on.
    """

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info
        self.stop_signal: int | None = None
        self._is_new = False
        self._lock: IO[str] | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    @classmethod
    def create(cls, path: Path, info: RunInfo) -> RunWriter:
        """A new run in a directory that must be absent or empty.

        Raises:
            ConfigError: When something is there already.
        """
        if path.exists() and not _is_unused(path):
            raise _exists(path)
        writer = cls(path, info)
        writer._is_new = True
        return writer

    @classmethod
    def resume(cls, path: Path) -> RunWriter:
        """A run that goes on from its newest good checkpoint."""
        return cls(path, read_run(path))

    def __enter__(self) -> Self:
        """Catches the signals; nothing is written before `begin`."""
        self._catch_signals()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Notes what broke the run, and gives signals and lock back."""
        expected = (InterruptedRunError, DivergedError, GeneratorExit)
        if error is not None and self._lock is not None and not isinstance(error, expected):
            with suppress(StorageError):
                self.set_status("failed", reason=f"{type(error).__name__}: {error}")
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._lock is not None:
            self._lock.close()

    def begin(self) -> Checkpoint | None:
        """Makes and locks the directory; the checkpoint to go on from, None for a new run.

        Raises:
            LockedError: When another process writes to this run.
            StorageError: When the directory cannot be written.
            CheckpointError: When a run to resume has no good checkpoint.
            ConfigError: When another process has begun a run here meanwhile.
        """
        with storage_errors(self.path / "config.json", needed=0):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path)
        begun = has_begun(self.path)
        if begun and self._is_new:
            self._lock.close()
            self._lock = None
            raise _exists(self.path)
        if not begun:
            write_json(self.path / "config.json", _describe(self.info))
            return None
        checkpoint = load_checkpoint(self.path)
        for line in checkpoint.damaged:
            log.warning("passed over: %s", line)
        remove_after(self.path, step=checkpoint.step)
        cut_back(self.path, step=checkpoint.step)
        return checkpoint

    def append(self, rows: Iterable[Row]) -> None:
        """Appends rows to the metrics, durably."""
        append_rows(self.path / "metrics.jsonl", rows)

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, durably."""
        save_checkpoint(self.path, checkpoint)

    def set_status(self, state: State, **values: Any) -> None:
        """Replaces the status."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(
            self.path / "status.json",
            {"state": state, **values, "pid": os.getpid(), "updated": now},
        )

    def _catch_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = self.stop_signal or number


def _exists(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} exists",
        expected="a new run directory",
        hint=f"choose another --out, or go on with: stopgrad resume {path}",
    )


def _is_unused(path: Path) -> bool:
    """Nothing there but what a run killed before its first file leaves."""
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else ["not a directory"]
    return all(name == "lock" or name.endswith(".tmp") for name in names)


def has_begun(path: Path) -> bool:
    """A run has reached its first checkpoint; before that, starting over is the same run."""
    return (path / "metrics.jsonl").exists() or bool(checkpoint_folders(path))


def _describe(info: RunInfo) -> dict[str, Any]:
    return {
        "format": 1,
        "config": config_to_dict(info.config),
        "data": info.data,
        "normalization": info.normalization._asdict(),
        "environment": info.environment,
    }


def _lock(path: Path) -> IO[str]:
    """The lock of a run directory, held until the file is closed or the process ends."""
    file = (path / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown process"
        file.close()
        raise LockedError(
            f"{path} is being written by {holder}",
            expected="one writer",
            hint="wait for it, or stop it",
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
