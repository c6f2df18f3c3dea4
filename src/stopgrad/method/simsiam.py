"""SimSiam: two views (B, 3, S, S) -> p1, p2, z1, z2, each (B, D). Paper: Sec. 3, Algorithm 1."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stopgrad.config import Config, torch_generator
from stopgrad.method.encoder.build import build_encoder
from stopgrad.method.heads import Projector, build_predictor, build_projector


class Outputs(NamedTuple):
    """Predictor outputs p and projector outputs z of the two views."""

    p1: Tensor  # (B, D)
    p2: Tensor  # (B, D)
    z1: Tensor  # (B, D)
    z2: Tensor  # (B, D)


class SimSiam(nn.Module):
    """Encoder f, projector g and predictor h; both views go through the same weights in one pass.

    In training every BN normalises each view by its own statistics, as if the views had passed
    one after the other (`apart`), or both views by those of both.
    Paper: does not say, its code passes the views one after the other; here: `apart`.
    """

    def __init__(
        self, encoder: nn.Module, projector: Projector, predictor: nn.Module, *, apart: bool = True
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.predictor = predictor
        if apart:
            keep_views_apart(self)

    def forward(self, x1: Tensor, x2: Tensor) -> Outputs:  # (B, 3, S, S) twice
        features = widened(self.encoder(torch.cat([x1, x2])))  # (2B, F)
        # The heads are a small part of the work, and a cosine near 1 has few digits in bf16.
        with torch.autocast(x1.device.type, enabled=False):
            z = self.projector(features)  # (2B, D)
            return Outputs(*self.predictor(z).chunk(2), *z.chunk(2))


def keep_views_apart(module: nn.Module) -> None:
    """Lets every BN in a module normalise the two halves of its batch apart, when it trains.

    The running statistics take in the first half, then the second. Weights, buffers and their
    names stay; in evaluation nothing changes.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.__class__ = _of_views_apart(type(layer))  # type: ignore[arg-type, assignment]


@functools.cache
def _of_views_apart(kind: type[nn.Module]) -> type[nn.Module]:
    """A kind of BN (PyTorch's own or a subclass such as timm's) that keeps the halves apart."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        if not self.training:
            return kind.forward(self, x)  # type: ignore[no-any-return]
        return torch.cat([kind.forward(self, view) for view in x.chunk(2)])

    return type(f"ViewsApart{kind.__name__}", (kind,), {"forward": forward})


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
    apart = config.batch_norm == "per-view"
    return SimSiam(encoder, projector, predictor, apart=apart)


@functools.cache
def training_flops(config: Config) -> float:
    """Floating-point operations that training spends on one view.

    Three times the forward pass's matrix products and convolutions, counted by PyTorch on the
    meta device: the backward pass takes each of them twice.
    """
    with torch.device("meta"):
        model = build_simsiam(config).to("meta")
        view = torch.empty(4, 3, config.views.size, config.views.size)
        with FlopCounterMode(display=False) as counter:
            model.predictor(model.projector(model.encoder(view)))
    return float(3 * counter.get_total_flops() / len(view))
