"""Claims about `verify_run`: every file has its line, and what is wrong stands on the right one."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stopgrad.errors import CheckpointError
from stopgrad.runs import RunWriter, extended, read_run, verify_run
from stopgrad.storage import Finding, write_json
from tests.runs.factories import begin, edit, resume, train, train_on

RECORD = {
    "metric": "knn_accuracy",
    "value": 0.5,
    "split": "test",
    "images_scored": 10,
    "protocol": {"k": 200},
    "data": {"name": "mnist5k", "fingerprint": "f" * 64},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with everything in it."""
    train(tmp_path, 24, 32)
    (tmp_path / "records.jsonl").write_text(json.dumps(RECORD) + "\n")
    (tmp_path / "report.html").write_text("<html></html>\n")
    (tmp_path / "labels").mkdir()
    write_json(tmp_path / "labels" / "share-0.1-seed-0.json", [0, 5, 255])
    return tmp_path


def _wrong(run: Path) -> dict[str, str]:
    return {finding.file: finding.note for finding in verify_run(run) if not finding.ok}


def _notes(run: Path) -> dict[str, str]:
    return {finding.file: finding.note for finding in verify_run(run) if finding.ok}


PARTS = ("manifest.json", "model.safetensors", "optimizer.safetensors", "state.json", "config.json")


def test_a_whole_run_has_a_line_for_every_file(run: Path) -> None:
    findings = list(verify_run(run))
    assert all(finding.ok for finding in findings)
    files = {str(f.relative_to(run)) for f in run.rglob("*") if f.is_file() and f.name != "lock"}
    assert [finding.file for finding in findings] == [
        *("config.json", "status.json", "metrics.jsonl", "records.jsonl", "report.html"),
        "labels/share-0.1-seed-0.json",
        *(f"checkpoints/step-000024/{part}" for part in PARTS),
        *(f"checkpoints/step-000032/{part}" for part in PARTS),
    ]
    assert {finding.file for finding in findings} == files
    assert Finding("status.json", ok=True, note="finished at step 32") in findings
    assert Finding("metrics.jsonl", ok=True, note="32 steps, 4 epochs") in findings


def test_a_run_that_has_just_begun_is_whole(tmp_path: Path) -> None:
    begin(tmp_path)
    assert _wrong(tmp_path) == {}


def test_a_directory_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="not a run"):
            list(verify_run(path))


@pytest.mark.parametrize("part", PARTS)
def test_one_changed_byte_is_found_in_its_file(run: Path, part: str) -> None:
    name = f"checkpoints/step-000024/{part}"
    data = bytearray((run / name).read_bytes())
    data[len(data) // 2] ^= 1
    (run / name).write_bytes(data)
    (wrong,) = _wrong(run).items()
    named, said = wrong
    assert named == name or part == "manifest.json"
    assert "does not match its sha256" in said


def test_a_missing_part_and_a_missing_manifest_differ(run: Path) -> None:
    (run / "checkpoints" / "step-000032" / "state.json").unlink()
    (run / "checkpoints" / "step-000024" / "manifest.json").unlink()
    assert _wrong(run).keys() == {"checkpoints/step-000032/state.json"}
    assert "unfinished" in _notes(run)["checkpoints/step-000024"]


def _step(number: int) -> str:
    return json.dumps({"kind": "step", "step": number, "loss": -0.5}) + "\n"


Rows = Callable[[list[str]], None]


def _put(place: int, row: str) -> Rows:
    return lambda rows: rows.insert(place, row)


def _drop(place: int) -> Rows:
    def drop(rows: list[str]) -> None:
        del rows[place]

    return drop


def _swap(rows: list[str]) -> None:
    rows[4], rows[5] = rows[5], rows[4]


METRICS: dict[str, tuple[Rows, str]] = {  # rows: 8 steps, an epoch, 8 steps, an epoch, ...
    "a step twice": (_put(5, _step(5)), "step 5 2 times, in row 6 of the steps"),
    "a step less": (_drop(4), "step 5 missing, in row 5 of the steps"),
    "two steps swapped": (_swap, "step 5 missing, in row 5 of the steps"),
    "the last step gone": (_drop(34), "steps 1 to 31, of 32"),
    "an epoch less": (_drop(8), "epoch 1 missing, in row 1 of the epochs"),
    "an epoch twice": (lambda rows: rows.insert(9, rows[8]), "epoch 1 2 times"),
    "an epoch elsewhere": (
        lambda rows: rows.__setitem__(8, rows[8].replace('"step": 8', '"step": 7')),
        "epoch 1 at step 7",
    ),
    "no JSON": (_put(3, "{\n"), "line 4"),
    "NaN": (_put(3, '{"kind": "step", "step": 4, "loss": NaN}\n'), "line 4"),
    "no step": (_put(3, '{"kind": "step"}\n'), "line 4"),
}


@pytest.mark.parametrize("what", METRICS)
def test_metrics_that_lie_are_found(run: Path, what: str) -> None:
    change, said = METRICS[what]
    path = run / "metrics.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    assert len(rows) == 36
    change(rows)
    path.write_text("".join(rows))
    assert said in _wrong(run)["metrics.jsonl"]
    assert len(_wrong(run)) == 1


def test_metrics_that_are_gone_are_missed(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "status.json").unlink()
    assert _wrong(run) == {"metrics.jsonl": "is missing", "status.json": "is missing"}


def test_a_torn_line_is_tolerated_and_named(run: Path) -> None:
    for name in ("metrics.jsonl", "records.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"kind')
    assert _wrong(run) == {}
    for name in ("metrics.jsonl", "records.jsonl"):
        assert "a torn last line of 6 bytes" in _notes(run)[name]


def test_steps_after_the_newest_checkpoint_are_no_fault(tmp_path: Path) -> None:
    train(tmp_path, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(_step(4) + _step(5))
    assert _wrong(tmp_path) == {}
    assert "2 steps after the newest checkpoint" in _notes(tmp_path)["metrics.jsonl"]


def test_the_row_of_an_epoch_that_has_just_ended_may_be_missing(tmp_path: Path) -> None:
    train(tmp_path, 8)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:8]))
    assert _wrong(tmp_path) == {}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"state": "finished", "step": 24}, "finished at step 24, the newest checkpoint is of"),
        ({"state": "interrupted", "step": 31}, "interrupted at step 31"),
        ({"state": "collapsed", "step": 31}, "collapsed at step 31"),
        ({"state": "diverged", "step": 8}, "diverged at step 8"),
        ({"state": "asleep", "step": 32}, "state asleep"),
        ({"step": 32}, "'state' is missing"),
        ({"state": "running", "step": -1}, "-1 where a whole number"),
    ],
)
def test_a_status_that_lies_is_found(run: Path, status: dict[str, object], said: str) -> None:
    write_json(run / "status.json", status)
    assert said in _wrong(run)["status.json"]
    assert len(_wrong(run)) == 1


def test_a_run_that_finished_too_early_is_found(tmp_path: Path) -> None:
    train(tmp_path, 3, 6)
    edit(tmp_path / "status.json", "state", "finished")
    assert "finished at step 6" in _wrong(tmp_path)["status.json"]


def test_an_edited_config_is_found(run: Path) -> None:
    edit(run / "config.json", "config.seed", 1)
    wrong = _wrong(run)
    assert wrong["config.json"] == "seed: 0 -> 1"
    assert wrong["labels/share-0.1-seed-0.json"] == "seed 0, the run's is 1"


def test_an_extension_is_told_and_no_fault(run: Path) -> None:
    longer = extended(read_run(run), epochs=6, step=32)
    resume(run, longer)  # killed here: the status still says finished
    assert _wrong(run) == {}
    assert _notes(run)["config.json"] == "epochs: 4 -> 6 at step 32"
    train_on(run, 40, 48)
    assert _wrong(run) == {}
    assert _notes(run)["status.json"] == "finished at step 48"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"fingerprint": "0" * 64}}, "line 2 was scored on other images, 000000000000"),
        ({"value": "high"}, "line 2 holds no number"),
        ({"value": True}, "line 2 holds no number"),
        ({"value": 10**400}, "line 2 holds no number"),
        ({"data": "mnist5k"}, "mnist5k where an object"),
    ],
)
def test_records_of_others_are_found(run: Path, changes: dict[str, object], said: str) -> None:
    with (run / "records.jsonl").open("a") as file:
        file.write(json.dumps(RECORD | changes) + "\n")
    assert said in _wrong(run)["records.jsonl"]
    (run / "records.jsonl").write_text('{"metric": "knn_accuracy"}\n')
    assert "line 1 lacks data, images_scored" in _wrong(run)["records.jsonl"]


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        ([3, 2], "no ascending"),
        ([2, 2], "no ascending"),
        ([], "no ascending"),
        ([1, 256], "index 256 of 256 images"),
        ([-1, 2], "-1 where"),
        ({"a": 1}, "where a whole number"),
    ],
)
def test_draws_that_no_run_makes_are_found(run: Path, draw: object, said: str) -> None:
    write_json(run / "labels" / "share-0.01-seed-0.json", draw)
    assert said in _wrong(run)["labels/share-0.01-seed-0.json"]


def test_a_page_that_is_cut_off_is_found(run: Path) -> None:
    (run / "report.html").write_text("<html><body>")
    assert _wrong(run) == {"report.html": "the page is cut off"}


def test_other_files_are_named_and_left_alone(run: Path) -> None:
    (run / "notes\x1b.txt").write_text("mine")
    (run / ".status.json.tmp").write_text("{")
    assert _wrong(run) == {}
    assert _notes(run)["notes?.txt"] == "not a file of the run, not checked"
    assert _notes(run)[".status.json.tmp"] == "left by a crash, not used"


def test_without_a_config_the_checkpoints_are_still_checked(run: Path) -> None:
    (run / "config.json").write_text("{")
    edit(run / "checkpoints" / "step-000024" / "state.json", "step", 24)
    assert _wrong(run).keys() == {"config.json", "checkpoints/step-000024/state.json"}


def test_verifying_changes_nothing_and_takes_no_lock(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with RunWriter.resume(run) as writer:
        writer.begin()
        assert _wrong(run) == {}
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != "lock"} == {
        path: time for path, time in before.items() if path.name != "lock"
    }
    assert os.listdir(run)
