"""Initial weights, and BN that normalises each of two views by its own statistics.

In: modules of PyTorch or timm. Out: the same modules with initial weights or BN per view.
Parameters and buffers keep PyTorch's names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class PerView:
    """Makes a BN class normalise the two halves of a training batch separately.

    The halves are the two views of the same images. The running statistics are updated by the
    first half, then by the second. Evaluation is unchanged. Put it before the BN class:
    `class PerViewBatchNorm2d(PerView, nn.BatchNorm2d)`.
    """

    training: bool

    def forward(self, x: Tensor) -> Tensor:  # (2B, ...) -> the same
        """One half after the other in training, the whole batch in evaluation."""
        whole = super().forward  # type: ignore[misc]
        if not self.training:
            return whole(x)  # type: ignore[no-any-return]
        return torch.cat([whole(view) for view in x.chunk(2)])


class PerViewBatchNorm1d(PerView, nn.BatchNorm1d):
    """`nn.BatchNorm1d` of each view."""


class PerViewBatchNorm2d(PerView, nn.BatchNorm2d):
    """`nn.BatchNorm2d` of each view."""


def batch_norm_1d(width: int, *, per_view: bool, affine: bool = True) -> nn.BatchNorm1d:
    """BN over (B, width), of each view or of the whole batch."""
    return (PerViewBatchNorm1d if per_view else nn.BatchNorm1d)(width, affine=affine)


def batch_norm_2d(channels: int, *, per_view: bool) -> nn.BatchNorm2d:
    """BN over (B, channels, H, W), of each view or of the whole batch."""
    return (PerViewBatchNorm2d if per_view else nn.BatchNorm2d)(channels)


def split_views_in(module: nn.Module) -> None:
    """Lets every BN of a backbone normalise each view, with the same parameters and buffers.

    For timm's backbones, which are built without this choice; takes any BN class, also timm's BN
    with an activation.
    """
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            kind = type(layer)
            layer.__class__ = type(f"PerView{kind.__name__}", (PerView, kind), {})


def initialize(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Initialises every parameter and buffer of a module built on the meta device.

    Convolutions: He normal over the fan out, as in torchvision's ResNets. Linear layers: uniform
    within 1 / sqrt(fan in), PyTorch's default. BN: gain 1, offset 0, mean 0, variance 1.
    Draws in the order of `modules()` on the CPU, so that the device does not matter.
    """
    module.to_empty(device="cpu")
    for layer in module.modules():
        match layer:
            case nn.Conv2d():
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", generator=generator)
            case nn.Linear():
                _uniform_linear(layer, generator)
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                layer.reset_parameters()
    return module


def _uniform_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(layer.in_features)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
