"""A fitted embedder as plain values, and as one safetensors file.

The file holds the encoder's weights by their names, so any reader of safetensors can use them. The
entry `stopgrad.estimator` of its header holds the rest as JSON, and a sha256 of everything.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from stopgrad.config import Config, config_from_dict, config_to_dict, torch_generator
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.export.arrays import Numbers, Range
from stopgrad.images import Dataset, Images, Levels, Normalization, Pixels, images_from_arrays
from stopgrad.method import Encoder, Verdict, build_encoder, compute_for, on_this_machine
from stopgrad.runs import encoder_tensors, fit_sizes, misfit, not_finite
from stopgrad.storage import LARGEST_JSON, fits, in_short, read_file, strict_json

FORMAT = 1
ENTRY = "stopgrad.estimator"
MOST_BYTES = 4 << 30  # of a file; the largest encoders of timm take about 2 GB
TUPLES = ("image_shape", "pixel_range")  # parameters that JSON turns into lists


class Fitted(NamedTuple):
    """Everything that a fitted embedder knows."""

    parameters: dict[str, Any]  # of `SimSiamEmbedder.__init__`
    config: Config
    normalization: Normalization
    loss_curve: tuple[float, ...]
    verdict: Verdict
    image_shape: tuple[int, ...]  # (H, W, C)
    range: Range | None
    feature_names: tuple[str, ...]  # of the columns of a data frame, or ()
    weights: Mapping[str, Numbers]  # the encoder's state dict
    levels: tuple[Levels, ...] = ()  # of files of more than 8 bits


def plain(fitted: Fitted) -> dict[str, Any]:
    """A fitted embedder as JSON values and the arrays of its weights."""
    return fitted._asdict() | {
        "format": FORMAT,
        "config": config_to_dict(fitted.config),
        "normalization": fitted.normalization._asdict(),
        "verdict": fitted.verdict._asdict(),
        "range": fitted.range and fitted.range._asdict(),
    }


def from_plain(values: Mapping[str, Any], *, what: str = "an embedder") -> Fitted:
    """The fitted embedder that `plain` described.

    Raises:
        CheckpointError: When the values do not describe one; the error names `what` was read.
    """
    try:
        return _from_plain(values)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise _refused(what, in_short(error)) from error


def _from_plain(values: Mapping[str, Any]) -> Fitted:
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']}, not {FORMAT}")
    parameters = {
        key: tuple(value) if key in TUPLES and isinstance(value, list) else value
        for key, value in values["parameters"].items()
    }
    mean, std = (tuple(values["normalization"][key]) for key in ("mean", "std"))
    shape = tuple(int(part) for part in values["image_shape"])
    losses = tuple(values["loss_curve"])
    config = config_from_dict(values["config"])
    wrong = not len(mean) == len(std) == config.encoder.channels or len(shape) != 3
    if wrong or min(*std, *shape) <= 0:
        raise ValueError("normalization or image_shape is wrong")
    if not fits([*mean, *std, *losses], list[float]):
        raise ValueError("normalization or loss_curve holds something other than numbers")
    return Fitted(
        parameters=parameters,
        config=config,
        normalization=Normalization(mean, std),
        loss_curve=losses,
        verdict=Verdict(**values["verdict"]),
        image_shape=shape,
        range=Range(**values["range"]) if values["range"] is not None else None,
        feature_names=tuple(values["feature_names"]),
        weights=values["weights"],
        levels=tuple(Levels(*of) for of in values.get("levels", [])),
    )


def to_bytes(fitted: Fitted) -> bytes:
    """The file of a fitted embedder; ConfigError when JSON cannot hold its parameters."""
    from safetensors.numpy import save

    weights = {key: np.asarray(value, order="C") for key, value in fitted.weights.items()}
    values = plain(fitted)
    del values["weights"]
    try:
        card = json.dumps(values, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"parameters that cannot be saved ({in_short(error)})",
            expected="text, numbers, booleans or None",
            hint="set plain values with set_params",
        ) from error
    sealed = json.dumps({"card": card, "sha256": _digest(card, weights)})
    return save(weights, metadata={ENTRY: sealed})


def from_bytes(path: Path) -> Fitted:
    """The fitted embedder of a file.

    Raises:
        CheckpointError: When it is damaged or was not written by `to_bytes`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = read_file(path, most=MOST_BYTES)
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > min(len(data) - 8, LARGEST_JSON):
            raise ValueError("not a safetensors file")
        sealed = strict_json(strict_json(data[8 : 8 + length])["__metadata__"][ENTRY].encode())
        weights = load(data)
        if _digest(sealed["card"], weights) != sealed["sha256"]:
            raise ValueError("the sha256 does not match")
        values = {**strict_json(sealed["card"].encode()), "weights": weights}
    except (OSError, KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise _refused(str(path), in_short(error)) from error
    return from_plain(values, what=str(path))


def _digest(card: str, weights: Mapping[str, Numbers]) -> str:
    """sha256 in hex over the card and the sorted (name, type, shape, bytes) of the weights."""
    digest = hashlib.sha256(card.encode())
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _refused(what: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"cannot load {what} ({reason})",
        expected="what SimSiamEmbedder.save or pickle wrote, with this or an older version",
        hint="fit the embedder again",
    )


def checked_config(values: Mapping[str, Any], *, preset: str) -> Config:
    """A config from a preset and key paths; accepts NumPy's numbers, as in grid searches.

    Raises:
        ConfigError: As `config_from_dict`.
    """
    return _parsed(json.dumps(values, default=_plain), preset)


@functools.lru_cache(maxsize=32)
def _parsed(text: str, preset: str) -> Config:
    """The checked config; cached, as checking is slow and a search repeats its configs."""
    return config_from_dict(json.loads(text), preset=preset)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else repr(value)


def copied_encoder(config: Config, weights: Mapping[str, Tensor]) -> Encoder:
    """The encoder in eval mode without gradients, on the config's device, with ordinary BN.

    Raises:
        CheckpointError: When the weights do not fit the config's encoder, or are not finite.
    """
    # Compared before anything is built: an untrusted config may ask for more memory than there is.
    wrong = misfit(weights, encoder_tensors(config.encoder)) or not_finite(weights)
    if wrong:
        raise CheckpointError(
            f"the weights do not fit {config.encoder.name} ({wrong})",
            expected="the weights that the embedder was saved with",
            hint="do not use this file; fit the embedder again",
        )
    encoder = build_encoder(config.encoder, torch_generator(config.seed, "encoder"))
    encoder.load_state_dict(dict(weights))
    return compute_for(on_this_machine(config)).place(encoder).eval().requires_grad_(False)


def whole_images(pixels: Pixels, config: Config) -> Images:  # (N, H, W, C)
    """Images at a size that the encoder takes, see `fit_sizes`.

    Raises:
        ConfigError: When the encoder takes no such size, or no such number of channels.
    """
    images = images_from_arrays(pixels, channels=pixels.shape[3])
    return replace(images, whole_side=_whole_side(config, *pixels.shape[1:]))


@functools.lru_cache(maxsize=32)
def _whole_side(config: Config, height: int, width: int, channels: int) -> int:
    """px, or 0 for no resizing. Cached, because a large backbone is slow to build."""
    pixels = np.zeros((1, height, width, channels), np.uint8)
    one = images_from_arrays(pixels, channels=channels)
    return fit_sizes(Dataset("images", one, None), config).train.whole_side
