"""docs/inputs.md says what the marked tests claim."""

import os
import subprocess
import sys

import pytest

from tests.inputs import PAGE, TESTS, page


def test_the_page_of_inputs_is_what_the_tests_say(request: pytest.FixtureRequest) -> None:
    items = request.session.items
    whole = {item.path for item in items} == {*TESTS.rglob("test_*.py")}
    said = page(items) if whole else _said_by_another_process()
    assert said == PAGE.read_text(encoding="utf-8"), "write it: python -m tests.inputs"


def _said_by_another_process() -> str:
    """The page by all tests, where pytest was asked for some."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.inputs", "--print"],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env=alone,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
