"""A run directory that was opened, with the images that it was trained on.

In: a path, and where the images are now. Out: its model at the newest checkpoint and its images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from stopgrad import evaluation, export, method, runs, training
from stopgrad.config import Config
from stopgrad.errors import ConfigError, DataError, StorageError
from stopgrad.face.arguments import in_plain_torch, with_parts
from stopgrad.face.data import ARRAYS, AnyData, Data, as_data, tell_notes
from stopgrad.face.progress import Screen
from stopgrad.face.tables import Scores
from stopgrad.storage import user_path

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.evaluation import Record
    from stopgrad.images import Changed, Dataset
    from stopgrad.method import OwnViews, Verdict
    from stopgrad.runs import RunData, TrainedRun
    from stopgrad.storage import Finding

Each: TypeAlias = "Callable[[Record], None]"


class OpenedRun:
    """A run, read only when something of it is asked for."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        data: AnyData | None = None,
        *,
        older: bool = False,
        encoder: nn.Module | None = None,
        views: OwnViews | None = None,
    ) -> None:
        """Opens a run.

        Args:
            path: The run directory.
            data: Where its images are now; None: where they were.
            older: Use an older checkpoint of a finished run where the last one is damaged.
            encoder: The encoder that the run was given in Python, whatever its weights are now.
            views: The views that the run was given in Python.

        Raises:
            CheckpointError: When there is no run that can be read.
            ConfigError: For an encoder or views other than the run's.
        """
        self.path, self._older = user_path(path), older
        self._given = None if data is None else as_data(data)
        self._opened: TrainedRun | None = None
        config = runs.read_pretraining(self.path).config
        now = with_parts(config, encoder=encoder, views=views)
        for what, own, given in (
            ("encoder", config.encoder.name, now.encoder.name),
            ("views", config.views.own, now.views.own),
        ):
            if own != given:
                raise ConfigError(
                    f"{what} {given!r} for a run with {own or 'our own'!r}",
                    expected=f"the {what} that the run was given, or none if it was given none",
                )

    def __fspath__(self) -> str:
        """Its directory: whatever takes the path of a run takes a run."""
        return os.fspath(self.path)

    @property
    def config(self) -> Config:
        """Every knob of the run."""
        return runs.read_run(self.path).config

    @in_plain_torch
    def trained(self, screen: Screen | None = None) -> TrainedRun:
        """The run at its newest checkpoint, read again only when there is a newer one."""
        if self._opened is None or self._opened.step != runs.newest_step(self.path):
            if screen is not None:
                screen.doing("loading the run")
            method.use_threads(self.config.threads)
            self._opened = self._load()
        if screen is not None:
            tell_state(self._opened, screen)
        return self._opened

    def _load(self) -> TrainedRun:
        return runs.load_run(self.path, older=self._older)

    def source(self, data: AnyData | None) -> Data:
        """The named images, or the run's own.

        Raises:
            DataError: When the run's own were arrays, which have no path.
        """
        if data is not None:
            return as_data(data)
        spec = str(runs.read_run(self.path).data["spec"])
        if self._given is None and spec.startswith(ARRAYS):
            raise DataError(
                f"{self.path} was trained on images in memory",
                expected="the same images",
                hint="give them as stopgrad.Run(path, data=...), or a path with --data",
            )
        return Data(spec) if self._given is None else self._given  # whose length takes reading

    def read_by(self, config: Config, data: AnyData | None) -> tuple[Data, Config]:
        """The named images, or the run's own, and the config with their columns."""
        source = self.source(data)
        return source, config if data is None else source.with_columns(config)

    def like(self, data: AnyData | None, split: str = "auto") -> RunData | None:
        """The run's images, whose size, levels and bands other images or another split must share.

        None: the run's own images are meant, and read as they were.
        """
        named = data is not None or split != "auto"
        return runs.read_run(self.path).data if named else None

    def named_images(
        self, config: Config, data: AnyData | None, screen: Screen
    ) -> tuple[Data, Config, Dataset]:
        """The images that are named, or the run's own: where they are, how read, and stored."""
        source, config = self.read_by(config, data)
        changed, like = self.changed(source), self.like(data)
        return source, config, source.stored_for(config, screen, like=like, changed=changed)

    def own_images(self, data: AnyData | None, screen: Screen, *, split: str = "auto") -> Dataset:
        """The run's images, as it stored them; its own fingerprint guards them."""
        self.trained()  # first: an encoder that does not fit the weights may be of any size
        source, config = self.read_by(self.config, data)
        method.use_threads(config.threads)
        like = self.like(data, split)
        dataset = source.stored_for(config, screen, split=split, like=like, changed="warn")
        if data is not None:
            tell_notes(dataset, screen)
        return dataset

    def changed(self, source: Data) -> Changed:
        """What to do with a store whose folder has changed: only the run's own is still read."""
        own = runs.read_run(self.path).data["spec"]
        return "warn" if runs.spec_to_keep(source.spec) == own else "fail"

    @property
    def verdict(self) -> Verdict | None:
        """Whether the representation is healthy or collapsed, why, and what to try."""
        rows = reversed(runs.read_metrics(self.path))
        newest = next((row["verdict"] for row in rows if row.get("verdict")), None)
        if newest is None:
            return None
        state, reason, advice = (newest.get(name, "") for name in method.Verdict._fields)
        return method.Verdict(cast("Any", state), reason, advice)

    def _weights_changed(self) -> bool:
        """Whether an encoder given in Python has other weights than the run started from."""
        encoder, card = self.config.encoder, runs.read_run(self.path).data.get("init", {})
        if not encoder.is_given:
            return False
        return training.read_weights(encoder.name, encoder).sha256 != card.get("sha256")

    def _records(self) -> list[Record]:
        return evaluation.records_of(self.path)

    def _records_of(
        self, dataset: Dataset, data: AnyData | None, out: str | Path | None
    ) -> Path | None:
        """Where the records of an evaluation on these images go; None: into the run."""
        mark = dataset.train.fingerprint
        own = runs.read_run(self.path).learned_from(dataset.train)
        if out is not None or own or data is None:  # the run's own, changed: refused later
            return None if out is None else user_path(out)
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", dataset.name)[:40]
        return self.path / "elsewhere" / f"{name}-{mark[:8]}"


def tell_state(run: TrainedRun, screen: Screen) -> None:
    """Says what a reader of the scores should know about a run."""
    for line in run.damaged:
        screen.line(f"passed over: {line}")
    if run.epoch < run.info.config.epochs:
        diverged = runs.read_status(run.path).get("state") == "diverged"
        state = "this run diverged" if diverged else "not finished"
        screen.line(f"{state}: epoch {run.epoch} of {run.info.config.epochs} is scored")


def tell_condition(run: TrainedRun, screen: Screen) -> None:
    """Says what a user of the features should know about a run."""
    for line in (*(f"passed over: {line}" for line in run.damaged), *export.run_condition(run)):
        screen.line(line)


def collect(found: Iterable[Record], each: Each | None) -> Scores:
    """Collects the records, passing each to `each` once it is on disk.

    If `each` cannot print one, the error is raised after the last record.
    """
    if each is not None and not callable(each):
        raise ConfigError(f"each = {each!r}", expected="a function of a Record")
    records: list[Record] = []
    lost: Exception | None = None
    for record in found:
        records.append(record)
        if each is not None:
            try:
                with Screen().paused():
                    each(record)
            except (StorageError, BrokenPipeError) as error:  # of the output: it stops no training
                lost = lost or error
    if lost is not None:
        raise lost
    return Scores(records)


def findings_of(path: Path) -> Iterator[Finding]:
    """A finding for each file of a run; the records are read as the commands do."""
    for finding in runs.verify_run(path):
        if finding.ok and finding.file == "records.jsonl":
            try:
                evaluation.read(path / finding.file)
            except DataError as error:
                finding = finding._replace(ok=False, note=error.found)
        yield finding
