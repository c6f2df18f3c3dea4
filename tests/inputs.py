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

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "inputs.md"
KINDS = {
    "format": "Formats",
    "layout": "Layouts",
    "label": "Labels",
    "oddity": "Oddities",
    "weights": "Weights of other tools",
    "command": "Commands",
}
OPENING = """# What happens with your data

Each row states what a test checks. `python -m tests.inputs` writes the page from marks in `tests/`.
Whatever is not used is counted and listed with the reason: `stopgrad check-data SPEC --json` prints
all of it. "Reported" means that a message says so. A run does not start if images count as damaged,
unless `--bad-images skip` leaves them out (up to 5 %).
"""


def row(what: str, happens: str, *values: object, kind: str = "format") -> Any:
    """A row of the page, and the values of its test, for `parametrize`."""
    mark = pytest.mark.input(kind, what=what, happens=happens)
    return pytest.param(*values, marks=mark, id=what)


class _Collected:
    """The tests that pytest finds; none is run."""

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Keeps them."""
        self.items = [*items]


def every_test() -> list[pytest.Item]:
    """All tests; not for a process in which pytest runs."""
    found = _Collected()
    arguments = ["--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        if pytest.main([*arguments, str(TESTS)], plugins=[found]) != pytest.ExitCode.OK:
            raise SystemExit(said.getvalue())
    return found.items


def page(items: Sequence[pytest.Item]) -> str:
    """The page, from what the mark of each test says."""
    rows: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for mark in (mark for item in items for mark in item.iter_markers("input")):
        kind = mark.args[0] if mark.args else mark.kwargs["kind"]
        rows[kind][mark.kwargs["what"]] = mark.kwargs["happens"]
    tables = [_table(title, rows[kind]) for kind, title in KINDS.items() if rows[kind]]
    return "\n".join([OPENING, *tables])


def _table(title: str, rows: dict[str, str]) -> str:
    lines = (f"| {_cell(what)} | {_cell(happens)} |\n" for what, happens in sorted(rows.items()))
    return f"## {title}\n\n| what | what happens |\n|---|---|\n{''.join(lines)}"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(page(every_test()))
    else:
        PAGE.write_text(page(every_test()), encoding="utf-8")
