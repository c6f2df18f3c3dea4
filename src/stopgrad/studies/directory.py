"""A study directory: several studies, and the runs that they share.

DIR/
  studies/NAME.json   the study as it was read, preset, overrides, data, seeds and where runs stand
  runs/ID/
    card.json         what the run is: method, config, data, share of the labels
    run/              the run directory that `stopgrad pretrain` makes
    log               what its commands said
    attempts.jsonl    a line per command that ended: exit code, reason, time
    claim             held (flock) by whoever works on the run, its processes included
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import Task, config_to_dict, key_paths
from stopgrad.errors import ConfigError, DataError, did_you_mean
from stopgrad.storage import fits, storage_errors, strict_json, write_json
from stopgrad.studies.changes import changes, check_same
from stopgrad.studies.data import StudyData
from stopgrad.studies.definition import Method
from stopgrad.studies.plan import Plan, PlannedRun, decisive_knobs
from stopgrad.studies.stored import StoredStudy, decode, encode, stored_study

TASKS: dict[Method, Task] = {"simsiam": "pretrain", "supervised": "supervised"}


class RunFolder(NamedTuple):
    """One run and what the study keeps beside it."""

    path: Path

    @property
    def run(self) -> Path:
        """The run directory itself."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """What its commands said."""
        return self.path / "log"

    @property
    def attempts(self) -> Path:
        """A line per command that ended."""
        return self.path / "attempts.jsonl"


class Begun(NamedTuple):
    """A study that was written down, and what of it was edited since it was begun."""

    stored: StoredStudy
    changes: tuple[str, ...]  # `path: old -> new`


class StudyDirectory:
    """The files of a study directory. Making one reads nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The studies it holds."""
        return sorted(path.stem for path in (self.path / "studies").glob("*.json"))

    def folder(self, run: str) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.path / "runs" / run)

    def read(self, name: str) -> StoredStudy:
        """A study that was begun here.

        Raises:
            DataError: When there is none of this name, or its file is damaged.
        """
        if name not in self.names():
            raise DataError(
                f"no study {name!r} in {self.path}{did_you_mean(name, self.names())}",
                expected=f"one of {', '.join(self.names())}" if self.names() else "a study",
                hint="begin one with: stopgrad study run NAME --data SPEC --out DIR",
            )
        path = self.path / "studies" / f"{name}.json"
        try:
            return decode(strict_json(path.read_bytes()), name=name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read ({type(error).__name__}: {error})",
                expected="what stopgrad study run wrote",
                hint="remove it and run the study again; its runs are kept",
            ) from error

    def epochs(self, run: str) -> int:
        """How many epochs a run is to have, by its card; 1 where that cannot be read."""
        try:
            epochs = _read_card(self.folder(run).path / "card.json")["epochs"]
            return epochs if fits(epochs, int) and epochs > 0 else 1
        except (OSError, KeyError, DataError):
            return 1

    def read_all(self) -> list[StoredStudy]:
        """Every study that was begun here.

        Raises:
            DataError: When there is none.
        """
        if not self.names():
            raise DataError(
                f"{self.path} holds no study",
                expected="a directory made by stopgrad study run",
                hint="check the path",
            )
        return [self.read(name) for name in self.names()]

    def check_ours(self) -> None:
        """Refuses a directory that holds something else.

        Raises:
            ConfigError: With what was found.
        """
        found = sorted(os.listdir(self.path)) if self.path.is_dir() else []
        if (self.path.exists() and not self.path.is_dir()) or (found and "studies" not in found):
            what = "a single run" if "config.json" in found else ", ".join(found[:5]) or "a file"
            raise ConfigError(
                f"{self.path} holds {what}",
                expected="a new directory, or one that holds studies",
                hint="choose another --out",
            )

    def begin(self, plan: Plan, data: StudyData) -> Begun:
        """Writes a study down, or takes up one that was begun here with the same settings.

        Seeds add up. Runs that exist are found again by their address. See `studies.changes`
        for an edited one.

        Raises:
            ConfigError: When it was begun here with other settings (old -> new), or a run is not
                what its address says.
            StorageError: When the disk refuses.
        """
        self.check_ours()
        name = plan.source.study.name
        with self._locked():
            old = self.read(name) if name in self.names() else None
            new = stored_study(plan, data, old)
            if old is not None:
                check_same(old, new, plan, path=self.path)
            for run in plan.runs.values():
                self._keep_card(run, fingerprint=_fingerprint(plan, data, run))
            write_json(self.path / "studies" / f"{name}.json", encode(new))
        return Begun(new, () if old is None else tuple(changes(old, new)))

    def select(self, name: str, arm: str) -> str:
        """Notes the arm that the validation split chose; the first choice stays."""
        with self._locked():
            stored = self.read(name)
            if stored.selected is None:
                stored = stored._replace(selected=arm)
                write_json(self.path / "studies" / f"{name}.json", encode(stored))
        assert stored.selected is not None
        return stored.selected

    def claim(self, run: str) -> int | None:
        """A descriptor that holds the claim on a run until it is closed; None: somebody has it.

        Whoever inherits the descriptor holds the claim too.
        """
        path = self.folder(run).path / "claim"
        with storage_errors(path, needed=0):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def is_claimed(self, run: str) -> bool:
        """Whether somebody works on a run now."""
        path = self.folder(run).path / "claim"
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time writes below studies/."""
        folder = self.path / "studies"
        with storage_errors(folder / "lock", needed=0):
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("a")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _keep_card(self, run: PlannedRun, *, fingerprint: str) -> None:
        card = {
            "method": run.method,
            "labels": run.labels,
            "data": fingerprint,
            "epochs": run.config.length(TASKS[run.method]).epochs,
            "config": config_to_dict(run.config),
        }
        folder = self.folder(run.id).path
        path = folder / "card.json"
        if path.exists():
            _check_card(_read_card(path), run, path=path)
            return
        with storage_errors(path, needed=0):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(path, card)


def _fingerprint(plan: Plan, data: StudyData, run: PlannedRun) -> str:
    arm = next(slot.arm for slot in plan.slots if slot.run == run.id)
    return data.fingerprints[arm]


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = strict_json(path.read_bytes())
        if isinstance(card["config"], dict):
            return dict(card)
        found = "config is no mapping"
    except (ValueError, KeyError, TypeError) as error:
        found = str(error)
    raise DataError(
        f"{path} is damaged ({found})",
        expected="what a run was begun with, as it was written",
        hint=f"remove {path.parent} to train that run anew",
    )


def _check_card(card: dict[str, Any], run: PlannedRun, *, path: Path) -> None:
    """An address leaves out knobs at their default, and a later version may change a default."""
    was, now = key_paths(card["config"]), decisive_knobs(run)
    if any(was.get(key, value) != value for key, value in now.items()):
        raise ConfigError(
            f"{path} describes another run",
            expected="the run that its address stands for",
            hint="it was made by another version of stopgrad; choose another --out",
        )
