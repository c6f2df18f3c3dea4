"""Claims about a task, and about the processes of this machine that carry it out."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stopgrad.config import Config, config_to_dict, preset
from stopgrad.errors import DataError
from stopgrad.evaluation import Key
from stopgrad.runs import read_status
from stopgrad.storage import usable_cores
from stopgrad.studies.executors import Job, LocalProcesses, local_processes
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.task import StudyTask, keep_failure, main, read_failure, read_task, write_task
from stopgrad.studies.warm import WarmJob
from tests.factories import write_digits
from tests.studies.instant import InstantExecutor, conduct, prepare

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks them")


def _wait(condition: Callable[[], bool]) -> bool:
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_process_gets_its_threads_and_its_gpu() -> None:
    executor = LocalProcesses(3, threads=4, gpus=["0", "MIG-7"])
    found = [executor.variables(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)]
    assert found == ["0", "MIG-7", "0"]
    assert executor.environment({"HOME": "h"}) == {"HOME": "h", "OMP_NUM_THREADS": "4"}
    assert executor.environment({"OMP_NUM_THREADS": "1"})["OMP_NUM_THREADS"] == "1"


def test_by_default_cores_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert local_processes(jobs=4, device="cpu").environment({})["OMP_NUM_THREADS"] == "2"
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == 128


def _start(task: StudyTask, claim: int) -> Job:
    write_task(task)
    return LocalProcesses(1, threads=1).start(task, slot=0, claim=claim)


@pytest.mark.parametrize("forks", [pytest.param(True, marks=needs_linux), False])
def test_a_process_writes_to_its_log_and_says_what_went_wrong(
    forks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stopgrad.studies.executors.FORKS", forks)
    config = config_to_dict(preset("tiny"))
    task = StudyTask(stage="pretrain", folder=str(tmp_path), spec="nowhere", config=config)
    with (tmp_path / "claim").open("w") as claim:
        job = _start(task, claim.fileno())
        assert _wait(lambda: job.poll() is not None)
    assert job.poll() == 3
    failure = read_failure(tmp_path)
    assert failure is not None
    assert (failure.error, failure.exit_code) == ("DataError", 3)
    assert "nowhere" in failure.message
    log = (tmp_path / "log").read_text()
    assert f"stopgrad: {failure.message}" in log
    assert "Traceback" not in log


def test_a_fault_of_ours_leaves_its_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = StudyTask(stage="resume", folder=str(tmp_path), spec="mnist5k")
    write_task(task)
    monkeypatch.setattr("stopgrad.studies.task.carry_out", lambda task: 1 // 0)
    assert main([str(task.file)]) == 1
    failure = read_failure(tmp_path)
    assert failure is not None
    assert (failure.error, failure.exit_code) == ("ZeroDivisionError", 1)
    assert "Traceback" in capsys.readouterr().err


def test_a_task_survives_its_file_and_clears_an_older_failure(tmp_path: Path) -> None:
    config = config_to_dict(preset("cpu", **{"optimizer.base_lr": 1e-7}))
    place = {"folder": str(tmp_path), "spec": "d"}
    tasks = [
        StudyTask(stage="evaluate", **place, labels=[0.1, 1.0], metrics=["knn_accuracy"]),
        StudyTask(stage="pretrain", **place, config=config),
    ]
    for task in tasks:
        keep_failure(tmp_path, ValueError("old"))
        write_task(task)
        assert read_failure(tmp_path) is None
        assert read_task(task.file) == task


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stage": "rm"}', "\0"])
def test_a_damaged_task_or_failure_is_no_traceback(tmp_path: Path, text: str) -> None:
    for name in ("task.json", "failure.json"):
        (tmp_path / name).write_text(text)
    assert read_failure(tmp_path) is None
    with pytest.raises(DataError, match=r"task\.json cannot be read as a task"):
        read_task(tmp_path / "task.json")


RUNNER = """
import sys, time
from pathlib import Path
from stopgrad.config import config_to_dict, preset
from stopgrad.studies.executors import Job, LocalProcesses
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.task import StudyTask, write_task
folder = RunFolder(Path(sys.argv[1]))
config = config_to_dict(preset("tiny"))
task = StudyTask(stage="pretrain", folder=str(folder.path), spec="mnist5k", config=config)
write_task(task)
job = LocalProcesses(1, threads=1).start(task, slot=0, claim=folder.claim())
print(job.pid, flush=True)
time.sleep(100)
"""


def test_no_child_survives_a_runner_that_is_killed_and_the_claim_outlives_it(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.kill(child, signal.SIGSTOP)  # it cannot end before we have looked
        process.kill()
        process.wait()
        assert folder.is_claimed()
        assert folder.claim() is None
        os.kill(child, signal.SIGCONT)
    assert _wait(lambda: not folder.is_claimed())
    assert _wait(lambda: not Path(f"/proc/{child}").exists())


def _at_work(folder: Path, executor: LocalProcesses) -> tuple[RunFolder, WarmJob]:
    """A training that goes on until it is stopped, and the folder whose claim it has."""
    folder.mkdir()
    config = config_to_dict(preset("tiny", epochs=10_000, checkpoint_every=1))
    task = StudyTask(stage="pretrain", folder=str(folder), spec="mnist5k", config=config)
    write_task(task)
    run = RunFolder(folder)
    claim = run.claim()
    assert claim is not None
    job = executor.start(task, slot=0, claim=claim)
    os.close(claim)
    assert isinstance(job, WarmJob)
    assert _wait((folder / "run/metrics.jsonl").exists)
    return run, job


def _end(*jobs: Job) -> bool:
    return _wait(lambda: all(job.poll() is not None for job in jobs))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@needs_linux
def test_processes_of_a_study_are_forks_of_one_that_has_imported_what_they_need(
    tmp_path: Path,
) -> None:
    executor = LocalProcesses(2, threads=1)
    folders, jobs = zip(*(_at_work(tmp_path / name, executor) for name in "ab"), strict=True)
    warm = {_parent(_parent(job.pid)) for job in jobs}
    assert len(warm) == 1
    assert all(folder.is_claimed() for folder in folders)
    os.kill(jobs[0].pid, signal.SIGALRM)
    jobs[1].terminate()
    assert _end(*jobs)
    assert [job.poll() for job in jobs] == [-signal.SIGALRM, 128 + signal.SIGTERM]
    assert not any(folder.is_claimed() for folder in folders)
    assert read_status(folders[1].run)["state"] == "interrupted"
    jobs[0].terminate()  # it has ended, and nobody is killed in its place
    del executor, jobs
    assert not Path(f"/proc/{warm.pop()}").exists()


@needs_linux
def test_a_fork_computes_the_bits_of_this_process(tmp_path: Path) -> None:
    digits, weights = write_digits(tmp_path / "digits", train=100, test=20), list[bytes]()
    config = config_to_dict(preset("tiny", epochs=1))
    executor = LocalProcesses(1, threads=1)
    for forks in (True, False):
        folder = RunFolder(tmp_path / str(forks))
        folder.path.mkdir()
        path = str(folder.path)
        task = StudyTask(stage="pretrain", folder=path, spec=str(digits), config=config)
        write_task(task)
        if forks:
            claim = folder.claim()
            assert claim is not None
            job = executor.start(task, slot=0, claim=claim)
            os.close(claim)
            assert _end(job)
            assert job.poll() == 0
        else:
            assert main([str(task.file)]) == 0
        newest = max((folder.run / "checkpoints").iterdir())
        weights.append((newest / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@needs_linux
def test_where_the_process_that_forks_is_killed_tasks_save_and_the_next_has_another(
    tmp_path: Path,
) -> None:
    executor = LocalProcesses(1, threads=1)
    folder, job = _at_work(tmp_path / "a", executor)
    os.kill(_parent(_parent(job.pid)), signal.SIGKILL)
    assert _end(job)
    assert job.poll() == -signal.SIGKILL
    assert _wait(lambda: not folder.is_claimed())
    assert read_status(folder.run)["state"] == "interrupted"
    _, again = _at_work(tmp_path / "b", executor)
    again.terminate()
    assert _end(again)
    assert again.poll() == 128 + signal.SIGTERM


def test_a_config_survives_the_way_through_its_file(tmp_path: Path) -> None:
    from stopgrad.cli.parser import parse

    prepared, executor = prepare(tmp_path / "s", seeds=(3,)), InstantExecutor()
    conduct(prepared, executor)
    for run in prepared.plan.runs.values():
        settings = prepared.directory.folder(run.id).path / "settings.json"
        words = ["pretrain", "--data", "mnist5k", "--out", "x", "--config", str(settings)]
        config: Config = parse(words).config
        assert config == run.config


def test_every_stage_gives_the_numbers_that_it_is_asked_for(tmp_path: Path) -> None:
    digits = write_digits(tmp_path / "digits", train=200, test=60)
    epochs = {"epochs": 1, "supervised.epochs": 1, "finetune.epochs": 1, "finetune.batch": 16}
    config = config_to_dict(preset("tiny", **epochs))
    place = {"folder": str(tmp_path / "ssl"), "spec": str(digits)}
    scored = {"labels": [0.5, 1.0], "split": "test"}
    tasks = [
        StudyTask(stage="pretrain", **place, config=config),
        StudyTask(stage="resume", **place),
        StudyTask(
            **place, stage="evaluate", **scored, metrics=["knn_accuracy"], subjects=["encoder"]
        ),
        StudyTask(
            **place, stage="finetune", **scored, metrics=["finetune_accuracy"], subjects=["encoder"]
        ),
        StudyTask(
            stage="supervised",
            folder=str(tmp_path / "labels"),
            spec=str(digits),
            config=config,
            labels=[0.5],
            metrics=["supervised_accuracy"],
            subjects=["supervised"],
            split="test",
        ),
    ]
    for task in tasks:
        folder = RunFolder(Path(task.folder))
        folder.path.mkdir(exist_ok=True)
        write_task(task)
        assert main([str(task.file)]) == 0, task.stage
        product = itertools.product(task.metrics, task.labels, task.subjects, [task.split])
        wanted = {Key(*parts) for parts in product}
        assert all(map(task.gives, wanted))
        assert wanted <= folder.numbers().keys()
        assert read_failure(task.folder) is None
    assert RunFolder(tmp_path / "ssl").state().phase == "trained"
    assert RunFolder(tmp_path / "labels").state().phase == "trained"


def test_a_finished_run_takes_its_lost_steps_again_or_says_what_to_do(tmp_path: Path) -> None:
    digits = write_digits(tmp_path / "digits", train=100, test=20)
    config = config_to_dict(preset("tiny", epochs=1, checkpoint_every=1))
    place = {"folder": str(tmp_path / "run"), "spec": str(digits)}
    begun = StudyTask(stage="pretrain", **place, config=config)
    scored = StudyTask(
        stage="evaluate", **place, labels=[1.0], metrics=["knn_accuracy"], subjects=["encoder"]
    )
    Path(begun.folder).mkdir()
    write_task(begun)
    assert main([str(begun.file)]) == 0
    newest, older = begun.run / "checkpoints/step-000003", begun.run / "checkpoints/step-000002"
    whole = (newest / "model.safetensors").read_bytes()
    (newest / "model.safetensors").write_bytes(whole[:-1])
    write_task(scored)
    assert main([str(scored.file)]) == 0
    assert (newest / "model.safetensors").read_bytes() == whole
    assert [key.metric for key in RunFolder(tmp_path / "run").numbers()] == ["knn_accuracy"]
    for folder in (newest, older):
        (folder / "model.safetensors").write_bytes(b"")
    assert main([str(scored.file)]) == 7
    failure = read_failure(tmp_path / "run")
    assert failure is not None
    assert f"remove {tmp_path / 'run'} to restart it" in failure.message
    assert "model.safetensors does not match its sha256" in failure.message
