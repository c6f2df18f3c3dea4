"""Prints results to standard output and remarks to standard error, safely for the terminal."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import stopgrad
from stopgrad.storage import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stopgrad.report import Table


def print_line(text: str) -> None:
    """Prints a line of results at once; control characters in names are escaped."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def print_json(values: Any) -> None:
    """Prints one strict JSON object as a line."""
    print_line(json.dumps(values, allow_nan=False))


def print_table(*parts: Table | RenderableType) -> None:
    """Prints tables, and sentences that only the terminal wraps."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for part in parts:
        if isinstance(part, str):
            console.print(printable(part), soft_wrap=True)
        else:
            console.print(part)


def show(found: stopgrad.Shown) -> None:
    """Prints the tables and sentences of a result."""
    print_table(*found.tables, *found.lines)


def say(text: str) -> None:
    """Prints a line to standard error."""
    sys.stderr.write(printable(text) + "\n")
