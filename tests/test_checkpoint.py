"""Claims about `checkpoint`."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stopgrad.checkpoint import (
    Checkpoint,
    RunInfo,
    RunWriter,
    load_checkpoint,
    read_metrics,
    read_run,
    save_checkpoint,
)
from stopgrad.config import preset
from stopgrad.errors import CheckpointError, ConfigError, LockedError
from stopgrad.images import Normalization


def _checkpoint(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(8, 3, 3, 3, generator=generator)
    model = {"conv": weight.contiguous(memory_format=torch.channels_last), "n": torch.tensor(step)}
    momentum = {"0.momentum_buffer": torch.randn(4, generator=generator)}
    return Checkpoint(step, model, momentum, {"step": step, "losses": [0.1, -1 / 3]})


def _info() -> RunInfo:
    data = {"spec": "mnist5k", "name": "mnist5k", "fingerprint": "f", "images": 64}
    normalization = Normalization((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    return RunInfo(preset("tiny"), data, normalization, {"threads": 1})


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    tensors = ((one.model, other.model), (one.optimizer, other.optimizer))
    return one.state == other.state and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in tensors
    )


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(3))
    assert _same(load_checkpoint(tmp_path), _checkpoint(3))
    assert not _same(load_checkpoint(tmp_path), _checkpoint(4))


def test_the_newest_two_stay(tmp_path: Path) -> None:
    for step in (3, 6, 9, 12):
        save_checkpoint(tmp_path, _checkpoint(step))
    folders = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert folders == ["step-000009", "step-000012"]


def test_one_million_steps_sort_behind_two(tmp_path: Path) -> None:
    for step in (2, 1_000_000, 999_999):
        save_checkpoint(tmp_path, _checkpoint(step))
    assert load_checkpoint(tmp_path).step == 1_000_000


def test_a_checkpoint_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(3))
    newest = save_checkpoint(tmp_path, _checkpoint(6))
    (newest / "manifest.json").unlink()
    assert load_checkpoint(tmp_path).step == 3


@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_no_damage_is_loaded_in_silence(tmp_path: Path, kind: str) -> None:
    chance = random.Random(0)
    for _ in range(15):
        save_checkpoint(tmp_path, _checkpoint(3))
        newest = save_checkpoint(tmp_path, _checkpoint(6))
        name = chance.choice(["model.safetensors", "optimizer.safetensors", "state.json"])
        data = bytearray((newest / name).read_bytes())
        if kind == "flip":
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(len(data)) :]
        (newest / name).write_bytes(data)
        loaded = load_checkpoint(tmp_path)
        assert loaded.step == 3
        assert name in loaded.damaged[0]


def test_no_flip_in_the_manifest_gives_another_state(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(3))
    manifest = save_checkpoint(tmp_path, _checkpoint(6)) / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1
        manifest.write_bytes(data)
        loaded = load_checkpoint(tmp_path)
        assert _same(loaded, _checkpoint(loaded.step))
        assert loaded.step == 6 or loaded.damaged


def test_a_copy_beside_the_checkpoints_is_left_alone(tmp_path: Path) -> None:
    copy = tmp_path / "checkpoints" / "step-000003.bak"
    shutil.copytree(save_checkpoint(tmp_path, _checkpoint(3)), copy)
    for step in (6, 9):
        save_checkpoint(tmp_path, _checkpoint(step))
    assert load_checkpoint(tmp_path).step == 9
    assert (copy / "manifest.json").exists()


def test_a_damaged_checkpoint_is_gone_when_the_run_goes_on(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, _info()) as writer:
        writer.begin()
        writer.save(_checkpoint(3))
        writer.save(_checkpoint(6))
    newest = tmp_path / "checkpoints" / "step-000006"
    (newest / "state.json").write_bytes(b"{}")
    with RunWriter.resume(tmp_path) as writer:
        resumed = writer.begin()
    assert resumed is not None
    assert resumed.step == 3
    assert not newest.exists()


def test_a_new_run_does_not_go_on_with_one_that_was_made_meanwhile(tmp_path: Path) -> None:
    late = RunWriter.create(tmp_path / "run", _info())
    with RunWriter.create(tmp_path / "run", _info()) as first:
        first.begin()
        first.save(_checkpoint(3))
    with late, pytest.raises(ConfigError, match="exists"):
        late.begin()


def test_a_run_that_breaks_says_so_in_its_status(tmp_path: Path) -> None:
    def break_down() -> None:
        with RunWriter.create(tmp_path / "run", _info()) as writer:
            writer.begin()
            raise MemoryError("too large")

    with pytest.raises(MemoryError):
        break_down()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("failed", "MemoryError: too large")


def test_damage_to_the_manifest_is_seen_too(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(3))
    newest = save_checkpoint(tmp_path, _checkpoint(6))
    (newest / "manifest.json").write_bytes(b"{")
    assert load_checkpoint(tmp_path).step == 3


def test_nothing_but_damage_is_an_error(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, _checkpoint(3))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)


def test_a_run_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists"):
        RunWriter.create(tmp_path, _info())


def test_a_run_reads_back_what_it_was_asked(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", _info()) as writer:
        assert not writer.path.exists()
        assert writer.begin() is None
    assert read_run(tmp_path / "run") == _info()


def test_a_directory_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run"):
        read_run(tmp_path)


def test_metrics_after_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, _info()) as writer:
        writer.begin()
        writer.append([{"step": 1}, {"step": 2}, {"step": 3}])
        writer.save(_checkpoint(2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with RunWriter.resume(tmp_path) as writer:
        resumed = writer.begin()
    assert resumed is not None
    assert resumed.step == 2
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_torn_last_line_is_left_out_and_a_torn_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    assert read_metrics(tmp_path) == [{"step": 1}]
    path.write_text('{"st\n{"step": 2}\n')
    with pytest.raises(CheckpointError, match="line 1"):
        read_metrics(tmp_path)


HOLDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_checkpoint import _info
from stopgrad.checkpoint import RunWriter
with RunWriter.create(Path(sys.argv[1]), _info()) as writer:
    writer.begin()
    print("held", flush=True)
    time.sleep(60)
"""


def test_only_one_process_writes_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with RunWriter.resume(tmp_path) as second, pytest.raises(LockedError) as caught:
            second.begin()
        assert str(holder.pid) in str(caught.value)
        holder.kill()
    with RunWriter.resume(tmp_path) as third:
        third.begin()


def test_a_signal_sets_a_flag_and_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with RunWriter.create(tmp_path / "run", _info()) as writer:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            if writer.stop_signal is not None:
                break
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    assert writer.stop_signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_checkpoint import _checkpoint
from stopgrad.checkpoint import save_checkpoint
from stopgrad.errors import StorageError
save_checkpoint(Path(sys.argv[1]), _checkpoint(3))
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    save_checkpoint(Path(sys.argv[1]), _checkpoint(6))
except StorageError as error:
    print(error)
"""


def test_a_disk_that_refuses_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout
    assert "bytes free" in done.stdout
    assert load_checkpoint(tmp_path).step == 3
    assert not list(tmp_path.rglob("*.tmp"))
    assert json.loads((tmp_path / "checkpoints/step-000003/manifest.json").read_text())["step"] == 3
