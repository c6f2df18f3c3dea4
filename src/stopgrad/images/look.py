"""One encoded picture -> what is odd about it, and a digest of its pixels at full size."""

from __future__ import annotations

import hashlib
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

from stopgrad.images.decoding import Damaged, guarded, opened, to_rgb, turn_of
from stopgrad.images.source import Encoded

if TYPE_CHECKING:
    from PIL.Image import Image

Trait = Literal[
    "animated",
    "sixteen_bit",
    "cmyk",
    "palette",
    "alpha",
    "rotated",
    "elongated",
    "few_colours",
    "constant",
]
LONGEST = 3  # times the short side; of longer pictures a square holds less than a third
FEW = 4  # distinct colours that are very few


class Look(NamedTuple):
    """What a readable picture is like, upright and at full size."""

    format: str  # by Pillow's name: PNG, JPEG, ...
    height: int  # px
    width: int  # px
    traits: tuple[Trait, ...]
    digest: bytes  # of size and RGB pixels: equal for equal pictures in any lossless format


def look(picture: Encoded) -> Look | Damaged:
    """Decode one picture at full size, as strictly as for training, and describe it."""
    return guarded(picture, _look)


def _look(file: IO[bytes]) -> Look:
    with opened(file) as image:
        header = _traits_of_header(image)
        kind = image.format or "unknown"
        turn = turn_of(image)
        rgb = to_rgb(image)
        alpha = image.has_transparency_data
        upright = rgb if turn is None else rgb.transpose(turn)
        traits: dict[Trait, bool] = {
            **header,
            "alpha": alpha,
            "rotated": turn is not None,
            "elongated": max(rgb.size) > LONGEST * min(rgb.size),
            **_traits_of_colours(upright),
            "animated": _is_animated(image),
        }
    digest = hashlib.blake2b(repr(upright.size).encode(), digest_size=16)
    digest.update(upright.tobytes())
    found = tuple(trait for trait, holds in traits.items() if holds)
    return Look(kind, upright.height, upright.width, found, digest.digest())


def _traits_of_header(image: Image) -> dict[Trait, bool]:
    """What only the header says; decoding converts or forgets it."""
    return {
        "sixteen_bit": image.mode.startswith("I") or _is_deep(image),
        "cmyk": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
    }


def _is_deep(image: Image) -> bool:
    """Whether the channels of a colour picture have 16 bits, of which Pillow keeps 8.

    Its names of raw layouts end in ;16, ;16B, ...; PPM gives the largest value instead.
    """
    arguments = [tile.args for tile in getattr(image, "tile", [])]
    parts = [part for each in arguments for part in (each if isinstance(each, tuple) else (each,))]
    if image.format == "PPM":
        return any(isinstance(part, int) and part > 255 for part in parts)
    return any(";16" in part for part in parts if isinstance(part, str))


def _traits_of_colours(rgb: Image) -> dict[Trait, bool]:
    colours = rgb.getcolors(FEW)  # None: more than these
    return {
        "few_colours": colours is not None and len(colours) > 1,
        "constant": colours is not None and len(colours) == 1,
    }


def _is_animated(image: Image) -> bool:
    """Whether there are more frames or pages; a second one that cannot be read is none."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        return False
