"""Claims about `schedule`."""

import math
from typing import Any

import pytest

from stopgrad.config import Config, preset
from stopgrad.method import extent, learning_rates, published_extent


def _config(**changes: Any) -> Config:
    return preset("cifar", **({"epochs": 10, "batch": 256} | changes))


def _rates(config: Config, *steps: int) -> list[tuple[float, float]]:
    return [tuple(learning_rates(config, step=step, steps_per_epoch=10)) for step in steps]


def test_the_encoder_follows_a_cosine_and_the_predictor_stays() -> None:
    first, middle, last = _rates(_config(), 0, 50, 99)
    assert first == (0.03, 0.03)
    assert middle[0] == pytest.approx(0.015)
    assert last[0] == pytest.approx(0.03 * (1 + math.cos(math.pi * 0.99)) / 2)
    assert middle[1] == last[1] == 0.03


def test_alpha_h_scales_the_predictors_rate_and_its_schedule_can_be_the_cosine() -> None:
    config = _config(**{"optimizer.alpha_h": 2 / 3, "optimizer.predictor_schedule": "cosine"})
    first, middle = _rates(config, 0, 50)
    assert first[1] == pytest.approx(0.02)
    assert middle[1] == pytest.approx(0.01)


def test_warm_up_rises_in_even_steps_and_the_cosine_starts_at_the_peak() -> None:
    config = _config(**{"optimizer.warmup_epochs": 1})
    rates = [lr for lr, _ in _rates(config, 0, 4, 9, 10, 55)]
    assert rates == pytest.approx([0.003, 0.015, 0.03, 0.03, 0.015])


def test_the_rate_grows_with_the_batch() -> None:
    assert preset("cifar", batch=1024).lr == pytest.approx(0.12)


def test_the_published_run_erases_nearly_twelve_e_folds() -> None:
    # 97 steps x 800 epochs; the cosine's values add up to (steps + 1) / 2; the peak rate is .06.
    found = published_extent()
    assert found.steps == 77_600
    assert found.folds == pytest.approx(5e-4 * 0.06 * 77_601 / 2 / 0.1)
    assert found.folds == pytest.approx(11.64, abs=0.005)
    assert found.passes == pytest.approx(77_600 * 512 / 50_000)


@pytest.mark.parametrize("warmup", [0, 0.4, 3, 10])
@pytest.mark.parametrize("steps", [0, 1, 4, 29, 30, 31, 57, 100])
def test_n_is_the_sum_over_the_learning_rates_of_the_steps(steps: int, warmup: float) -> None:
    config = _config(**{"optimizer.warmup_epochs": warmup, "optimizer.momentum": 0.75})
    rates = (learning_rates(config, step=step, steps_per_epoch=10).lr for step in range(steps))
    found = extent(config, images=2_600, steps=steps)  # 40 images of an epoch are left over
    assert found.folds == pytest.approx(5e-4 * math.fsum(rates) / 0.25, abs=1e-15)
    assert found.passes == pytest.approx(steps * 256 / 2_600)


def test_decay_shrinks_a_weight_without_a_gradient_by_n_e_folds() -> None:
    """SGD by hand: buffer <- m buffer + decay w, w <- w - lr buffer."""
    config = _config(epochs=2000, **{"optimizer.base_lr": 0.05})
    weight, buffer = 1.0, 0.0
    for step in range(20_000):
        buffer = 0.9 * buffer + 5e-4 * weight
        weight -= learning_rates(config, step=step, steps_per_epoch=10).lr * buffer
    assert -math.log(weight) == pytest.approx(extent(config, images=2_560).folds, rel=2e-3)


@pytest.mark.parametrize("changes", [{"optimizer.algorithm": "lars"}, {"optimizer.momentum": 1.0}])
def test_without_a_lasting_rate_of_decay_there_is_no_n(changes: dict[str, Any]) -> None:
    assert math.isnan(extent(_config(**changes), images=2_560).folds)


def test_the_miniature_reaches_the_published_n_with_the_published_decay() -> None:
    config = preset("miniature")
    assert (config.optimizer.weight_decay, config.optimizer.alpha_h) == (5e-4, 1.0)
    found, published = extent(config, images=50_000), published_extent()
    assert found.folds == pytest.approx(published.folds, rel=0.01)
