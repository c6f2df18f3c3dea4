"""Locks on open files, which the system gives back when a process ends: flock, or Windows' own.

What differs there is here too: no folder can be opened, and no path says "follow no link".
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stopgrad.storage.inside import FOLDER, enter, place_of

WINDOWS = sys.platform == "win32"
CAREFUL = 0
"""Flags for other people's files: follow no link, wait for no pipe, hand nothing on; raw bytes.

Windows makes no link without the user's leave, and keeps its pipes elsewhere."""
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
    CAREFUL |= getattr(os, _name, 0)


def lock_file(descriptor: int, *, wait: bool = False, shared: bool = False) -> None:
    """Locks an open file until its descriptor is closed, also one that was inherited.

    Args:
        descriptor: Of the file.
        wait: Until nobody else holds it.
        shared: Among those who ask for no more; on Windows for this process alone.

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
    """A descriptor that stands for a folder; on Windows that of a file beside it."""
    if WINDOWS:
        return os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | CAREFUL)
    with place_of(path) as (name, above):
        return os.open(path, FOLDER) if above is None else enter(name, above)
