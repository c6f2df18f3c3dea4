"""How images are read if there is more than one way, and how a user names their bands."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from stopgrad.errors import ConfigError

Bands: TypeAlias = tuple[int, ...]
"""Bands of an image, counted from 1; (): the colours of its format."""

ALL_BANDS: Bands = (0,)  # as many as an image has


class Reading(NamedTuple):
    """How a data set is read if there is more than one way; by default the rules decide."""

    split: str = ""  # the one that is scored, by its name in the data
    image_column: str = ""  # of a table
    label_column: str = ""
    white_level: float = 0.0  # the value that is white in images of more than 8 bits
    bands: Bands = ()
    levels: tuple[tuple[str, float, float], ...] = ()  # depth, black and white of images of more
    # than 8 bits; those of another depth have levels of their own
    square: bool = False  # whether images that share a size below the side become squares of it


BY_RULE = Reading()


def are_colours(bands: Bands) -> bool:
    """Whether these bands become red, green and blue, or gray; else each is a channel."""
    return bands != ALL_BANDS and len(bands) in (0, 1, 3)


def read_bands(text: str) -> Bands:
    """Bands of an image as a user names them, counted from 1: "4,3,2" -> (4, 3, 2), "auto" -> ().

    Raises:
        ConfigError: For anything but numbers, `auto` and `all`.
    """
    if text in NAMED_BANDS:
        return NAMED_BANDS[text]
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() and int(part) > 0 for part in parts):
        return tuple(map(int, parts))
    raise ConfigError(
        f"bands = {text!r}",
        expected="bands counted from 1, or all",
        hint="write for example --bands 4,3,2",
    )


def bands_as_text(bands: Bands) -> str:
    """Bands as a user would name them, and as `read_bands` reads them."""
    names = {of: name for name, of in NAMED_BANDS.items()}
    return names.get(bands) or ",".join(map(str, bands))


NAMED_BANDS: dict[str, Bands] = {"auto": (), "all": ALL_BANDS}
