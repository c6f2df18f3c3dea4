"""Claims about `study` while it runs; a run takes no time here."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from stopgrad.errors import InterruptedStudyError, StorageError
from stopgrad.evaluation import Key
from stopgrad.report.study_text import study_markdown
from stopgrad.studies import load_results, run_study, runner
from stopgrad.studies.folder import RunAttempt
from stopgrad.studies.results import study_overview
from stopgrad.studies.task import StudyTask, next_task
from tests.studies import instant
from tests.studies.instant import (
    STUDY,
    DoneJob,
    InstantExecutor,
    Silent,
    conduct,
    prepare,
    record,
    run_of,
    stages,
    train,
)


def test_every_run_is_trained_then_scored_and_nothing_is_done_twice(tmp_path: Path) -> None:
    prepared, executor = prepare(tmp_path / "s"), InstantExecutor()
    assert conduct(prepared, executor) == {}
    assert len(prepared.plan.runs) == 4
    for run in prepared.plan.runs:
        assert stages(executor, run) == ["pretrain", "evaluate"]
    executor.started.clear()
    assert conduct(prepare(tmp_path / "s"), executor) == {}
    assert executor.started == []


def test_a_run_that_lacks_nothing_has_not_failed(tmp_path: Path) -> None:
    """Another study may have given it a task that did, or somebody repeated its command."""
    prepared, executor = prepare(tmp_path / "s"), InstantExecutor()
    conduct(prepared, executor)
    folder = prepared.directory.folder(run_of(prepared, "a", 0))
    bad = {"stage": "finetune", "exit_code": 4, "reason": "not finite", "words": [], "process": 1}
    line = bad | {"began": "2026-01-01T00:00:00+00:00", "wall_s": 1.0}
    with (folder.path / "attempts.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert conduct(prepare(tmp_path / "s"), executor) == {}
    found = study_overview(prepared.directory, prepared.directory.read("mine"))
    assert [(arm.done, arm.failed) for arm in found.arms] == [(2, 0), (2, 0)]


def test_a_process_of_several_that_was_killed_is_tried_again() -> None:
    tried = {code: RunAttempt("pretrain", code, "", "", 0.0, [], 1).may_pass for code in (1, 4)}
    tried |= {code: RunAttempt("pretrain", code, "", "", 0.0, [], 1).may_pass for code in (-9, 137)}
    assert tried == {1: False, 4: False, -9: True, 137: True}


def test_more_seeds_cost_their_own_runs_alone_and_the_table_has_all(tmp_path: Path) -> None:
    executor = InstantExecutor()
    conduct(prepare(tmp_path / "s", seeds=(0, 1)), executor)
    executor.started.clear()
    prepared = prepare(tmp_path / "s", seeds=(1, 2))
    conduct(prepared, executor)
    assert {run for run, _ in executor.started} == {run_of(prepared, arm, 2) for arm in ("a", "b")}
    stored = prepared.directory.read("mine")
    assert stored.seeds == (0, 1, 2)
    assert {row.cell.summary.n for row in load_results(prepared.directory, stored).rows} == {3}


def test_a_second_study_takes_over_the_runs_that_it_shares(tmp_path: Path) -> None:
    executor = InstantExecutor()
    conduct(prepare(tmp_path / "s"), executor)
    executor.started.clear()
    other = STUDY | {"arms": {"a": {}, "c": {"epochs": 3}}}
    other["protocol"] = STUDY["protocol"] | {"metrics": ["linear_accuracy"], "beside": []}
    prepared = prepare(tmp_path / "s", other, name="other")
    conduct(prepared, executor)
    assert stages(executor, run_of(prepared, "a", 0)) == ["evaluate"]
    assert stages(executor, run_of(prepared, "c", 0)) == ["pretrain", "evaluate"]
    assert prepared.directory.names() == ["mine", "other"]


def test_a_run_is_scored_at_each_label_fraction_once_whatever_a_kill_left(tmp_path: Path) -> None:
    values = STUDY | {"protocol": STUDY["protocol"] | {"labels": [0.1, 1]}}
    prepared = prepare(tmp_path / "s", values, seeds=(0,))
    folder = prepared.directory.folder(run_of(prepared, "b", 0))
    train(folder)
    record(folder, "knn_accuracy", of="encoder", split="validation", value=0.1, labels=0.1)
    wanted = {Key("knn_accuracy", labels, "encoder", "validation") for labels in (0.1, 1.0)}
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
    prepared, executor = prepare(tmp_path / "s"), InstantExecutor()
    bad = run_of(prepared, "b", 0)
    executor.fails[bad] = [code]
    failed = conduct(prepared, executor)
    assert failed == {bad: f"exit code {code}: something went wrong"}
    assert stages(executor, bad) == ["pretrain"]
    assert len(executor.started) == 1 + 3 * 2  # the others went on
    state = prepared.directory.folder(bad).state()
    assert state.phase == ("diverged" if code == 4 else "failed")
    executor.started.clear()
    assert conduct(prepared, executor) == failed
    assert executor.started == []
    assert conduct(prepared, executor, retry=True) == {}
    assert stages(executor, bad) == ["pretrain", "evaluate"]


def test_a_killed_process_is_tried_again_but_not_for_ever(tmp_path: Path) -> None:
    prepared, executor = prepare(tmp_path / "s"), InstantExecutor()
    unlucky, doomed = run_of(prepared, "a", 0), run_of(prepared, "b", 0)
    executor.fails = {unlucky: [-9, -11, 0], doomed: [-9] * 100}
    assert list(conduct(prepared, executor)) == [doomed]
    assert stages(executor, unlucky) == ["pretrain"] * 3 + ["evaluate"]
    assert stages(executor, doomed) == ["pretrain"] * runner.TRIES
    executor.fails.clear()
    assert conduct(prepared, executor) == {}  # another day, another try


def test_a_full_disk_is_tried_again_only_when_the_user_asks(tmp_path: Path) -> None:
    prepared, executor = prepare(tmp_path / "s"), InstantExecutor()
    full = run_of(prepared, "a", 0)
    executor.fails[full] = [5]
    assert list(conduct(prepared, executor)) == [full]
    assert conduct(prepared, executor) == {}


def test_a_command_that_ends_well_without_its_numbers_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, executor = prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    monkeypatch.setattr(instant, "score", lambda *_, **__: None)
    failed = conduct(prepared, executor)
    assert set(failed) == set(prepared.plan.runs)
    assert "it ended without knn_accuracy at 1" in failed[run_of(prepared, "a", 0)]


def test_damaged_records_fail_their_run_alone(tmp_path: Path) -> None:
    prepared, executor = prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    conduct(prepared, executor)
    bad = prepared.directory.folder(run_of(prepared, "a", 0))
    (bad.run / "records.jsonl").write_text("no record\n{}\n")
    assert list(conduct(prepared, executor)) == [bad.path.name]
    assert "line 1, is not a record" in bad.log.read_text()


def test_a_supervised_arm_is_one_run_for_each_label_fraction(tmp_path: Path) -> None:
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
    prepared, executor = prepare(tmp_path / "s", values, seeds=(0,)), InstantExecutor()
    runs = {slot.labels: slot.run for slot in prepared.plan.slots if slot.arm == "s"}
    assert set(runs) == {0.1, 1}
    executor.fails[runs[0.1]] = [2]
    assert list(conduct(prepared, executor)) == [runs[0.1]]
    assert stages(executor, runs[1]) == ["supervised"]


def test_the_arm_that_validation_chose_is_scored_on_the_test_split_once(tmp_path: Path) -> None:
    values = STUDY | {"protocol": STUDY["protocol"] | {"final_test": True}}
    prepared, executor = prepare(tmp_path / "s", values), InstantExecutor()
    runs = {arm: [run_of(prepared, arm, seed) for seed in (0, 1)] for arm in ("a", "b")}
    executor.values = dict.fromkeys(runs["b"], 0.6)
    conduct(prepared, executor)
    for run in runs["b"]:
        assert stages(executor, run) == ["pretrain", "evaluate", "evaluate"]
    for run in runs["a"]:
        assert stages(executor, run) == ["pretrain", "evaluate"]
    results = load_results(prepared.directory, prepared.directory.read("mine"))
    assert [(row.place.arm, row.split) for row in results.rows if row.final] == [("b", "test")]
    executor.started.clear()
    more = prepare(tmp_path / "s", values, seeds=(0, 1, 2))
    executor.values = {run_of(more, "a", 2): 1.0}  # now "a" would be best
    conduct(more, executor)
    assert more.directory.read("mine").selected == "b"
    assert stages(executor, run_of(more, "a", 2)) == ["pretrain", "evaluate"]
    assert stages(executor, run_of(more, "b", 2)) == ["pretrain", "evaluate", "evaluate"]
    told = "By all of its seeds 'a' is best now"
    assert told not in study_markdown(results)
    assert told in study_markdown(load_results(more.directory, more.directory.read("mine")))


def test_a_run_that_somebody_else_works_on_is_left_to_them_until_they_end(tmp_path: Path) -> None:
    prepared, executor = prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    theirs = run_of(prepared, "a", 0)
    claim = prepared.directory.folder(theirs).claim()
    assert claim is not None
    assert prepared.directory.folder(theirs).is_claimed()

    class Other(Silent):
        """Ends when all else is done."""

        ticks = 0

        def tick(self) -> None:
            self.ticks += 1
            if self.ticks == 20:
                assert stages(executor, theirs) == []
                assert len(executor.started) == 2
                os.close(claim)

    assert run_study(prepared, executor, watch=Other()) == {}
    assert stages(executor, theirs) == ["pretrain", "evaluate"]


class StuckJob(DoneJob):
    """A job that works until it is stopped, and ends as a saved run does."""

    stopped = False

    def poll(self) -> int | None:
        return 143 if self.stopped else None

    def terminate(self) -> None:
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


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)),
        *((signal.SIGUSR1, 138), (signal.SIGUSR2, 140)),
    ],
)
def test_a_signal_lets_every_child_save_and_the_study_goes_on_later(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    prepared, stuck = prepare(tmp_path / "s"), StuckExecutor()
    before = signal.getsignal(number)
    with pytest.raises(InterruptedStudyError) as caught:
        run_study(prepared, stuck, watch=Killer(number))
    assert caught.value.exit_code == code
    assert len(stuck.jobs) == 2
    assert all(job.stopped for job in stuck.jobs)
    assert signal.getsignal(number) == before
    assert not any(prepared.directory.folder(run).is_claimed() for run in prepared.plan.runs)
    executor = InstantExecutor()
    assert conduct(prepared, executor) == {}
    assert len({run for run, _ in executor.started}) == 4


def test_a_directory_that_cannot_be_written_stops_the_children_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, stuck = prepare(tmp_path / "s"), StuckExecutor()

    class Full(Silent):
        """The disk fills up while two runs are at work."""

        def tick(self) -> None:
            raise StorageError("no space", expected="space", hint="make room")

    with pytest.raises(StorageError):
        run_study(prepared, stuck, watch=Full())
    assert [job.stopped for job in stuck.jobs] == [True, True]
    assert not any(prepared.directory.folder(run).is_claimed() for run in prepared.plan.runs)


def test_a_task_that_cannot_be_started_leaves_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, executor = prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()

    def fail(task: StudyTask) -> None:
        if task.stage == "evaluate":
            raise StorageError("no space", expected="space", hint="make room")
        write(task)

    write = runner.write_task
    monkeypatch.setattr(runner, "write_task", fail)
    with pytest.raises(StorageError):
        conduct(prepared, executor)
    assert not any(prepared.directory.folder(run).is_claimed() for run in prepared.plan.runs)


def test_a_number_from_the_middle_of_a_training_is_not_its_last(tmp_path: Path) -> None:
    """Somebody looked at a run that was interrupted, and then it was trained to its end."""
    prepared, executor = prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    run = run_of(prepared, "a", 0)
    folder = prepared.directory.folder(run)
    how = {"of": "encoder", "split": "validation", "value": 0.95}
    record(folder, "knn_accuracy", epoch=3, **how)
    (folder.run / "status.json").write_text(json.dumps({"state": "interrupted", "epoch": 3}))
    assert not folder.numbers()
    assert conduct(prepared, executor) == {}
    assert stages(executor, run) == ["pretrain", "evaluate"]
    record(folder, "knn_accuracy", epoch=4, **how)
    assert [found.epoch for found in folder.numbers().values() if found.value == 0.95] == [4]


def test_a_training_with_labels_and_an_evaluation_make_progress(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "s", seeds=(0,))
    folder = prepared.directory.folder(run_of(prepared, "a", 0))
    seen = [folder.progress()]
    for name in ("run", "run/supervised/share-0.1", "run/finetune/share-1"):
        step = folder.path / name / "checkpoints" / "step-000016"
        step.mkdir(parents=True)
        (step / "manifest.json").write_text("{}")
        seen.append(folder.progress())
    record(folder, "knn_accuracy", of="encoder", split="test", value=0.5)
    assert sorted({*seen, folder.progress()}) == [*seen, folder.progress()]


@pytest.mark.parametrize("code", [143, 130, 129, 138, -15, -2, -1, -10])
def test_a_command_that_was_asked_to_stop_is_no_failure(tmp_path: Path, code: int) -> None:
    prepared, executor = prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    run = run_of(prepared, "a", 0)
    executor.fails[run] = [0, code, code, code]
    conduct(prepared, executor)
    assert prepared.directory.folder(run).state().phase == "trained"


def test_each_attempt_is_kept_with_its_command(tmp_path: Path) -> None:
    prepared, executor = prepare(tmp_path / "s", seeds=(0,)), InstantExecutor()
    run = run_of(prepared, "a", 0)
    executor.fails[run] = [-9]
    conduct(prepared, executor)
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


def test_nothing_is_scored_on_the_test_split_while_a_run_has_failed(tmp_path: Path) -> None:
    """The choice is made once: not from what happens to be there."""
    values = STUDY | {"protocol": STUDY["protocol"] | {"final_test": True}}
    prepared, executor = prepare(tmp_path / "s", values), InstantExecutor()
    executor.values = {run_of(prepared, "b", seed): 0.9 for seed in (0, 1)}
    executor.fails = {run_of(prepared, "b", 0): [2]}
    assert list(conduct(prepared, executor)) == [run_of(prepared, "b", 0)]
    assert prepared.directory.read("mine").selected is None
    assert conduct(prepared, executor, retry=True) == {}
    assert prepared.directory.read("mine").selected == "b"


@pytest.mark.parametrize("arms", [{"a": {}}, {"a": {}, "b": {"batch": 64}}])
def test_an_arm_that_alone_has_numbers_is_scored_on_the_test_split(
    tmp_path: Path, arms: dict[str, Any]
) -> None:
    """The only arm, or the one that is left when all runs of the others diverged."""
    protocol = STUDY["protocol"] | {"final_test": True}
    values = {"question": "?", "baseline": "a", "settings": STUDY["settings"]}
    prepared = prepare(tmp_path / "s", values | {"arms": arms, "protocol": protocol})
    executor = InstantExecutor()
    for slot in prepared.plan.slots:
        executor.fails[slot.run] = [4] if slot.arm == "b" else []
    conduct(prepared, executor)
    assert prepared.directory.read("mine").selected == "a"
    results = load_results(prepared.directory, prepared.directory.read("mine"))
    assert [(row.place.arm, row.split) for row in results.rows if row.final] == [("a", "test")]
