"""A process that has imported what tasks need, and forks for each of them; on Linux.

A task in a process of its own spends two seconds of processor time on imports; its fork spends
none, and computes the same bits, because no thread of OpenMP has started before.

In: messages over a socket, each with the file of a task, variables, and three descriptors: the
claim on the run, its log, and a socket. Out: on that socket the task's pid, then its exit code,
negative for a signal. Tasks are asked to save and end when this process ends, and it ends with the
process that started it.

    python -m stopgrad.studies.warm DESCRIPTOR
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stopgrad.storage import STOP_SIGNALS, die_with, wait_briefly
from stopgrad.studies.task import main as carry_out_file

IMPORTS = ("evaluation.evaluate", "training.fractions", "training.sessions")
FORKS = platform.system() == "Linux"  # elsewhere a fork is not safe after these imports
LARGEST = 1 << 16  # bytes of a message
Handler = Any  # what `signal.getsignal` returns and `signal.signal` takes


class WarmJob:
    """A task asked of a `WarmParent`; behaves like a `subprocess.Popen`."""

    def __init__(self, link: socket.socket, parent: WarmParent) -> None:
        self._link, self._parent = link, parent  # which must stay alive
        self._pid: int | None = None
        self._exit_code: int | None = None

    @property
    def pid(self) -> int:
        """Its process id; waits until there is one. 0: there never was."""
        while self._pid is None and self._exit_code is None:
            self._hear()
        return self._pid or 0

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it works."""
        while self._exit_code is None and self._hear(socket.MSG_DONTWAIT):
            pass
        return self._exit_code

    def terminate(self) -> None:
        """Asks it to save and end, as SIGTERM does."""
        if self.pid and self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, signal.SIGTERM)

    def _hear(self, flags: int = 0) -> bool:
        try:
            message = self._link.recv(LARGEST, flags)
        except BlockingIOError:
            return False
        if message and self._pid is None:
            self._pid = int(message)
        else:  # nobody is left to send an exit code: the process above it was killed
            self._exit_code = int(message) if message else -signal.SIGKILL
            self._link.close()
        return True


class WarmParent:
    """The process, and a link to it. It ends when nobody holds this object or one of its jobs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "stopgrad.studies.warm", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
            )
        weakref.finalize(self, _end, self._link, self._process)

    @property
    def is_there(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    def start(self, file: Path, variables: Mapping[str, str], *, claim: int, log: int) -> WarmJob:
        """Asks for a task, which counts as killed if the process has just been killed."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            message = json.dumps([str(file), dict(variables)]).encode()
            with suppress(BrokenPipeError):
                socket.send_fds(self._link, [message], [claim, log, theirs.fileno()])
        return WarmJob(mine, self)


def _end(link: socket.socket, process: subprocess.Popen[bytes]) -> None:
    link.close()
    process.wait()


def serve(link: socket.socket) -> str:
    """Forks for each message; returns in the fork, with the file of its task.

    In the process itself it never returns: it ends when nobody is left to send a message.
    """
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:  # of the terminal or the batch system: each task decides itself
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for its forks
    me = os.getpid()
    while True:
        message, descriptors, _, _ = socket.recv_fds(link, LARGEST, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            link.close()
            die_with(me, signal.SIGKILL)()
            file: str
            file, variables = json.loads(message)
            _become_task(handlers, *descriptors)
            os.environ.update(variables)
            return file
        for descriptor in descriptors:
            os.close(descriptor)


def _become_task(handlers: Mapping[int, Handler], claim: int, log: int, answers: int) -> None:
    """Forks once more; returns in the task, whose exit code the other process waits for."""
    me = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    task = os.fork()
    if task == 0:
        os.close(answers)
        die_with(me)()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return
    os.close(claim)  # it is over when the task has ended
    with socket.socket(fileno=answers) as link:
        link.send(str(task).encode())
        _, status = os.waitpid(task, 0)
        link.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def main() -> int:
    """Serves; in a fork, carries out its task and returns the exit code."""
    wait_briefly(os.environ)
    for name in IMPORTS:
        importlib.import_module(f"stopgrad.{name}")
    with socket.socket(fileno=int(sys.argv[1])) as link:
        file = serve(link)
    return carry_out_file([file])


if __name__ == "__main__":
    sys.exit(main())
