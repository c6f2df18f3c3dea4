"""From parameters to a config, to its encoder, and to pictures at a size that it takes."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stopgrad.config import Config, config_from_dict, torch_generator
from stopgrad.errors import CheckpointError
from stopgrad.images import Dataset, Images, Pixels, images_from_arrays
from stopgrad.method import Encoder, build_encoder, compute_for
from stopgrad.runs import fit_sizes, misfit, tensors_of

PREFIX = "encoder."  # of the encoder's tensors in SimSiam


def checked_config(values: Mapping[str, Any], *, preset: str) -> Config:
    """A config of a preset and key paths; NumPy's numbers count as numbers, as in grids.

    Raises:
        ConfigError: As `config_from_dict`.
    """
    return _parsed(json.dumps(values, default=_plain), preset)


@functools.lru_cache(maxsize=32)
def _parsed(text: str, preset: str) -> Config:
    """A config from JSON; a search asks for the same one many times, and checking it is slow."""
    return config_from_dict(json.loads(text), preset=preset)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else repr(value)


def copied_encoder(config: Config, weights: Mapping[str, Tensor]) -> Encoder:
    """A plain encoder in eval mode, on the device of the config; needs no gradient.

    It is filled with weights that are compared with it first.
    Plain: pretraining taught its BN that a batch is two views.

    Raises:
        CheckpointError: When the weights are not those of the config's encoder, or not finite.
    """
    # Known without memory: the config may be somebody else's, and ask for more than there is.
    wanted = {
        key.removeprefix(PREFIX): value
        for key, value in tensors_of(config).model.items()
        if key.startswith(PREFIX)
    }
    wrong = misfit(weights, wanted)
    if not wrong and not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        wrong = "weights that are not finite"
    if wrong:
        raise CheckpointError(
            f"weights that are not those of {config.encoder.name} ({wrong})",
            expected="the weights that an embedder was saved with",
            hint="do not use this file; fit the embedder anew",
        )
    encoder = build_encoder(config.encoder, torch_generator(config.seed, "encoder"))
    encoder.load_state_dict(dict(weights))
    return compute_for(config).place(encoder).eval().requires_grad_(False)


def whole_images(pixels: Pixels, config: Config) -> Images:  # (N, H, W, 3)
    """Pictures that are seen whole at a size that the encoder takes, see `fit_sizes`.

    Raises:
        ConfigError: When there is none.
    """
    height, width = pixels.shape[1:3]
    return replace(images_from_arrays(pixels), whole_side=_whole_side(config, height, width))


@functools.lru_cache(maxsize=32)
def _whole_side(config: Config, height: int, width: int) -> int:
    """px, 0: as they are. Asked for with every call, and a large backbone is slow to build."""
    one = images_from_arrays(np.zeros((1, height, width, 3), np.uint8))
    return fit_sizes(Dataset("pictures", one, None), config).train.whole_side
