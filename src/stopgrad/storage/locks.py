"""Locks on open files, which the system releases when a process ends: flock, or Windows' own.

Other differences of Windows are here too: no folder can be opened, and no flag refuses links.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stopgrad.storage.inside import FOLDER, enter, place_of

WINDOWS = sys.platform == "win32"
CAREFUL = 0
"""Flags for other people's files: follow no link, wait for no pipe, not inherited; raw bytes.

On Windows links need the user's permission, and pipes are kept elsewhere."""
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
    CAREFUL |= getattr(os, _name, 0)


def lock_file(descriptor: int, *, wait: bool = False, shared: bool = False) -> None:
    """Locks an open file until its descriptor and all inherited copies of it are closed.

    Args:
        descriptor: Of the file.
        wait: Whether to wait until nobody else holds it.
        shared: Whether others who ask for no more may hold it too; never on Windows.

    Raises:
        BlockingIOError: When another process holds it.
    """
    if WINDOWS:
        import portalocker

        flags = portalocker.LOCK_EX if wait else portalocker.LOCK_EX | portalocker.LOCK_NB
        try:
            portalocker.lock(descriptor, flags)
        except portalocker.LockException as error:
            raise BlockingIOError(str(error)) from error
    else:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)


def open_folder(path: Path) -> int:
    """A descriptor that stands for a folder; on Windows that of a file next to it."""
    if WINDOWS:
        return os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | CAREFUL)
    with place_of(path) as (name, above):
        return os.open(path, FOLDER) if above is None else enter(name, above)
