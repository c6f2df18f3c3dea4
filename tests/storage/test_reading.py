"""Reads that fail, and what is not a regular file."""

import errno
import os
from pathlib import Path

import pytest

from stopgrad.errors import DataError, NoMemoryError, StorageError, UnreadableError
from stopgrad.storage import (
    OddFileError,
    append_lines,
    is_passing,
    odd_entry,
    open_regular,
    read_file,
    read_patiently,
    remove_temporaries,
    replace_file,
)
from stopgrad.storage import reading as module


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were taken, none of which is waited for."""
    taken: list[float] = []
    monkeypatch.setattr(module.time, "sleep", taken.append)
    return taken


def failing(*errors: Exception) -> tuple[list[Exception], object]:
    left = [*errors]

    def read() -> str:
        if left:
            raise left.pop(0)
        return "read"

    return left, read


def test_a_read_that_fails_twice_is_read_after_two_pauses(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    _, read = failing(OSError(errno.EIO, "EIO"), OSError(errno.ESTALE, "stale", "/there/x"))
    assert read_patiently(Path("x"), read) == "read"  # type: ignore[arg-type]
    assert pauses == [0.5, 1.0]
    assert caplog.messages == [
        "x: EIO; reading it again in 0.5 s",
        "/there/x: stale; reading it again in 1 s",
    ]


def test_a_read_that_fails_for_good_is_given_up_after_half_a_minute(pauses: list[float]) -> None:
    left, read = failing(*(OSError(errno.EACCES, "Permission denied") for _ in range(9)))
    with pytest.raises(UnreadableError, match=r"^x could not .*denied\), tried 7 times") as caught:
        read_patiently(Path("x"), read)  # type: ignore[arg-type]
    assert sum(pauses) == 30.5
    assert (len(left), caught.value.exit_code) == (2, 5)


def test_an_error_that_was_raised_from_one_of_the_disk_is_tried_again(pauses: list[float]) -> None:
    error = DataError("a damaged zip")
    error.__cause__ = OSError(errno.EIO, "Input/output error")
    _, read = failing(error)
    assert read_patiently(Path("x"), read) == "read"  # type: ignore[arg-type]
    assert len(pauses) == 1


def full_disk() -> StorageError:
    error = StorageError("full")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file"),
        OSError("image file is truncated"),
        DataError("damaged"),
        full_disk(),
    ],
    ids=["not there", "damaged by Pillow", "damaged", "a full disk"],
)
def test_an_answer_comes_at_once(error: Exception, pauses: list[float]) -> None:
    _, read = failing(error)
    with pytest.raises(type(error)) as caught:
        read_patiently(Path("x"), read)  # type: ignore[arg-type]
    assert caught.value is error
    assert not pauses


def test_reasons_that_say_nothing_of_a_file_are_known() -> None:
    assert is_passing("Input/output error")
    assert is_passing("Permission denied")
    assert not is_passing("No such file or directory")
    assert not is_passing("image file is truncated")


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_APPEND])
def test_only_regular_files_are_opened(flags: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("new")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "dangling", "pipe", "folder"):
        with pytest.raises(OddFileError, match=f"^{name} is a link or not a regular file"):
            open_regular(tmp_path / name, flags)
    os.close(open_regular(tmp_path / "file", flags))
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "file").read_text() == "mine"


def test_lines_are_not_appended_through_a_link_or_to_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to("mine")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(StorageError, match=f"{name} is a link or not a regular file"):
            append_lines(tmp_path / name, [{"a": 1}])
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_first_odd_entry_is_found_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "log").write_text("")
    wanted = {"a": "folder", "log": "file", "absent": "file"}
    assert odd_entry(tmp_path, wanted) is None
    (tmp_path / "notes").symlink_to("log")  # of no name that is looked at
    assert odd_entry(tmp_path, wanted) is None
    assert odd_entry(tmp_path, wanted | {"log": "folder"}) == tmp_path / "log"
    (tmp_path / "a" / "b" / "c").symlink_to("..")
    assert odd_entry(tmp_path, wanted) == tmp_path / "a" / "b" / "c"


def test_a_link_at_the_old_temporary_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".x.tmp").symlink_to("mine")
    replace_file(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert (tmp_path / "mine").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.tmp", "mine", "x"]


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".x.0123.tmp", ".y.0123.tmp", ".xy.0123.tmp", ".x.txt", "x.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / ".x.link.tmp").symlink_to("x.tmp")
    remove_temporaries(tmp_path, "x")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".y.0123.tmp", ".xy.0123.tmp", ".x.txt", "x.tmp", ".x.link.tmp"}


def test_a_file_that_is_not_there_is_no_failing_read(tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "x", most=1)
    assert not pauses


def test_memory_that_ran_out_over_a_file_is_not_taken_for_damage() -> None:
    def read() -> str:
        try:
            raise OSError("Failed to launch worker thread: Resource temporarily unavailable")
        except OSError as error:
            raise DataError("'a.parquet' cannot be read") from error

    with pytest.raises(NoMemoryError, match="Failed to launch worker thread"):
        read_patiently(Path("x"), read)


def test_a_size_that_no_memory_holds_is_damage() -> None:
    def read() -> str:
        try:
            raise MemoryError("malloc of size 1000000000000000 failed")
        except MemoryError as error:
            raise DataError("'a.parquet' cannot be read") from error

    with pytest.raises(DataError, match="cannot be read"):
        read_patiently(Path("x"), read)
