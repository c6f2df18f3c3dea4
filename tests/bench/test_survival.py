"""Claims about `bench/survival.py`."""

import pytest

from bench.survival import DecayedRun, predictions

SHARES = [0.9, 0.8, 0.5, 0.2]
ALIVE = {1e-4: 4.0, 5e-4: 2.2, 9e-4: 1.0, 2e-3: 0.0}


@pytest.mark.parametrize(
    ("m", "told"),
    [
        (2, {1e-4: 3, 9e-4: 1, 2e-3: 0}),  # c = 1.25e-3: 1.01e-3, 8e-4, 3.1e-4, 5e-5
        (1, {1e-4: 4, 9e-4: 0, 2e-3: 0}),  # c = 7.9e-4: 7.1e-4, 6.3e-4, 4e-4, 1.6e-4
    ],
)
def test_the_run_with_the_lowest_decay_and_one_other_predict_the_rest(
    m: int, told: dict[float, int]
) -> None:
    runs = [
        DecayedRun(0, decay, alive, SHARES if decay == 1e-4 else [])
        for decay, alive in ALIVE.items()
    ]
    assert predictions(runs, fit=5e-4, m=m) == told
