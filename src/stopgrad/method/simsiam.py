"""SimSiam: two views (B, C, S, S) -> p1, p2, z1, z2, each (B, D). Paper: Sec. 3, Algorithm 1."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stopgrad.config import Config, torch_generator
from stopgrad.method.encoder import build_encoder
from stopgrad.method.heads import Projector, build_predictor, build_projector
from stopgrad.method.resnet import Encoder


class Outputs(NamedTuple):
    """Predictor outputs p and projector outputs z of the two views."""

    p1: Tensor  # (B, D)
    p2: Tensor  # (B, D)
    z1: Tensor  # (B, D)
    z2: Tensor  # (B, D)


class SimSiam(nn.Module):
    """Encoder f, projector g and predictor h; both views pass through the same weights at once.

    In training BN normalises each view by its own statistics, as if the views passed one after the
    other, or both views by joint statistics (`config.batch_norm`).
    Paper: does not say, but its code passes one view after the other; here: the same result.
    """

    def __init__(self, encoder: Encoder, projector: Projector, predictor: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.predictor = predictor

    def forward(self, x1: Tensor, x2: Tensor) -> Outputs:  # (B, C, S, S) twice
        features = widened(self.encoder(torch.cat([x1, x2])))  # (2B, F)
        # The heads are a small part of the work, and bf16 has few digits for a cosine near 1.
        with torch.autocast(x1.device.type, enabled=False):
            z = self.projector(features)  # (2B, D)
            return Outputs(*self.predictor(z).chunk(2), *z.chunk(2))


def widened(x: Tensor) -> Tensor:
    """The values in fp32, or unchanged if they are in fp64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def build_simsiam(config: Config) -> SimSiam:
    """The model of a config; its initial weights depend only on the seed.

    Raises:
        ConfigError: For an encoder that does not exist.
    """
    per_view = config.batch_norm == "per-view"
    encoder, projector, predictor = (
        torch_generator(config.seed, part) for part in ("encoder", "projector", "predictor")
    )
    f = build_encoder(config.encoder, encoder, per_view=per_view)
    g = build_projector(f.feature_width, config.projector, projector, per_view=per_view)
    h = build_predictor(config.projector.out, config.predictor, predictor, per_view=per_view)
    return SimSiam(f, g, h)


@functools.cache
def training_flops(config: Config) -> float:
    """Floating-point operations of training per view.

    PyTorch counts the matrix products and convolutions of a forward pass on the meta device; the
    backward pass takes twice as many.
    """
    with torch.device("meta"):
        model = build_simsiam(config).to("meta")
        view = torch.empty(4, config.encoder.channels, config.views.size, config.views.size)
        with FlopCounterMode(display=False) as counter:
            model.predictor(model.projector(model.encoder(view)))
    return float(3 * counter.get_total_flops() / len(view))
