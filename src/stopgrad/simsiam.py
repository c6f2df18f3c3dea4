"""SimSiam: two views (B, 3, S, S) -> p1, p2, z1, z2, each (B, D). Paper: Sec. 3, Algorithm 1."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stopgrad.config import Config
from stopgrad.encoder import build_encoder
from stopgrad.heads import Projector, build_predictor, build_projector
from stopgrad.randomness import torch_generator


class Outputs(NamedTuple):
    """Predictor outputs p and projector outputs z of the two views."""

    p1: Tensor  # (B, D)
    p2: Tensor  # (B, D)
    z1: Tensor  # (B, D)
    z2: Tensor  # (B, D)


class SimSiam(nn.Module):
    """Encoder f, projector g and predictor h; both views go through the same weights.

    Each view passes on its own, so that every BN sees the statistics of one view, as in the
    paper's code.
    """

    def __init__(self, encoder: nn.Module, projector: Projector, predictor: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.predictor = predictor

    def forward(self, x1: Tensor, x2: Tensor) -> Outputs:  # (B, 3, S, S) twice
        features1, features2 = widened(self.encoder(x1)), widened(self.encoder(x2))  # (B, F)
        # The heads are a small part of the work, and a cosine near 1 has few digits in bf16.
        with torch.autocast(x1.device.type, enabled=False):
            z1, z2 = self.projector(features1), self.projector(features2)  # (B, D)
            return Outputs(self.predictor(z1), self.predictor(z2), z1, z2)


def widened(x: Tensor) -> Tensor:
    """The same values in fp32, or in fp64 where they already are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def build_simsiam(config: Config) -> SimSiam:
    """The model of a config, with initial weights that depend on its seed alone."""
    encoder = build_encoder(config.encoder, torch_generator(config.seed, "encoder"))
    projector = build_projector(
        int(encoder.feature_width),  # type: ignore[arg-type]
        config.projector,
        torch_generator(config.seed, "projector"),
    )
    predictor = build_predictor(
        config.projector.out, config.predictor, torch_generator(config.seed, "predictor")
    )
    return SimSiam(encoder, projector, predictor)


@functools.cache
def training_flops(config: Config) -> float:
    """Floating-point operations that training spends on one view.

    Three times the forward pass's matrix products and convolutions, counted by PyTorch on the
    meta device: the backward pass takes each of them twice.
    """
    with torch.device("meta"):
        model = build_simsiam(config).to("meta")
        view = torch.empty(2, 3, config.views.size, config.views.size)
        with FlopCounterMode(display=False) as counter:
            model.predictor(model.projector(model.encoder(view)))
    return float(3 * counter.get_total_flops() / len(view))
