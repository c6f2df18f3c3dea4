"""One process writes to a run: a lock that the kernel gives back when the process ends."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from stopgrad.errors import LockedError

SETTLE = 0.1  # s; a holder has written its name by then


def lock(path: Path) -> IO[str]:
    """Locks a run directory until the file is closed or the process ends.

    Raises:
        LockedError: When another process holds it, with its id, its host and since when.
        OSError: When the file cannot be made, or is a link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.fdopen(os.open(path / "lock", flags, 0o666), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        time.sleep(SETTLE)
        holder = _holder(file.read(1000))
        file.close()
        raise LockedError(
            f"{path} is being written by {holder}",
            expected="one writer",
            hint="wait for it, or stop it",
        ) from error
    since = datetime.now(UTC).isoformat(timespec="seconds")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
    file.flush()
    return file


def _holder(text: str) -> str:
    """What a lock file says, if it is what we write."""
    found = re.fullmatch(r"process \d+ on [\w.-]+ since [\dT:+-]+\n", text, re.ASCII)
    return text.strip() if found else "an unknown process"
