"""Commands on a terminal of so many columns: what they show, and for how long they show nothing.

`python -m tests.terminal FOLDER` tries the first ten minutes of a new user in an empty folder, and
ends with 1 if a command fails or a terminal stays without output for longer than `SILENCE_S`.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.promises.process import Order, start_forked

SILENCE_S = 2.0
"""So long a terminal may stay without output, apart from time in which others had the processor."""

SHORT = (  # the suite tries these alone
    "check-data --data images --preset tiny",
    "pretrain --data images --out runs/mine --preset tiny --epochs 2",
    "evaluate runs/mine --labels 1 0.1",
    "report runs/mine",
)
FIRST_MINUTES = (
    "--version",
    "quickstart",
    "help",
    *SHORT,
    "views --data images --out views.png --preset tiny",
    "neighbors runs/mine --out near.png",
    "embed runs/mine --out features.parquet",
    "export runs/mine --format safetensors --out encoder.safetensors",
    "verify runs/mine",
    "compare runs/mine",
)


class Seen(NamedTuple):
    """What a command did on the terminal."""

    code: int  # its exit code
    silence_s: float  # its longest time without output
    text: str


def seen_of(words: Sequence[str], *, columns: int, cwd: Path) -> Seen:
    """Runs a command on a terminal of its own, with nothing to read."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.environ["TERM"] = "xterm-256color"
        os.environ.pop("COLUMNS", None)
        os.execvp(words[0], [*words])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    text, silence, last, waits = b"", 0.0, time.monotonic(), _waits(child)
    for part in _parts(terminal):
        now = time.monotonic()
        then, waits = waits, _waits(child)
        waited = max((waits[thread] - then.get(thread, 0) for thread in waits), default=0)
        silence, last, text = max(silence, now - last - waited / 1e9), now, text + part
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(terminal)
    return Seen(code, silence, text.decode(errors="replace"))


def forked_on_terminal(*words: str, columns: int, cwd: Path, out: str = "") -> str:
    """What `stopgrad WORDS`, a fork, writes to a terminal; its output goes there or to a file."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    name = os.ttyname(theirs)
    environment = (("TERM", "xterm-256color"), ("COLUMNS", ""))
    order = Order(words, out or name, name, str(cwd), environment)
    running, text = start_forked(order), b""
    while running.is_running() or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.05)[0]:
            text += os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    return text.decode(errors="replace")


def _parts(terminal: int) -> Iterator[bytes]:
    """What arrives, and an empty part at the end."""
    while True:
        select.select([terminal], [], [])
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux, when the command has ended
            part = b""
        yield part
        if not part:
            return


def _waits(process: int) -> dict[str, int]:
    """For how long each thread was ready to run while others ran, ns; Linux alone counts it."""
    waits = {}
    for file in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            waits[file.parent.name] = int(file.read_text().split()[1])
        except (OSError, IndexError):  # it has just ended
            continue
    return waits


def main(folder: Path) -> int:
    """Tries every command; says what was wrong."""
    from tests.factories import write_digits

    write_digits(folder / "images", train=400, test=100)
    wrong = 0
    for command in FIRST_MINUTES:
        words = [sys.executable, "-m", "stopgrad", *command.split()]
        seen = seen_of(words, columns=80, cwd=folder)
        print(f"exit code {seen.code}, silent for {seen.silence_s:.1f} s: stopgrad {command}")
        wrong += seen.code != 0 or seen.silence_s > SILENCE_S
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
