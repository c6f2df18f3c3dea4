"""Claims about `bench/compare_peers.py`, without any peer: turns, pairs, and what is missing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.cli.parser import parse
from stopgrad.config import torch_generator
from stopgrad.method import build_encoder
from stopgrad.speed.steps import random_images
from stopgrad.storage.process import SPINS, WAITING

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


def _about(*, rounds: int) -> dict[str, Any]:
    about = {"kind": "about", "processor": "a CPU", "cores": 2}
    settings = {"threads": 2, "workers": 2, "rounds": rounds}
    versions = {"torch": "2.0", "lightly": "1.0", "lightly-train": "not installed"}
    return about | {"settings": settings, "versions": versions}


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


def test_a_package_is_asked_for_by_the_name_that_pip_takes(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = ("lightly_train", "stable_pretraining")  # their names in Python
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name in absent else True)
    assert peers.main(["--data", "cifar10"]) == 2
    names = "lightly-train, stable-pretraining; pip install lightly-train stable-pretraining"
    assert capsys.readouterr().err == f"not installed: {names}\n"


def test_systems_take_turns_and_the_first_round_is_the_one_discarded(peers: ModuleType) -> None:
    options = _options(peers, "--rounds", "2", "--contests", "resnet18", "memory")
    plan = [(number, turn.contest, turn.system) for number, turn in peers.plan(options)]
    a_round = [
        ("resnet18", name) for name in ("stopgrad", "lightly", "lightly-bf16", "stable-pretraining")
    ]
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
    table = peers.markdown([_about(rounds=3), *turns])
    assert "| 80.0 views/s | 30.0 views/s: lightly, its recipe | 2.00 (2.00 to 3.00) |" in table


def test_busy_loops_run_during_each_turn_and_the_record_says_how_many(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops, seen = [0], []

    @contextmanager
    def busy(count: int) -> Iterator[None]:
        loops[0] = count
        yield
        loops[0] = 0

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> SimpleNamespace:
        asked = json.loads(command[-1])
        seen.append((asked["system"], loops[0], env.get("GOMP_SPINCOUNT")))
        return SimpleNamespace(returncode=0, stdout='{"views_per_s": 1.0}')

    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(peers, "busy", busy)
    monkeypatch.setattr(peers.subprocess, "run", run)
    words = ("--beside", "3", "--rounds", "0", "--contests", "cpu")
    lines = [
        peers.take(turn, number=number)
        for number, turn in peers.plan(_options(peers, *words, "--systems", "stopgrad", "lightly"))
    ]
    # Only our command says how long its threads wait awake.
    assert seen == [("stopgrad", 3, SPINS), ("lightly", 3, None)]
    assert [line["beside"] for line in lines] == [3, 3]
    assert loops == [0]


def test_the_rate_of_a_command_is_that_of_the_epochs_after_its_first(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import compare_peers_commands  # type: ignore[import-not-found]

    def seconds_of(turn: Any, folder: Path, *, epochs: int) -> float:
        assert len(list((folder / "images").glob("*.png"))) == 8
        return {1: 7.0, 5: 15.0}[epochs]

    monkeypatch.setattr(compare_peers_commands, "_seconds_of", seconds_of)
    words = ("--contests", "folder", "--batch", "4", "--files", "10", "--epochs", "5")
    _, turn = next(peers.plan(_options(peers, *words)))
    found = compare_peers_commands.commands(turn, random_images(20, side=32))
    assert found["views_per_s"] == 8.0  # two views of 8 images in 4 epochs, in 8 s
    assert (found["command_s"], found["files"]) == (15.0, 8)  # 10 images are not whole batches


def test_a_rate_needs_a_second_epoch_and_a_whole_batch(
    peers: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("--epochs", "1"), ("--files", "63")):
        with pytest.raises(SystemExit):
            _options(peers, *words)
    assert capsys.readouterr().err.count("--epochs: at least 2; --files: at least a batch") == 2


def test_our_command_trains_the_network_that_lightly_train_gets(peers: ModuleType) -> None:
    import compare_peers_commands

    words = {"batch": 64, "epochs": 6}
    command = compare_peers_commands.stopgrad_command(Path("pngs"), Path("run"), **words)
    config = parse(command[3:]).config
    assert (config.batch, config.epochs, config.views.size) == (64, 6, compare_peers_commands.SIDE)
    assert config.views.blur == 0
    torchvision = pytest.importorskip("torchvision")
    shapes = [w.shape for n, w in torchvision.models.resnet18().named_parameters() if "fc" not in n]
    encoder = build_encoder(config.encoder, torch_generator(0, "encoder"))
    assert [weight.shape for weight in encoder.parameters()] == shapes
    theirs = compare_peers_commands.lightly_train_command(Path("pngs"), Path("run"), **words)
    assert {"batch_size=64", "epochs=6", "transform_args.image_size=[32,32]"} <= set(theirs)


def test_steps_count_only_after_a_quarter_of_the_time(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import compare_peers_turn  # type: ignore[import-not-found]

    now = [0.0]
    monkeypatch.setattr(compare_peers_turn.time, "perf_counter", lambda: now[0])
    clock, taken = compare_peers_turn._Clock(torch.device("cpu"), 8.0), 0
    done = False
    while not done:  # 3 slow steps, as of a loop that fills its queue, then one each second
        now[0] += 5.0 if taken < 3 else 1.0
        done, taken = clock.is_done(), taken + 1
    assert (taken, clock.steps, clock.seconds) == (3 + 8, 8, 8.0)


def test_the_table_holds_the_runs_of_all_records(
    peers: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import compare_peers_table  # type: ignore[import-not-found]

    for beside, name in ((0, "alone.jsonl"), (2, "beside.jsonl")):
        more = {"beside": beside, "files": 2048, "epochs": 6}
        seconds = {"stopgrad": 30.0, "lightly-train": 60.0 + beside}
        turns = [
            _turn("folder", system, 1, rate=1000.0 / took) | more | {"command_s": took}
            for system, took in seconds.items()
        ]
        lines = [_about(rounds=1), *turns, *peers.results_of(turns)]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = [str(tmp_path / name) for name in ("alone.jsonl", "beside.jsonl")]
    monkeypatch.setattr("sys.argv", ["compare_peers_table.py", *records])
    compare_peers_table.main()
    _, _, *rows, blank, protocol = capsys.readouterr().out.splitlines()
    system = compare_peers_table.NAMES["lightly-train"]
    work = "training from a folder of 2,048 PNG files, ResNet-18 with the ImageNet stem, batch 64"
    assert rows[0] == f"| {work} | 33.3 views/s | 16.7 views/s: {system} | 2.00 (2.00 to 2.00) |"
    command = "the command on such a folder from start to end, 6 epochs, batch 64"
    assert rows[1] == f"| {command} | 30.0 s | 60.0 s: {system} | 0.50 (0.50 to 0.50) |"
    assert rows[3].startswith(f"| {command}, beside 2 busy loops | 30.0 s | 62.0 s: {system} |")
    assert (len(rows), blank) == (4, "")  # and one sentence, as both were measured alike
    assert "torch 2.0, lightly 1.0; medians of 1 turns" in protocol


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

    monkeypatch.setattr(compare_peers_views, "_timed", lambda work, *_, **__: (work(1), 0.5)[1])
    images = random_images(6, side=32)
    assert compare_peers_views.stopgrad_views(images, seconds=0.0, threads=1) == 2 * 6 / 0.5
