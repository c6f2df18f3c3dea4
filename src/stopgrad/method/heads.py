"""Projector g and predictor h. Paper: Sec. 3, Appendix D.

In: features (B, F) or z (B, D). Out: z (B, D) or p (B, D).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stopgrad.config import PredictorConfig, ProjectorConfig
from stopgrad.method.layers import batch_norm_1d, initialize


class Projector(nn.Module):
    """Projector g: features (B, F) -> z (B, D).

    CIFAR: F -> 512 -> 2048, each layer with BN and the hidden one with ReLU; ImageNet: three
    layers.
    Paper: the output BN is affine (Sec. 3); here: not affine, as in the report on CIFAR-10.
    """

    def __init__(self, features: int, config: ProjectorConfig, *, per_view: bool = False) -> None:
        super().__init__()
        self.hidden = nn.Sequential()
        inputs, bn = features, config.hidden_bn
        for _ in range(config.layers - 1):
            self.hidden.append(_hidden(inputs, config.hidden, bn=bn, per_view=per_view))
            inputs = config.hidden
        self.output = nn.Linear(inputs, config.out, bias=not config.output_bn)
        self.output_bn: nn.Module = nn.Identity()
        if config.output_bn:
            self.output_bn = batch_norm_1d(config.out, per_view=per_view, affine=False)

    def before_bn(self, features: Tensor) -> Tensor:  # (B, F) -> (B, D)
        """The projector's output before its last BN, where a collapse shows first."""
        return self.output(self.hidden(features))  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:  # (B, F) -> (B, D)
        return self.output_bn(self.before_bn(features))  # type: ignore[no-any-return]


class Predictor(nn.Module):
    """Predictor h: z (B, D) -> p (B, D). D -> 512 -> D, BN and ReLU on the hidden layer only."""

    def __init__(self, width: int, config: PredictorConfig, *, per_view: bool = False) -> None:
        super().__init__()
        self.hidden = _hidden(width, config.hidden, bn=config.hidden_bn, per_view=per_view)
        self.output = nn.Linear(config.hidden, width)

    def forward(self, z: Tensor) -> Tensor:  # (B, D) -> (B, D)
        return self.output(self.hidden(z))  # type: ignore[no-any-return]


def build_projector(
    features: int, config: ProjectorConfig, generator: torch.Generator, *, per_view: bool = False
) -> Projector:
    """A projector for features (B, F), with weights from the generator."""
    with torch.device("meta"):
        projector = Projector(features, config, per_view=per_view)
    initialize(projector, generator)
    return projector


def build_predictor(
    width: int, config: PredictorConfig, generator: torch.Generator, *, per_view: bool = False
) -> nn.Module:
    """A predictor for z (B, D), D = width; the identity in the ablation of Table 1a."""
    if not config.enabled:
        return nn.Identity()
    with torch.device("meta"):
        predictor = Predictor(width, config, per_view=per_view)
    return initialize(predictor, generator)


def _hidden(inputs: int, outputs: int, *, bn: bool, per_view: bool) -> nn.Sequential:
    """Linear, BN, ReLU; a linear layer before a BN has no bias."""
    layer = nn.Linear(inputs, outputs, bias=not bn)
    norm = batch_norm_1d(outputs, per_view=per_view) if bn else nn.Identity()
    return nn.Sequential(layer, norm, nn.ReLU(inplace=True))
