"""Inside a run or a study no link is followed, not even one that was put there a moment ago.

In: paths. Out: a name and a `dir_fd` for functions of `os`, so that a file is reached from the
run's own directory, folder by folder. Links above that directory are the user's, and followed.
Windows cannot open folders: there every path is used unchanged.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)  # Windows has neither flag
REAL = FOLDER | getattr(os, "O_NOFOLLOW", 0)

_roots = set[Path]()


class OddFileError(OSError):
    """A link, a pipe, a device or a folder where a file should be, or a file that is too large."""


def refuse_links(root: Path) -> None:
    """From now on this process follows no link below a folder: a run or a study, perhaps new."""
    if os.open in os.supports_dir_fd:
        _roots.add(root.absolute())


@contextmanager
def place_of(path: Path) -> Iterator[tuple[Path, int | None]]:
    """The path and the `dir_fd` to pass to a function of `os`.

    Below the outermost folder of `refuse_links` these are a name and a descriptor of its folder;
    else the path and None.

    Raises:
        OddFileError: When something on the way down is a link or not a folder.
        OSError: When it cannot be opened.
    """
    absolute = path.absolute()
    root = next((above for above in reversed(absolute.parents) if above in _roots), None)
    if root is None:
        yield path, None
        return
    folder = os.open(root, FOLDER)
    try:
        for name in absolute.parent.relative_to(root).parts:
            below = enter(name, folder)
            os.close(folder)
            folder = below
        yield Path(path.name), folder
    except OSError as error:
        if error.filename in path.parts:  # messages name the whole path
            error.filename = str(path)
        raise
    finally:
        os.close(folder)


def enter(name: str | Path, above: int) -> int:
    """A descriptor of a folder in an open one; an OddFileError for a link or a file."""
    try:
        return os.open(name, REAL, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise OddFileError(f"{name} is a link or not a folder") from error
        raise


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, if they are missing."""
    if not path.parent.exists():
        make_folder(path.parent)
    try:
        with place_of(path) as (name, above):
            os.mkdir(name, dir_fd=above)
    except OSError as error:
        if isinstance(error, OddFileError) or not path.is_dir():
            raise


def remove_file(path: Path) -> None:
    """Removes a file, or the link in its place, if it is there."""
    with suppress(FileNotFoundError), place_of(path) as (name, above):
        os.unlink(name, dir_fd=above)


def remove_folder(path: Path) -> None:
    """Removes a folder and all in it, as far as that is possible."""
    with suppress(OSError), place_of(path) as (name, above):
        shutil.rmtree(name, ignore_errors=True, dir_fd=above)
