"""Locks that the system gives back, and what stands in for them on Windows."""

import ast
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from stopgrad.storage import is_still_at, lock, lock_file, locks, open_folder

SOURCES = Path(__file__).parents[2] / "src"
TRY = (
    "import sys; from stopgrad.storage import lock_file; "
    "f = open(sys.argv[1]); lock_file(f.fileno())"
)


def _taken(path: Path) -> bool:
    """Whether another process cannot have it."""
    done = subprocess.run([sys.executable, "-c", TRY, str(path)], capture_output=True, text=True)
    assert done.returncode == 0 or "BlockingIOError" in done.stderr, done.stderr
    return done.returncode != 0


def test_a_lock_holds_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as file:
        lock_file(file.fileno())
        assert _taken(path)
    assert not _taken(path)


def test_a_lock_is_still_there_unless_it_was_removed_or_replaced(tmp_path: Path) -> None:
    with lock(tmp_path) as file:
        assert is_still_at(file, tmp_path / "lock")
        shutil.copy2(tmp_path / "lock", tmp_path / "copy")
        os.replace(tmp_path / "copy", tmp_path / "lock")  # another number, as on some networks
        assert is_still_at(file, tmp_path / "lock")
        (tmp_path / "lock").unlink()
        assert not is_still_at(file, tmp_path / "lock")
        (tmp_path / "lock").write_text("process 1 on other since 2026-01-01T00:00:00+00:00\n")
        assert not is_still_at(file, tmp_path / "lock")


def test_a_shared_lock_keeps_out_those_who_want_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with path.open() as one, path.open() as other, path.open() as third:
        lock_file(one.fileno(), shared=True)
        lock_file(other.fileno(), shared=True)
        with pytest.raises(BlockingIOError):
            lock_file(third.fileno())


def test_a_folder_can_be_locked(tmp_path: Path) -> None:
    one, other = open_folder(tmp_path), open_folder(tmp_path)
    lock_file(one)
    with pytest.raises(BlockingIOError):
        lock_file(other)
    os.close(one)
    lock_file(other)
    os.close(other)


def test_on_windows_the_lock_library_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LockException(Exception):  # noqa: N818
        pass

    asked: list[int] = []

    def lock(descriptor: int, flags: int) -> None:
        asked.append(flags)
        if len(asked) > 2:
            raise LockException("held")

    library = types.SimpleNamespace(lock=lock, LockException=LockException, LOCK_EX=2, LOCK_NB=4)
    monkeypatch.setitem(sys.modules, "portalocker", library)
    monkeypatch.setattr(locks, "WINDOWS", True)
    folder = tmp_path / "store"
    descriptor = open_folder(folder)
    assert (tmp_path / "store.lock").is_file()
    lock_file(descriptor)
    lock_file(descriptor, wait=True)
    assert asked == [2 | 4, 2]
    with pytest.raises(BlockingIOError, match="held"):
        lock_file(descriptor)
    os.close(descriptor)


def test_modules_that_windows_lacks_are_imported_inside_of_functions_alone() -> None:
    lacking = {"fcntl", "resource", "termios", "pwd", "grp"}
    for path in SOURCES.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not lacking & {*names}, path


def test_only_the_room_of_storage_locks() -> None:
    found = [path.name for path in SOURCES.rglob("*.py") if "flock(" in path.read_text()]
    assert found == ["locks.py"]
