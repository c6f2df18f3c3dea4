"""When to skip an augmentation for the images that it does not change.

On a CPU it is cheap to check which images those are. On a GPU the host would have to wait, and a
compiler would fail, so there every image passes through every augmentation.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 4
"""With more images than this, hardly any step can be skipped, and looking costs time."""


def may_look(x: Tensor) -> bool:
    """Whether Python may branch on the values of a tensor."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def none_of(where: Tensor) -> bool:
    """Whether a step surely applies to no image; where: (B,) bool."""
    return len(where) <= FEW and may_look(where) and not where.any()
