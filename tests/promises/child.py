"""The inside of a process under test: its surroundings, its sabotage, then the command line."""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from tests.promises.process import IMPOSSIBLE, Order, go_apart

WATCHED = ("socket.connect", "subprocess.Popen", "os.exec", "os.system", "os.posix_spawn")


def run(order: Order) -> None:
    """The target of a fork: takes a session and files of its own, then runs the command."""
    os.setsid()
    if order.host:
        go_apart(order.host)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in ((1, order.out), (2, order.err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    # Those of the server remember whether its files can seek.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(order.cwd)
    os.environ.clear()
    os.environ.update(dict(order.environment))
    time.tzset()
    command(order)


def command(order: Order) -> None:
    """Runs the command line and ends the process with its exit code."""
    if order.memory:
        _starve(order.memory)
    if order.watch:
        _watch(Path(order.watch))
    if order.sabotage:
        _break(order.sabotage)
    from stopgrad.cli import main

    sys.exit(main(order.words))


def load_rooms() -> None:
    """Imports all that a command will, which is lazy by itself."""
    rooms = ("images", "method", "runs", "evaluation", "training", "report")
    for module in map(importlib.import_module, ("stopgrad", *(f"stopgrad.{r}" for r in rooms))):
        for name in module.__all__:
            getattr(module, name)


def _starve(more: int) -> None:
    """Lets the process take so many bytes besides what its imports took."""
    load_rooms()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _break(sabotage: str) -> None:
    """Breaks the product, or ends the process so that nobody takes a crash for a caught control."""
    from tests.promises import broken

    try:
        broken.apply(sabotage)
    except (AttributeError, ImportError, KeyError) as error:
        sys.stderr.write(f"sabotage {sabotage} is not possible any more: {error!r}\n")
        sys.stderr.flush()
        os._exit(IMPOSSIBLE)


def _watch(path: Path) -> None:
    """Notes each program that Python starts and each connection that it opens."""
    file = path.open("a", buffering=1)

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event in WATCHED:
            file.write(f"{event} {arguments!r}\n")

    sys.addaudithook(note)


if __name__ == "__main__":
    command(Order(*json.loads(sys.argv[1])))
