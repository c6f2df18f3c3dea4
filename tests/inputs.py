"""What people's data look like, and what happens: the tests that are marked so -> docs/inputs.md.

A test says of an input `@pytest.mark.input(KIND, what=..., happens=...)`, a parametrised one in the
`pytest.param` of each case. `python -m tests.inputs` writes the page; a test compares it.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "inputs.md"
KINDS = {
    "format": "Formats",
    "layout": "Layouts",
    "label": "Labels",
    "oddity": "Oddities",
    "weights": "Weights of other tools",
    "command": "Commands",
}
OPENING = """# What happens with your data

Each row is the claim of a test. `python -m tests.inputs` writes this page from marks in `tests/`.
What is not used is always named and counted: `stopgrad check-data SPEC --json` lists all of it.
"""


def row(what: str, happens: str, *values: object, kind: str = "format") -> Any:
    """A row of the page, and the values of its test, for `parametrize`."""
    mark = pytest.mark.input(kind, what=what, happens=happens)
    return pytest.param(*values, marks=mark, id=what)


class _Collected:
    """The marked tests that pytest finds; none is run."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Takes what each mark says."""
        for mark in (mark for item in items for mark in item.iter_markers("input")):
            kind = mark.args[0] if mark.args else mark.kwargs["kind"]
            self.rows[kind][mark.kwargs["what"]] = mark.kwargs["happens"]


def page() -> str:
    """The page as the tests have it."""
    found = _Collected()
    arguments = [
        "--collect-only",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).parent),
    ]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        if pytest.main(arguments, plugins=[found]) != pytest.ExitCode.OK:
            raise SystemExit(said.getvalue())
    tables = [_table(title, found.rows[kind]) for kind, title in KINDS.items() if found.rows[kind]]
    return "\n".join([OPENING, *tables])


def _table(title: str, rows: dict[str, str]) -> str:
    lines = (f"| {_cell(what)} | {_cell(happens)} |\n" for what, happens in sorted(rows.items()))
    return f"## {title}\n\n| what | what happens |\n|---|---|\n{''.join(lines)}"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(page())
    else:
        PAGE.write_text(page(), encoding="utf-8")
