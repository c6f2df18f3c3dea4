"""A study directory: several studies, and the runs that they share.

DIR/
  studies/NAME.json   the study as it was read, preset, overrides, data, seeds and its runs
  runs/ID/            see `stopgrad.studies.folder`

A study that was kept without its runs (see `stopgrad.studies.kept`) is read by the same class.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from stopgrad.config import config_to_dict, key_paths
from stopgrad.errors import ConfigError, DataError, did_you_mean
from stopgrad.runs import mistaken
from stopgrad.storage import (
    LARGEST_JSON,
    as_text,
    lock_file,
    make_folder,
    odd_entry,
    open_regular,
    read_file,
    read_json,
    refuse_links,
    storage_errors,
    write_atomically,
    write_json,
)
from stopgrad.studies.definition import StudyData
from stopgrad.studies.folder import EpochRow, RunCard, RunFolder, StudyRun
from stopgrad.studies.kept import Kept, is_kept, kept_files, read_kept
from stopgrad.studies.plan import PlannedRun, StudyPlan, decisive_knobs
from stopgrad.studies.stored import StoredStudy, changes, check_same, decode, encode, stored_study


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

    def run(self, run: str) -> StudyRun:
        """Everything known about a run, from its folder or from what was kept of it.

        Raises:
            DataError: When what was kept of the study is damaged, or this run is not part of it.
        """
        if not is_kept(self.path):
            return self.folder(run).read()
        if run not in self._kept.runs:
            raise DataError(
                f"{self.path} was saved without the run {run}",
                expected="every run of its studies",
                hint="write it again with bench/keep_study.py",
            )
        return self._kept.runs[run]

    @cached_property
    def _odd(self) -> Path | None:
        """The first link or the like in the directory; a later one is refused when it is read."""
        refuse_links(self.path)
        return odd_entry(self.path, {"studies": "folder", "runs": "folder"})

    def epoch_rows(self, run: str) -> list[EpochRow]:
        """The finished epochs of a pretraining, none if unreadable; errors as for `run`."""
        if not is_kept(self.path):
            return self.folder(run).epoch_rows()
        return self._kept.epochs.get(run, [])

    @cached_property
    def _kept(self) -> Kept:
        return read_kept(self.path)

    def read(self, name: str) -> StoredStudy:
        """A study that was begun here.

        Raises:
            DataError: When there is none of this name, its file is damaged, or the directory holds
                a link, a pipe or a device.
        """
        if self._odd is not None:
            raise DataError(
                f"{as_text(self._odd)} is a link or not a regular file",
                expected="files and folders of the studies' own",
                hint="do not use this directory, or put the real files there",
            )
        if name not in self.names():
            raise DataError(
                f"no study {name!r} in {self.path}{did_you_mean(name, self.names())}",
                expected=f"one of {', '.join(self.names())}" if self.names() else "a study",
                hint="begin one with: stopgrad study run NAME --data SPEC --out DIR",
            )
        path = self._file(name)
        try:
            return decode(read_json(path), name=name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read ({type(error).__name__}: {error})",
                expected="the file that `stopgrad study run` wrote",
                hint="remove it and run the study again; its runs are kept",
            ) from error

    def read_all(self) -> list[StoredStudy]:
        """Every study that was begun here; DataError when there is none."""
        if not self.names():
            found = mistaken(self.path)
            raise DataError(
                f"{self.path} holds no study{found.what}",
                expected="a directory made by `stopgrad study run`",
                hint=found.hint,
            )
        return [self.read(name) for name in self.names()]

    def check_ours(self) -> None:
        """Refuses a directory that holds something else, or studies without their runs.

        Raises:
            ConfigError: With what was found.
        """
        found = sorted(os.listdir(self.path)) if self.path.is_dir() else []
        if is_kept(self.path):
            what = "a study that was saved without its runs"
        elif (self.path.exists() and not self.path.is_dir()) or (found and "studies" not in found):
            what = "a single run" if "config.json" in found else ", ".join(found[:5]) or "a file"
        elif self._odd is not None:
            what = f"a link or not a regular file, {as_text(self._odd.relative_to(self.path))}"
        else:
            return
        raise ConfigError(
            f"{self.path} holds {what}",
            expected="a new directory, or one that holds studies",
            hint="choose another --out",
        )

    def begin(self, plan: StudyPlan, data: StudyData) -> list[str]:
        """Records a study, or resumes one that was begun here with the same settings.

        Seeds add up. Runs that exist are found again by their address. Returns the accepted edits
        (see `studies.stored`), `path: old -> new`, a line each.

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
            arms = {slot.run: slot.arm for slot in reversed(plan.slots)}
            for run in plan.runs.values():
                self._keep_card(run, fingerprint=data.fingerprints[arms[run.id]])
            write_json(self._file(name), encode(new))
        return [] if old is None else changes(old, new)

    def select(self, name: str, arm: str) -> str:
        """Notes the arm that the validation split chose; the first choice stays."""
        with self._locked():
            stored = self.read(name)
            if stored.selected is None:
                write_json(self._file(name), encode(stored._replace(selected=arm)))
        return stored.selected or arm

    def keep(self, out: Path, *, names: Mapping[str, str] = MappingProxyType({})) -> None:
        """Writes what tables and reports need of these studies into another folder.

        `names` replace paths of this machine, by path.

        Raises:
            DataError: When a file of a run is damaged.
            StorageError: When the disk refuses.
        """
        runs = dict.fromkeys(slot.run for study in self.read_all() for slot in study.slots)
        kept = Kept({n: self.run(n) for n in runs}, {n: self.epoch_rows(n) for n in runs})
        studies = {
            out / "studies" / f"{n}.json": read_file(self._file(n), most=LARGEST_JSON).decode()
            for n in self.names()
        }
        for path, text in (studies | kept_files(out, kept)).items():
            for old, new in names.items():
                old, new = (json.dumps(name)[1:-1] for name in (old, new))  # as it stands in JSON
                text = text.replace(f"{old}/", f"{new}/" if new else "")
                text = text.replace(f'"{old}"', f'"{new}"')
            with storage_errors(path, needed=len(text)):
                make_folder(path.parent)
            write_atomically(path, text.encode())

    def _file(self, name: str) -> Path:
        return self.path / "studies" / f"{name}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time writes below studies/."""
        folder = self.path / "studies"
        with storage_errors(folder / "lock", needed=0):
            make_folder(folder)
            lock = open(open_regular(folder / "lock", os.O_RDWR | os.O_CREAT), "r+")  # noqa: SIM115
        with lock:
            lock_file(lock.fileno(), wait=True)
            yield

    def _keep_card(self, run: PlannedRun, *, fingerprint: str) -> None:
        """Writes the card of a run, or checks the one that was written.

        An address leaves out knobs at their default, and a later version may change a default.
        """
        folder = self.folder(run.id)
        if not folder.card_file.exists():
            config = config_to_dict(run.config)
            folder.keep_card(RunCard(run.method, run.labels, fingerprint, run.epochs, config))
            return
        was = key_paths(folder.card().config)
        if any(was.get(key, value) != value for key, value in decisive_knobs(run).items()):
            raise ConfigError(
                f"{folder.card_file} describes another run",
                expected="the run that its folder is named for",
                hint="it was made by another version of stopgrad; choose another --out",
            )
