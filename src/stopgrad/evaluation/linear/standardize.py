"""Features (N, F) -> features with zero mean and a known scale, by the training set's statistics.

Report: raw features; here: standardised and, for SGD, divided by sqrt(F), because a learning
rate has no meaning without a scale: base_lr 30 on raw features costs points or diverges as soon
as they are larger than the report's were (docs/log.md). With a mean squared length of 1 the
curvature of the cross-entropy is at most 1/2, whatever the encoder, and raw pixels bear the same
learning rate. The set of linear classifiers stays the same. LARS keeps unit variance, which its
start at std 0.01 expects (He et al. 2022, Appendix A.1, put a BN without affine parameters there).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import Optimizer

CONSTANT = 1e-6
"""A channel whose std is a smaller share of its mean varies by no more than float32 rounding."""


class Standardization(NamedTuple):
    """x -> (x - mean) * scale."""

    mean: Tensor  # (F,)
    scale: Tensor  # (F,), 0 for a constant channel

    def apply(self, values: Tensor) -> Tensor:  # (N, F) -> (N, F)
        """Standardised copies of these features."""
        return (values - self.mean).mul_(self.scale)


def standardization(values: Tensor, algorithm: Optimizer) -> Standardization:
    """Zero mean and unit variance for each channel; for SGD also a mean squared length of 1.

    Args:
        values: (N, F), the training features.
        algorithm: What the features are for.
    """
    variance, mean = torch.var_mean(values, dim=0, correction=0)
    constant = variance.sqrt() <= CONSTANT * mean.abs()
    scale = torch.where(constant, 0, variance.rsqrt())
    match algorithm:
        case "sgd":
            return Standardization(mean, scale / values.shape[1] ** 0.5)
        case "lars":
            return Standardization(mean, scale)


def in_words(algorithm: Optimizer) -> str:
    """What `standardization` does, for a protocol."""
    words = "standardised by the training features' mean and std"
    return f"{words}, divided by sqrt(F)" if algorithm == "sgd" else words
