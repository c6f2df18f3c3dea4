"""Claims about `checkpoint`: a run goes on as it was begun, or longer, or not at all: R14."""

import hashlib
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest

import stopgrad
from stopgrad.cli.resume import FREE_TO_CHANGE
from stopgrad.config import describe_knobs, preset
from stopgrad.errors import CheckpointError, ConfigError, DataError, StopgradError, StorageError
from stopgrad.images import splits
from stopgrad.runs import RunInfo, RunWriter, extended, load_checkpoint, read_run, read_status
from stopgrad.runs.changes import ELSEWHERE, FREE, _facts
from stopgrad.runs.checkpoint import save_checkpoint
from stopgrad.runs.info import Change
from tests.runs.factories import begin, checkpoint, edit, go_on, info, resume, train, train_on


def _tree(path: Path) -> dict[str, str]:
    """Every file but the lock, by its hash."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "lock")
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _refused(path: Path, now: RunInfo | None = None) -> StopgradError:
    """The error of a resume that changes nothing."""
    before = _tree(path)
    with pytest.raises((ConfigError, DataError)) as caught:
        resume(path, now)
    assert _tree(path) == before
    return caught.value


def test_another_cpu_rounds_the_normalization_and_the_run_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last bits of sums hang on the kernels of a CPU; the images are the same."""
    run = stopgrad.pretrain("mnist5k", out=tmp_path / "run", preset="tiny", epochs=1)
    own, real = read_run(run.path).normalization, splits.normalization_of

    def rounded(parts: Any) -> Any:
        found = real(parts)
        return found._replace(std=tuple(math.nextafter(value, 1) for value in found.std))

    monkeypatch.setattr(splits, "normalization_of", rounded)
    run.resume(data=stopgrad.load("mnist5k"), extend=2)
    assert read_status(run.path)["epoch"] == 2
    assert read_run(run.path).normalization == own


def test_a_directory_that_was_removed_and_begun_anew_is_not_written_to(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", info()) as writer:
        writer.begin()
        (tmp_path / "run").rename(tmp_path / "away")
        with RunWriter.create(tmp_path / "run", info()) as other:
            other.begin()
            before = _tree(tmp_path / "run")
            for act in (
                lambda: writer.append([{"kind": "step", "step": 1}]),
                lambda: writer.save(checkpoint(1, writer.info)),
                lambda: writer.set_status("running", step=1),
            ):
                with pytest.raises(StorageError, match="removed or replaced"):
                    act()
            assert _tree(tmp_path / "run") == before


CHANGES = [
    ("seed", 0, 1),
    ("optimizer.base_lr", 0.8, 0.1),
    ("batch", 32, 64),
    ("encoder.width", 1.0, 2.0),
    ("encoder.name", "cifar_resnet8", "cifar_resnet14"),
    ("views.crop_min", 0.2, 0.5),
    ("channels_last", True, False),
    ("validation", 0.0, 0.2),
    ("epochs", 4, 8),
]


@pytest.mark.parametrize(("key", "old", "new"), CHANGES)
def test_an_edited_config_is_refused(tmp_path: Path, key: str, old: Any, new: Any) -> None:
    train(tmp_path, 3)
    edit(tmp_path / "config.json", f"config.{key}", new)
    error = _refused(tmp_path)
    said = f"{key}: {old} -> {new}"
    assert error.found == (said.lower() if isinstance(new, bool) else said)
    assert error.exit_code == 2
    assert ("--extend" in error.hint) == (key == "epochs")
    with pytest.raises(ConfigError, match=re.escape(error.found)):
        load_checkpoint(tmp_path)  # so that evaluate and report refuse it too


def test_all_differences_are_named_at_once(tmp_path: Path) -> None:
    run = train(tmp_path, 3)
    edit(tmp_path / "config.json", "config.seed", 1)
    edit(tmp_path / "config.json", "normalization.mean", [0.5, 0.2, 0.3])
    now = run._replace(
        config=preset("tiny", **{"views.flip": 0.0}), data=run.data | {"fingerprint": "0" * 64}
    )
    error = _refused(tmp_path, now)
    assert set(error.found.split(", ")) >= {
        "seed: 0 -> 1",
        "views.flip: 0.5 -> 0.0",
        "data.fingerprint: ffffffffffff -> 000000000000",
    }
    assert "normalization.mean: [0.1, 0.2, 0.3] -> [0.5, 0.2, 0.3]" in error.found
    assert error.exit_code == 2


def test_other_images_are_an_error_of_data(tmp_path: Path) -> None:
    run = train(tmp_path, 3)
    error = _refused(tmp_path, run._replace(data=run.data | {"fingerprint": "0" * 64}))
    assert error.exit_code == 3
    assert "--data" in error.hint


def test_images_that_moved_are_the_same_images(tmp_path: Path) -> None:
    run = train(tmp_path, 3)
    moved = run._replace(data=run.data | {"spec": "/elsewhere", "name": "elsewhere"})
    assert resume(tmp_path, moved).changes == ()
    assert read_run(tmp_path).data["spec"] == "/elsewhere"


def test_a_run_that_took_no_step_may_not_change_either(tmp_path: Path) -> None:
    run = begin(tmp_path)
    error = _refused(tmp_path, run._replace(config=preset("tiny", seed=1)))
    assert error.found == "seed: 0 -> 1"
    resume(tmp_path)


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("checkpoint_every", 3, 5),
        ("knn_every", 1, 2),
        ("measure_every", 1, 2),
        ("stop_on_collapse", False, True),
        ("knn.k", 200, 20),
        ("knn.temperature", 0.1, 0.2),
        ("device", "auto", "cpu"),
    ],
)
def test_what_changes_no_bit_may_change_and_is_kept(
    tmp_path: Path, key: str, old: Any, new: Any
) -> None:
    assert key in FREE
    train(tmp_path, 3)
    edit(tmp_path / "config.json", f"config.{key}", new)
    for _ in range(2):  # once noted, it is not noted again
        assert resume(tmp_path).changes == (Change(3, key, old, new),)
    train_on(tmp_path, 6)
    assert resume(tmp_path).changes == (Change(3, key, old, new),)


def test_every_knob_is_compared_or_said_to_be_free() -> None:
    knobs = {knob.key for knob in describe_knobs()}
    assert knobs >= {*FREE, *ELSEWHERE}
    others = {key for key in knobs if key.startswith(("supervised.", "finetune."))}
    assert _facts(info()).keys() >= knobs - others
    assert all(key in FREE_TO_CHANGE for key in FREE)


def test_an_invented_change_explains_nothing(tmp_path: Path) -> None:
    train(tmp_path, 3)
    edit(tmp_path / "config.json", "config.seed", 1)
    change = {"step": 3, "key": "seed", "old": 0, "new": 1}
    edit(tmp_path / "config.json", "changes", [change])
    assert _refused(tmp_path).found == "seed: 0 -> 1"


def test_a_change_that_was_kept_may_not_be_taken_out(tmp_path: Path) -> None:
    train(tmp_path, 3)
    edit(tmp_path / "config.json", "config.knn_every", 2)
    train_on(tmp_path, 6)
    edit(tmp_path / "config.json", "changes", [])
    assert "changes: 1 -> 0" in _refused(tmp_path).found


# Another machine


def _elsewhere(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """From now on this is another machine."""
    from stopgrad.runs import directory as run

    here = run.describe_environment

    def describe(config: Any) -> dict[str, Any]:
        return here(config) | changes

    monkeypatch.setattr(run, "describe_environment", describe)


@pytest.mark.parametrize(
    "changes",
    [
        {"torch": "1.0"},
        {"cpu": "Z80"},
        {"cpu_capability": "NONE"},
        {"stopgrad": "9", "numpy": "1"},
        {"processes": 2},
    ],
)
def test_other_rounding_goes_on_and_says_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
) -> None:
    before = {"processes": 1, **train(tmp_path, 3).environment}
    _elsewhere(monkeypatch, **changes)
    now = resume(tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert messages[0].startswith(
        "the run continues, but bit-identical results are not guaranteed: "
    )
    for key, new in changes.items():
        assert f"environment.{key}: {before[key]} -> {new}" in messages[0]
    noted = {change.key: change.new for change in now.changes}
    assert noted == {f"environment.{key}": new for key, new in changes.items()}
    caplog.clear()
    assert resume(tmp_path).changes == now.changes
    assert caplog.records == []


def test_the_same_machine_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, 3)
    with caplog.at_level(logging.INFO):
        assert resume(tmp_path).changes == ()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "cuda:0"}, "environment.device: cpu -> cuda"),
        ({"threads": 7}, "environment.threads: 1 -> 7"),
    ],
)
def test_another_kind_of_device_and_other_threads_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    train(tmp_path, 3)
    _elsewhere(monkeypatch, **changes)
    assert _refused(tmp_path).found == said


def test_another_precision_is_refused_and_the_hint_brings_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto may come to fp32 on another processor; the run goes on in what it was begun with."""
    _elsewhere(monkeypatch, precision="bf16")
    run = train(tmp_path, 3, run=info(preset("tiny", precision="auto")))
    _elsewhere(monkeypatch, precision="fp32")
    error = _refused(tmp_path)
    assert error.found == "environment.precision: bf16 -> fp32"
    assert "--precision bf16" in error.hint
    _elsewhere(monkeypatch, precision="bf16")
    resume(tmp_path, run._replace(config=preset("tiny", precision="bf16")))


@pytest.mark.parametrize("repeatable", [True, False])
def test_another_gpu_of_a_machine_is_as_good(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    repeatable: bool,
) -> None:
    _elsewhere(monkeypatch, device="cuda:0", gpu="A")
    train(tmp_path, 3, run=info(preset("tiny", repeatable=repeatable)))
    _elsewhere(monkeypatch, device="cuda:1", gpu="A")
    assert resume(tmp_path).changes == ()
    promised = "a GPU with repeatable = false" not in caplog.text
    assert promised == repeatable


# A longer run


def test_a_finished_run_is_made_longer(tmp_path: Path) -> None:
    train(tmp_path, 16, run=info(preset("tiny", epochs=2)))
    assert read_status(tmp_path)["state"] == "finished"
    longer = extended(read_run(tmp_path), epochs=4, step=16)
    with RunWriter.resume(tmp_path, longer) as writer:
        resumed = writer.begin()
        assert resumed.step == 16
        assert read_run(tmp_path).config.epochs == 4
        assert read_run(tmp_path).extensions == (Change(16, "epochs", 2, 4),)
        _resume_after_a_kill(tmp_path)
        go_on(writer, 24, 32, done=16)
    assert resume(tmp_path).extensions == (Change(16, "epochs", 2, 4),)
    twice = extended(read_run(tmp_path), epochs=5, step=32)
    assert resume(tmp_path, twice).extensions[1] == Change(32, "epochs", 4, 5)


def _resume_after_a_kill(path: Path) -> None:
    """What a plain resume sees when the extending process died before its first checkpoint."""
    info, found = read_run(path), load_checkpoint(path)
    assert (info.config.epochs, found.step) == (4, 16)
    assert found.info.config.epochs == 2


def test_an_interrupted_run_is_made_longer_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    train(tmp_path, 3)
    longer = extended(read_run(tmp_path), epochs=6, step=3)
    assert resume(tmp_path, longer).extensions == (Change(3, "epochs", 4, 6),)


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_an_extension_is_longer_than_the_run(epochs: int) -> None:
    with pytest.raises(ConfigError, match=rf"--extend {epochs} for a run of 4 epochs, 2 of them"):
        extended(info(), epochs=epochs, step=19)


def test_only_pretraining_is_extended() -> None:
    with pytest.raises(ConfigError, match="for a finetune run"):
        extended(info(task="finetune"), epochs=99, step=0)


def test_an_extension_moves_to_the_step_that_the_disk_has_left(tmp_path: Path) -> None:
    train(tmp_path, 3, 6)
    longer = extended(read_run(tmp_path), epochs=6, step=6)
    (tmp_path / "checkpoints" / "step-000006" / "state.json").write_bytes(b"")
    assert resume(tmp_path, longer).extensions == (Change(3, "epochs", 4, 6),)


def test_an_extension_that_makes_shorter_is_no_config(tmp_path: Path) -> None:
    train(tmp_path, 3)
    change = {"step": 3, "key": "epochs", "old": 4, "new": 2}
    edit(tmp_path / "config.json", "config.epochs", 2)
    edit(tmp_path / "config.json", "changes", [change])
    with pytest.raises(CheckpointError, match="extension to fewer epochs"):
        read_run(tmp_path)


def test_a_resumed_checkpoint_says_what_run_it_is_of(tmp_path: Path) -> None:
    run = train(tmp_path, 3)
    save_checkpoint(tmp_path, checkpoint(6, run._replace(config=preset("tiny", seed=1))))
    with pytest.raises(ConfigError, match="seed: 1 -> 0"):
        load_checkpoint(tmp_path)
