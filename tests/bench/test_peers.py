"""Claims about `bench/compare_peers.py`, without any peer: turns, pairs, and what is missing."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import compare_peers  # type: ignore[import-not-found]

    return compare_peers


def _turn(contest: str, system: str, number: int, *, rate: float) -> dict[str, Any]:
    about = {"batch": 64, "peak_bytes": 10**9, "device": "cpu", "device_name": "a CPU"}
    place = {"contest": contest, "system": system, "round": number, "discarded": number == 0}
    return {"kind": "turn", **place, "views_per_s": rate, **about}


def _options(peers: ModuleType, *words: str) -> Any:
    return peers._options(["--data", "cifar10", *words])


def test_a_missing_peer_is_one_line_that_says_how_to_install_it(
    peers: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "lightly" else True)
    assert peers.main(["--data", "cifar10", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "not installed: lightly; pip install lightly\n"
    assert not (tmp_path / "out").exists()


def test_systems_take_turns_and_the_first_round_is_the_one_discarded(peers: ModuleType) -> None:
    options = _options(peers, "--rounds", "2", "--contests", "resnet18", "memory")
    plan = [(number, turn.contest, turn.system) for number, turn in peers.plan(options)]
    a_round = [("resnet18", name) for name in ("stopgrad", "lightly", "lightly-bf16")]
    memory = [("memory", "stopgrad"), ("memory", "lightly")]
    rounds = [(0, a_round), (1, a_round + memory), (2, a_round)]
    assert plan == [(number, *who) for number, turns in rounds for who in turns]
    batches = {turn.contest: turn.batch for _, turn in peers.plan(options)}
    assert batches == {"resnet18": 64, "memory": 128}


def test_all_turns_together_take_the_minutes_that_were_asked_for(peers: ModuleType) -> None:
    options = _options(peers, "--minutes", "30", "--contests", "resnet18", "cpu", "views")
    seconds = sum(peers.START_S + 1.25 * turn.seconds for _, turn in peers.plan(options))
    assert seconds == pytest.approx(30 * 60)


def test_a_ratio_compares_turns_of_the_same_round(peers: ModuleType) -> None:
    # The machine halves its speed in round 2: the medians move, the ratios do not.
    ours, theirs = (900.0, 80.0, 40.0, 90.0), (1.0, 40.0, 20.0, 30.0)
    turns = [
        _turn("cpu", system, number, rate=rate)
        for system, rates in (("stopgrad", ours), ("lightly", theirs))
        for number, rate in enumerate(rates)
    ]
    mine, peer = peers.results_of(turns)
    assert mine["views_per_s"] == {"median": 80.0, "low": 40.0, "high": 90.0, "turns": 3}
    assert peer["views_per_s"]["median"] == 30.0
    assert peer["ours_over_it"] == {"median": 2.0, "low": 2.0, "high": 3.0, "turns": 3}
    about = {"kind": "about", "processor": "a CPU", "cores": 2}
    about |= {"settings": {"threads": 2, "workers": 2, "rounds": 3}}
    about |= {"versions": dict.fromkeys(("torch", "lightly", "torchvision", "kornia"), "1")}
    table = peers.markdown([mine, peer], [about, *turns])
    assert "| 80.0 views/s | 30.0 views/s: lightly, its recipe | 2.00 (2.00 to 3.00) |" in table


def test_a_run_of_ours_alone_leaves_a_record_without_paths(
    peers: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, data = np.random.default_rng(0), tmp_path / "pictures"
    data.mkdir()
    for number in range(12):
        pixels = chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"{number}.png")
    words = ("--minutes", "0", "--rounds", "1", "--batch", "4", "--threads", "1")
    words += ("--contests", "cpu", "--systems", "stopgrad")
    out = tmp_path / "out"
    assert peers.main(["--data", str(data), "--out", str(out), *words]) == 0
    text = (out / "peers.jsonl").read_text()
    about, first, second, result = (json.loads(line) for line in text.splitlines())
    assert [first["discarded"], second["discarded"]] == [True, False]
    assert second["views_per_s"] == pytest.approx(2 * 4 * second["steps"] / second["seconds"])
    assert result["views_per_s"]["median"] == second["views_per_s"]
    assert about["settings"]["batch"] == 4
    assert str(tmp_path) not in text
    assert "views/s" in capsys.readouterr().out


def test_views_of_ours_are_counted_twice_per_image(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import compare_peers_views  # type: ignore[import-not-found]

    from stopgrad.speed.steps import random_images

    monkeypatch.setattr(compare_peers_views, "_timed", lambda work, *_, **__: (work(1), 0.5)[1])
    images = random_images(6, side=32)
    assert compare_peers_views.stopgrad_views(images, seconds=0.0, threads=1) == 2 * 6 / 0.5
