"""`PretrainedEncoder`: an exported encoder as one object, from a file, a folder or the Hub."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from stopgrad.config import EncoderConfig, config_from_dict, torch_generator
from stopgrad.errors import CheckpointError, DataError
from stopgrad.images import Normalization, checked_answers
from stopgrad.method import build_encoder, normalize, plain_torch
from stopgrad.runs import encode_tensors, encoder_tensors
from stopgrad.storage import as_text, in_short, read_json, user_path, write_atomically
from stopgrad.training import card_of, read_tensors

WEIGHTS = "model.safetensors"
FILES = "the files of: stopgrad export RUN"


class PretrainedEncoder(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="stopgrad",
    pipeline_tag="image-feature-extraction",
    tags=["self-supervised-learning", "simsiam"],
):
    """An encoder with its normalisation: pixels -> features (B, F).

    `from_pretrained` takes a folder or a repository of the Hub, `from_file` a safetensors export.
    Only safetensors are read, and they must be exactly the encoder's.

    Args:
        encoder: The fields of `EncoderConfig`.
        preprocessing: mean and std of each channel, and the other fields of a card.
    """

    def __init__(self, encoder: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> None:
        super().__init__()
        config = _encoder_config(encoder)
        self.normalization = _normalization(preprocessing)
        self.preprocessing = dict(preprocessing)
        with plain_torch():
            self.encoder = build_encoder(config, torch_generator(0, "encoder"))
        self.feature_width = self.encoder.feature_width
        self.eval()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) normalised -> (B, F)
        features: Tensor = self.encoder(x)
        return features

    @torch.inference_mode()
    def embed(self, pixels: Tensor | npt.NDArray[np.uint8]) -> Tensor:  # (B, H, W, C) -> (B, F)
        """Features of images from 0 to 255; normalises them first.

        Raises:
            DataError: For anything but bytes of shape (B, H, W, C).
        """
        bytes_ = torch.as_tensor(pixels)
        channels = len(self.normalization.mean)
        taken = {channels, 3} if channels == 1 else {channels}
        if bytes_.dtype != torch.uint8 or bytes_.ndim != 4 or bytes_.shape[3] not in taken:
            raise DataError(
                f"pixels of shape {tuple(bytes_.shape)} and type {bytes_.dtype}",
                expected=f"(B, H, W, {' or '.join(map(str, sorted(taken)))}) of torch.uint8, from "
                "0 to 255",
                hint="give one image as x[None], and floats from 0 to 1 as (255 * x).byte()",
            )
        device = next(self.parameters()).device
        x = normalize(bytes_.to(device).permute(0, 3, 1, 2), self.normalization)
        return self.forward(x)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a safetensors file and the card beside it.

        Raises:
            CheckpointError: When the card or the weights are not those of an export.
            ConfigError: When the weights belong to another encoder.
        """
        file = user_path(path)
        if not file.exists():
            raise CheckpointError(
                f"{file} does not exist",
                expected="a file of: stopgrad export RUN --format safetensors",
                hint="check the path",
            )
        card = _card(card_of(file))
        return cls._read(file, card["encoder"], card["preprocessing"])

    @classmethod
    def _read(
        cls, file: Path, encoder: Mapping[str, Any], preprocessing: Mapping[str, Any]
    ) -> Self:
        """Reads the weights first: a hostile config cannot claim more memory than they fill."""
        wanted = encoder_tensors(_encoder_config(encoder))
        tensors = read_tensors(file, wanted, hint=f"use {FILES}")
        model = cls(encoder, preprocessing)
        model.encoder.load_state_dict(tensors)
        return model

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Self:
        """As the mixin's method, but a DataError when a Hub answers with unsafe file names."""
        with checked_answers():
            return super().from_pretrained(*args, **options)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        map_location: str = "cpu",
        strict: bool = True,
        **knobs: Any,  # a parameter named config would get the whole file
    ) -> Self:
        """Replaces the mixin's method, which reads a pickle where there are no safetensors."""
        if not strict or set(knobs) != {"encoder", "preprocessing"}:
            raise _no_export(Path(model_id) / "config.json", "encoder and preprocessing expected")
        file = Path(model_id) / WEIGHTS
        if not Path(model_id).is_dir():
            from huggingface_hub import hf_hub_download

            file = Path(
                hf_hub_download(
                    model_id,
                    WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            ).resolve()  # the cache of the Hub's client holds links
        return cls._read(file, **knobs).to(map_location)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Writes the weights by the encoder's own names, which torchvision and timm share."""
        write_atomically(save_directory / WEIGHTS, encode_tensors(self.encoder.state_dict()))
        config = json.dumps(self._hub_mixin_config, indent=2, sort_keys=True)
        write_atomically(save_directory / "config.json", (config + "\n").encode())


def _card(path: Path) -> dict[str, Any]:
    try:
        card = read_json(path)
        if not isinstance(card, dict) or not {"encoder", "preprocessing"} <= card.keys():
            raise ValueError("not the card of an encoder")
    except (OSError, ValueError) as error:
        raise _no_export(path, in_short(error)) from error
    return card


def _encoder_config(values: Any) -> EncoderConfig:
    if not isinstance(values, Mapping):
        raise _no_export(Path("encoder"), "not an object of knobs")
    return config_from_dict({"encoder": dict(values)}).encoder


def _normalization(values: Any) -> Normalization:
    try:
        mean, std = (tuple(map(float, values[key])) for key in ("mean", "std"))
        fit = mean and len(std) == len(mean) and min(std) > 0
        if not fit or not all(map(math.isfinite, mean + std)):
            raise ValueError("mean and std of each channel expected")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _no_export(Path("preprocessing"), in_short(error)) from error
    return Normalization(mean, std)


def _no_export(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{as_text(path)} is not part of an encoder that stopgrad exported ({as_text(reason)})",
        expected=FILES,
        hint="do not trust it; export the encoder again",
    )
