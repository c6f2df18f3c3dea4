"""Claims about `config`."""

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.config import (
    PRESETS,
    Config,
    config_from_dict,
    config_to_dict,
    describe_knobs,
    key_paths,
    knob_values,
    preset,
)
from stopgrad.errors import ConfigError


def test_the_defaults_are_the_papers_cifar_setting() -> None:
    config = Config()
    assert config.lr == pytest.approx(0.06)  # 0.03 x 512 / 256
    assert (config.batch, config.epochs, config.views.blur) == (512, 800, 0)
    assert (config.projector.hidden, config.projector.out, config.predictor.hidden) == (
        512,
        2048,
        512,
    )


def test_text_is_read_as_yaml_reads_it_with_exponents() -> None:
    config = config_from_dict({"optimizer.weight_decay": "1e-4", "stop_gradient": "false"})
    assert config.optimizer.weight_decay == 1e-4
    assert config.stop_gradient is False


def test_every_wrong_key_and_value_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(
            {"optimizer": {"weight_decy": 1, "base_lr": -1}, "batch": "many", "encoder.stem": "big"}
            | {"parts": 0}
        )
    message = str(caught.value)
    for part in (
        "unknown key optimizer.weight_decy (did you mean optimizer.weight_decay?)",
        "optimizer.base_lr = -1.0 (expected a finite number above 0)",
        "batch = 'many' (expected int)",
        "parts = 0 (expected a finite number at least 1",
        "encoder.stem = 'big' (expected one of small, half, large)",
    ):
        assert part in message
    assert "\n" not in message
    with pytest.raises(ConfigError, match=r"^parts = 0 \(expected [^;]*; expected keys"):
        config_from_dict({"parts": 0})  # beside a batch that no zero divides


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_learning_rate_no_run_could_use_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="base_lr"):
        preset("cifar", **{"optimizer.base_lr": value})


@pytest.mark.parametrize("key", ["epochs", "optimizer.base_lr", "optimizer.warmup_epochs"])
@pytest.mark.parametrize("value", [10**400, "9" * 400])
def test_an_integer_beyond_every_float_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{key} = "):
        preset("cifar", **{key: value})


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch = 1 "):
        preset("cifar", batch=1)


def test_two_knobs_that_contradict_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"views\.crop_min <= views\.crop_max"):
        preset("cifar", **{"views.crop_min": 0.9, "views.crop_max": 0.5})
    with pytest.raises(ConfigError, match="warmup"):
        preset("cifar", epochs=2, **{"optimizer.warmup_epochs": 3})


def test_a_contradiction_is_told_beside_other_errors() -> None:
    with pytest.raises(ConfigError, match=r"seed = 'x'.*views\.crop_min <= views\.crop_max"):
        preset("cifar", seed="x", **{"views.crop_min": 0.9, "views.crop_max": 0.5})


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean tiny"):
        config_from_dict({}, preset="tinny")


def test_a_config_cannot_be_rewritten() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().batch = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_config_survives_yaml(name: str) -> None:
    config = config_from_dict({}, preset=name)
    text = yaml.safe_dump(config_to_dict(config))
    assert config_from_dict(yaml.safe_load(text)) == config


def test_keys_are_joined_and_a_mapping_may_be_a_value() -> None:
    values = {"a": {"b": {"c": 1}, "d": {}}, "e.f": {"times": 2}, 5: 3}
    assert key_paths(values) == {"a.b.c": 1, "e.f.times": 2, "5": 3}
    found = key_paths(values, is_value=lambda value: not value or set(value) == {"times"})
    assert found == {"a.b.c": 1, "a.d": {}, "e.f": {"times": 2}, "5": 3}
    assert knob_values(Config())["views.size"] == 32


def test_every_knob_states_its_meaning() -> None:
    assert all(len(knob.meaning) > 10 for knob in describe_knobs())


@given(
    st.sampled_from([knob.key for knob in describe_knobs()]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.none())),
)
def test_any_value_gives_a_config_or_one_line(key: str, value: object) -> None:
    message = ""
    try:
        config_from_dict({key: value})
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
