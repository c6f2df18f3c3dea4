"""What goes to standard output: lines that no name can break, and tables."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_line(text: str) -> None:
    """A line of results, at once; names in it cannot steer the terminal."""
    from stopgrad.storage import printable

    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def print_json(values: Any) -> None:
    """One strict JSON object on a line of its own."""
    print_line(json.dumps(values, allow_nan=False))


def print_table(*parts: Any) -> None:
    """Tables and what else rich can draw; plain text keeps its brackets."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def say(text: str) -> None:
    """A line on standard error."""
    from stopgrad.storage import printable

    sys.stderr.write(printable(text) + "\n")
