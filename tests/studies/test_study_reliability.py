"""Promises R15 and R16: a study with failing runs whose runner is killed, with real commands.

The runner that goes on is on another machine, as far as the kernel lets a process seem so.
The suite takes three runs, of which one fails; STOPGRAD_FULL=1 takes twelve, of which six fail in
six ways, and kills the runner at several moments.
"""

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from stopgrad.images import load_dataset
from stopgrad.report import study_table
from stopgrad.runs import RunWriter, describe_run, newest_step, prepare, read_run
from stopgrad.studies import StudyDirectory, load_results
from stopgrad.studies.directory import RunFolder
from stopgrad.training import pretrain_epochs
from tests.factories import write_digits
from tests.promises.process import Running, can_go_apart, order_in, start_forked
from tests.training.factories import end_state, step_losses

FULL = os.environ.get("STOPGRAD_FULL") == "1"
SEEDS = 6 if FULL else 1
KILLS = 4 if FULL else 1
"""The arm `wild` diverges; the full set also breaks runs of the arm `sound` from outside."""

STUDY: dict[str, Any] = {
    "question": "Who survives?",
    "baseline": "sound",
    "settings": {"validation": 0.2, "epochs": 2, "knn_every": 1},
    "arms": {"sound": {}, "wild": {"optimizer.base_lr": 1e20}},
    "protocol": {"split": "validation", "metrics": ["knn_accuracy", "correlation_strength"]},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 real digits in folders of their classes."""
    return write_digits(tmp_path_factory.mktemp("images"), train=240, test=0)


def _start(file: Path, images: Path, out: Path, *, host: str = "") -> Running:
    words = ("study", "run", file, "--data", images, "--out", out, "--preset", "tiny")
    more = ("--seeds", SEEDS, "--jobs", 1)
    order = order_in(file.parent, *words, *more, host=host if can_go_apart() else "")
    return start_forked(order)


def _folders(out: Path) -> dict[str, RunFolder]:
    directory = StudyDirectory(out)
    return {path.name: directory.folder(path.name) for path in (out / "runs").glob("*")}


def _is_training(out: Path) -> bool:
    return any(
        newest_step(folder.run) > 0 and not _finished(folder) for folder in _folders(out).values()
    )


def _finished(folder: RunFolder) -> bool:
    status = folder.run / "status.json"
    return status.exists() and json.loads(status.read_text())["state"] == "finished"


def _wait(condition: Any) -> None:
    for _ in range(6000):  # two minutes: the machine may be busy with other tests
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


def _kill_while_training(runner: Running, out: Path) -> None:
    """Kills the runner in the middle of a run, and waits until its children have ended."""
    _wait(lambda: _is_training(out) or not runner.is_running())
    runner.send(signal.SIGKILL, group=False)
    runner.wait()
    _wait(lambda: not any(folder.is_claimed() for folder in _folders(out).values()))


def _alone(run: RunFolder, images: Path, out: Path) -> Path:
    """The same run without any study."""
    config = read_run(run.run).config
    dataset = load_dataset(str(images), side=config.image_side)
    with RunWriter.create(out, describe_run(dataset, config, spec=str(images))) as writer:
        for _ in pretrain_epochs(prepare(dataset, config), config, writer=writer):
            pass
    return out


def test_a_killed_study_ends_as_if_nothing_had_happened(images: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "survival.yaml", tmp_path / "study"
    file.write_text(yaml.safe_dump(STUDY))
    for _ in range(KILLS):
        _kill_while_training(_start(file, images, out), out)
        for form in ("markdown", "csv", "json"):  # R16, at the moment of the kill
            assert study_table(StudyDirectory(out), "survival", form=form)
    done = _start(file, images, out, host="elsewhere").wait()
    assert done.code == 8, done.err
    assert "Traceback" not in done.err
    _check(out, images, tmp_path)


def _check(out: Path, images: Path, tmp_path: Path) -> None:
    directory = StudyDirectory(out)
    results = load_results(directory, directory.read("survival"))
    for number, slot in enumerate(results.stored.slots):
        folder, run = directory.folder(slot.run), results.runs[slot.run]
        attempts = folder.attempts()
        if slot.arm == "wild":
            assert (run.state.phase, attempts[-1].exit_code) == ("diverged", 4)
            assert "not finite" in run.state.reason
            assert "not finite" in folder.log.read_text()
        else:
            alone = _alone(folder, images, tmp_path / f"alone-{number}")
            assert end_state(folder.run) == end_state(alone)
            assert step_losses(folder.run) == step_losses(alone)
            records = (folder.run / "records.jsonl").read_text().splitlines()
            assert len(records) == len(STUDY["protocol"]["metrics"])
        ended = [attempt.stage for attempt in attempts if attempt.exit_code in (0, 4)]
        trained = [stage for stage in ended if stage in ("pretrain", "resume")]
        assert len(trained) == 1  # none runs twice
    table = study_table(directory, "survival", form="markdown")
    assert f"| wild | {SEEDS} diverged |" in table
    assert f"({SEEDS})" in table


@pytest.mark.skipif(not FULL, reason="the full set: STOPGRAD_FULL=1")
def test_six_ways_to_fail_leave_the_other_six_alone(images: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "survival.yaml", tmp_path / "study"
    arms = {"sound": {}, "wild": {"optimizer.base_lr": 1e20}}
    file.write_text(yaml.safe_dump(STUDY | {"arms": arms}))
    runner = _start(file, images, out)
    _wait(lambda: (out / "studies" / "survival.json").exists())
    runner.send(signal.SIGKILL, group=False)
    runner.wait()
    directory = StudyDirectory(out)
    stored = directory.read("survival")
    bad = [directory.folder(slot.run) for slot in stored.slots if slot.arm == "wild"]
    _break(bad)
    runner = _start(file, images, out, host="elsewhere")
    for count in itertools.count():  # R16, at many moments
        if not runner.is_running():
            break
        form = ("markdown", "csv", "json")[count % 3]
        assert study_table(directory, "survival", form=form)  # type: ignore[arg-type]
        time.sleep(0.3)
    done = runner.wait()
    assert done.code == 8
    results = load_results(directory, stored)
    for slot in stored.slots:
        state = results.runs[slot.run].state
        if slot.arm == "sound":
            alone = _alone(directory.folder(slot.run), images, tmp_path / slot.run)
            assert end_state(directory.folder(slot.run).run) == end_state(alone)
        else:
            assert state.phase in ("diverged", "failed"), state
            assert state.reason
            assert directory.folder(slot.run).log.exists()
    assert f"{SEEDS} of {2 * SEEDS} runs done" in done.err


def _break(bad: list[RunFolder]) -> None:
    """Each run in its own way: the first two diverge by themselves."""
    blocked, foreign, torn, records = bad[2:6]
    for folder in bad:
        _wait(lambda folder=folder: folder.path.exists())
    blocked.run.write_text("a file where the run should be")
    foreign.run.mkdir(exist_ok=True)
    (foreign.run / "notes.txt").write_text("mine")
    torn.run.mkdir(exist_ok=True)
    (torn.run / "config.json").write_text('{"config": ')
    records.run.mkdir(exist_ok=True)
    (records.run / "records.jsonl").write_text("no record\n{}\n")
