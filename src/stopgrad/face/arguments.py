"""What a caller passes, checked before anything is read, as the parser does for a command.

In: arguments as they come from Python. Out: the same in one form, or a `ConfigError`. And a call
that PyTorch's settings around it do not reach.
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
    """The function, on which no setting of PyTorch around a call of it has any effect.

    A call leaves all of them as they were, the number of threads too.
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
    """All knobs: a config that is given whole, or a preset changed by knobs.

    An `encoder` that is a module and `views` that are a function are no knobs but parts.

    Raises:
        ConfigError: For an unknown knob, or knobs beside a whole config.
    """
    parts = {name: knobs[name] for name in PARTS if callable(knobs.get(name))}
    knobs = {name: value for name, value in knobs.items() if name not in parts}
    if config is None:
        config = config_from_dict(knobs, preset=preset)
    elif knobs:
        raise ConfigError(
            f"{', '.join(knobs)} beside a config",
            expected="a config, or a preset and knobs",
            hint="change the config with dataclasses.replace",
        )
    return with_parts(config, **parts)


def with_parts(config: Config, *, encoder: Any = None, views: Any = None) -> Config:
    """The config that names an encoder and views which were given in Python."""
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
        ConfigError: For others beside such an encoder.
    """
    if not config.encoder.is_given:
        return None if init is None else os.fspath(init)
    if init is not None:
        raise ConfigError("init beside an encoder of your own", expected="its own weights")
    return config.encoder.name


def as_list(given: object, name: str) -> list[Any]:
    """One or several of something, at least one; a text is one.

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
    """Refuses what is not among the choices.

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
    """One or several fractions of the labels."""
    chosen = [float(part) for part in as_list(labels, "labels")]
    runs.check_fractions(chosen)
    return chosen
