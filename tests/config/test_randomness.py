"""Claims about `randomness`."""

import subprocess
import sys

import numpy as np
import torch

from stopgrad.config import numpy_generator, torch_generator
from stopgrad.config.randomness import entropy


def test_the_same_position_gives_the_same_stream_and_another_gives_another() -> None:
    draws = [
        torch.rand(8, generator=torch_generator(seed, *position))
        for seed, position in ((0, ("views", 1)), (0, ("views", 1)), (1, ("views", 1)))
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_positions_do_not_run_together() -> None:
    values = {
        entropy(0, "views", 12),
        entropy(0, "views", 1, 2),
        entropy(0, "views", "12"),
        entropy(0, "views1", 2),
        entropy(12, "views"),
    }
    assert len(values) == 5


def test_a_stream_does_not_depend_on_the_process() -> None:
    code = "from stopgrad.config.randomness import entropy; print(entropy(3, 'order', 7))"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(other.stdout) == entropy(3, "order", 7)


def test_global_generators_are_neither_read_nor_set() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.rand(3, generator=torch_generator(0, "a"))
    numpy_generator(0, "a").random(3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
