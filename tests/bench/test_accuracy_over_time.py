"""Claims about `bench/accuracy_over_time.py`, without lightly."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stopgrad.config import preset
from stopgrad.method import extent

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import accuracy_over_time  # type: ignore[import-not-found]

    return accuracy_over_time


@pytest.mark.parametrize("minutes", [2, 5, 10, 30, 60])
def test_every_time_has_its_share_of_epochs_and_one_n(bench: ModuleType, minutes: float) -> None:
    whole, own = preset("cpu"), preset("cpu", **bench.knobs(minutes))
    assert own.epochs == whole.epochs * minutes / 10
    folds = [extent(config, images=50_000).folds for config in (own, whole)]
    assert folds[0] == pytest.approx(folds[1], rel=0.01)


def test_lightly_gets_the_seconds_of_ours_and_a_second_call_takes_what_is_missing(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[str, float, float]] = []

    def take(_: Any, system: str, *, minutes: float, seconds: float) -> dict[str, Any]:
        taken.append((system, minutes, seconds))
        return {"seconds": seconds + 1, "views": 1, "knn_accuracy": 0.5}

    monkeypatch.setattr(bench, "_take", take)
    words = ["--data", "none", "--out", str(tmp_path), "--minutes", "2"]
    bench.main([*words, "--systems", "stopgrad"])
    bench.main([*words, "5"])
    both = ("lightly", "lightly-cpu")
    ours = [("stopgrad", 2, 120), *((system, 2, 121) for system in both)]
    assert taken == [*ours, ("stopgrad", 5, 300), *((system, 5, 301) for system in both)]
    about, *turns = map(json.loads, (tmp_path / "curve.jsonl").read_text().splitlines())
    assert about["kind"] == "about"
    assert [turn["system"] for turn in turns] == list(bench.SYSTEMS) * 2
