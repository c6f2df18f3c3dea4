"""An encoder and one linear layer: x (B, C, H, W) -> class scores (B, C). The report's baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stopgrad.config import EncoderConfig, torch_generator
from stopgrad.method.encoder import build_encoder
from stopgrad.method.layers import initialize
from stopgrad.method.resnet import Encoder
from stopgrad.method.simsiam import widened


class Classifier(nn.Module):
    """Encoder f and one linear layer, trained together."""

    def __init__(self, encoder: Encoder, head: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C) fp32
        features = widened(self.encoder(x))  # (B, F)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(features)  # type: ignore[no-any-return]


def build_classifier(config: EncoderConfig, *, classes: int, seed: int) -> Classifier:
    """A classifier whose encoder starts with the same weights as pretraining."""
    encoder = build_encoder(config, torch_generator(seed, "encoder"))
    with torch.device("meta"):
        head = nn.Linear(encoder.feature_width, classes)
    initialize(head, torch_generator(seed, "classifier"))
    return Classifier(encoder, head)
