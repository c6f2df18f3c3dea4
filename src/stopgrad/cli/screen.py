"""What goes to standard output: lines that no name can break, and tables."""

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
    """A line of results, at once; names in it cannot steer the terminal."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def print_json(values: Any) -> None:
    """One strict JSON object on a line of its own."""
    print_line(json.dumps(values, allow_nan=False))


def print_table(*parts: Table | RenderableType) -> None:
    """Tables, and sentences that wrap where the terminal does."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for part in parts:
        if isinstance(part, str):
            console.print(printable(part), soft_wrap=True)
        else:
            console.print(part)


def show(found: stopgrad.Shown) -> None:
    """The tables and the sentences of what the library gave back."""
    print_table(*found.tables, *found.lines)


def say(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(printable(text) + "\n")
