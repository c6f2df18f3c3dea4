"""What a run still needs: its next task, and the process that carries it out.

Nothing is remembered elsewhere, so a runner that was killed and a second one see the same.

In: a task, which the runner writes into the run's folder as task.json. Out: what the library writes
into the run directory, progress on standard output, an exit code, and failure.json in the folder
when something went wrong.

    python -m stopgrad.studies.task FOLDER/task.json
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stopgrad.config import SplitName, config_from_dict, config_to_dict
from stopgrad.errors import (
    CheckpointError,
    DataError,
    StopgradError,
    StorageError,
    bad_path,
    no_memory,
)
from stopgrad.evaluation import FINETUNE, Key, Subject, balance_text
from stopgrad.runs import read_status
from stopgrad.storage import (
    outlive,
    printable,
    read_json,
    refuse_links,
    remove_file,
    typed,
    wait_briefly,
    write_json,
)
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.plan import PlannedRun

if TYPE_CHECKING:
    from stopgrad.images import Dataset
    from stopgrad.training import Epoch, FractionEpoch

Stage = Literal["pretrain", "resume", "evaluate", "finetune", "supervised"]

FAULT = 1  # exit code of an error that is not the user's
FAILURE = "failure.json"
LONGEST = 500  # characters of a message that is kept


@dataclass(frozen=True, kw_only=True)
class StudyTask:
    """One step of a run towards its numbers; task.json, field by field."""

    stage: Stage
    folder: str  # the run's, in the study directory
    spec: str  # the images
    config: dict[str, Any] | None = None  # of a training that begins; others take the run's
    labels: list[float] = field(default_factory=list)  # fractions to learn from, rising
    metrics: list[str] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)  # whose features are scored
    split: SplitName = "auto"  # the images that are scored

    @property
    def run(self) -> Path:
        """The run directory."""
        return Path(self.folder, "run")

    @property
    def file(self) -> Path:
        """Where the task is written."""
        return Path(self.folder, "task.json")

    def gives(self, key: Key) -> bool:
        """Whether the run must have this number once the task has ended well."""
        wanted = key.metric in self.metrics and key.labels in self.labels
        return wanted and key.of in self.subjects and key.split in (self.split, "train")

    def command(self) -> list[str]:
        """The words after `stopgrad` that do the same by hand."""
        labels = ["--labels", *map(repr, self.labels)] if self.labels else []
        if self.stage in ("pretrain", "supervised"):
            settings = ["--config", f"{self.folder}/settings.json"]
            return [self.stage, "--data", self.spec, "--out", str(self.run), *settings, *labels]
        command = [self.stage, str(self.run), "--data", self.spec]
        if self.stage == "evaluate":
            command += ["--missing", "--split", self.split, "--of", *self.subjects]
            command += ["--metrics", *self.metrics]
        return command + labels


class Failure(NamedTuple):
    """What went wrong in a task; failure.json."""

    error: str  # class of the error
    message: str
    exit_code: int


def next_task(
    folder: RunFolder, run: PlannedRun, *, wanted: frozenset[Key], spec: str
) -> StudyTask | None:
    """The next task of a run, or None when it has all the numbers that are wanted of it.

    Raises:
        DataError: When its records are damaged.
    """
    missing = wanted - folder.numbers().keys()
    config = config_to_dict(run.config)
    begin = StudyTask(stage="pretrain", folder=str(folder.path), spec=spec, config=config)
    go_on = replace(begin, stage="resume", config=None)
    if run.method == "supervised":
        return _scoring(begin, "supervised", missing) if missing else None
    if not (folder.run / "config.json").exists():
        return begin
    if read_status(folder.run).get("state") != "finished":
        return go_on
    if frozen := frozenset(key for key in missing if key.metric != FINETUNE):
        return _scoring(go_on, "evaluate", frozen)
    return _scoring(go_on, "finetune", missing) if missing else None


def _scoring(task: StudyTask, stage: Stage, numbers: frozenset[Key]) -> StudyTask:
    """The task that gives these numbers: those on one split, with the measures of collapse."""
    splits: set[Any] = {key.split for key in numbers} - {"train"}
    split: SplitName = min(splits) if splits else "auto"
    chosen = [key for key in numbers if key.split in (split, "train")]
    return replace(
        task,
        stage=stage,
        labels=sorted({key.labels for key in chosen}),
        metrics=sorted({key.metric for key in chosen}),
        subjects=sorted({key.of for key in chosen}),
        split=split,
    )


def write_task(task: StudyTask) -> None:
    """Writes a task into its folder, and removes the failure of an earlier one.

    Raises:
        StorageError: When the disk refuses.
    """
    if task.config is not None:
        write_json(Path(task.folder, "settings.json"), task.config)
    write_json(task.file, asdict(task))
    remove_file(Path(task.folder, FAILURE))


def read_task(path: Path) -> StudyTask:
    """The task of a file; DataError when it is missing or damaged."""
    try:
        return typed(StudyTask, read_json(path))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read as a task ({error})",
            hint="run the study again",
        ) from error


def keep_failure(folder: str | Path, error: BaseException) -> Failure:
    """Writes down what went wrong; on a full disk only the exit code remains."""
    user = error if isinstance(error, StopgradError) else no_memory(error) or bad_path(error)
    if user is not None:
        found = Failure(type(user).__name__, user.found[:LONGEST], user.exit_code)
    elif isinstance(error, KeyboardInterrupt):
        found = Failure("KeyboardInterrupt", "interrupted", 130)
    else:
        name = type(error).__name__
        found = Failure(name, f"{name}: {error}"[:LONGEST], FAULT)
    with suppress(StorageError):
        write_json(Path(folder, FAILURE), found._asdict())
    return found


def read_failure(folder: str | Path) -> Failure | None:
    """What went wrong in the newest task; None where it wrote nothing, as when it was killed."""
    try:
        return typed(Failure, read_json(Path(folder, FAILURE)))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def carry_out(task: StudyTask) -> None:
    """Trains or scores by one call of the library; reports its progress on standard output.

    Raises:
        StopgradError: Whatever that call raises.
    """
    scores = task.stage in ("evaluate", "finetune")
    for line in _score(task) if scores else _train(task):
        sys.stdout.write(f"{printable(line)}\n")
        sys.stdout.flush()


def _train(task: StudyTask) -> Iterator[str]:
    from stopgrad.runs import load_images
    from stopgrad.training import (
        check_resume,
        continue_run,
        pretrain_run,
        resumed_info,
        supervised_fractions,
    )

    if task.stage == "resume":
        try:
            found = check_resume(task.run, resumed_info(task.run, changes={}))
        except CheckpointError as error:
            reason = f"this run cannot resume; remove {task.folder} to restart it ({error.found})"
            raise CheckpointError(reason) from error
        if not found.finished:
            dataset = load_images(task.spec, found.info.config, changed="warn")
            yield from map(_epoch_text, continue_run(found, dataset, spec=task.spec))
        return
    config = config_from_dict(task.config or {})
    dataset = load_images(task.spec, config)
    if task.stage == "pretrain":
        yield from map(_epoch_text, pretrain_run(dataset, config, task.run, spec=task.spec))
    else:
        yield from _fraction_texts(
            supervised_fractions(
                _for_scoring(dataset), config, task.run, spec=task.spec, labels=task.labels
            )
        )


def _score(task: StudyTask) -> Iterator[str]:
    from stopgrad.evaluation import Selection, evaluate_run
    from stopgrad.method import use_threads
    from stopgrad.runs import load_images, load_run
    from stopgrad.training import finetune_fractions

    try:
        run = load_run(task.run)
    except CheckpointError:  # the steps since the newest good one are taken again
        yield from _train(replace(task, stage="resume"))
        run = load_run(task.run)
    config = run.info.config
    use_threads(config.threads)
    dataset = _for_scoring(load_images(task.spec, config, changed="warn"))
    if task.stage == "finetune":
        yield from _fraction_texts(
            finetune_fractions(run, dataset, config, task.run, spec=task.spec, labels=task.labels)
        )
        return
    select = Selection(task.split, tuple(task.subjects), tuple(task.metrics), missing=True)
    for record in evaluate_run(run, dataset, labels=task.labels, select=select):
        number = f"{record.of} {record.metric} {record.value:.4g}"
        yield f"{number} with {record.labels:g} of the labels"


def _for_scoring(dataset: Dataset) -> Dataset:
    """Images to score; in a study the split that is scored is called test."""
    return dataset._replace(notes=dataset.notes._replace(scored=""))


def _epoch_text(epoch: Epoch) -> str:
    knn = "" if epoch.knn is None else f"  kNN {epoch.knn:.2%}{balance_text(epoch.balance)}"
    verdict = "" if epoch.verdict is None else f"  {epoch.verdict.state}"
    return f"epoch {epoch.number}  loss {epoch.loss:+.4f}{knn}{verdict}"


def _fraction_texts(epochs: Iterable[FractionEpoch]) -> Iterator[str]:
    for labels, epoch, record in epochs:
        if epoch is not None:
            yield f"{labels:g} of the labels: epoch {epoch.number}  loss {epoch.loss:.4f}"
        if record is not None:
            yield f"{labels:g} of the labels: {record.metric} {record.value:.4g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carries out the task of a file; returns the exit code."""
    wait_briefly(os.environ)
    outlive("stdout")  # the log of the run
    outlive("stderr")
    logging.basicConfig(level=logging.WARNING, format="stopgrad: %(message)s")
    path = Path((sys.argv[1:] if arguments is None else arguments)[0])
    refuse_links(RunFolder(path.parent).study)
    try:
        carry_out(read_task(path))
    except BaseException as error:  # a Rust panic is not an Exception
        failure = keep_failure(path.parent, error)
        if failure.exit_code == FAULT:
            traceback.print_exc()
        text = str(error) if isinstance(error, StopgradError) else failure.message
        sys.stderr.write(f"stopgrad: {' '.join(printable(text).splitlines())}\n")
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
