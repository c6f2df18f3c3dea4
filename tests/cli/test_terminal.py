"""Claims about what a user sees: on a terminal nothing is silent for long, a log tells the time."""

import sys
from pathlib import Path

import pytest

from tests.factories import write_digits
from tests.terminal import FIRST_MINUTES, SILENCE_S, seen_of

STOPGRAD = (sys.executable, "-m", "stopgrad")
BROKEN = "import time; print('begun', flush=True); time.sleep(2.5); print('done')"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images."""
    folder = tmp_path_factory.mktemp("first minutes")
    write_digits(folder / "images", train=60, test=20)
    return folder


def test_a_silent_command_is_noticed(tmp_path: Path) -> None:
    seen = seen_of([sys.executable, "-c", BROKEN], columns=80, cwd=tmp_path)
    assert (seen.code, seen.text.split()) == (0, ["begun", "done"])
    assert seen.silence_s > SILENCE_S


def test_the_first_minutes_are_never_silent_for_two_seconds(place: Path) -> None:
    seen = {
        command: seen_of([*STOPGRAD, *command.split()], columns=80, cwd=place)
        for command in FIRST_MINUTES
    }
    assert {command: one.text for command, one in seen.items() if one.code} == {}
    silent = {command: one.silence_s for command, one in seen.items() if one.silence_s > SILENCE_S}
    assert silent == {}
