"""A safetensors file of somebody else -> tensors of known names, shapes and types."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.runs import (
    HEADER,
    decode_tensors,
    header_bytes,
    header_tensors,
    misfit,
    not_finite,
    size_of,
)
from stopgrad.storage import as_text, in_short, read_file, read_json, read_start


def read_tensors(path: Path, wanted: Mapping[str, Tensor], *, hint: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; no more is read than those wanted can take.

    Args:
        path: The file; a card of ours beside it must agree with its bytes.
        wanted: Names, shapes and types, on any device.
        hint: What to do when the file holds other tensors.

    Raises:
        CheckpointError: When it is no safetensors file, damaged or not finite.
        ConfigError: When it holds other tensors, with the first of them.
    """
    try:
        found = header_tensors(read_start(path, header_bytes(read_start(path, 8))))
        refuse_misfit(found, wanted, source=str(path), hint=hint)
        data = read_file(path, most=HEADER + size_of(wanted))
        _check_card(path, data)
        tensors = decode_tensors(data)
    except (OSError, ValueError) as error:
        raise refused(path, in_short(error)) from error
    refuse_misfit(tensors, wanted, source=str(path), hint=hint)
    wrong = not_finite(tensors)
    if wrong:
        raise refused(path, wrong)
    return tensors


def refuse_misfit(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, source: str, hint: str
) -> None:
    """Refuses tensors that are not those wanted.

    Raises:
        ConfigError: With the first names that are missing, unknown or of another shape.
    """
    wrong = misfit(found, wanted)
    if not wrong:
        return
    shapes = (
        f"{key[:80]!a} is {_shape(found[key])}, not {_shape(wanted[key])}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    )
    first = next(shapes, "")
    raise ConfigError(
        f"{as_text(source)} does not fit the encoder ({wrong}{'; ' if first else ''}{first})",
        expected="the tensors of the encoder that is asked for",
        hint=hint,
    )


def card_of(path: Path) -> Path:
    """Where the card of a file of weights is: FILE.json beside it."""
    return path.with_name(f"{path.name}.json")


def refused(path: Path, reason: str) -> CheckpointError:
    """The error for a file that is not to be trusted."""
    return CheckpointError(
        f"{as_text(path)}: {as_text(reason)}",
        expected="a whole safetensors file of finite weights",
        hint="make one with: stopgrad export RUN --format safetensors --out FILE",
    )


def _check_card(path: Path, data: bytes) -> None:
    """Compares the bytes with the card that an export puts beside them."""
    card = card_of(path)
    if not card.is_file():
        return
    values = read_json(card)
    promised = values.get("sha256") if isinstance(values, dict) else None
    if promised is not None and promised != hashlib.sha256(data).hexdigest():
        raise ValueError(f"does not match the sha256 in {card.name}")


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "one number"
