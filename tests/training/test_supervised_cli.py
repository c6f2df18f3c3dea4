"""Claims about `stopgrad supervised` and `stopgrad finetune`: shares, kills, codes, records."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from stopgrad.cli import main
from stopgrad.evaluation import read
from stopgrad.evaluation.costs import Spent
from stopgrad.images import Dataset, images_from_arrays, label_subset
from stopgrad.runs import read_status
from stopgrad.storage import read_lines_as
from stopgrad.training.labelled import LabelledBatch, LabelledTraining
from tests import factories
from tests.promises.process import order_in, start_forked
from tests.training.factories import assert_same_end, step_losses


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """160 real digits to learn from and 100 to score, of all classes."""
    return factories.digits(160, 100)


@pytest.fixture(autouse=True)
def _few_images(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stopgrad.runs.load_images", lambda *rest, **how: digits)


def _supervised(out: Path, *words: object) -> int:
    base = ("supervised", "--data", "mnist5k", "--out", out, "--preset", "tiny", "--epochs", 2)
    return main([str(word) for word in (*base, "--checkpoint-every", 0, *words)])


def _finetune(run: Path, *words: object) -> int:
    short = ("--finetune.epochs", 1, "--finetune.batch", 32)
    return main([str(word) for word in ("finetune", run, *short, *words)])


@pytest.fixture(scope="module")
def whole(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shares that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stopgrad.runs.load_images", lambda *rest, **how: digits)
        assert _supervised(out, "--labels", 1, 0.1) == 0
    return out


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(whole, tmp_path / "base")


@pytest.fixture(scope="module")
def _pretrained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("pretrained") / "run"
    words = ("pretrain", "--data", "mnist5k", "--out", run, "--preset", "tiny", "--epochs", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stopgrad.runs.load_images", lambda *rest, **how: digits)
        assert main([str(word) for word in (*words, "--knn-every", 0)]) == 0
    return run


@pytest.fixture
def pretrained(_pretrained: Path, tmp_path: Path) -> Path:
    """A tiny pretraining of one epoch, to be changed."""
    return shutil.copytree(_pretrained, tmp_path / "pretrained")


def test_each_share_is_trained_once_and_printed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "base"
    assert _supervised(out, "--labels", 1, 0.1, "--json") == 0
    lines = capsys.readouterr().out
    records = [json.loads(line) for line in lines.splitlines()]
    assert [r["labels"] for r in records] == [1.0, 0.1]
    assert {r["metric"] for r in records} == {"supervised_accuracy"}
    assert {(r["of"], r["epoch"], r["images_scored"]) for r in records} == {("supervised", 2, 100)}
    assert [r["views"] for r in records] == [320, 320]
    paths = [out / "supervised" / f"share-{share:g}" for share in (1, 0.1)]
    costs = [read_lines_as(path / "costs.jsonl", Spent, what="", hint="") for path in paths]
    assert [len(parts) for parts in costs] == [2, 2]  # a line for each epoch
    assert all(part.wall_s > 0 for parts in costs for part in parts)
    written = (out / "records.jsonl").read_text()
    steps = [step_losses(out / "supervised" / f"share-{share:g}") for share in (1, 0.1)]
    assert _supervised(out, "--labels", 0.1, 1, 0.5, "--json") == 0
    again = capsys.readouterr().out.splitlines()
    assert again[:2] == lines.splitlines()[::-1]
    assert len(again) == 3
    assert (out / "records.jsonl").read_text().startswith(written)
    assert [step_losses(out / "supervised" / f"share-{share:g}") for share in (1, 0.1)] == steps


def test_weights_to_start_from_belong_to_finetune(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _supervised(tmp_path / "base", "--labels", 1, "--init", "runs/mine") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "stopgrad: --init runs/mine: the supervised baseline starts from random weights" in line
    assert "stopgrad finetune RUN" in line
    assert not (tmp_path / "base").exists()


def test_a_table_shows_the_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _supervised(tmp_path / "base", "--labels", 1, 0.1, "--supervised.epochs", 1) == 0
    printed = capsys.readouterr()
    assert "top-1 accuracy on 100 test images" in printed.out
    assert "from scratch" in printed.out
    assert "10 % of the labels: epoch 1/1" in printed.err


def _signalled(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, *, at: int) -> None:
    """Lets the process signal itself in the middle of one of its steps, twice."""
    steps = iter(range(10**6))
    take_step = LabelledTraining.take_step

    def stepping(training: LabelledTraining, batch: LabelledBatch) -> Tensor:
        if next(steps) == at:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        return take_step(training, batch)

    monkeypatch.setattr(LabelledTraining, "take_step", stepping)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
def test_a_signal_saves_and_the_same_command_goes_on(
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        _signalled(patch, number, at=15)  # the sixth step of the second share
        assert _supervised(out, "--labels", 1, 0.1) == code
    assert "saved at step 6; " in capsys.readouterr().err
    assert read_status(out / "supervised/share-0.1")["state"] == "interrupted"
    assert [record.labels for record in read(out / "records.jsonl")] == [1.0]
    assert _supervised(out, "--labels", 1, 0.1) == 0
    assert [record.labels for record in read(out / "records.jsonl")] == [1.0, 0.1]
    for share in ("share-1", "share-0.1"):
        assert_same_end(out / "supervised" / share, whole / "supervised" / share)


def test_a_signal_between_two_shares_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(path: Path, record: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        path.write_text("")

    monkeypatch.setattr("stopgrad.training.fractions.append", append)
    assert _supervised(tmp_path / "base", "--labels", 1, 0.1) == 143
    assert not (tmp_path / "base/supervised/share-0.1").exists()
    assert read_status(tmp_path / "base/supervised/share-1")["state"] == "finished"


def test_a_kill_between_record_and_status_leaves_one_record(copied: Path) -> None:
    records = (copied / "records.jsonl").read_text()
    status = copied / "supervised/share-0.1/status.json"
    status.write_text(status.read_text().replace("finished", "running"))
    assert _supervised(copied, "--labels", 0.1) == 0
    assert (copied / "records.jsonl").read_text() == records
    assert read_status(status.parent)["state"] == "finished"


def test_a_record_that_a_kill_prevented_is_made_without_training(copied: Path) -> None:
    _, record = read(copied / "records.jsonl")
    (copied / "records.jsonl").unlink()
    before = step_losses(copied / "supervised/share-0.1")
    assert _supervised(copied, "--labels", 0.1) == 0
    [again] = read(copied / "records.jsonl")
    assert (again.labels, again.value, again.protocol) == (0.1, record.value, record.protocol)
    assert step_losses(copied / "supervised/share-0.1") == before


def test_a_killed_process_loses_no_finished_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill -9 of a real process in its second share, with all 4,000 digits."""
    out = tmp_path / "base"
    words = ["supervised", "--data", "mnist5k", "--out", str(out), "--preset", "tiny"]
    words += ["--epochs", "1", "--batch", "512", "--checkpoint-every", "2", "--labels", "0.01"]
    running = start_forked(order_in(tmp_path, *words, "0.1"))
    _wait_for(out / "supervised/share-0.1/checkpoints/step-000002/manifest.json")
    running.kill()
    assert [record.labels for record in read(out / "records.jsonl")] == [0.01]
    first = step_losses(out / "supervised/share-0.01")
    monkeypatch.undo()  # the same images as the process had
    assert main([*words, "0.1"]) == 0
    assert "1 % of the labels: epoch" not in capsys.readouterr().err.splitlines()[0]
    assert [record.labels for record in read(out / "records.jsonl")] == [0.01, 0.1]
    assert step_losses(out / "supervised/share-0.01") == first
    assert [step for step, _ in step_losses(out / "supervised/share-0.1")] == list(range(1, 8))


def _wait_for(path: Path) -> None:
    for _ in range(2400):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def test_finetuning_uses_the_runs_own_label_draws_and_adds_to_its_records(
    pretrained: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert _finetune(pretrained, "--labels", 1, 0.1, "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["metric"], r["of"], r["labels"]) for r in records] == [
        ("finetune_accuracy", "encoder", 1.0),
        ("finetune_accuracy", "encoder", 0.1),
    ]
    drawn = label_subset(digits.train, fraction=0.1, seed=0).tolist()
    assert json.loads((pretrained / "labels/share-0.1-seed-0.json").read_text()) == drawn
    assert records[1]["protocol"]["train_images"] == len(drawn)
    assert len(read(pretrained / "records.jsonl")) == 2
    assert _finetune(pretrained, "--labels", 0.1) == 0
    assert "fine-tuning" in capsys.readouterr().out
    assert len(read(pretrained / "records.jsonl")) == 2


def test_the_baseline_beside_a_run_shares_its_records(
    pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _supervised(pretrained, "--labels", 0.1) == 0
    assert [r.metric for r in read(pretrained / "records.jsonl")] == ["supervised_accuracy"]
    assert read_status(pretrained)["state"] == "finished"


@pytest.fixture
def unlabelled(tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Dataset("bare", images_from_arrays(digits.train.pixels), None)
    monkeypatch.setattr("stopgrad.runs.load_images", lambda *rest, **how: bare)


def test_images_without_labels_are_refused(
    unlabelled: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _supervised(tmp_path / "base") == 3
    assert "without labels" in capsys.readouterr().err
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--labels", 0), 2, "--labels 0;"),
        (("--labels", 1.5), 2, "--labels 1.5;"),
        (("--supervised.batch", 1), 2, "supervised.batch = 1"),
        (("--supervised.batch", 9999), 3, "supervised.batch = 9999"),
        (("--supervised.crop", 99), 2, "supervised.crop = 99"),
        (("--supervised.base_lr", 1e20), 4, "not finite"),
        (("--supervised.bas_lr", 1), 2, "did you mean supervised.base_lr"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[object, ...],
    code: int,
    said: str,
) -> None:
    assert _supervised(tmp_path / "base", *words) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("stopgrad: ")
    assert said in error
    assert not (tmp_path / "base" / "records.jsonl").exists()


def test_other_settings_or_another_run_s_images_are_refused(
    pretrained: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _supervised(copied, "--labels", 0.1, "--supervised.momentum", 0.5) == 2
    assert "supervised.momentum: 0.9 -> 0.5" in capsys.readouterr().err
    assert _finetune(pretrained, "--labels", 0.1) == 0
    assert _finetune(pretrained, "--labels", 0.1, "--finetune.momentum", 0.5) == 2
    assert "finetune.momentum: 0.9 -> 0.5" in capsys.readouterr().err
    assert _finetune(pretrained, "--epochs", 3) == 2
    assert "epochs for an encoder that is already trained" in capsys.readouterr().err


def test_other_images_than_the_runs_are_fine_tuned_on_in_a_directory_of_their_own(
    pretrained: Path,
    digits: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pretrained without labels on one set, fine-tuned on another that has some."""
    other = digits._replace(train=digits.train.take(np.arange(80)))
    monkeypatch.setattr("stopgrad.runs.load_images", lambda *rest, **how: other)
    before = sorted(pretrained.rglob("*"))
    assert _finetune(pretrained, "--data", "other") == 3
    assert "--out DIR" in capsys.readouterr().err
    assert _finetune(pretrained, "--data", "other", "--out", tmp_path / "tuned") == 0
    assert sorted(pretrained.rglob("*")) == before
    (record,) = read(tmp_path / "tuned" / "records.jsonl")
    assert record.data["fingerprint"] == other.train.fingerprint != digits.train.fingerprint
    assert record.protocol["train_images"] == 80


def test_a_share_is_written_by_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, codes = tmp_path / "base", []
    take_step = LabelledTraining.take_step

    def stepping(training: LabelledTraining, batch: LabelledBatch) -> Tensor:
        if not codes:
            codes.append(-1)
            codes[0] = _supervised(out, "--labels", 0.1)
        return take_step(training, batch)

    monkeypatch.setattr(LabelledTraining, "take_step", stepping)
    assert _supervised(out, "--labels", 0.1) == 0
    assert codes == [6]


def test_a_network_trained_with_labels_is_no_pretraining_run(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(whole / "supervised/share-0.1")]) == 7
    assert "trained with labels" in capsys.readouterr().err
