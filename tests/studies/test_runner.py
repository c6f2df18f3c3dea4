"""Claims about `study` while it runs; a run takes no time here."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stopgrad.config import Config, config_to_dict, preset
from stopgrad.errors import (
    ConfigError,
    DataError,
    InterruptedStudyError,
    StopgradError,
    StorageError,
)
from stopgrad.evaluation import Key, Record, append
from stopgrad.report.study_text import study_markdown
from stopgrad.studies import Choices, PreparedStudy, StudyDirectory, load_results, run_study, runner
from stopgrad.studies.data import StudyData
from stopgrad.studies.executors.executor import Job
from stopgrad.studies.executors.local import LocalProcesses
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.parse import parse_study
from stopgrad.studies.plan import arm_configs, plan_runs
from stopgrad.studies.source import StudyFile
from stopgrad.studies.steps import next_task
from stopgrad.studies.task import (
    StudyTask,
    keep_failure,
    main,
    read_failure,
    read_task,
    write_task,
)

STUDY: dict[str, Any] = {
    "question": "Which?",
    "baseline": "a",
    "settings": {"validation": 0.2},
    "arms": {"a": {}, "b": {"epochs": 2}},
    "protocol": {"split": "validation", "metrics": ["knn_accuracy"], "beside": ["untrained"]},
}


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL_S", 0.001)
    monkeypatch.setattr(runner, "ASK_AGAIN_S", 0.0)


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

    def stop(self) -> None:
        pass


class InstantExecutor:
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
            _train(folder)
        elif code == 0 and task.stage == "supervised":
            _record(folder, "supervised_accuracy", of="supervised", split="test", value=0.4)
        elif code == 0:
            _score(folder, task, value=self.values.get(run, 0.5))
        return DoneJob(code)


def _failing(code: int) -> StopgradError:
    """An error of that exit code, one of those that have none included."""
    error = StopgradError("something went wrong", expected="luck", hint="try again")
    error.exit_code = code  # type: ignore[misc]
    return error


def _train(folder: RunFolder) -> None:
    folder.run.mkdir(exist_ok=True)
    (folder.run / "config.json").write_text("{}")
    (folder.run / "status.json").write_text(json.dumps({"state": "finished", "epoch": 4}))


def _score(folder: RunFolder, task: StudyTask, *, value: float) -> None:
    """All that is asked for and not known, as an evaluation has it."""
    split = "train" if task.split == "auto" else task.split
    for metric, of, labels in itertools.product(task.metrics, task.subjects, task.labels):
        key = Key(metric, labels, of, split)
        if key not in folder.numbers():
            _record(folder, metric, of=of, split=key.split, value=value, labels=labels)


def _record(folder: RunFolder, metric: str, *, of: Any, split: str, **values: Any) -> None:
    folder.run.mkdir(exist_ok=True)
    record = Record(
        metric=metric,
        of=of,
        split=split,
        images_scored=100,
        protocol={},
        data={"name": "d", "fingerprint": "f"},
        code="0",
        versions={},
        device="cpu",
        threads=1,
        wall_s=0.1,
        time="2026-01-01T00:00:00+00:00",
        **values,
    )
    append(folder.run / "records.jsonl", record)


def _prepare(
    out: Path, values: Mapping[str, Any] = STUDY, *, name: str = "mine", **changes: Any
) -> PreparedStudy:
    """A study begun in a directory, without looking at any image."""
    study, problems = parse_study(values, name=name)
    source = StudyFile(values, study, tuple(problems))
    choices = Choices(**({"preset": "tiny", "overrides": {}, "seeds": (0, 1)} | changes))
    configs = arm_configs(source, choices)
    data = StudyData("mnist5k", "mnist5k", 10, dict.fromkeys(configs, "f"))
    plan = plan_runs(source, choices, configs, fingerprints=data.fingerprints)
    directory = StudyDirectory(out)
    begun = directory.begin(plan, data)
    return PreparedStudy(directory, plan, "mnist5k", begun.changes)


def _conduct(
    prepared: PreparedStudy, executor: InstantExecutor, **options: Any
) -> Mapping[str, str]:
    return run_study(prepared, executor, watch=Silent(), **options)


def _run_of(prepared: PreparedStudy, arm: str, seed: int) -> str:
    return next(s.run for s in prepared.plan.slots if (s.arm, s.seed) == (arm, seed))


def _stages(executor: InstantExecutor, run: str) -> list[str]:
    return [stage for name, stage in executor.started if name == run]


def test_every_run_is_trained_then_scored_and_nothing_is_done_twice(tmp_path: Path) -> None:
    prepared, executor = _prepare(tmp_path / "s"), InstantExecutor()
    assert _conduct(prepared, executor) == {}
    assert len(prepared.plan.runs) == 4
    for run in prepared.plan.runs:
        assert _stages(executor, run) == ["pretrain", "evaluate"]
    executor.started.clear()
    assert _conduct(_prepare(tmp_path / "s"), executor) == {}
    assert executor.started == []


def test_more_seeds_cost_their_own_runs_alone_and_the_table_has_all(tmp_path: Path) -> None:
    executor = InstantExecutor()
    _conduct(_prepare(tmp_path / "s", seeds=(0, 1)), executor)
    executor.started.clear()
    prepared = _prepare(tmp_path / "s", seeds=(1, 2))
    _conduct(prepared, executor)
    assert {run for run, _ in executor.started} == {_run_of(prepared, arm, 2) for arm in ("a", "b")}
    stored = prepared.directory.read("mine")
    assert stored.seeds == (0, 1, 2)
    assert {row.cell.summary.n for row in load_results(prepared.directory, stored).rows} == {3}


def test_a_second_study_takes_over_the_runs_that_it_shares(tmp_path: Path) -> None:
    executor = InstantExecutor()
    _conduct(_prepare(tmp_path / "s"), executor)
    executor.started.clear()
    other = STUDY | {"arms": {"a": {}, "c": {"epochs": 3}}}
    other["protocol"] = STUDY["protocol"] | {"metrics": ["linear_accuracy"], "beside": []}
    prepared = _prepare(tmp_path / "s", other, name="other")
    _conduct(prepared, executor)
    assert _stages(executor, _run_of(prepared, "a", 0)) == ["evaluate"]
    assert _stages(executor, _run_of(prepared, "c", 0)) == ["pretrain", "evaluate"]
    assert prepared.directory.names() == ["mine", "other"]


def test_a_run_is_scored_at_each_share_once_whatever_a_kill_left(tmp_path: Path) -> None:
    values = STUDY | {"protocol": STUDY["protocol"] | {"labels": [0.1, 1]}}
    prepared = _prepare(tmp_path / "s", values, seeds=(0,))
    folder = prepared.directory.folder(_run_of(prepared, "b", 0))
    _train(folder)
    _record(folder, "knn_accuracy", of="encoder", split="validation", value=0.1, labels=0.1)
    wanted = {Key("knn_accuracy", share, "encoder", "validation") for share in (0.1, 1.0)}
    run = prepared.plan.runs[folder.path.name]
    task = next_task(folder, run, wanted=frozenset(wanted), spec="mnist5k")
    assert task is not None
    assert task.labels == [1.0]
    assert task.command()[-2:] == ["--labels", "1.0"]
    assert "--missing" in task.command()


@pytest.mark.parametrize("code", [1, 2, 3, 4, 7])
def test_a_run_that_fails_for_good_is_kept_with_its_reason_and_not_repeated(
    tmp_path: Path, code: int
) -> None:
    prepared, executor = _prepare(tmp_path / "s"), InstantExecutor()
    bad = _run_of(prepared, "b", 0)
    executor.fails[bad] = [code]
    failed = _conduct(prepared, executor)
    assert failed == {bad: f"exit code {code}: something went wrong"}
    assert _stages(executor, bad) == ["pretrain"]
    assert len(executor.started) == 1 + 3 * 2  # the others went on
    state = prepared.directory.folder(bad).state()
    assert state.phase == ("diverged" if code == 4 else "failed")
    executor.started.clear()
    assert _conduct(prepared, executor) == failed
    assert executor.started == []
    assert _conduct(prepared, executor, retry=True) == {}
    assert _stages(executor, bad) == ["pretrain", "evaluate"]


def test_a_killed_process_is_tried_again_but_not_for_ever(tmp_path: Path) -> None:
    prepared, executor = _prepare(tmp_path / "s"), InstantExecutor()
    unlucky, doomed = _run_of(prepared, "a", 0), _run_of(prepared, "b", 0)
    executor.fails = {unlucky: [-9, -11, 0], doomed: [-9] * 100}
    assert list(_conduct(prepared, executor)) == [doomed]
    assert _stages(executor, unlucky) == ["pretrain"] * 3 + ["evaluate"]
    assert _stages(executor, doomed) == ["pretrain"] * runner.TRIES
    executor.fails.clear()
    assert _conduct(prepared, executor) == {}  # another day, another try


def test_a_full_disk_is_tried_again_only_when_the_user_asks(tmp_path: Path) -> None:
    prepared, executor = _prepare(tmp_path / "s"), InstantExecutor()
    full = _run_of(prepared, "a", 0)
    executor.fails[full] = [5]
    assert list(_conduct(prepared, executor)) == [full]
    assert _conduct(prepared, executor) == {}


def test_a_command_that_ends_well_without_its_numbers_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, executor = _prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    monkeypatch.setitem(globals(), "_score", lambda *_, **__: None)
    failed = _conduct(prepared, executor)
    assert set(failed) == set(prepared.plan.runs)
    assert "it ended without knn_accuracy at 1" in failed[_run_of(prepared, "a", 0)]


def test_damaged_records_fail_their_run_alone(tmp_path: Path) -> None:
    prepared, executor = _prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    _conduct(prepared, executor)
    bad = prepared.directory.folder(_run_of(prepared, "a", 0))
    (bad.run / "records.jsonl").write_text("no record\n{}\n")
    assert list(_conduct(prepared, executor)) == [bad.path.name]
    assert "line 1, is not a record" in bad.log.read_text()


def test_a_supervised_arm_is_one_run_for_each_share(tmp_path: Path) -> None:
    values = {
        "question": "?",
        "baseline": "a",
        "arms": {"a": {}, "s": {"method": "supervised"}},
        "protocol": {
            "split": "test",
            "labels": [0.1, 1],
            "metrics": ["knn_accuracy", "supervised_accuracy"],
        },
    }
    prepared, executor = _prepare(tmp_path / "s", values, seeds=(0,)), InstantExecutor()
    shares = {slot.labels: slot.run for slot in prepared.plan.slots if slot.arm == "s"}
    assert set(shares) == {0.1, 1}
    executor.fails[shares[0.1]] = [2]
    assert list(_conduct(prepared, executor)) == [shares[0.1]]
    assert _stages(executor, shares[1]) == ["supervised"]


def test_the_arm_that_validation_chose_is_scored_on_the_test_split_once(tmp_path: Path) -> None:
    values = STUDY | {"protocol": STUDY["protocol"] | {"final_test": True}}
    prepared, executor = _prepare(tmp_path / "s", values), InstantExecutor()
    runs = {arm: [_run_of(prepared, arm, seed) for seed in (0, 1)] for arm in ("a", "b")}
    executor.values = dict.fromkeys(runs["b"], 0.6)
    _conduct(prepared, executor)
    for run in runs["b"]:
        assert _stages(executor, run) == ["pretrain", "evaluate", "evaluate"]
    for run in runs["a"]:
        assert _stages(executor, run) == ["pretrain", "evaluate"]
    results = load_results(prepared.directory, prepared.directory.read("mine"))
    assert [(row.place.arm, row.split) for row in results.rows if row.final] == [("b", "test")]
    executor.started.clear()
    more = _prepare(tmp_path / "s", values, seeds=(0, 1, 2))
    executor.values = {_run_of(more, "a", 2): 1.0}  # now "a" would be best
    _conduct(more, executor)
    assert more.directory.read("mine").selected == "b"
    assert _stages(executor, _run_of(more, "a", 2)) == ["pretrain", "evaluate"]
    assert _stages(executor, _run_of(more, "b", 2)) == ["pretrain", "evaluate", "evaluate"]
    told = "By all of its seeds 'a' is best now"
    assert told not in study_markdown(results)
    assert told in study_markdown(load_results(more.directory, more.directory.read("mine")))


def test_a_run_that_somebody_else_works_on_is_left_to_him_until_he_ends(tmp_path: Path) -> None:
    prepared, executor = _prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    theirs = _run_of(prepared, "a", 0)
    claim = prepared.directory.folder(theirs).claim()
    assert claim is not None
    assert prepared.directory.folder(theirs).is_claimed()

    class Other(Silent):
        """Ends when all else is done."""

        ticks = 0

        def tick(self) -> None:
            self.ticks += 1
            if self.ticks == 20:
                assert _stages(executor, theirs) == []
                assert len(executor.started) == 2
                os.close(claim)

    assert run_study(prepared, executor, watch=Other()) == {}
    assert _stages(executor, theirs) == ["pretrain", "evaluate"]


class StuckJob(DoneJob):
    """A job that works until it is stopped, and ends as a saved run does."""

    stopped = False

    def poll(self) -> int | None:
        return 143 if self.stopped else None

    def stop(self) -> None:
        self.stopped = True


class StuckExecutor(InstantExecutor):
    """Starts jobs that never end by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[StuckJob] = []

    def start(self, task: StudyTask, *, slot: int, claim: int) -> DoneJob:
        self.jobs.append(StuckJob(0))
        return self.jobs[-1]


class Killer(Silent):
    """Sends this process a signal at the third tick."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self.number, self.ticks = number, 0

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == 3:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_every_child_save_and_the_study_goes_on_later(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    prepared, stuck = _prepare(tmp_path / "s"), StuckExecutor()
    before = signal.getsignal(number)
    with pytest.raises(InterruptedStudyError) as caught:
        run_study(prepared, stuck, watch=Killer(number))
    assert caught.value.exit_code == code
    assert len(stuck.jobs) == 2
    assert all(job.stopped for job in stuck.jobs)
    assert signal.getsignal(number) == before
    assert not any(prepared.directory.folder(run).is_claimed() for run in prepared.plan.runs)
    executor = InstantExecutor()
    assert _conduct(prepared, executor) == {}
    assert len({run for run, _ in executor.started}) == 4


def test_a_directory_that_cannot_be_written_stops_the_children_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, stuck = _prepare(tmp_path / "s"), StuckExecutor()

    class Full(Silent):
        """The disk fills up while two runs are at work."""

        def tick(self) -> None:
            raise StorageError("no space", expected="space", hint="make room")

    with pytest.raises(StorageError):
        run_study(prepared, stuck, watch=Full())
    assert [job.stopped for job in stuck.jobs] == [True, True]
    assert not any(prepared.directory.folder(run).is_claimed() for run in prepared.plan.runs)


@pytest.mark.parametrize("code", [143, 130, -15, -2])
def test_a_command_that_was_asked_to_stop_is_no_failure(tmp_path: Path, code: int) -> None:
    prepared, executor = _prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    run = _run_of(prepared, "a", 0)
    executor.fails[run] = [0, code, code, code]
    _conduct(prepared, executor)
    assert prepared.directory.folder(run).state().phase == "trained"


def test_each_attempt_is_kept_with_its_command(tmp_path: Path) -> None:
    prepared, executor = _prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    run = _run_of(prepared, "a", 0)
    executor.fails[run] = [-9]
    _conduct(prepared, executor)
    folder = prepared.directory.folder(run)
    attempts = folder.attempts()
    assert [(a.stage, a.exit_code) for a in attempts] == [
        ("pretrain", -9),
        ("pretrain", 0),
        ("evaluate", 0),
    ]
    assert attempts[0].words[:3] == ["pretrain", "--data", "mnist5k"]
    assert folder.log.read_text().count("$ stopgrad ") == 3
    settings = json.loads((folder.path / "settings.json").read_text())
    assert settings == json.loads((folder.path / "card.json").read_text())["config"]


# The directory


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a single run"):
        _prepare(tmp_path)
    (tmp_path / "config.json").rename(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match=r"holds notes\.txt"):
        _prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overrides": {"batch": "9"}}, 'overrides.batch nothing -> "9"'),
        ({"preset": "digits"}, 'preset "tiny" -> "digits"'),
        ({"values": STUDY | {"arms": {"a": {}, "b": {"epochs": 5}}}}, "arms.b.epochs 2 -> 5"),
        ({"values": STUDY | {"settings": {"validation": 0.1}}}, "settings.validation 0.2 -> 0.1"),
        ({"values": STUDY | {"arms": {"a": {}, "b": {"epochs": 5}}}, "seeds": (7,)}, "2 -> 5"),
        (
            {"values": STUDY | {"protocol": STUDY["protocol"] | {"split": "test"}}},
            "protocol.split validation -> test",
        ),
    ],
)
def test_a_study_does_not_go_on_with_other_settings(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    prepared = _prepare(tmp_path / "s")
    with pytest.raises(ConfigError) as caught:
        _prepare(tmp_path / "s", **changes)
    assert said in str(caught.value)
    assert prepared.directory.read("mine").preset == "tiny"


EDITED: list[tuple[dict[str, Any], list[str]]] = [
    ({"question": "Who?"}, ['question: "Which?" -> "Who?"']),
    (
        {"protocol": STUDY["protocol"] | {"correction": "none"}},
        ['protocol.correction: nothing -> "none"'],
    ),
    (
        {"findings": [{"says": "a wins", "higher": "a", "than": "b"}]},
        ['findings.a wins: nothing -> {"higher": "a", "than": "b"}'],
    ),
    (
        {"published": {"source": "s", "values": {"a": {"knn_accuracy": [[9.5]]}}}},
        [
            'published.source: nothing -> "s"',
            "published.values.a.knn_accuracy: nothing -> [[9.5]]",
        ],
    ),
    ({"arms": {"a": {}}}, ["arms.b.epochs: 2 -> nothing"]),
]


@pytest.mark.parametrize(("edited", "told"), EDITED)
def test_an_edit_of_how_a_study_is_read_is_taken_up_and_told(
    tmp_path: Path, edited: dict[str, Any], told: list[str]
) -> None:
    assert _prepare(tmp_path / "s").changes == ()
    assert _prepare(tmp_path / "s").changes == ()
    prepared = _prepare(tmp_path / "s", STUDY | edited)
    assert list(prepared.changes) == told
    assert prepared.directory.read("mine").values == STUDY | edited
    assert _prepare(tmp_path / "s", STUDY | edited).changes == ()


def test_a_finding_that_is_added_before_others_is_the_only_one_told(tmp_path: Path) -> None:
    first, second = ({"says": s, "higher": s, "than": "a"} for s in ("b", "a"))
    _prepare(tmp_path / "s", STUDY | {"findings": [second]})
    prepared = _prepare(tmp_path / "s", STUDY | {"findings": [first, second]})
    assert [line.split(":")[0] for line in prepared.changes] == ["findings.b"]


def test_a_metric_that_is_added_is_told_and_scored_for_finished_runs(tmp_path: Path) -> None:
    executor = InstantExecutor()
    _conduct(_prepare(tmp_path / "s"), executor)
    executor.started.clear()
    protocol = STUDY["protocol"] | {"metrics": ["knn_accuracy", "effective_rank"]}
    prepared = _prepare(tmp_path / "s", STUDY | {"protocol": protocol})
    assert list(prepared.changes) == [
        'protocol.metrics: ["knn_accuracy"] -> ["knn_accuracy", "effective_rank"]',
        "what finished runs lack of the numbers that it asks for now is scored",
    ]
    _conduct(prepared, executor)
    assert [stage for _, stage in executor.started] == ["evaluate"] * 4


def test_an_arm_whose_test_split_was_scored_stays(tmp_path: Path) -> None:
    values = STUDY | {"protocol": STUDY["protocol"] | {"final_test": True}}
    prepared = _prepare(tmp_path / "s", values)
    prepared.directory.select("mine", "b")
    with pytest.raises(ConfigError, match="'b', whose test split was scored"):
        _prepare(tmp_path / "s", values | {"arms": {"a": {}}})


def test_an_arm_that_left_comes_back_with_its_runs(tmp_path: Path) -> None:
    executor = InstantExecutor()
    _conduct(_prepare(tmp_path / "s"), executor)
    without = _prepare(tmp_path / "s", STUDY | {"arms": {"a": {}}})
    assert {slot.arm for slot in without.directory.read("mine").slots} == {"a"}
    executor.started.clear()
    again = _prepare(tmp_path / "s")
    assert _conduct(again, executor) == {}
    assert executor.started == []


def test_another_number_for_a_path_and_a_device_is_told_and_runs_stay(tmp_path: Path) -> None:
    _prepare(tmp_path / "s", overrides={"device": "cpu"})
    prepared = _prepare(tmp_path / "s", overrides={"device": "auto", "threads": "2"})
    assert list(prepared.changes) == [
        'overrides.device: "cpu" -> "auto"',
        'overrides.threads: nothing -> "2"',
    ]


def test_another_arm_may_join_a_study(tmp_path: Path) -> None:
    _prepare(tmp_path / "s")
    prepared = _prepare(tmp_path / "s", STUDY | {"arms": STUDY["arms"] | {"c": {"epochs": 7}}})
    assert len(prepared.directory.read("mine").slots) == 6


def test_an_address_that_holds_another_run_is_refused(tmp_path: Path) -> None:
    prepared = _prepare(tmp_path / "s", seeds=(0,))
    card = prepared.directory.folder(_run_of(prepared, "a", 0)).path / "card.json"
    values = json.loads(card.read_text())
    values["config"]["epochs"] = 99
    card.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="describes another run"):
        _prepare(tmp_path / "s", seeds=(0,))


# Processes of this machine


def _wait(condition: Callable[[], bool]) -> bool:
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_process_gets_its_threads_and_its_gpu() -> None:
    executor = LocalProcesses(3, threads=4, gpus=["0", "MIG-7"])
    found = [executor.environment(slot, {"HOME": "h"}) for slot in range(3)]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in found] == ["0", "MIG-7", "0"]
    assert found[0] == {"HOME": "h", "OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "0"}
    assert executor.environment(0, {"OMP_NUM_THREADS": "1"})["OMP_NUM_THREADS"] == "1"


def _start(task: StudyTask, claim: int) -> Job:
    write_task(task)
    return LocalProcesses(1, threads=1).start(task, slot=0, claim=claim)


def test_a_process_writes_to_its_log_and_says_what_went_wrong(tmp_path: Path) -> None:
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
from stopgrad.studies.executors.executor import Job
from stopgrad.studies.executors.local import LocalProcesses
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.task import StudyTask, write_task
folder = RunFolder(Path(sys.argv[1]))
config = config_to_dict(preset("tiny"))
task = StudyTask(stage="pretrain", folder=str(folder.path), spec="mnist5k", config=config)
write_task(task)
job = LocalProcesses(1, threads=1).start(task, slot=0, claim=folder.claim())
print(job._process.pid, flush=True)
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


def test_a_config_survives_the_way_through_its_file(tmp_path: Path) -> None:
    from stopgrad.cli.parser import parse

    prepared, executor = _prepare(tmp_path / "s", seeds=(3,)), InstantExecutor()
    _conduct(prepared, executor)
    for run in prepared.plan.runs.values():
        settings = prepared.directory.folder(run.id).path / "settings.json"
        words = ["pretrain", "--data", "mnist5k", "--out", "x", "--config", str(settings)]
        config: Config = parse(words).config
        assert config == run.config


def test_nothing_is_scored_on_the_test_split_while_a_run_has_failed(tmp_path: Path) -> None:
    """The choice is made once: not from what happens to be there."""
    values = STUDY | {"protocol": STUDY["protocol"] | {"final_test": True}}
    prepared, executor = _prepare(tmp_path / "s", values), InstantExecutor()
    executor.values = {_run_of(prepared, "b", seed): 0.9 for seed in (0, 1)}
    executor.fails = {_run_of(prepared, "b", 0): [2]}
    assert list(_conduct(prepared, executor)) == [_run_of(prepared, "b", 0)]
    assert prepared.directory.read("mine").selected is None
    assert _conduct(prepared, executor, retry=True) == {}
    assert prepared.directory.read("mine").selected == "b"


def test_a_supervised_run_is_as_far_as_the_folder_of_its_share_says(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    share = folder.run / "supervised" / "share-0.1"
    share.mkdir(parents=True)
    assert folder.state().phase == "waiting"
    (share / "config.json").write_text("{}")
    (share / "status.json").write_text('{"state": "interrupted", "epoch": 3}')
    assert folder.state()[:2] == ("interrupted", 3)
    (share / "status.json").write_text('{"state": "finished", "epoch": 5}')
    assert folder.state()[:2] == ("trained", 5)


@pytest.mark.parametrize(
    "status", ['{"epoch": "3x"}', '{"epoch": 2, "verdict": "healthy"}', '{"epoch": [1]}', "[]", "{"]
)
def test_an_odd_status_is_no_traceback(tmp_path: Path, status: str) -> None:
    folder = RunFolder(tmp_path)
    folder.run.mkdir()
    (folder.run / "status.json").write_text(status)
    found = folder.state()
    assert found.phase == "waiting"
    assert found.verdict is None


@pytest.mark.parametrize("card", ["{", "[]", '{"config": 3}', "{}"])
def test_a_damaged_card_is_said(tmp_path: Path, card: str) -> None:
    prepared = _prepare(tmp_path / "s")
    run = _run_of(prepared, "a", 0)
    (prepared.directory.folder(run).path / "card.json").write_text(card)
    with pytest.raises(DataError, match=r"card\.json is damaged"):
        _prepare(tmp_path / "s")


@pytest.mark.parametrize("arms", [{"a": {}}, {"a": {}, "b": {"batch": 64}}])
def test_an_arm_that_alone_has_numbers_is_scored_on_the_test_split(
    tmp_path: Path, arms: dict[str, Any]
) -> None:
    """The only arm, or the one that is left when all runs of the others diverged."""
    protocol = STUDY["protocol"] | {"final_test": True}
    values = {"question": "?", "baseline": "a", "settings": STUDY["settings"]}
    prepared = _prepare(tmp_path / "s", values | {"arms": arms, "protocol": protocol})
    executor = InstantExecutor()
    for slot in prepared.plan.slots:
        executor.fails[slot.run] = [4] if slot.arm == "b" else []
    _conduct(prepared, executor)
    assert prepared.directory.read("mine").selected == "a"
    results = load_results(prepared.directory, prepared.directory.read("mine"))
    assert [(row.place.arm, row.split) for row in results.rows if row.final] == [("a", "test")]


def test_a_folder_with_the_name_of_a_study_is_not_taken_for_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`study run mine.yaml --out mine`: the printed command names the study `mine`."""
    from stopgrad.studies.study import _source

    prepared = _prepare(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert _source("mine", prepared.directory).study == prepared.study
