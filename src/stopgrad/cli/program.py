"""The program `stopgrad`: arguments -> an exit code."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence

from stopgrad.cli.devices import train_together
from stopgrad.cli.parser import parse
from stopgrad.cli.screen import say
from stopgrad.errors import (
    ConfigError,
    LostProcessError,
    StopgradError,
    StorageError,
    bad_path,
    no_memory,
)
from stopgrad.storage import outlive, wait_briefly


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (see `errors`)."""
    wait_briefly(os.environ)
    _keep_quiet_unless_first()
    _prepare_streams()
    _say_bus_errors()
    logging.basicConfig(level=logging.WARNING, format="stopgrad: %(message)s", handlers=[_Above()])
    words = sys.argv[1:] if arguments is None else arguments
    try:
        _check_folder()
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
    except BaseException as error:  # a Rust panic is not an Exception
        found = no_memory(error) or bad_path(error)
        if found is None:
            raise
        return _say(found)
    return 0


_CUT = (
    b"stopgrad: a file of pixels was cut, or its disk failed, while it was read; expected the "
    b"store or cache as it was; verify the store, then repeat the command or resume the run\n"
)


def _check_folder() -> None:
    """Refuses to start in a removed folder, where no relative path can be resolved."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError(
            "the working directory was removed",
            expected="one that exists",
            hint="cd to another folder, then repeat the command",
        ) from None


def _keep_quiet_unless_first() -> None:
    """Silences all but the first of several processes that train together."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _end_as_cut(signal_number: int) -> None:
    os.write(2, _CUT)
    os._exit(StorageError.exit_code)


_on_bus_error = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end_as_cut)  # kept as long as the process


def _say_bus_errors() -> None:
    """Reports SIGBUS, a mapped file that was cut, from C: a Python handler would never run."""
    if hasattr(signal, "SIGBUS"):  # Windows has none
        ctypes.CDLL(None).signal(int(signal.SIGBUS), _on_bus_error)


def _say(error: StopgradError) -> int:
    # torchrun exits with 1 whatever its processes return, so the line gives the code.
    code = f" (exit code {error.exit_code})" if os.environ.get("WORLD_SIZE") else ""
    # Each machine reports the loss: the first process may be among the lost.
    if isinstance(error, LostProcessError) and os.environ.get("LOCAL_RANK") == "0":
        sys.stderr = sys.__stderr__ or sys.stderr
    say(f"stopgrad: {' '.join(str(error).splitlines())}{code}")
    return error.exit_code


class _Above(logging.Handler):
    """Writes warnings to the current standard error, which puts them above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _prepare_streams() -> None:
    """Lets both streams take any text, whatever their encoding, and stderr outlive its reader."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    outlive("stderr")
