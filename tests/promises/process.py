"""Real processes of the `stopgrad` command line, each the leader of its own process group.

A fresh process is `python -m stopgrad.cli`. A forked one is the same code in a child of a server
that has imported torch once (`multiprocessing`'s forkserver): as real to signals, locks and disks,
and ready in 0.1 s instead of 3.
"""

from __future__ import annotations

import ctypes
import functools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

ROOT = Path(__file__).parents[2]
IMPOSSIBLE = 99  # exit code of a process whose sabotage could not be done
LONGEST = 120.0  # s after which a process counts as hanging
NEW_NAME, NEW_NETWORK = 0x04000000, 0x40000000  # linux/sched.h: CLONE_NEWUTS, CLONE_NEWNET
BETWEEN = "then"
IN_TURN = f"""
import itertools, sys
from stopgrad.cli import main
for between, words in itertools.groupby(sys.argv[1:], "{BETWEEN}".__eq__):
    if between:
        print(end="\\0", flush=True)
        print(end="\\0", file=sys.stderr, flush=True)
    elif code := main([*words]):
        sys.exit(code)
"""


class Order(NamedTuple):
    """What to run and how; plain values, so that it can travel to a process."""

    words: tuple[str, ...]
    out: str  # files for standard output and standard error
    err: str
    cwd: str
    environment: tuple[tuple[str, str], ...] = ()
    sabotage: str = ""  # a name of `broken`
    memory: int = 0  # bytes that it may take besides its imports; 0: no limit
    watch: str = ""  # file that lists processes started and connections made by Python
    host: str = ""  # name of a machine of its own, see `go_apart`; "": it runs on this one


class Done(NamedTuple):
    """A process that ended."""

    code: int | None  # negative: the signal that ended it; None: it hung and was killed
    out: str
    err: str
    seconds: float

    @property
    def crashed(self) -> str:
        """A clause about a hang or a traceback, or nothing."""
        if self.code is None:
            return "hung"
        return "traceback: " + self.last_line if "Traceback (most recent" in self.err else ""

    @property
    def last_line(self) -> str:
        """The last line on standard error."""
        return next(iter(self.err.strip().splitlines()[-1:]), "")


class Handle(Protocol):
    """What both kinds of process offer."""

    pid: int

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        ...


class Running:
    """A process that was started."""

    def __init__(self, order: Order, handle: Handle) -> None:
        self.order = order
        self.handle = handle
        self.pid = handle.pid
        self.host = order.host or socket.gethostname()
        self.began = time.perf_counter()

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.handle.poll() is None

    def send(self, number: int, *, group: bool = True) -> None:
        """Sends a signal to the process group or to the process alone; nothing if it ended."""
        if not self.is_running():
            return
        with suppress(ProcessLookupError):
            if group and _leads_group(self.pid):
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    def wait(self, longest: float = LONGEST) -> Done:
        """Waits for its end; what runs longer is killed and has no exit code."""
        deadline = time.perf_counter() + longest
        code = self.handle.poll()
        while code is None and time.perf_counter() < deadline:
            time.sleep(0.002)
            code = self.handle.poll()
        seconds = time.perf_counter() - self.began
        if code is None:
            self.kill()
        if code == IMPOSSIBLE:
            raise RuntimeError(_text(self.order.err))
        return Done(code, _text(self.order.out), _text(self.order.err), seconds)

    def kill(self) -> None:
        """SIGKILL to the group; returns when the process is gone."""
        self.send(signal.SIGKILL)
        while self.is_running():
            time.sleep(0.001)

    def left_behind(self) -> bool:
        """Whether a process of its group still lives after it ended."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


def go_apart(host: str) -> None:
    """Gives this process a host name and a network of its own, as on another machine.

    The files are the same, as on a shared disk, and so are the ids of processes. The network has
    no address, not even loopback.

    Raises:
        OSError: Where the kernel forbids it.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_NAME | NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "no name and network of its own")
    socket.sethostname(host)


@functools.cache
def can_go_apart() -> bool:
    """Whether the kernel allows it."""
    try:
        subprocess.run(["true"], preexec_fn=functools.partial(go_apart, "elsewhere"), check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def start_fresh(order: Order, *, under: tuple[str, ...] = ()) -> Running:
    """A plain new process, perhaps under another program such as strace."""
    plain = not (order.sabotage or order.memory or order.watch)
    python = [sys.executable, "-m"]
    code = ["stopgrad.cli", *order.words] if plain else ["tests.promises.child", json.dumps(order)]
    with open(order.out, "wb") as out, open(order.err, "wb") as err:
        process = subprocess.Popen(
            [*under, *python, *code],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=order.cwd,
            env=os.environ | {"PYTHONPATH": _python_path()} | dict(order.environment),
            start_new_session=True,
            preexec_fn=functools.partial(go_apart, order.host) if order.host else None,
        )
    return Running(order, process)


class _Forked:
    """A child of the fork server with the manners of `Popen`."""

    def __init__(self, order: Order) -> None:
        from tests.promises import child

        self._process = warm_server().Process(target=child.run, args=(order,))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode


@functools.cache
def warm_server() -> ForkServerContext:
    """The server, which finds this package by PYTHONPATH: Python 3.11 gives it no sys.path."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.promises.warm"])
    before = dict(os.environ)
    try:
        os.environ.update(_environment())
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _python_path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": _python_path(), "OMP_NUM_THREADS": "1"}


def start_forked(order: Order) -> Running:
    """A child of the fork server, with the environment of this process."""
    environment = tuple((_environment() | dict(order.environment)).items())
    return Running(order, _Forked(order._replace(environment=environment)))


def run_forked(*words: object, longest: float = LONGEST, **how: Any) -> Done:
    """Runs `stopgrad WORDS` to its end in a child of the fork server; `how` as for `order_in`."""
    with tempfile.TemporaryDirectory() as folder:
        return start_forked(order_in(Path(folder), *words, **how)).wait(longest)


def call_forked(function: Callable[..., object], *arguments: object) -> None:
    """Calls a function in a child of the fork server, which must not fail."""
    process = warm_server().Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def order_in(folder: Path, *words: object, **how: Any) -> Order:
    """`stopgrad WORDS` in this working directory, or what `how`, fields of `Order`, say instead.

    What it says goes to files in a folder.
    """
    out, err = (str(folder / name) for name in ("out", "err"))
    return Order(tuple(map(str, words)), **{"out": out, "err": err, "cwd": str(Path.cwd())} | how)


def run_in_turn(
    *commands: Sequence[object], encoding: str = "utf-8", **environment: str
) -> list[tuple[str, str]]:
    """Standard output and standard error of each command; one plain new process runs all.

    Its environment is this one with `environment`. No command may fail.
    """
    words = [str(word) for command in commands for word in (*command, BETWEEN)]
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, *words], env=os.environ | environment, capture_output=True
    )
    out, err = (text.decode(encoding).split("\0") for text in (done.stdout, done.stderr))
    assert done.returncode == 0, err[-1]
    assert len(out) == len(err) == len(commands) + 1
    return [*zip(out[:-1], err[:-1], strict=True)]


def _leads_group(pid: int) -> bool:
    return os.getpgid(pid) == pid


def _text(path: str) -> str:
    """What a process wrote to a file; nothing if it was killed before it could."""
    file = Path(path)
    return file.read_text(errors="backslashreplace") if file.is_file() else ""
