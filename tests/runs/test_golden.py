"""A run and a store written at commit d34c795 still load, resume and train."""

import shutil
from pathlib import Path

import pytest

from stopgrad.cli import main
from stopgrad.images import load_dataset
from stopgrad.runs import load_checkpoint, load_run, read_metrics, verify_run

GOLDEN = Path(__file__).parents[1] / "golden" / "d34c795"

LOSSES = {9: -0.16935743, 10: -0.17955697, 11: -0.19780044, 12: -0.21537071}
"""Of the third epoch, as `stopgrad resume` of that commit went on (fp32, one thread)."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run, which was stopped after two of its three epochs."""
    return Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))


def test_an_old_run_loads_at_its_newest_checkpoint(run: Path) -> None:
    trained = load_run(run)
    assert (trained.step, trained.epoch) == (8, 2)
    assert [finding.file for finding in verify_run(run) if not finding.ok] == []


def test_an_old_run_goes_on_with_the_losses_of_its_own_time(run: Path) -> None:
    assert main(["resume", str(run)]) == 0
    losses = {row["step"]: row["loss"] for row in read_metrics(run) if row["kind"] == "step"}
    assert {step: losses[step] for step in LOSSES} == pytest.approx(LOSSES, abs=1e-5)
    assert load_checkpoint(run).step == 12


def test_an_old_store_opens_with_its_images(tmp_path: Path) -> None:
    store = Path(shutil.copytree(GOLDEN / "store", tmp_path / "store"))
    dataset = load_dataset(str(store))
    assert dataset.train.fingerprint.startswith("22ce08fd31de016c")
    assert dataset.train.class_names == ("cross", "disc", "stripe")
    assert dataset.train.pixels.shape == (48, 20, 24, 3)
    assert len(dataset.test) == 12
    assert main(["verify", str(store)]) == 0
