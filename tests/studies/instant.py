"""Studies that take no time: an executor that leaves the files which a task would leave."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stopgrad.errors import StopgradError
from stopgrad.evaluation import Key, append
from stopgrad.studies import Choices, PreparedStudy, StudyDirectory, run_study
from stopgrad.studies.definition import StudyData
from stopgrad.studies.executors import FileLocks
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.parse import parse_study
from stopgrad.studies.plan import arm_configs, plan_runs
from stopgrad.studies.task import StudyTask, keep_failure
from tests import factories

STUDY: dict[str, Any] = {
    "question": "Which?",
    "baseline": "a",
    "settings": {"validation": 0.2},
    "arms": {"a": {}, "b": {"epochs": 2}},
    "protocol": {"split": "validation", "metrics": ["knn_accuracy"], "beside": ["untrained"]},
}


class Silent:
    """A watch that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def event(self, run: str, text: str) -> None:
        self.events.append(text)

    def tick(self) -> None:
        pass


class DoneJob:
    """A job that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        pass


class InstantExecutor(FileLocks):
    """Leaves the files that a task would leave, or fails as it is told.

    `fails` gives for a run the exit codes of its next tasks; 0 is a task that works.
    """

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.fails: dict[str, list[int]] = {}
        self.started: list[tuple[str, str]] = []  # run, stage
        self.values: dict[str, float] = {}

    def start(self, task: StudyTask, *, slot: int, claim: int) -> DoneJob:
        folder, run = RunFolder(Path(task.folder)), Path(task.folder).name
        self.started.append((run, task.stage))
        code = next(iter(self.fails.get(run, [])), 0)
        self.fails[run] = self.fails.get(run, [])[1:]
        if code > 0:
            keep_failure(task.folder, _failing(code))
        elif code == 0 and task.stage in ("pretrain", "resume"):
            train(folder)
        elif code == 0 and task.stage == "supervised":
            record(folder, "supervised_accuracy", of="supervised", split="test", value=0.4)
        elif code == 0:
            score(folder, task, value=self.values.get(run, 0.5))
        return DoneJob(code)


def _failing(code: int) -> StopgradError:
    """An error of that exit code, one of those that have none included."""
    error = StopgradError("something went wrong", expected="luck", hint="try again")
    error.exit_code = code  # type: ignore[misc]
    return error


def train(folder: RunFolder) -> None:
    folder.run.mkdir(exist_ok=True)
    (folder.run / "config.json").write_text("{}")
    (folder.run / "status.json").write_text(json.dumps({"state": "finished", "epoch": 4}))


def score(folder: RunFolder, task: StudyTask, *, value: float) -> None:
    """All that is asked for and not known, as an evaluation has it."""
    split = "train" if task.split == "auto" else task.split
    for metric, of, labels in itertools.product(task.metrics, task.subjects, task.labels):
        key = Key(metric, labels, of, split)
        if key not in folder.numbers():
            record(folder, metric, of=of, split=key.split, value=value, labels=labels)


def record(folder: RunFolder, metric: str, *, of: Any, split: str, **values: Any) -> None:
    folder.run.mkdir(exist_ok=True)
    made = factories.record(metric=metric, of=of, split=split, images_scored=100, **values)
    append(folder.run / "records.jsonl", made)


def prepare(
    out: Path, values: Mapping[str, Any] = STUDY, *, name: str = "mine", **changes: Any
) -> PreparedStudy:
    """A study begun in a directory, without looking at any image."""
    source = parse_study(values, name=name)
    choices = Choices(**({"preset": "tiny", "overrides": {}, "seeds": (0, 1)} | changes))
    configs = arm_configs(source, choices)
    data = StudyData("mnist5k", "mnist5k", 10, dict.fromkeys(configs, "f"))
    plan = plan_runs(source, choices, configs, fingerprints=data.fingerprints)
    directory = StudyDirectory(out)
    return PreparedStudy(directory, plan, "mnist5k", tuple(directory.begin(plan, data)))


def conduct(
    prepared: PreparedStudy, executor: InstantExecutor, **options: Any
) -> Mapping[str, str]:
    return run_study(prepared, executor, watch=Silent(), **options)


def run_of(prepared: PreparedStudy, arm: str, seed: int) -> str:
    return next(s.run for s in prepared.plan.slots if (s.arm, s.seed) == (arm, seed))


def stages(executor: InstantExecutor, run: str) -> list[str]:
    return [stage for name, stage in executor.started if name == run]
