"""Claims about `checkpoint` on disks that rot, fill up or refuse: R4 and R6."""

import errno
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stopgrad.errors import StorageError
from stopgrad.runs import Checkpoint, RunWriter, load_checkpoint, read_metrics
from stopgrad.runs import checkpoint as store
from stopgrad.runs.checkpoint import save_checkpoint
from stopgrad.storage import reading
from tests.runs.factories import begin, checkpoint, same, train, train_on

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "config.json", "manifest.json")


def test_no_damage_is_loaded_in_silence(tmp_path: Path) -> None:
    """200 flipped bits and 100 cuts of the newest checkpoint: all seen, all named, all passed."""
    train(tmp_path, 3, 6)
    chance, newest = random.Random(0), tmp_path / "checkpoints" / "step-000006"
    for attempt in range(300):
        path = newest / FILES[attempt % len(FILES)]
        whole = path.read_bytes()
        data = bytearray(whole)
        if attempt < 200:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
        loaded = load_checkpoint(tmp_path)
        assert loaded.step == 3, (path, data)
        assert "step-000006" in loaded.damaged[0]
        assert path.name in loaded.damaged[0] or path.name == "manifest.json"  # sums of others
        path.write_bytes(whole)
    assert load_checkpoint(tmp_path).step == 6


def test_no_flip_in_the_manifest_gives_another_state(tmp_path: Path) -> None:
    train(tmp_path, 3, 6)
    manifest = tmp_path / "checkpoints" / "step-000006" / "manifest.json"
    whole = manifest.read_bytes()
    digits = {
        place for found in re.finditer(rb"[0-9a-f]{64}", whole) for place in range(*found.span())
    }
    places = [place for place in range(len(whole)) if place not in digits or place % 16 == 0]
    for place, bit in itertools.product(places, (1, 64)):
        data = bytearray(whole)
        data[place] ^= bit
        manifest.write_bytes(data)
        loaded = load_checkpoint(tmp_path)
        assert same(loaded, checkpoint(loaded.step))
        assert loaded.step == 6 or loaded.damaged


def test_the_fall_back_is_said_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, 3, 6)
    (tmp_path / "checkpoints" / "step-000006" / "model.safetensors").write_bytes(b"")
    train_on(tmp_path, 6, 8)
    assert "passed over" in caplog.text
    assert "model.safetensors does not match its sha256" in caplog.text
    assert same(load_checkpoint(tmp_path), checkpoint(8))
    steps = [row["step"] for row in read_metrics(tmp_path) if row["kind"] == "step"]
    assert steps == list(range(1, 9))


OPEN = os.open


class Refusal:
    """Lets the calls through until one, which fails as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for owner, name in ((os, "open"), (os, "fsync"), (os, "mkdir")):
            monkeypatch.setattr(owner, name, self._wrap(getattr(owner, name)))

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def refusing(*args: Any, **kwargs: Any) -> Any:
            if call is OPEN and not args[1] & os.O_CREAT:  # to look at what is there takes no room
                return call(*args, **kwargs)
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*args, **kwargs)

        return refusing


def _error_of_saving(run: Path, saved: Checkpoint) -> StorageError | None:
    try:
        save_checkpoint(run, saved)
    except StorageError as error:
        return error
    return None


def test_a_full_disk_at_any_call_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path, 3, 6)
    refusal, saved, refused = Refusal(monkeypatch), checkpoint(9, run), 0
    folder = tmp_path / "checkpoints" / "step-000009"
    for call in itertools.count(1):
        refusal.left = call
        error = _error_of_saving(tmp_path, saved)
        refusal.left = 0
        if error is None:
            break
        refused += 1
        assert error.exit_code == 5
        assert f"{folder} could not be written (No space left on device)" in error.found
        assert re.search(r"[\d,]+ bytes free", error.found)
        needed = int(error.expected.split()[0].replace(",", ""))
        assert 716_000 < needed < 730_000  # of the whole checkpoint
        assert load_checkpoint(tmp_path).step == 6
        assert not folder.exists()
    assert refused > 12
    assert same(load_checkpoint(tmp_path), saved)


def test_metrics_on_a_full_disk_are_cut_back_to_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, 3)
    with RunWriter.resume(tmp_path) as writer:
        writer.begin()
        refusal = Refusal(monkeypatch)
        refusal.left = 1
        with pytest.raises(StorageError, match=r"metrics\.jsonl could not be written"):
            writer.append([{"kind": "step", "step": 4}])
    refusal.left = 0
    train_on(tmp_path, 6)
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, 7))


def test_a_directory_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, 3)

    def read_only(path: Any, flags: int, *rest: Any, **known: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest, **known)

    real = os.open
    monkeypatch.setattr(os, "open", read_only)
    with RunWriter.resume(tmp_path) as writer, pytest.raises(StorageError) as caught:
        writer.begin()
    assert caught.value.exit_code == 5
    assert caught.match(r"lock could not be written \(Read-only file system\), [\d,]+ bytes free")


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.runs.factories import checkpoint
from stopgrad.runs.checkpoint import save_checkpoint
from stopgrad.errors import StorageError
sixth = checkpoint(6)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    save_checkpoint(Path(sys.argv[1]), sixth)
except StorageError as error:
    print(error)
"""


def test_a_disk_that_really_refuses_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    train(tmp_path, 3)
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "could not be written (File too large)" in done.stdout
    assert "bytes free" in done.stdout
    assert load_checkpoint(tmp_path).step == 3
    assert not list(tmp_path.rglob("*.tmp"))
    assert json.loads((tmp_path / "checkpoints/step-000003/manifest.json").read_text())["step"] == 3


def test_a_temporary_file_that_leads_elsewhere_is_not_written_through(tmp_path: Path) -> None:
    begin(tmp_path / "run")
    (tmp_path / "mine").write_text("precious")
    folder = tmp_path / "run" / "checkpoints" / "step-000003"
    folder.mkdir(parents=True)
    (folder / ".model.safetensors.tmp").symlink_to(tmp_path / "mine")
    save_checkpoint(tmp_path / "run", checkpoint(3))
    assert (tmp_path / "mine").read_text() == "precious"
    assert load_checkpoint(tmp_path / "run").step == 3
    assert not list(folder.glob(".*"))


def test_a_reader_looks_again_when_a_run_that_goes_on_removes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, 3, 6)
    found = store.checkpoint_folders(tmp_path)
    listings = iter([[tmp_path / "checkpoints" / "step-000002"]])  # gone since it was listed
    monkeypatch.setattr(store, "checkpoint_folders", lambda run: next(listings, found))
    loaded = load_checkpoint(tmp_path)
    assert loaded.step == 6
    assert loaded.damaged == ()


def test_a_checkpoint_that_goes_while_a_reader_looks_is_no_odd_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, 3, 6)
    kind = reading._kind

    def pruned(entry: Path) -> str:
        if entry.name == "step-000003":
            shutil.rmtree(entry)
        return kind(entry)

    monkeypatch.setattr(reading, "_kind", pruned)
    assert load_checkpoint(tmp_path).step == 6
    assert not (tmp_path / "checkpoints" / "step-000003").exists()
