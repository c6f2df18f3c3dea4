"""The loss: p and z of two views -> one number. Paper: Eq. 1 to 4."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stopgrad.method.simsiam import Outputs, widened


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:  # (B, D), (B, D) -> ()
    """D(p, z) = - p/|p| . z/|z|, averaged over the batch, at least in fp32. Eq. 1."""
    return -F.cosine_similarity(widened(p), widened(z), dim=1).mean()


def simsiam_loss(outputs: Outputs, *, stop_gradient: bool) -> Tensor:  # -> ()
    """L = D(p1, sg(z2)) / 2 + D(p2, sg(z1)) / 2, within [-1, 1]. Eq. 4; Eq. 2 without sg."""
    z1, z2 = outputs.z1, outputs.z2
    if stop_gradient:
        z1, z2 = z1.detach(), z2.detach()
    return (negative_cosine(outputs.p1, z2) + negative_cosine(outputs.p2, z1)) / 2
