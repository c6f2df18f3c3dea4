"""Whether an encoder takes pictures of a size: a ViT takes multiples of its patch, a mixer one."""

from __future__ import annotations

import torch
from torch import nn

from stopgrad.errors import no_memory
from stopgrad.method.encoder.resnet import ResNet


def why_not(encoder: nn.Module, size: tuple[int, int]) -> str:
    """Why an encoder does not take pictures of this size, in its own words; empty: it does.

    Args:
        encoder: In eval mode, x (B, 3, H, W) -> (B, F); our ResNets take every size.
        size: Height and width, px.
    """
    if isinstance(encoder, ResNet):
        return ""
    try:
        with torch.inference_mode():
            encoder(torch.zeros(1, 3, *size, device=next(encoder.parameters()).device))
    except (AssertionError, RuntimeError, ValueError) as error:
        if no_memory(error):
            raise
        return " ".join(str(error).split()).rstrip(".")
    return ""
