"""Claims about YAML of users."""

from pathlib import Path

import pytest

from stopgrad.errors import ConfigError
from stopgrad.storage import read_yaml


def test_a_number_without_measure_is_refused_before_it_is_worked_out(tmp_path: Path) -> None:
    """1:30 is 90 in YAML 1.1; half a million parts would take minutes."""
    path = tmp_path / "knobs.yaml"
    for number in ("1" + ":1" * 10_000, "0x" + "f" * 19_999, "9" * 20_001):
        path.write_text(f"seed: {number}")
        with pytest.raises(ConfigError, match=r"a number of 20,001 characters"):
            read_yaml(path, expected="knobs")
    path.write_text(f"seed: 1:30\nquestion: {'why ' * 5_000}")
    assert read_yaml(path, expected="knobs") == {"seed": 90, "question": ("why " * 5_000).strip()}
