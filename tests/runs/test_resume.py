"""Claims about resuming and extending real training, through the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.cli import main
from stopgrad.images import load_dataset
from stopgrad.method import learning_rates
from stopgrad.runs import load_checkpoint, read_metrics, read_run
from stopgrad.runs.info import Change
from stopgrad.training import resumed_info


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 real digits as PNG files, without labels: 3 steps an epoch."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(load_dataset("mnist5k").train.pixels[:96]):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def _pretrain(pictures: Path, run: Path, epochs: int) -> None:
    words = ("pretrain", "--preset", "tiny", "--data", pictures, "--out", run, "--epochs", epochs)
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    _pretrain(pictures, run, 1)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def _rates(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["lr"]) for row in read_metrics(run) if row["kind"] == "step"]


def _same(one: Path, other: Path) -> bool:
    a, b = load_checkpoint(one), load_checkpoint(other)
    pairs = ((a.model, b.model), (a.optimizer, b.optimizer))
    return a.step == b.step and all(torch.equal(x[k], y[k]) for x, y in pairs for k in x)


def test_an_extended_run_takes_the_new_schedule_from_its_step_on(
    pictures: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(run), "--extend", "3"]) == 0
    assert "not that of a run of 3 epochs from the start" in capsys.readouterr().err
    info = read_run(run)
    assert info.extensions == (Change(3, "epochs", 1, 3),)
    old = _rates(run)[:3]
    expected = [learning_rates(info.config, step=s, steps_per_epoch=3).lr for s in range(3, 9)]
    assert _rates(run) == [*old, *zip(range(4, 10), expected, strict=True)]
    assert main(["verify", str(run)]) == 0
    taken = sum(lr for _, lr in _rates(run))  # by either schedule, as the steps were taken
    assert info.extent(9).folds == pytest.approx(5e-4 * taken / 0.1)
    assert info.extent(2).folds == pytest.approx(5e-4 * sum(lr for _, lr in old[:2]) / 0.1)
    _pretrain(pictures, tmp_path / "long", 3)
    assert not _same(run, tmp_path / "long")
    twice = Path(shutil.copytree(run, tmp_path / "twice"))
    newest = twice / "checkpoints" / "step-000009" / "manifest.json"
    newest.unlink()  # as if it had been killed before its last checkpoint
    assert main(["resume", str(twice)]) == 0
    assert _same(twice, run)
    assert _rates(twice) == _rates(run)


def test_a_run_goes_on_with_its_own_threads_whatever_the_environment_says(run: Path) -> None:
    """torchrun sets OMP_NUM_THREADS."""
    begun, threads = read_run(run).environment["threads"], torch.get_num_threads()
    try:
        torch.set_num_threads(begun + 1)
        assert resumed_info(run, changes={}).environment["threads"] == begun
        assert torch.get_num_threads() == begun
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--extend", "0"], 2, "--extend 0 for a run of 1 epochs, 1 of them done"),
        (["--extend", "2", "--seed", "1"], 2, "seed: 0 -> 1"),
        (["--epochs", "2"], 2, "--extend EPOCHS"),
        (["--optimizer.base-lr", "0.1", "--batch=16"], 2, "batch: 32 -> 16"),
        (["--extend", "2", "--threads", "2"], 2, "environment.threads: 1 -> 2"),
        (["--bach", "2"], 2, "did you mean batch"),
        (["--extend", "2", "--data", "mnist5k"], 3, "data.fingerprint"),
    ],
)
def test_another_run_is_refused_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    threads, before = torch.get_num_threads(), (run / "config.json").read_bytes()
    try:
        assert main(["resume", str(run), *words]) == code
    finally:
        torch.set_num_threads(threads)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("stopgrad: ")
    assert said in error
    assert (run / "config.json").read_bytes() == before


def test_one_changed_picture_is_noticed(
    pictures: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = Path(shutil.copytree(pictures, tmp_path / "changed"))
    words = ["resume", str(run), "--extend", "2", "--data", str(changed)]
    with Image.open(changed / "07.png") as picture:
        pixels = np.array(picture)
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(changed / "07.png")
    assert main(words) == 3
    assert "data.fingerprint: " in capsys.readouterr().err
    shutil.copy(pictures / "07.png", changed)
    assert main(words) == 0


def test_verify_ends_with_its_code_and_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(*words: Any) -> tuple[int, list[str], str]:
        code = main(["verify", str(run), *words])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    code, lines, err = verify()
    assert (code, err) == (0, "")
    assert all(line.startswith("ok   ") for line in lines)
    (run / "checkpoints" / "step-000003" / "state.json").write_text("{}")
    code, lines, err = verify("--json")
    wrong = [json.loads(line) for line in lines if not json.loads(line)["ok"]]
    assert [finding["file"] for finding in wrong] == ["checkpoints/step-000003/state.json"]
    assert code == 7
    assert err.startswith("stopgrad: 1 of ")
    assert err.count("\n") == 1
    assert main(["verify", str(run / "nowhere")]) == 7
