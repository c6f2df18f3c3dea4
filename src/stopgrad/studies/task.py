"""What a run still needs: its next task, and the process that carries it out.

Nothing is remembered elsewhere, so a runner that was killed and a second one see the same.

In: a task, which the runner writes into the run's folder as task.json. Out: what the library writes
into the run directory, progress on standard output, an exit code, and failure.json in the folder
when something went wrong.

    python -m stopgrad.studies.task FOLDER/task.json
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stopgrad.config import Config, SplitName, config_from_dict, config_to_dict
from stopgrad.errors import DataError, StopgradError, StorageError, bad_path, no_memory
from stopgrad.evaluation import FINETUNE, Key, Subject
from stopgrad.runs import read_status
from stopgrad.storage import printable, read_json, typed, write_json
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.plan import PlannedRun

if TYPE_CHECKING:
    from stopgrad.images import Changed, Dataset
    from stopgrad.training import Epoch, FractionEpoch

Stage = Literal["pretrain", "resume", "evaluate", "finetune", "supervised"]

FAULT = 1  # exit code of an error that is no user's
LONGEST = 500  # characters of a message that is kept


@dataclass(frozen=True, kw_only=True)
class StudyTask:
    """One step on the way of a run to its numbers; task.json, field by field.

    Attributes:
        stage: What is done.
        folder: The run's folder in the study directory.
        spec: The images.
        config: Of a training that begins; later stages take that of the run.
        labels: Fractions of the training labels, rising.
        metrics: What is scored.
        subjects: Whose features are scored.
        split: The images that are scored.
    """

    stage: Stage
    folder: str
    spec: str
    config: dict[str, Any] | None = None
    labels: list[float] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)
    split: SplitName = "auto"

    @property
    def run(self) -> Path:
        """The run directory."""
        return Path(self.folder, "run")

    @property
    def file(self) -> Path:
        """Where the task is written."""
        return Path(self.folder, "task.json")

    def gives(self, key: Key) -> bool:
        """Whether the run has a number, at the latest, when the task has ended well."""
        wanted = key.metric in self.metrics and key.labels in self.labels
        return wanted and key.of in self.subjects and key.split in (self.split, "train")

    def command(self) -> list[str]:
        """What does the same by hand, after `stopgrad`."""
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
    """The next task of a run, or None when it has all the numbers that are wanted.

    Args:
        folder: Its folder.
        run: What it is.
        wanted: The numbers that studies want of it.
        spec: The images.

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
    """Writes a task into its folder, from which the failure of an earlier one goes.

    Raises:
        StorageError: When the disk refuses.
    """
    if task.config is not None:
        write_json(Path(task.folder, "settings.json"), task.config)
    write_json(task.file, asdict(task))
    _failure_file(task.folder).unlink(missing_ok=True)


def read_task(path: Path) -> StudyTask:
    """The task of a file.

    Raises:
        DataError: When it is missing or damaged.
    """
    try:
        return typed(StudyTask, read_json(path))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read as a task ({error})",
            hint="run the study again",
        ) from error


def keep_failure(folder: str | Path, error: BaseException) -> Failure:
    """Writes down what went wrong; on a full disk only the exit code is left to say it."""
    user = error if isinstance(error, StopgradError) else no_memory(error) or bad_path(error)
    if user is not None:
        found = Failure(type(user).__name__, user.found[:LONGEST], user.exit_code)
    elif isinstance(error, KeyboardInterrupt):
        found = Failure("KeyboardInterrupt", "interrupted", 130)
    else:
        name = type(error).__name__
        found = Failure(name, f"{name}: {error}"[:LONGEST], FAULT)
    with suppress(StorageError):
        write_json(_failure_file(folder), found._asdict())
    return found


def read_failure(folder: str | Path) -> Failure | None:
    """What went wrong in the newest task; None where it wrote nothing, as when it was killed."""
    try:
        return typed(Failure, read_json(_failure_file(folder)))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _failure_file(folder: str | Path) -> Path:
    return Path(folder, "failure.json")


def carry_out(task: StudyTask) -> None:
    """Trains or scores by one call of the library.

    Raises:
        StopgradError: Whatever that call raises.
    """
    stages: dict[Stage, Callable[[StudyTask], None]] = {
        "pretrain": _pretrain,
        "resume": _resume,
        "supervised": _supervise,
        "evaluate": _evaluate,
        "finetune": _finetune,
    }
    stages[task.stage](task)


def _pretrain(task: StudyTask) -> None:
    from stopgrad.runs import load_images
    from stopgrad.training import pretrain_run

    config = config_from_dict(task.config or {})
    dataset = load_images(task.spec, config)
    _follow(pretrain_run(dataset, config, task.run, spec=task.spec))


def _resume(task: StudyTask) -> None:
    from stopgrad.runs import load_images
    from stopgrad.training import check_resume, continue_run

    found = check_resume(task.run, changes={})
    if not found.finished:
        dataset = load_images(task.spec, found.info.config, changed="warn")
        _follow(continue_run(found, dataset, spec=task.spec))


def _supervise(task: StudyTask) -> None:
    from stopgrad.training import supervised_fractions

    config = config_from_dict(task.config or {})
    dataset = _images(task, config)
    _follow_fractions(
        supervised_fractions(dataset, config, task.run, spec=task.spec, labels=task.labels)
    )


def _evaluate(task: StudyTask) -> None:
    from stopgrad.evaluation import Selection, evaluate_run, recorded_numbers
    from stopgrad.method import use_threads
    from stopgrad.runs import load_run, read_run

    config = read_run(task.run).config
    use_threads(config.threads)
    dataset = _images(task, config, changed="warn")
    known = recorded_numbers(task.run)
    select = Selection(task.split, tuple(task.subjects), tuple(task.metrics), known)
    for record in evaluate_run(load_run(task.run), dataset, labels=task.labels, select=select):
        _say(f"{record.of} {record.metric} {record.value:.4g} with {record.labels:g} of the labels")


def _finetune(task: StudyTask) -> None:
    from stopgrad.runs import load_run
    from stopgrad.training import finetune_fractions

    run = load_run(task.run)
    config = run.info.config
    dataset = _images(task, config, changed="warn")
    _follow_fractions(
        finetune_fractions(run, dataset, config, task.run, spec=task.spec, labels=task.labels)
    )


def _images(task: StudyTask, config: Config, *, changed: Changed = "fail") -> Dataset:
    """The images to score with; in a study the split that is scored is called test."""
    from stopgrad.runs import load_images

    dataset = load_images(task.spec, config, changed=changed)
    return dataset._replace(notes=dataset.notes._replace(scored=""))


def _follow(epochs: Iterable[Epoch]) -> None:
    for epoch in epochs:
        knn = "" if epoch.knn is None else f"  kNN {epoch.knn:.2%}"
        verdict = "" if epoch.verdict is None else f"  {epoch.verdict.state}"
        _say(f"epoch {epoch.number}  loss {epoch.loss:+.4f}{knn}{verdict}")


def _follow_fractions(epochs: Iterable[FractionEpoch]) -> None:
    for labels, epoch, record in epochs:
        if epoch is not None:
            _say(f"{labels:g} of the labels: epoch {epoch.number}  loss {epoch.loss:.4f}")
        if record is not None:
            _say(f"{labels:g} of the labels: {record.metric} {record.value:.4g}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carries out the task of a file; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="stopgrad: %(message)s")
    path = Path((sys.argv[1:] if arguments is None else arguments)[0])
    try:
        carry_out(read_task(path))
    except BaseException as error:  # Rust's panic is no Exception
        failure = keep_failure(path.parent, error)
        if failure.exit_code == FAULT:
            traceback.print_exc()
        text = str(error) if isinstance(error, StopgradError) else failure.message
        sys.stderr.write(f"stopgrad: {' '.join(printable(text).splitlines())}\n")
        return failure.exit_code
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{printable(text)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
