"""A study on an engine: begun by the command, disturbed, and compared with one that was not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stopgrad.report import study_table
from stopgrad.runs import newest_step
from stopgrad.studies import StudyDirectory
from stopgrad.studies.folder import RunFolder
from tests.factories import write_digits
from tests.training.factories import end_state, step_losses

STUDY: dict[str, Any] = {
    "question": "Which?",
    "baseline": "a",
    "settings": {"validation": 0.2, "epochs": 20, "threads": 1, "checkpoint_every": 1},
    "arms": {"a": {}, "b": {"batch": 16}},
    "protocol": {"split": "validation", "metrics": ["knn_accuracy", "correlation_strength"]},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study and its images: 240 real digits in folders of their classes."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    write_digits(folder / "images", train=240, test=0)
    return folder


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> StudyDirectory:
    """The same study on this machine."""
    process = start(os.environ, place, place / "local", "--on", "local")
    assert process.wait(600) == 0
    return StudyDirectory(place / "local")


STARTED = list[subprocess.Popen[str]]()


@pytest.fixture(autouse=True)
def no_runner_stays() -> Iterator[None]:
    """Also where a test fails, no runner is left at work."""
    yield
    while STARTED:
        STARTED.pop().kill()


def start(env: Any, place: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """Runs the study; what it says goes to OUT.log."""
    words = ["study", "run", "mine.yaml", "--data", "images", "--out", str(out)]
    words += ["--preset", "tiny", "--seeds", "1", "--jobs", "2", *more]
    with Path(f"{out}.log").open("a") as log:
        command = [sys.executable, "-m", "stopgrad", *words]
        runner = subprocess.Popen(command, cwd=place, env=env, stderr=log, text=True)
    STARTED.append(runner)
    return runner


def folders(out: Path) -> list[RunFolder]:
    return [RunFolder(path) for path in sorted((out / "runs").glob("*"))]


def is_training(out: Path) -> bool:
    """Whether all runs have come past their first checkpoint."""
    found = folders(out)
    return bool(found) and all(newest_step(folder.run) > 0 for folder in found)


def check(out: Path, undisturbed: StudyDirectory) -> None:
    """Every run was trained once, to the same bits, and the table is the same to the byte."""
    log = Path(f"{out}.log").read_text()
    assert "Traceback" not in log, log
    for folder in folders(out):
        same = undisturbed.folder(folder.path.name)
        assert end_state(folder.run) == end_state(same.run)
        assert step_losses(folder.run) == step_losses(same.run)
        ended = [(a.stage, a.exit_code) for a in folder.attempts() if a.exit_code == 0]
        trained = [stage for stage, _ in ended if stage in ("pretrain", "resume")]
        assert (len(trained), len(ended)) == (1, 2), ended
        assert not folder.is_claimed()
    assert table(StudyDirectory(out)) == table(undisturbed)


def table(directory: StudyDirectory) -> str:
    """Without its last line: what it cost is measured."""
    text = study_table(directory, "mine", form="markdown")
    return text.partition("\nCost: ")[0]
