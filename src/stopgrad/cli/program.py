"""The program `stopgrad`: arguments -> an exit code."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from stopgrad.cli.devices import train_together
from stopgrad.cli.parser import parse
from stopgrad.errors import LostProcessError, StopgradError, StorageError, bad_path, no_memory
from stopgrad.method import wait_briefly
from stopgrad.storage import outlive, printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (see `errors`)."""
    wait_briefly(os.environ)
    _keep_quiet_unless_first()
    _prepare_streams()
    _say_bus_errors()
    _say_loading()
    remarks = logging.StreamHandler()
    remarks.setFormatter(_Safe("stopgrad: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[remarks])
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options = parse(words)
        if getattr(options, "devices", 1) != 1:
            return train_together(words, devices=options.devices)
        options.command(options)
    except StopgradError as error:
        return _say(error)
    except KeyboardInterrupt:
        sys.stderr.write("stopgrad: interrupted\n")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except BaseException as error:  # a panic of Rust is not an Exception
        found = no_memory(error) or bad_path(error)
        if found is None:
            raise
        return _say(found)
    return 0


_CUT = (
    b"stopgrad: a file of pixels was cut, or its disk failed, while it was read; expected the "
    b"store or cache as it was; verify the store, then repeat the command or resume the run\n"
)


class _Safe(logging.Formatter):
    """A line of the log, with names of others that no terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _keep_quiet_unless_first() -> None:
    """Of several processes that train together only the first one prints."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _end_as_cut(signal_number: int) -> None:
    os.write(2, _CUT)
    os._exit(StorageError.exit_code)


_on_bus_error = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end_as_cut)  # kept as long as the process


def _say_bus_errors() -> None:
    """SIGBUS: a file that is mapped was cut by others. No handler of Python's would ever run."""
    ctypes.CDLL(None).signal(int(signal.SIGBUS), _on_bus_error)


DOT_S = 0.3


class _Loading(MetaPathFinder):
    """A line while PyTorch is loaded, which takes a second or two, with a dot for every 0.3 s."""

    dot_at = float("inf")

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if time.monotonic() > self.dot_at:
            self._write(".")
        if name != "torch":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load = partial(self._load, spec.loader.exec_module)
            spec.loader.exec_module = load  # type: ignore[method-assign]
        return spec

    def _load(self, load: Callable[[ModuleType], None], module: ModuleType) -> None:
        self._write("loading PyTorch ")
        try:
            load(module)
        finally:
            sys.meta_path.remove(self)
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self.dot_at = time.monotonic() + DOT_S
        sys.stderr.write(text)
        sys.stderr.flush()


def _say_loading() -> None:
    """On a terminal that can erase a line, and only where torch will be loaded."""
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        sys.meta_path.insert(0, _Loading())


def _say(error: StopgradError) -> int:
    # torchrun ends with 1 whatever its processes say, so that the line has to.
    code = f" (exit code {error.exit_code})" if os.environ.get("WORLD_SIZE") else ""
    # Each machine says that it has lost the others: the first process may be among the lost.
    loud = isinstance(error, LostProcessError) and os.environ.get("LOCAL_RANK") == "0"
    stream = (loud and sys.__stderr__) or sys.stderr
    stream.write(f"stopgrad: {' '.join(printable(str(error)).splitlines())}{code}\n")
    return error.exit_code


def _prepare_streams() -> None:
    """Lets both take any text, whatever their encoding, and standard error outlive its reader."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    outlive("stderr")
