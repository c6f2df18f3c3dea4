"""Studies of these tests wait for nothing."""

import pytest

from stopgrad.studies import runner


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL_S", 0.001)
    monkeypatch.setattr(runner, "ASK_AGAIN_S", 0.0)
