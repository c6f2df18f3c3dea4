"""SimSiam: two views (B, C, S, S) -> p1, p2, z1, z2, each (B, D); and those -> the loss.

Paper: Sec. 3, Algorithm 1 and Eq. 1 to 4.
With `target = momentum` the z come from a moving average of encoder and projector, as in BYOL
(Grill et al. 2020), which the paper compares with.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.config import Config, torch_generator
from stopgrad.method.encoder import build_encoder
from stopgrad.method.heads import Projector, build_predictor, build_projector
from stopgrad.method.resnet import Encoder


class Outputs(NamedTuple):
    """Predictor outputs p, and the projector outputs z that they are compared with."""

    p1: Tensor  # (B, D)
    p2: Tensor  # (B, D)
    z1: Tensor  # (B, D)
    z2: Tensor  # (B, D)


class SimSiam(nn.Module):
    """Encoder f, projector g and predictor h; both views pass through the same weights at once.

    In training BN normalises each view by its own statistics, as if the views passed one after the
    other, or both views by joint statistics (`config.batch_norm`).
    Paper: does not say, but its code passes one view after the other; here: the same result.

    Args:
        encoder: f.
        projector: g.
        predictor: h.
        averaged: Compare p with z of a moving average of f and g, the `target`.
    """

    def __init__(
        self, encoder: Encoder, projector: Projector, predictor: nn.Module, *, averaged: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.predictor = predictor
        self.target = nn.ModuleList(copy.deepcopy([encoder, projector])) if averaged else None
        if self.target is not None:
            self.target.requires_grad_(False)

    def forward(self, x1: Tensor, x2: Tensor) -> Outputs:  # (B, C, S, S) twice
        x = torch.cat([x1, x2])
        z = _projected(self.encoder, self.projector, x)
        with torch.autocast(x.device.type, enabled=False):
            p = self.predictor(z)
        if self.target is not None:
            encoder, projector = self.target
            z = _projected(encoder, projector, x)
        return Outputs(*p.chunk(2), *z.chunk(2))

    @torch.no_grad()
    def follow(self, share: Tensor | float) -> None:
        """Moves the target, if there is one, by this share of the way to encoder and projector."""
        if self.target is None:
            return
        own = [*self.encoder.parameters(), *self.projector.parameters()]
        for average, parameter in zip(self.target.parameters(), own, strict=True):
            average.lerp_(parameter, torch.as_tensor(share).to(average))


def _projected(encoder: nn.Module, projector: nn.Module, x: Tensor) -> Tensor:  # -> (2B, D)
    features = widened(encoder(x))  # (2B, F)
    # The heads are a small part of the work, and bf16 has few digits for a cosine near 1.
    with torch.autocast(x.device.type, enabled=False):
        z: Tensor = projector(features)
    return z


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:  # (B, D), (B, D) -> ()
    """D(p, z) = - p/|p| . z/|z|, averaged over the batch, at least in fp32. Eq. 1."""
    return -F.cosine_similarity(widened(p), widened(z), dim=1).mean()


def simsiam_loss(outputs: Outputs, *, stop_gradient: bool) -> Tensor:  # -> ()
    """L = D(p1, sg(z2)) / 2 + D(p2, sg(z1)) / 2, within [-1, 1]. Eq. 4; Eq. 2 without sg."""
    z1, z2 = outputs.z1, outputs.z2
    if stop_gradient:
        z1, z2 = z1.detach(), z2.detach()
    return (negative_cosine(outputs.p1, z2) + negative_cosine(outputs.p2, z1)) / 2


def widened(x: Tensor) -> Tensor:
    """The values in fp32, or unchanged if they are in fp64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def in_fp64(x: Tensor) -> Tensor:
    """The values in fp64; moved to the CPU from MPS, which has no fp64."""
    return (x.cpu() if x.device.type == "mps" else x).double()


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
    return SimSiam(f, g, h, averaged=config.target == "momentum")
