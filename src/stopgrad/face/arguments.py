"""Arguments of a call, checked before anything is read, as the parser does for a command.

In: arguments from Python. Out: the same in one form, or a `ConfigError`. Also shields calls from
the PyTorch settings around them.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeAlias, TypeVar

from stopgrad import method, runs
from stopgrad.config import Config, config_from_dict
from stopgrad.errors import ConfigError, did_you_mean

PARTS = ("encoder", "views")  # that may be given in Python

LabelFractions: TypeAlias = float | Sequence[float]

P = ParamSpec("P")
R = TypeVar("R")


def in_plain_torch(function: Callable[P, R]) -> Callable[P, R]:
    """Shields calls of a function from the PyTorch settings around them.

    A call leaves all settings as they were, including the number of threads.
    """

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        if "torch" not in sys.modules:  # nobody has set anything yet
            try:
                return function(*arguments, **named)
            finally:
                if "torch" in sys.modules:
                    method.set_back_torch()
        with method.plain_torch():
            return function(*arguments, **named)

    return call


def chosen_config(config: Config | None, knobs: Mapping[str, Any], *, preset: str) -> Config:
    """All knobs: a whole config, or a preset changed by knobs.

    An `encoder` that is a module and `views` that are a function are parts, not knobs.

    Raises:
        ConfigError: For an unknown knob, or knobs along with a whole config.
    """
    parts = {name: knobs[name] for name in PARTS if callable(knobs.get(name))}
    knobs = {name: value for name, value in knobs.items() if name not in parts}
    if config is None:
        config = config_from_dict(knobs, preset=preset)
    elif not isinstance(config, Config):
        raise ConfigError(
            f"config = {str(config)[:40]!r}",
            expected="a stopgrad.Config",
            hint="give knobs as keywords, or make one with stopgrad.config_from_dict",
        )
    elif knobs:
        raise ConfigError(
            f"both {', '.join(knobs)} and a config",
            expected="a config, or a preset and knobs",
            hint="change the config with dataclasses.replace",
        )
    return with_parts(config, **parts)


def with_parts(config: Config, *, encoder: Any = None, views: Any = None) -> Config:
    """The config, with the names of an encoder and views that were given in Python."""
    if encoder is not None:
        shape = {"channels": config.encoder.channels, "size": config.views.size}
        name = method.name_encoder(encoder, **shape)
        config = replace(config, encoder=replace(config.encoder, name=name))
    if views is not None:
        config = replace(config, views=replace(config.views, own=method.name_views(views)))
    return config


def chosen_start(init: str | os.PathLike[str] | None, config: Config) -> str | None:
    """The weights that an encoder starts from: its own where it was given in Python; None: random.

    Raises:
        ConfigError: For other weights along with such an encoder.
    """
    if not config.encoder.is_given:
        return None if init is None else os.fspath(init)
    if init is not None:
        raise ConfigError("init with an encoder of your own", expected="its own weights")
    return config.encoder.name


def as_list(given: object, name: str) -> list[Any]:
    """One or several items as a list, at least one; a text is one item.

    Raises:
        ConfigError: When there is none.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        return [given]
    found = list(given)
    if not found:
        raise ConfigError(f"no {name} given", expected="at least one")
    return found


def check_choices(name: str, given: Iterable[object], known: Sequence[str]) -> None:
    """Refuses values that are not among the choices.

    Raises:
        ConfigError: With the name of the argument, and the choices.
    """
    for value in given:
        if value not in known:
            raise ConfigError(
                f"{name} = {value!r}{did_you_mean(str(value), known)}",
                expected=f"one of {', '.join(known)}",
            )


def fractions(labels: LabelFractions) -> list[float]:
    """One or several fractions of the labels; a ConfigError for anything else."""
    try:
        chosen = [float(part) for part in as_list(labels, "labels")]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"labels = {labels!r}", expected="fractions such as 0.1") from error
    runs.check_fractions(chosen)
    return chosen
