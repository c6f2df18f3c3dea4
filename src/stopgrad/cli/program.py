"""The program `stopgrad`: arguments -> an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stopgrad.cli.devices import train_together
from stopgrad.cli.parser import parse
from stopgrad.cli.screen import say
from stopgrad.errors import StopgradError, bad_path, no_memory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (see `errors`)."""
    _keep_quiet_unless_first()
    _prepare_streams()
    logging.basicConfig(level=logging.WARNING, format="stopgrad: %(message)s", handlers=[_Above()])
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


def _keep_quiet_unless_first() -> None:
    """Of several processes that train together only the first one prints."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _say(error: StopgradError) -> int:
    # torchrun ends with 1 whatever its processes say, so that the line has to.
    code = f" (exit code {error.exit_code})" if os.environ.get("WORLD_SIZE") else ""
    say(f"stopgrad: {' '.join(str(error).splitlines())}{code}")
    return error.exit_code


class _Above(logging.Handler):
    """Warnings go to standard error as it is now: above the bars while there are any."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


class _Remarks(io.FileIO):
    """Standard error. When its reader is gone remarks are lost, and what is at work goes on."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _prepare_streams() -> None:
    """Lets both take any text, whatever their encoding, and standard error outlive its reader."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.__stderr__ is not None and sys.stderr is sys.__stderr__:
        raw = _Remarks(sys.__stderr__.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=sys.__stderr__.encoding,
            errors="backslashreplace",
            line_buffering=True,
        )
