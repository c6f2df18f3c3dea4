"""When a step that changes only some images of a batch may be left out.

Finding out which images a step is for costs little on a CPU. A GPU would have to wait and a
compiler would have to give up, so there every image goes through every step, which changes none
that it is not for.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 4
"""Images that may well all be spared a step; with more, looking costs more than it saves."""


def may_look(x: Tensor) -> bool:
    """Whether Python may branch on what a tensor holds."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def none_of(where: Tensor) -> bool:
    """Whether a step is for no image, as far as it pays to know: (B,) bool."""
    return len(where) <= FEW and may_look(where) and not where.any()
