"""From a mapping or flags to a checked `Config`, and back; all errors at once.

jsonargparse validates the types; bounds are those that the knobs state.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stopgrad.config.bounds import Bounds, in_words, within
from stopgrad.config.knobs import ORDERED, Config, contradictions
from stopgrad.errors import ConfigError, did_you_mean


class Knob(NamedTuple):
    """One row of the page of knobs, for help and documentation."""

    key: str
    kind: Any
    default: object
    meaning: str
    bounds: Bounds


def describe_knobs(config: Any = Config, *, prefix: str = "") -> Iterator[Knob]:
    """Every knob below a config class, in reading order, by its key path."""
    kinds = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        key = prefix + field.name
        if field.default_factory is not dataclasses.MISSING:
            yield from describe_knobs(field.default_factory, prefix=f"{key}.")
        else:
            yield Knob(
                key,
                kinds[field.name],
                field.default,
                field.metadata["meaning"],
                field.metadata["bounds"],
            )


@functools.cache
def _knobs() -> tuple[Knob, ...]:
    """Every knob of a run, worked out once."""
    return tuple(describe_knobs())


def kind_in_words(kind: Any) -> str:
    """A knob's type as a reader knows it: `int`, `true or false`, `one of sgd, lars`."""
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(str(choice) for choice in typing.get_args(kind))}"
    return "true or false" if kind is bool else str(kind.__name__)


def config_to_dict(config: Config) -> dict[str, Any]:
    """A config as nested plain values, ready for JSON or YAML."""
    return dataclasses.asdict(config)


def config_from_dict(values: Mapping[str, Any], *, preset: str | None = None) -> Config:
    """A checked config from nested or dotted keys, on top of a preset.

    Text is read as YAML reads it, so flags and files obey the same rules.

    Raises:
        ConfigError: One line that names every unknown key (with the nearest known one), every
            value of a wrong type or out of bounds and every pair that contradicts.
    """
    flat = {**_preset_values(preset), **dict(_flatten(values))}
    wrong = [*_unknown_keys(flat), *_wrong_values(flat), *contradictions(_ordered_values(flat))]
    if wrong:
        raise ConfigError(
            "; ".join(wrong),
            expected="keys and values as `stopgrad pretrain --help` lists them",
            hint="mend the keys named",
        )
    return _instantiate(flat)


def _preset_values(name: str | None) -> dict[str, Any]:
    from stopgrad.config.presets import PRESETS

    if name is None:
        return {}
    if name not in PRESETS:
        raise ConfigError(
            f"preset {name!r}{did_you_mean(name, PRESETS)}",
            expected=f"one of {', '.join(PRESETS)}",
            hint="name one of these, or none for the paper's CIFAR setting",
        )
    return dict(PRESETS[name])


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unknown_keys(flat: Mapping[str, Any]) -> Iterator[str]:
    known = [knob.key for knob in _knobs()]
    for key in flat:
        if key not in known:
            yield f"unknown key {key}{_nearest(key, known)}"


def _nearest(key: str, known: list[str]) -> str:
    """The nearest key path, or the one whose last word is nearest."""
    last = {path.rsplit(".", 1)[-1]: path for path in reversed(known)}
    word = next(iter(difflib.get_close_matches(key, [*known, *last], n=1, cutoff=0.6)), None)
    return f" (did you mean {last.get(word, word)}?)" if word else ""


def _wrong_values(flat: Mapping[str, Any]) -> Iterator[str]:
    """A clause for each known key whose value has a wrong type or lies out of bounds."""
    from jsonargparse import ArgumentError

    for knob in _knobs():
        if knob.key not in flat:
            continue
        try:
            value = _typed({knob.key: flat[knob.key]})[knob.key]
        except (ArgumentError, TypeError, ValueError):
            yield f"{knob.key} = {flat[knob.key]!r} (expected {kind_in_words(knob.kind)})"
        else:
            if not within(value, knob.bounds):
                yield f"{knob.key} = {value!r} (expected {in_words(knob.bounds)})"


def _ordered_values(flat: Mapping[str, Any]) -> dict[str, float]:
    """The values of the knobs that come in ordered pairs, those of a wrong type left out."""
    from jsonargparse import ArgumentError

    known: dict[str, Any] = {knob.key: knob.default for knob in _knobs()}
    values = {key: known[key] for pair in ORDERED for key in pair}
    for key in values.keys() & flat.keys():
        try:
            values |= _typed({key: flat[key]})
        except (ArgumentError, TypeError, ValueError):
            del values[key]
    return values


def _typed(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The given keys with their values converted to the types of their knobs."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    for knob in _knobs():
        if knob.key in flat:
            parser.add_argument(f"--{knob.key}", type=knob.kind, required=True)
    namespace = parser.parse_object(_nest(flat))
    return {key: namespace[key] for key in flat}


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = value
    return nested


def _instantiate(flat: Mapping[str, Any]) -> Config:
    nested = _nest(_typed(flat))
    for field in dataclasses.fields(Config):
        if field.name in nested and field.default_factory is not dataclasses.MISSING:
            nested[field.name] = field.default_factory(**nested[field.name])
    return Config(**nested)
