"""Claims about `records`."""

import dataclasses
import fcntl
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import threading
from multiprocessing import get_context
from pathlib import Path

import pytest

from stopgrad import records
from stopgrad.errors import DataError, StorageError
from stopgrad.records import Record, append, environment, from_line, read, to_line

KEYS = """metric value top5 per_class labels label_draw of split images_scored protocol config
seed epoch data code versions device threads wall_s views flops time"""


def _record(**changes: object) -> Record:
    values: dict[str, object] = {
        "metric": "knn_accuracy",
        "value": 0.5123,
        "top5": 0.9,
        "per_class": (0.25, math.nan, 1.0),
        "of": "encoder",
        "split": "test",
        "images_scored": 10_000,
        "protocol": {"k": 200, "temperature": 0.1},
        "data": {"name": "Übung\u2028", "fingerprint": "f" * 64},
        "wall_s": 1.5,
        **environment(device="cpu", threads=2)._asdict(),
    }
    return Record(**(values | changes))  # type: ignore[arg-type]


def test_a_line_is_strict_json_with_the_stated_keys() -> None:
    line = to_line(_record())
    values = json.loads(line, parse_constant=pytest.fail)
    assert list(values) == KEYS.split()
    assert values["per_class"] == [0.25, None, 1.0]
    assert (values["value"], values["labels"], values["flops"]) == (0.5123, 1.0, None)
    assert "\n" not in line


def test_a_record_survives_the_way_through_a_file(tmp_path: Path) -> None:
    wanted = [_record(), _record(metric="linear_accuracy", seed=3, flops=1.5e17)]
    for record in wanted:
        append(tmp_path / "r.jsonl", record)
    assert read(tmp_path / "r.jsonl") == wanted


@pytest.mark.parametrize("bad", [{"value": math.nan}, {"protocol": {"lr": math.inf}}])
def test_a_number_that_is_not_finite_is_never_written(
    bad: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        append(tmp_path / "r.jsonl", _record(**bad))
    assert not (tmp_path / "r.jsonl").exists()


def test_every_torn_last_line_is_left_out_and_the_next_record_is_whole(tmp_path: Path) -> None:
    path, first, second = tmp_path / "r.jsonl", _record(seed=1), _record(seed=2)
    whole, line = (to_line(first) + "\n").encode(), to_line(second).encode()
    for length in range(len(line)):
        path.write_bytes(whole + line[:length])
        assert read(path) == [first]
        if length % 50 == 0:
            append(path, second)
            assert read(path) == [first, second]


def test_a_whole_last_line_without_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(to_line(_record(seed=1)))
    assert [r.seed for r in read(path)] == [1]
    append(path, _record(seed=2))
    assert [r.seed for r in read(path)] == [1, 2]


@pytest.mark.parametrize("line", [b'{"metric": "kn', b"[]", b'{"metric": "x"}', b"", b"\xff"])
def test_a_bad_line_before_the_last_is_refused_by_its_number(line: bytes, tmp_path: Path) -> None:
    path, good = tmp_path / "r.jsonl", to_line(_record()).encode()
    path.write_bytes(b"\n".join([good, line, good, b""]))
    with pytest.raises(DataError, match="line 2, is no record"):
        read(path)


def test_an_unknown_key_is_refused() -> None:
    values = json.loads(to_line(_record())) | {"kindness": 1}
    with pytest.raises(TypeError, match="kindness"):
        from_line(json.dumps(values))


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.jsonl")


def _append_many(path: Path, start: int) -> None:
    for seed in range(start, start + 25):
        append(path, _record(seed=seed, protocol={"padding": "x" * 20_000}))


def test_two_processes_lose_no_record(tmp_path: Path) -> None:
    path, context = tmp_path / "r.jsonl", get_context("spawn")
    workers = [context.Process(target=_append_many, args=(path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seeds = sorted(record.seed or 0 for record in read(path))
    assert seeds == [*range(25), *range(100, 125)]


def test_a_writer_waits_for_the_other(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    writer = threading.Thread(target=append, args=(path, _record()))
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert read(path) == []
    writer.join(10)
    assert len(read(path)) == 1


def test_a_record_is_one_write_and_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda d, data: calls.append("write") or write(d, data))
    monkeypatch.setattr(os, "fsync", lambda d: calls.append("fsync") or fsync(d))
    append(tmp_path / "r.jsonl", _record())
    append(tmp_path / "r.jsonl", _record())
    assert calls == ["write", "fsync", "fsync", "write", "fsync"]  # the directory once


def test_a_disk_that_fills_up_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "r.jsonl", os.write
    append(path, _record())
    before = path.read_bytes()
    monkeypatch.setattr(os, "write", lambda d, data: write(d, data[:100]))
    with pytest.raises(StorageError, match="No space left"):
        append(path, _record())
    assert path.read_bytes() == before


def test_a_directory_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be written"):
        append(tmp_path / "none" / "r.jsonl", _record())


def test_importing_records_and_asking_for_versions_takes_no_torch() -> None:
    code = (
        "import sys; from stopgrad.records import environment;"
        "print(environment(device='cpu', threads=1).versions['torch'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [importlib.metadata.version("torch"), "False"]


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_our_own_checkout_only(tmp_path: Path) -> None:
    package = tmp_path / "src" / "stopgrad"
    package.mkdir(parents=True)
    (package / "a.py").write_text("a = 1\n")
    assert records._commit(package) is None
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "One")
    commit = records._commit(package)
    assert commit is not None
    assert len(commit) >= 7
    assert _git(tmp_path, "rev-parse", "HEAD").startswith(commit)
    (package / "a.py").write_text("a = 2\n")
    assert records._commit(package) == f"{commit}-dirty"
    installed = tmp_path / "site-packages" / "stopgrad"
    installed.mkdir(parents=True)
    assert records._commit(installed) is None


def test_the_time_is_utc() -> None:
    assert environment(device="cpu", threads=1).time.endswith("+00:00")


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _record().value = 1.0  # type: ignore[misc]
