"""Initial weights from an explicit generator, as PyTorch and torchvision define them."""

from __future__ import annotations

import math

import torch
from torch import nn


def initialize(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Gives every parameter and buffer of a module built on the meta device its first value.

    Convolutions: He normal over the fan out, as torchvision's ResNets. Linear layers: uniform
    within 1 / sqrt(fan in), PyTorch's default. BN: gain 1, offset 0, mean 0, variance 1.
    The draws follow the order of `modules()`, on the CPU, so that the device does not matter.
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
