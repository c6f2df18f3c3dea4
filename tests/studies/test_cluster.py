"""Claims about tasks as jobs of an engine; the engine is a dict and its jobs take no time."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from stopgrad.config import config_to_dict, preset
from stopgrad.errors import ConfigError
from stopgrad.storage import STOP_SIGNALS
from stopgrad.studies import StudyDirectory, Where, check_place, executor_for, job_texts, node
from stopgrad.studies import cluster as cluster_module
from stopgrad.studies.claims import (
    JobBegin,
    JobClaim,
    JobExit,
    create_claim,
    newest_attempt,
    newest_claim,
    read_begin,
    read_claim,
    read_exit,
    write_begin,
    write_claim,
    write_exit,
)
from stopgrad.studies.cluster import HELD, MISSING, NEVER_BEGUN, Cluster, Queued
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.node import carry_out_job
from stopgrad.studies.task import StudyTask, read_task, write_task
from tests.studies.instant import InstantExecutor, Silent, conduct, prepare, run_of, stages


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "ASK_S", 0.0)
    monkeypatch.setattr(cluster_module, "GONE_S", 0.0)
    monkeypatch.setattr(cluster_module, "SUBMIT_S", 0.0)


class DictEngine:
    """Its jobs are those of an `InstantExecutor`; a negative code is a job that vanishes.

    With `waits` a job stays in the queue until `work` is called.
    """

    name = "slurm"

    def __init__(self, *, waits: bool = False) -> None:
        self.jobs = InstantExecutor()
        self.waits, self.answers, self.submitted = waits, True, 0
        self.waiting: dict[str, tuple[RunFolder, int]] = {}
        self.state = "RUNNING"

    def submit(self, folder: RunFolder, claim: JobClaim) -> str | None:
        if not self.answers:
            return None
        self.submitted += 1
        self.waiting[claim.name] = (folder, claim.attempt)
        if not self.waits:
            self.work()
        return str(self.submitted)  # of some job, as names say which

    def work(self) -> None:
        while self.waiting:
            folder, attempt = self.waiting.popitem()[1]
            write_begin(folder.path, attempt, JobBegin("n1", 0.0))
            code = self.jobs.start(read_task(folder.path / "task.json"), slot=0, claim=0).code
            if code >= 0:
                write_exit(folder.path, attempt, JobExit(code, 2.5))

    def queue(self) -> Mapping[str, Queued] | None:
        jobs = {name: Queued("7", self.state, "n1", "1:00") for name in self.waiting}
        return jobs if self.answers else None

    def stop(self, claim: JobClaim, *, begun: bool) -> bool:
        self.waiting.pop(claim.name, None)
        return True


def cluster(engine: DictEngine) -> Cluster:
    return Cluster(engine, jobs=2)


def test_a_study_on_an_engine_ends_as_one_on_this_machine(tmp_path: Path) -> None:
    prepared, engine = prepare(tmp_path / "s"), DictEngine()
    assert conduct(prepared, cluster(engine)) == {}
    for run in prepared.plan.runs:
        assert stages(engine.jobs, run) == ["pretrain", "evaluate"]
        folder = prepared.directory.folder(run)
        assert [(a.stage, a.exit_code, a.wall_s) for a in folder.attempts()] == [
            ("pretrain", 0, 2.5),
            ("evaluate", 0, 2.5),
        ]
        assert not folder.is_claimed()
    files = sorted(tmp_path.glob("s/runs/*/job-*"))
    assert conduct(prepare(tmp_path / "s"), cluster(engine)) == {}
    assert engine.submitted == 8
    assert sorted(tmp_path.glob("s/runs/*/job-*")) == files  # looking leaves nothing


@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_job_that_ended_with_a_code_of_ours_is_not_submitted_again(
    tmp_path: Path, code: int
) -> None:
    prepared, engine = prepare(tmp_path / "s", seeds=(0,)), DictEngine()
    bad = run_of(prepared, "b", 0)
    engine.jobs.fails[bad] = [code]
    assert conduct(prepared, cluster(engine)) == {bad: f"exit code {code}: something went wrong"}
    assert stages(engine.jobs, bad) == ["pretrain"]


def test_a_job_that_died_with_its_node_is_submitted_again(tmp_path: Path) -> None:
    prepared, engine = prepare(tmp_path / "s", seeds=(0,)), DictEngine()
    unlucky = run_of(prepared, "a", 0)
    engine.jobs.fails[unlucky] = [-9, -9, 0]
    assert conduct(prepared, cluster(engine)) == {}
    assert stages(engine.jobs, unlucky) == ["pretrain"] * 3 + ["evaluate"]
    codes = [attempt.exit_code for attempt in prepared.directory.folder(unlucky).attempts()]
    assert codes == [MISSING, MISSING, 0, 0]


def test_a_run_that_came_further_at_each_time_limit_is_submitted_as_often_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, engine = prepare(tmp_path / "s", seeds=(0,)), DictEngine()
    slow = run_of(prepared, "a", 0)
    engine.jobs.fails[slow] = [140] * 7
    steps = iter(range(1000))
    monkeypatch.setattr("stopgrad.studies.folder.newest_step", lambda run: next(steps))
    assert conduct(prepared, cluster(engine)) == {}
    assert stages(engine.jobs, slow) == ["pretrain"] * 8 + ["evaluate"]


def test_a_run_that_its_time_limit_never_lets_begin_is_given_up(tmp_path: Path) -> None:
    prepared, engine = prepare(tmp_path / "s", seeds=(0,)), DictEngine()
    stuck = run_of(prepared, "a", 0)
    engine.jobs.fails[stuck] = [140] * 7
    assert list(conduct(prepared, cluster(engine))) == [stuck]
    assert stages(engine.jobs, stuck) == ["pretrain"] * 3


def _submit_and_die(tmp_path: Path, engine: DictEngine) -> None:
    """What a runner leaves that is killed when both of its jobs are in the queue."""
    prepared = prepare(tmp_path / "s", seeds=(0,))
    for run in prepared.plan.runs:
        folder, executor = prepared.directory.folder(run), cluster(engine)
        claim = executor.claim(folder)
        assert claim is not None
        config = config_to_dict(prepared.plan.runs[run].config)
        task = StudyTask(stage="pretrain", folder=str(folder.path), spec="mnist5k", config=config)
        write_task(task)
        assert executor.start(task, slot=0, claim=claim).poll() is None


def test_the_jobs_of_a_killed_runner_are_adopted(tmp_path: Path) -> None:
    engine = DictEngine(waits=True)
    _submit_and_die(tmp_path, engine)
    assert engine.submitted == 2
    engine.work()  # while nobody looks
    engine.waits = False
    prepared = prepare(tmp_path / "s", seeds=(0,))
    assert conduct(prepared, cluster(engine)) == {}
    assert engine.submitted == 4  # the two evaluations alone are new
    for run in prepared.plan.runs:
        assert stages(engine.jobs, run) == ["pretrain", "evaluate"]
        assert len(prepared.directory.folder(run).attempts()) == 2


def test_two_runners_submit_each_task_once_and_note_each_end_once(tmp_path: Path) -> None:
    from stopgrad.studies import run_study

    engine, found = DictEngine(), []
    studies = [prepare(tmp_path / "s", seeds=(0, 1, 2)) for _ in range(2)]

    def work(number: int) -> None:
        found.append(run_study(studies[number], cluster(engine), watch=Silent()))

    runners = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert found == [{}, {}]
    for run in studies[0].plan.runs:
        assert stages(engine.jobs, run) == ["pretrain", "evaluate"]
        attempts = studies[0].directory.folder(run).attempts()
        assert [attempt.stage for attempt in attempts] == ["pretrain", "evaluate"]


def test_of_many_that_claim_at_once_one_has_the_run(tmp_path: Path) -> None:
    made = list[bool]()
    together = threading.Barrier(16)

    def claim() -> None:
        together.wait()
        made.append(create_claim(tmp_path, attempt=1, engine="slurm", devices=1))

    threads = [threading.Thread(target=claim) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 15 + [True]
    assert [path.name for path in tmp_path.iterdir()] == ["job-1.json"]


def _leave_claim(folder: Path, **changes: object) -> JobClaim:
    assert create_claim(folder, attempt=1, engine="slurm", devices=1)
    claim = newest_claim(folder)
    assert claim is not None
    left = claim._replace(**changes)  # type: ignore[arg-type]
    write_claim(folder, left)
    return left


def _dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_claim_whose_runner_died_before_it_submitted_is_void(tmp_path: Path) -> None:
    engine = DictEngine(waits=True)
    executor, folder = cluster(engine), RunFolder(tmp_path)
    claim = _leave_claim(tmp_path, process=_dead_process())
    engine.waiting[claim.name] = (folder, 1)  # it died right after
    assert executor.claim(folder) is None
    engine.waiting.clear()
    assert executor.claim(folder) == 2


def test_a_claim_from_another_machine_is_void_only_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, folder = cluster(DictEngine()), RunFolder(tmp_path)
    _leave_claim(tmp_path, host="elsewhere", process=1)
    assert [executor.claim(folder) for _ in range(3)] == [None] * 3
    monkeypatch.setattr(cluster_module, "STALE_S", 0.0)
    assert executor.claim(folder) == 2


def test_a_job_is_not_lost_while_its_engine_is_silent(tmp_path: Path) -> None:
    engine = DictEngine(waits=True)
    _submit_and_die(tmp_path, engine)
    engine.answers = False
    prepared = prepare(tmp_path / "s", seeds=(0,))
    folder = prepared.directory.folder(next(iter(prepared.plan.runs)))
    executor = cluster(engine)
    assert executor.claim(folder) is None
    assert executor.adopt(folder) is None
    engine.answers = True
    found = executor.adopt(folder)
    assert found is not None
    engine.answers = False
    engine.waiting.clear()  # it has died, and nobody can know
    assert [found.job.poll() for _ in range(3)] == [None] * 3
    engine.answers = True
    assert next(code for _ in range(3) if (code := found.job.poll()) is not None) == NEVER_BEGUN


def test_a_job_at_work_that_falls_silent_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = DictEngine(waits=True)
    _submit_and_die(tmp_path, engine)
    folder = RunFolder(next((tmp_path / "s" / "runs").iterdir()))
    found = cluster(engine).adopt(folder)
    assert found is not None
    write_begin(folder.path, 1, JobBegin("n1", 0.0))
    assert found.job.poll() is None
    assert len(engine.waiting) == 2
    monkeypatch.setattr(cluster_module, "SILENT_S", -1.0)
    assert found.job.poll() is None
    assert len(engine.waiting) == 1


@pytest.mark.parametrize("begun", [False, True])
def test_a_held_job_is_cancelled_unless_it_is_at_work_from_before(
    tmp_path: Path, begun: bool
) -> None:
    engine = DictEngine(waits=True)
    _submit_and_die(tmp_path, engine)
    engine.state = HELD
    folder = RunFolder(next((tmp_path / "s" / "runs").iterdir()))
    found = cluster(engine).adopt(folder)
    assert found is not None
    if begun:
        write_begin(folder.path, 1, JobBegin("n1", 0.0))
    codes = [found.job.poll() for _ in range(3)]
    assert len(engine.waiting) == (2 if begun else 1)
    assert (NEVER_BEGUN in codes) is not begun


def test_of_a_job_whose_end_is_seen_late_its_own_word_counts(tmp_path: Path) -> None:
    """A network file system may show a file half a minute after it was written."""
    engine, folder = cluster(DictEngine()), RunFolder(tmp_path)
    assert engine.worked_s(folder, 1) == 0.0  # it never began, however long it was queued
    write_begin(tmp_path, 1, JobBegin("here", os.stat(tmp_path).st_mtime - 60.0))
    assert engine.worked_s(folder, 1) == pytest.approx(60.0, abs=30.0)
    assert engine.final_code(folder, 1, MISSING) == MISSING
    write_exit(tmp_path, 1, JobExit(0, 5.0))
    assert engine.final_code(folder, 1, MISSING) == 0
    assert engine.worked_s(folder, 1) == 5.0


def test_a_submission_without_an_answer_is_not_repeated_when_it_arrived(tmp_path: Path) -> None:
    class Unheard(DictEngine):
        def submit(self, folder: RunFolder, claim: JobClaim) -> str | None:
            super().submit(folder, claim)
            return None

    engine = Unheard(waits=True)
    _submit_and_die(tmp_path, engine)
    folder = RunFolder(next((tmp_path / "s" / "runs").iterdir()))
    claim = read_claim(folder.path, 1)
    assert claim is not None
    job = cluster_module.ClusterJob(cluster(engine), folder, claim, submitted=False)
    job._tried = True
    before = engine.submitted
    assert job.poll() is None
    assert engine.submitted == before
    again = read_claim(folder.path, 1)
    assert again is not None
    assert again.job == "7"


def _job(folder: Path, task: StudyTask | None = None) -> int:
    """A claim with a task that fails at once."""
    number = newest_attempt(folder) + 1
    assert create_claim(folder, attempt=number, engine="slurm", devices=1)
    write_task(task or StudyTask(stage="evaluate", folder=str(folder), spec="nowhere"))
    return number


@pytest.fixture
def _child(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process of a task is one that fails at once; handlers of signals come back."""
    code = "raise SystemExit(3)"
    monkeypatch.setattr(node, "_command", lambda *_, **__: [sys.executable, "-c", code])
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_child")
def test_a_job_writes_its_exit_code_and_works_once(tmp_path: Path) -> None:
    number = _job(tmp_path)
    assert carry_out_job(str(tmp_path), number) == 3
    end = read_exit(tmp_path, number)
    assert end is not None
    assert end.exit_code == 3
    assert carry_out_job(str(tmp_path), number) == 0  # as after a requeue of what had ended


@pytest.mark.usefixtures("_child")
def test_a_job_whose_claim_was_overtaken_does_nothing(tmp_path: Path) -> None:
    first = _job(tmp_path)
    _job(tmp_path)
    assert carry_out_job(str(tmp_path), first) == 0
    assert read_begin(tmp_path, first) is None


@pytest.mark.usefixtures("_child")
def test_a_job_that_its_engine_starts_again_goes_on_with_its_run(tmp_path: Path) -> None:
    config = config_to_dict(preset("tiny"))
    task = StudyTask(stage="pretrain", folder=str(tmp_path), spec="nowhere", config=config)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert carry_out_job(str(tmp_path), _job(tmp_path, task)) == 3
    assert read_task(task.file).stage == "resume"


@pytest.mark.usefixtures("_child")
@pytest.mark.parametrize("overtaken", [False, True])
def test_a_job_has_its_task_save_when_it_is_told_or_overtaken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overtaken: bool
) -> None:
    code = "import time; time.sleep(60)"
    monkeypatch.setattr(node, "_command", lambda *_, **__: [sys.executable, "-c", code])
    monkeypatch.setattr(node, "LOOK_S", 0.1)
    config = config_to_dict(preset("tiny"))
    task = StudyTask(stage="pretrain", folder=str(tmp_path), spec="d", config=config)
    number = _job(tmp_path, task)

    def disturb() -> None:
        if overtaken:
            create_claim(tmp_path, attempt=number + 1, engine="slurm", devices=1)
        else:
            os.kill(os.getpid(), signal.SIGUSR2)

    threading.Timer(0.5, disturb).start()
    assert carry_out_job(str(tmp_path), number) == -signal.SIGTERM
    assert (read_exit(tmp_path, number) is None) == overtaken


@pytest.mark.usefixtures("_child")
def test_an_evaluation_goes_on_when_its_time_limit_comes_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned = "import os, signal, time; os.kill(os.getpid(), signal.SIGUSR2); time.sleep(1)"
    code = f"{warned}; raise SystemExit(5)"
    monkeypatch.setattr(node, "_command", lambda *_, **__: [sys.executable, "-c", code])
    number = _job(tmp_path)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR2)).start()
    assert carry_out_job(str(tmp_path), number) == 5


def test_a_pretraining_of_several_processes_is_a_command_with_devices(tmp_path: Path) -> None:
    task = StudyTask(stage="resume", folder=str(tmp_path), spec="d")
    together = node._command(task, devices=4)
    assert together[1:] == ["-P", "-m", "stopgrad", *task.command(), "--devices", "4"]
    alone = node._command(dataclasses.replace(task, stage="evaluate"), devices=4)
    assert alone[1:] == ["-P", "-m", "stopgrad.studies.task", str(task.file)]


def test_the_jobs_of_another_engine_are_not_touched(tmp_path: Path) -> None:
    _submit_and_die(tmp_path, DictEngine(waits=True))
    directory = prepare(tmp_path / "s", seeds=(0,)).directory
    with pytest.raises(ConfigError, match=r"is slurm job .*; expected --on slurm"):
        executor_for(Where(), directory, device="cpu")


def test_a_claim_that_led_to_no_job_does_not_stop_a_study_on_this_machine(tmp_path: Path) -> None:
    prepared, executor = prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    folder = prepared.directory.folder(run_of(prepared, "a", 0)).path
    _leave_claim(folder, process=_dead_process())
    executor_for(Where(), prepared.directory, device="cpu")
    assert conduct(prepared, executor) == {}
    assert len(executor.started) == 4


def test_a_machine_without_slurm_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="--on slurm without sbatch or submitit"):
        executor_for(Where("slurm"), StudyDirectory(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (Where(jobs=0), "--jobs 0"),
        (Where(devices=2), "--devices 2 with --on local"),
        (Where("slurm", devices=0), "--devices 0"),
        (Where("ray", slurm={"time": "1"}), "--slurm with --on ray"),
        (Where("slurm", slurm={"job_name": "x"}), "--slurm job_name=x"),
    ],
)
def test_options_that_do_not_go_together_are_named(where: Where, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check_place(where)


def test_the_state_of_a_job_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = DictEngine(waits=True)
    _submit_and_die(tmp_path, engine)
    directory = prepare(tmp_path / "s", seeds=(0,)).directory
    places = "stopgrad.studies.places._slurm_queue"
    monkeypatch.setattr(places, lambda study: engine.queue())
    assert set(job_texts(directory).values()) == {"slurm job 7 running on n1, 1:00 left"}
    monkeypatch.setattr(places, lambda study: None)
    assert set(job_texts(directory).values()) == {
        f"slurm job {number}, Slurm does not answer" for number in (1, 2)
    }
    assert os.listdir(tmp_path) == ["s"]


def test_the_state_of_an_actor_is_told_from_what_it_wrote(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "s", seeds=(0,)).directory
    folder = next((tmp_path / "s" / "runs").iterdir())
    assert create_claim(folder, attempt=1, engine="ray", devices=1)
    assert job_texts(directory) == {folder.name: "ray job not submitted yet"}
    claim = newest_claim(folder)
    assert claim is not None
    write_claim(folder, claim._replace(job="x"))
    assert job_texts(directory) == {folder.name: "ray job x queued"}
    write_begin(folder, 1, JobBegin("n1", 0.0))
    assert job_texts(directory) == {folder.name: "ray job x on n1"}
