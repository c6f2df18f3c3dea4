"""The probe's learning rate, chosen on a part of the training labels and never on the test set."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from stopgrad.config import LinearConfig, Optimizer, torch_generator
from stopgrad.errors import DataError
from stopgrad.evaluation.features import Features, Labelled, Score, class_count, labelled
from stopgrad.evaluation.linear import Plan, fitted_logits, linear_probe

LR_FACTORS: dict[Optimizer, tuple[float, ...]] = {
    "sgd": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    # The paper's base_lr is for ImageNet's 28,000 steps; CIFAR's 1,170 need up to 100 times that.
    "lars": (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
}
"""The grid of learning rates, as factors on the config's base_lr."""

HELD_OUT = 0.2
"""Part of each class's training labels that the choice is scored on, at least one image."""


def tuned_probe(
    train: Features,
    test: Features,
    config: LinearConfig,
    *,
    seed: int,
    full_size: int | None = None,
) -> Score:
    """`linear_probe` at the learning rate that `choose_lr` picks; the protocol says so.

    Raises:
        DataError: As `linear_probe`, and when no class has two training images.
        DivergedError: As `linear_probe`.
    """
    best = choose_lr(train, config, seed=seed, full_size=full_size)
    chosen = dataclasses.replace(config, base_lr=best)
    result = linear_probe(train, test, chosen, seed=seed, full_size=full_size)
    choice = {
        "base_lr_candidates": list(lr_candidates(config)),
        "base_lr_chosen_on": f"{HELD_OUT:.0%} of the training labels, stratified",
    }
    return result._replace(protocol=result.protocol | choice)


def lr_candidates(config: LinearConfig) -> tuple[float, ...]:
    """The grid that is stated for a config: LR_FACTORS x base_lr, in rising order."""
    return tuple(factor * config.base_lr for factor in LR_FACTORS[config.algorithm])


def choose_lr(
    train: Features,
    config: LinearConfig,
    *,
    seed: int,
    candidates: tuple[float, ...] | None = None,
    full_size: int | None = None,
) -> float:
    """The candidate that is most accurate on held-out training labels; of equals the first.

    The rest is trained on, for as many steps as the probe itself will take.

    Args:
        train: N features with labels.
        config: All but the learning rate.
        seed: Of the split, the order of the samples and the start.
        candidates: Values of base_lr; `lr_candidates` of the config when left out.
        full_size: As for `linear_probe`.

    Raises:
        DataError: When there are no labels, or no class has two images.
        DivergedError: When a feature is not finite.
    """
    whole = labelled(train, role="training")
    candidates = candidates or lr_candidates(config)
    held_out = validation_mask(whole.labels, seed=seed)
    kept, asked = (Labelled(*(part[mask] for part in whole)) for mask in (~held_out, held_out))
    plan = Plan(
        config=config,
        base_lrs=candidates,
        classes=class_count(whole, whole),
        seed=seed,
        epoch_samples=full_size or len(whole.labels),
    )
    logits = fitted_logits(kept, asked.values, plan)  # (G, C, M)
    # A candidate that diverged has no scores left to rank: it gets none right.
    finite = torch.isfinite(logits).all(dim=1)  # (G, M)
    right = (logits.argmax(dim=1) == asked.labels) & finite
    return candidates[int(right.sum(dim=1).argmax())]


def validation_mask(labels: Tensor, *, seed: int) -> Tensor:  # (N,) -> (N,) bool
    """True for a random fifth of each class, at least one image but never all.

    Raises:
        DataError: When no class has two images.
    """
    order = torch.randperm(len(labels), generator=torch_generator(seed, "linear", "validation"))
    order = order.to(labels.device)
    order = order[labels[order].sort(stable=True).indices]  # by class, random within one
    counts = labels.bincount()  # (C,)
    rank = (
        torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels[order]]
    )
    quota = torch.minimum((HELD_OUT * counts).round().clamp_min(1), counts - 1)
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[order] = rank < quota[labels[order]]
    if not bool(mask.any()):
        raise DataError(
            f"{len(labels)} training labels, one of each class at most",
            expected="two of a class at least, to choose a learning rate on",
            hint="use more labels, or name the learning rate",
        )
    return mask
