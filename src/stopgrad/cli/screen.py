"""Prints results to standard output and remarks to standard error, safely for the terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import stopgrad
from stopgrad.errors import StorageError
from stopgrad.storage import printable, wrapped

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stopgrad.report import Table


@contextmanager
def _to_standard_output() -> Iterator[None]:
    """Flushes what is printed in here; raises a StorageError when the disk refuses it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # the reader has closed the pipe
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # else Python retries the rest at exit
        raise StorageError(
            f"standard output could not be written ({error.strerror})",
            expected="room for the results",
            hint="make room or print them elsewhere, then repeat the command",
        ) from error


def print_line(text: str) -> None:
    """Prints a line of results at once; control characters in names are replaced.

    Raises:
        StorageError: When standard output is a file on a full disk.
    """
    with _to_standard_output():
        sys.stdout.write(printable(text) + "\n")


def print_json(values: Any) -> None:
    """Prints one strict JSON object as a line."""
    print_line(json.dumps(values, allow_nan=False))


def print_table(*parts: Table | RenderableType) -> None:
    """Prints tables and sentences; errors as for `print_line`."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    with _to_standard_output():
        for part in parts:
            if isinstance(part, str):
                text = wrapped(part, console.width) if console.is_terminal else printable(part)
                console.print(text, soft_wrap=True)
            else:
                console.print(part)


def show(found: stopgrad.Shown) -> None:
    """Prints the tables and sentences of a result."""
    print_table(*found.tables, *found.lines)


def say(text: str) -> None:
    """Prints a line to standard error; a terminal breaks it between words."""
    if sys.stderr.isatty():
        text = wrapped(text, os.get_terminal_size(sys.stderr.fileno()).columns or 80)
    sys.stderr.write(printable(text) + "\n")
