"""The examples run as they stand, learn something, and do what the library does."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from stopgrad.config import preset
from stopgrad.images import Images, load_dataset
from stopgrad.runs import prepare
from stopgrad.training import pretrain_epochs

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = runpy.run_path(str(EXAMPLES / "simsiam_on_one_page.py"))


@pytest.fixture(scope="module")
def digits() -> Images:
    """640 of the embedded digits: 20 steps of the preset tiny."""
    return load_dataset("mnist5k").train.take(np.arange(640))


def _numbers(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, text)]


def test_simsiam_on_one_page_learns_to_tell_digits_apart(capsys: pytest.CaptureFixture) -> None:
    PAGE["main"](["--preset", "tiny", "--epochs", "2"])
    printed = capsys.readouterr().out
    first, last = _numbers(r"loss (-\d\.\d+)", printed)
    assert last < first - 0.1
    assert -0.6 < last < -0.4  # without the stop-gradient it is below -0.8
    [knn] = _numbers(r"digits: (\d+\.\d)%", printed)
    assert knn > 50  # chance is 10 %


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_page_takes_the_steps_of_the_library_bit_for_bit(
    digits: Images, stop_gradient: bool
) -> None:
    changes = {"epochs": 2, "precision": "fp32", "device": "cpu", "threads": 1}
    config = preset("tiny", stop_gradient=stop_gradient, **changes)
    model, losses = PAGE["train"](digits, config)
    dataset = load_dataset("mnist5k")._replace(train=digits)
    *_, last = epochs = list(pretrain_epochs(prepare(dataset, config), config))
    assert losses == [epoch.loss for epoch in epochs]
    theirs = last.model.state_dict()
    assert theirs.keys() == model.state_dict().keys()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())
