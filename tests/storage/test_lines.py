"""Claims about files of JSON lines."""

import fcntl
import json
import os
import threading
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pytest

from stopgrad.errors import CheckpointError, DataError, StorageError
from stopgrad.storage import (
    append_lines,
    read_lines,
    read_lines_after,
    read_lines_as,
    replace_lines,
)

FIRST, SECOND = {"n": 1, "text": "Übung\u2028"}, {"n": 2, "text": "b" * 300}


def _read(path: Path) -> list[dict[str, object]]:
    return read_lines(path, dict, what="a row", hint="look").rows


def test_rows_survive_the_way_through_a_file_as_strict_ascii(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    append_lines(path, [FIRST, SECOND])
    append_lines(path, [FIRST])
    assert _read(path) == [FIRST, SECOND, FIRST]
    assert path.read_bytes().isascii()
    assert path.read_text() == "".join(json.dumps(row) + "\n" for row in (FIRST, SECOND, FIRST))


def test_every_torn_last_line_is_left_out_and_the_next_row_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    whole, line = (json.dumps(FIRST) + "\n").encode(), json.dumps(SECOND).encode()
    for length in range(len(line)):
        path.write_bytes(whole + line[:length])
        found = read_lines(path, dict, what="a row", hint="look")
        assert (found.rows, found.torn) == ([FIRST], line[:length])
        if length % 50 == 0:
            append_lines(path, [SECOND])
            assert _read(path) == [FIRST, SECOND]


@pytest.mark.parametrize("line", [b'{"n', b"", b"\xff", b"\x00\x00"])
def test_a_line_is_committed_by_its_newline_even_when_it_is_no_json(
    tmp_path: Path, line: bytes
) -> None:
    path, before = tmp_path / "r.jsonl", b'{"n": 1}\n' + line + b"\n"
    path.write_bytes(before)
    with pytest.raises(DataError, match="line 2, is not a row"):
        _read(path)
    append_lines(path, [{"n": 2}])
    assert path.read_bytes() == before + b'{"n": 2}\n'


@pytest.mark.parametrize("torn", [b'{"n', b'{"n\n', b"\x00\x00", b"\n", b"\xff\n", b'{"n": 2}'])
def test_a_last_line_in_doubt_needs_its_newline_and_to_be_json(tmp_path: Path, torn: bytes) -> None:
    path, whole = tmp_path / "r.jsonl", b'{"n": 1}\n{"n": 3}\n'
    for data, expected in ((whole, b""), (whole + torn, torn), (b"", b""), (torn, torn)):
        path.write_bytes(data)
        found = read_lines(path, dict, what="a row", hint="look", doubt_last=True)
        assert found.rows == ([{"n": 1}, {"n": 3}] if data.startswith(whole) else [])
        assert found.torn == expected


@pytest.mark.parametrize("torn", [b'{"n', b"\x00\x00", b"\xff"])
def test_what_is_no_json_behind_the_last_newline_is_left_out_and_removed_by_writers(
    tmp_path: Path, torn: bytes
) -> None:
    path, whole = tmp_path / "r.jsonl", b'{"n": 1}\n'
    path.write_bytes(whole + torn)
    assert _read(path) == [{"n": 1}]
    append_lines(path, [{"n": 2}])
    assert path.read_bytes() == whole + b'{"n": 2}\n'


def test_a_whole_last_line_without_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(FIRST))
    assert _read(path) == [FIRST]
    append_lines(path, [SECOND])
    assert _read(path) == [FIRST, SECOND]


@pytest.mark.parametrize("size", [10, 1 << 14, (1 << 14) - 1, 1 << 17, 1 << 20])
def test_the_last_line_is_found_whatever_its_length(tmp_path: Path, size: int) -> None:
    path = tmp_path / "r.jsonl"
    append_lines(path, [FIRST, {"text": "x" * size}])
    with path.open("ab") as file:
        file.write(b'{"text": "' + b"y" * size)
    append_lines(path, [SECOND])
    assert _read(path) == [FIRST, {"text": "x" * size}, SECOND]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"n": 1', "delimiter"),
        (b"[]", "no JSON object"),
        (b"", "Expecting value"),
        (b"\xff", "decode"),
        (b'{"n": NaN}', "NaN"),
        (b'{"n": 1e999}', "too large"),
        (b'{"n": 1, "n": 2}', "twice"),
        (b"[" * 100_000, "too deep"),
    ],
)
def test_a_bad_line_before_the_last_is_refused_by_its_number(
    line: bytes, said: str, tmp_path: Path
) -> None:
    path, good = tmp_path / "r.jsonl", b'{"n": 1}'
    path.write_bytes(b"\n".join([good, line, good, b""]))
    with pytest.raises(DataError, match=f"line 2, is not a row .*{said}"):
        _read(path)


def test_the_error_is_of_the_class_that_was_asked_for_and_names_a_missing_key(
    tmp_path: Path,
) -> None:
    append_lines(tmp_path / "r.jsonl", [FIRST])

    def decode(row: dict[str, object]) -> object:
        return row["step"]

    with pytest.raises(CheckpointError, match=r"line 1, is not a row \(no 'step'\)"):
        read_lines(tmp_path / "r.jsonl", decode, what="a row", hint="", error=CheckpointError)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_lines(tmp_path / "none", decode, what="a row", hint="", error=CheckpointError)


class _Row(NamedTuple):
    n: int
    text: str = ""


def test_rows_are_read_as_objects_of_their_class(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    assert read_lines_as(path, _Row, what="a row", hint="look") == []
    append_lines(path, [FIRST, {"n": 2}])
    assert read_lines_as(path, _Row, what="a row", hint="look") == [_Row(**FIRST), _Row(2)]
    append_lines(path, [{"n": "3"}])
    with pytest.raises(DataError, match=r"line 3, is not a row .n is '3', not int"):
        read_lines_as(path, _Row, what="a row", hint="look")


def test_what_was_appended_since_is_read_once_and_only_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"n":1}\n{"n":2}\n{"n"')
    assert read_lines_after(path, 0, dict) == ([{"n": 1}, {"n": 2}], 16)
    assert read_lines_after(path, 16, dict) == ([], 16)
    path.write_bytes(b'{"n":1}\n{"n":2}\n{"n":3}\n')
    assert read_lines_after(path, 16, dict) == ([{"n": 3}], 24)
    # The second row was replaced by a longer one, which was there when the file had 16 bytes.
    path.write_bytes(b'{"n":1}\n{"n":2222}\n{"n":3}\n')
    assert read_lines_after(path, 16, dict) == ([{"n": 3}], 27)
    path.write_bytes(b'{"n":1}\n[2]\n')
    with pytest.raises(TypeError, match="no JSON object"):
        read_lines_after(path, 8, dict)


def test_a_link_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious\n")
    (tmp_path / "r.jsonl").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="cannot be read"):
        _read(tmp_path / "r.jsonl")
    with pytest.raises(StorageError):
        append_lines(tmp_path / "r.jsonl", [FIRST])
    assert (tmp_path / "mine").read_text() == "precious\n"


def test_replacing_leaves_these_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    append_lines(path, [FIRST, FIRST])
    replace_lines(path, [SECOND])
    assert _read(path) == [SECOND]


def _append_many(path: Path, start: int) -> None:
    for number in range(start, start + 25):
        append_lines(path, [{"n": number, "padding": "x" * 20_000}])


def test_two_processes_lose_no_row(tmp_path: Path) -> None:
    path, context = tmp_path / "r.jsonl", get_context("spawn")
    workers = [context.Process(target=_append_many, args=(path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    numbers = read_lines(path, lambda row: int(row["n"]), what="a row", hint="look").rows
    assert sorted(numbers) == [*range(25), *range(100, 125)]


def test_a_writer_waits_for_the_other(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    writer = threading.Thread(target=append_lines, args=(path, [FIRST]))
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert _read(path) == []
    writer.join(10)
    assert len(_read(path)) == 1


def test_rows_are_one_write_and_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda d, data: calls.append("write") or write(d, data))
    monkeypatch.setattr(os, "fsync", lambda d: calls.append("fsync") or fsync(d))
    append_lines(tmp_path / "r.jsonl", [FIRST, SECOND])
    append_lines(tmp_path / "r.jsonl", [FIRST])
    assert calls == ["write", "fsync", "fsync", "write", "fsync"]  # the directory once


def test_a_disk_that_fills_up_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "r.jsonl", os.write
    append_lines(path, [FIRST])
    before = path.read_bytes()
    monkeypatch.setattr(os, "write", lambda d, data: write(d, data[:100]))
    with pytest.raises(StorageError, match="No space left"):
        append_lines(path, [SECOND])
    assert path.read_bytes() == before


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        append_lines(tmp_path / "r.jsonl", [FIRST, {"n": float("nan")}])
    assert not (tmp_path / "r.jsonl").exists()


def test_a_directory_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be written"):
        append_lines(tmp_path / "none" / "r.jsonl", [FIRST])


def test_a_file_of_holes_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_lines(path, [{"a": 1}])
    os.truncate(path, 1 << 40)
    with pytest.raises(DataError, match=r"has 1,099,511,627,776 bytes, [\d,]{1,6} of them stored"):
        read_lines(path, dict, what="a row", hint="look")
