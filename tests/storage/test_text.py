"""Text for messages: names in short, and errors of other libraries in one line."""

import pytest

from stopgrad.storage import few, first_line, some, wrapped


def test_a_command_that_does_not_fit_has_an_unbroken_line_of_its_own() -> None:
    command = "stopgrad evaluate 'my runs/a rather long name' --labels 1"
    text = f"done: the encoder of the run is there; evaluate it with: {command}"
    assert wrapped(text, 40).splitlines() == [
        "done: the encoder of the run is there;",
        "  evaluate it with:",
        f"  {command}",
    ]
    assert wrapped(f"look with: {command}", 80) == f"look with: {command}"
    assert wrapped("words that are no command are broken", 20).splitlines()[1:] == [
        "  command are broken"
    ]


@pytest.mark.parametrize(
    ("names", "counted", "uncounted"),
    [
        ("ab", "'a', 'b'", "'a', 'b'"),
        ("abcd", "'a', 'b', 'c' and 1 more", "'a', 'b', 'c', ..."),
        ("a" * 1203, "'a', 'a', 'a' and 1,200 more", "'a', 'a', 'a', ..."),
    ],
    ids=["all", "one more", "thousands more"],
)
def test_names_are_cut_short_and_the_rest_is_counted(
    names: str, counted: str, uncounted: str
) -> None:
    assert few([*names], most=3) == counted
    assert some([*names], most=3) == uncounted


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n bad header \nat byte 3"), "bad header "),
        (EOFError(), "EOFError"),
        (KeyError(" "), "' '"),
        (ValueError("\n"), "ValueError"),
    ],
    ids=["of two lines", "that says nothing", "of a key", "of a blank line"],
)
def test_error_is_cut_to_its_first_line(error: Exception, line: str) -> None:
    assert first_line(error) == line
