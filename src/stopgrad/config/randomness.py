"""Seed and position -> generators. All randomness of the package is made here.

A position is a short path such as ("views", step). The same (seed, position) gives the same
stream on every machine, so a resumed run needs no saved generator state, and evaluating,
logging or another number of workers cannot change a run. Nothing reads the global generators.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def entropy(seed: int, *position: int | str) -> int:
    """A 63-bit integer that is a pure function of the seed and the position.

    Source: the first 8 bytes of sha256 over the canonical text of (seed, *position); distinct
    positions give independent streams up to the collision chance of the hash.
    """
    text = "/".join(f"{type(part).__name__}:{part}" for part in (seed, *position))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *position: int | str) -> np.random.Generator:
    """A NumPy generator for this seed and position."""
    return np.random.default_rng(entropy(seed, *position))


def torch_generator(
    seed: int, *position: int | str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A PyTorch generator for this seed and position, on a device."""
    import torch

    return torch.Generator(device=device).manual_seed(entropy(seed, *position))
