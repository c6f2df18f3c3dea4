"""A dataclass field that states its meaning and its bounds, and a config that checks them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Bounds = Mapping[str, float | None]
MOST = 1_000_000  # for a whole number: far more than any run has used


class Problem(NamedTuple):
    """A value that no run could use: its key path, the value found and the one expected."""

    key: str
    found: object
    expected: str


def knob(
    default: object,
    meaning: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A field with a default, one line of meaning (with unit and the paper's value) and bounds.

    A whole number is at most `MOST` unless another bound is given, so that no product overflows.
    """
    if at_most is None and type(default) is int:
        at_most = MOST
    bounds = {"above": above, "at_least": at_least, "at_most": at_most}
    return dataclasses.field(default=default, metadata={"meaning": meaning, "bounds": bounds})


def section(kind: type, meaning: str) -> Any:
    """A field that holds another config, with one line of meaning."""
    return dataclasses.field(default_factory=kind, metadata={"meaning": meaning})


def problems(config: DataclassInstance, *, prefix: str = "") -> Iterator[Problem]:
    """Every value in a config, and in the configs it holds, that lies outside its bounds."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        key = prefix + field.name
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from problems(value, prefix=f"{key}.")
        elif not within(value, field.metadata.get("bounds", {})):
            yield Problem(key, value, bounds_text(field.metadata["bounds"]))


def within(value: object, bounds: Bounds) -> bool:
    """Whether a number is finite and inside its bounds; anything else has none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    above, at_least, at_most = (bounds.get(name) for name in ("above", "at_least", "at_most"))
    return (
        abs(value) <= sys.float_info.max  # false for NaN, and for an integer beyond every float
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (at_most is None or value <= at_most)
    )


def bounds_text(bounds: Bounds) -> str:
    """The bounds as text: `a finite number above 0 and at most 1`."""
    names = {"above": "above", "at_least": "at least", "at_most": "at most"}
    parts = [f"{names[name]} {value:g}" for name, value in bounds.items() if value is not None]
    return "a finite number" + (" " + " and ".join(parts) if parts else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """Refuses values out of bounds when a config is made, naming all of them at once."""

    def __post_init__(self) -> None:
        """Raises ConfigError with every value out of bounds."""
        wrong = list(problems(self))
        if wrong:
            raise ConfigError(
                "; ".join(f"{p.key} = {p.found!r}" for p in wrong),
                expected="; ".join(f"{p.key} {p.expected}" for p in wrong),
                hint="correct the values named",
            )


ORDERED = (  # the first of a pair may not exceed the second
    ("views.crop_min", "views.crop_max"),
    ("views.blur_sigma_min", "views.blur_sigma_max"),
    ("optimizer.warmup_epochs", "epochs"),
)
DIVIDES = (("parts", "batch"),)  # the first of a pair divides the second
PAIRS = ORDERED + DIVIDES


def contradictions(values: Mapping[str, float]) -> Iterator[str]:
    """A clause for each pair of the given knobs, by key path, that contradict each other."""
    for low, high in ORDERED:
        if low in values and high in values and values[low] > values[high]:
            yield f"{low} = {values[low]:g}, {high} = {values[high]:g} (expected {low} <= {high})"
    for part, whole in DIVIDES:
        if values.get(part, 0) > 0 and whole in values and values[whole] % values[part]:
            yield f"{whole} = {values[whole]:g} is not a multiple of {part} = {values[part]:g}"
