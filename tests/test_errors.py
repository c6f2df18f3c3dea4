"""Claims about `errors`."""

import re

import pytest

from stopgrad import errors
from stopgrad.errors import InterruptedRunError, InterruptedStudyError, StopgradError
from stopgrad.runs.checkpoint import DamagedError


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({}, "no images in 'x'"),
        ({"expected": ".png files"}, "no images in 'x'; expected .png files"),
        ({"hint": "check the path"}, "no images in 'x'; check the path"),
        (
            {"expected": ".png files", "hint": "check the path"},
            "no images in 'x'; expected .png files; check the path",
        ),
    ],
)
def test_an_error_says_the_parts_that_it_has(parts: dict[str, str], line: str) -> None:
    assert str(StopgradError("no images in 'x'", **parts)) == line


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn = dict(re.findall(r"(\w+Error) +(\d.*)$", errors.__doc__ or "", re.MULTILINE))
    assert drawn.pop("DamagedError") == str(DamagedError.exit_code)
    signals = {drawn.pop("InterruptedRunError"), drawn.pop("InterruptedStudyError")}
    assert signals == {"128 + signal"}
    known = [
        e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, StopgradError)
    ]
    codes = {error.__name__: str(error.exit_code) for error in known}
    del codes["InterruptedRunError"], codes["InterruptedStudyError"]
    assert drawn == codes


def test_a_signal_gives_the_code_that_a_shell_gives() -> None:
    assert InterruptedRunError(2, step=7, run="my run").exit_code == 130
    assert InterruptedStudyError(15, study="s").exit_code == 143
    assert "stopgrad resume 'my run'" in str(InterruptedRunError(2, step=7, run="my run"))
