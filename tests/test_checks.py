"""Style and types are part of the suite, so that one command checks everything."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _check(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_has_nothing_to_say() -> None:
    _check("ruff", "check", ".")


def test_the_code_is_formatted() -> None:
    _check("ruff", "format", "--check", ".")


def test_the_types_hold() -> None:
    _check("mypy")
