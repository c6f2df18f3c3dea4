"""From a mapping or flags to a checked `Config`, and back; all errors at once.

jsonargparse validates the types; bounds are those that the knobs state.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.config.bounds import Bounds, bounds_text, contradictions, within
from stopgrad.config.guesses import guess
from stopgrad.config.knobs import Config
from stopgrad.config.presets import PRESETS, PresetName
from stopgrad.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


class Knob(NamedTuple):
    """One row of the page of knobs, for help and documentation."""

    key: str
    kind: object
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
    """Every knob of a run, computed once."""
    return tuple(describe_knobs())


def _kind_text(kind: object) -> str:
    """A knob's type as text: `int`, `true or false`, `one of sgd, lars`."""
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(str(choice) for choice in typing.get_args(kind))}"
    return "true or false" if kind is bool else str(getattr(kind, "__name__", kind))


def config_to_dict(config: Config) -> dict[str, Any]:
    """A config as nested plain values, ready for JSON or YAML."""
    return dataclasses.asdict(config)


def knob_values(config: Config) -> dict[str, Any]:
    """The value of every knob by its key path."""
    return key_paths(config_to_dict(config))


def key_paths(
    values: Mapping[str, object], *, is_value: Callable[[Mapping[str, Any]], bool] | None = None
) -> dict[str, Any]:
    """Nested keys as key paths: `{"views": {"size": 32}}` -> `{"views.size": 32}`.

    Args:
        values: By key; a key may be a path already.
        is_value: True for mappings to keep as values; None: all are flattened.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and not (is_value and is_value(value)):
            below = key_paths(value, is_value=is_value)
            found |= {f"{key}.{path}": leaf for path, leaf in below.items()}
        else:
            found[f"{key}"] = value
    return found


def preset(name: PresetName, **changes: object) -> Config:
    """A preset with changes given by key path, `preset("cpu", **{"views.size": 24})`.

    Raises:
        ConfigError: For an unknown preset, an unknown key or a value no run could use.
    """
    return config_from_dict(changes, preset=name)


def config_from_dict(values: Mapping[str, object], *, preset: str | None = None) -> Config:
    """A checked config from nested or dotted keys, on top of a preset.

    Text is read as YAML reads it, so flags and files obey the same rules.

    Raises:
        ConfigError: One line that names every unknown key (with the nearest known one), every
            value of a wrong type or out of bounds and every pair that contradicts.
    """
    plain = {key: _plain(value) for key, value in values.items()}
    flat = {**_preset_values(preset), **key_paths(plain)}
    read = _read_values(flat)
    usual: dict[str, Any] = {knob.key: knob.default for knob in _knobs() if knob.key not in flat}
    wrong = [*_unknown_keys(flat), *read.wrong, *contradictions(usual | read.values)]
    if wrong:
        raise ConfigError(
            "; ".join(wrong),
            expected="keys and values as `stopgrad pretrain --help-all` lists them",
            hint="correct the keys named",
        )
    return _instantiate(read.values)


def _plain(value: object) -> object:
    """A section as its values by key, a number of NumPy's as one of Python's."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.item() if getattr(value, "shape", None) == () else value  # type: ignore[attr-defined]


def _preset_values(name: str | None) -> dict[str, object]:
    if name is None:
        return {}
    if name not in PRESETS:
        raise ConfigError(
            f"preset {name!r}{did_you_mean(name.lower(), PRESETS)}",
            expected=f"one of {', '.join(PRESETS)}",
            hint="name one of these, or none for the paper's CIFAR setting",
        )
    return dict(PRESETS[name])


def _unknown_keys(flat: Mapping[str, object]) -> Iterator[str]:
    known = [knob.key for knob in _knobs()]
    for key in flat:
        if key not in known:
            said = guess(key, known)
            if not said or _is_typo(key, said, known):
                said = _nearest(key, known)
            yield f"unknown key {key}{said and f' ({said})'}"


def _is_typo(key: str, said: str, known: list[str]) -> bool:
    """Whether a key below a section has a typo, though other tools use its name: `views.blr`."""
    section = f"{key.rpartition('.')[0]}."
    mates = [path for path in known if path.startswith(section)]
    near = difflib.get_close_matches(key, mates, n=1, cutoff=0.85)
    return bool(near) and not said.startswith(f"here {section}")


def _nearest(key: str, known: list[str]) -> str:
    """The nearest key path, or the one whose last word is nearest."""
    last = {path.rsplit(".", 1)[-1]: path for path in reversed(known)}
    word = next(iter(difflib.get_close_matches(key, [*known, *last], n=1, cutoff=0.6)), None)
    return f"did you mean {last.get(word, word)}?" if word else ""


class _Read(NamedTuple):
    values: dict[str, Any]  # by key path, each of the type of its knob
    wrong: list[str]  # a clause for each value of a wrong type or out of bounds


def _read_values(flat: Mapping[str, object]) -> _Read:
    """The values of the known knobs, converted to their types."""
    from jsonargparse import ArgumentError

    read = _Read({}, [])
    for knob in (knob for knob in _knobs() if knob.key in flat):
        found = flat[knob.key]
        try:
            value = _parser(knob.kind).parse_object({"value": found})["value"]
        except (ArgumentError, TypeError, ValueError, OverflowError):
            read.wrong.append(f"{knob.key} = {found!r} (expected {_kind_text(knob.kind)})")
            continue
        read.values[knob.key] = value
        if not within(value, knob.bounds):
            read.wrong.append(f"{knob.key} = {value!r} (expected {bounds_text(knob.bounds)})")
    return read


@functools.cache
def _parser(kind: object) -> ArgumentParser:
    """A parser of one value of a type; one of the whole config would stop at its first error."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind, required=True)
    return parser


def _instantiate(flat: Mapping[str, Any]) -> Config:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, leaf = key.split(".")
        level = nested
        for name in sections:
            level = level.setdefault(name, {})
        level[leaf] = value
    for field in dataclasses.fields(Config):
        if field.name in nested and field.default_factory is not dataclasses.MISSING:
            nested[field.name] = field.default_factory(**nested[field.name])
    return Config(**nested)
