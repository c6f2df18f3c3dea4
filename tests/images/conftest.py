"""A cache of its own for each test that reads images."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, which is not there yet."""
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
