"""Training and test features -> the score of a linear classifier at a given learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stopgrad.config import LinearConfig
from stopgrad.errors import DivergedError
from stopgrad.evaluation.features import Features, Labelled, Score, class_count, labelled, score
from stopgrad.evaluation.linear.fit import LARS_START_STD, Plan, fit
from stopgrad.evaluation.linear.standardize import in_words, standardization

REPORT_SGD = LinearConfig()
PAPER_LARS = LinearConfig(algorithm="lars", base_lr=0.02, batch=4096)


def linear_probe(
    train: Features,
    test: Features,
    config: LinearConfig,
    *,
    seed: int,
    full_size: int | None = None,
) -> Score:
    """Accuracy on every test image of a linear classifier trained on frozen features.

    Args:
        train: N features with labels; no augmentation.
        test: M features with labels.
        config: Algorithm, learning rate, batch, epochs over 100 % of the labels.
        seed: Of the order of the samples and, for LARS, of the start.
        full_size: Samples in an epoch, N when left out. With a share s of the labels the caller
            passes the number of images that the share was drawn from: the set is repeated 1/s
            times, so that the number of steps stays that of 100 % (report).

    Raises:
        DataError: When a set is empty or has no labels.
        DivergedError: When a feature is not finite, or training made a weight so.
    """
    known, asked = labelled(train, role="training"), labelled(test, role="test")
    plan = Plan(
        config=config,
        base_lrs=(config.base_lr,),
        classes=class_count(known, asked),
        seed=seed,
        epoch_samples=full_size or len(known.labels),
    )
    logits = fitted_logits(known, asked.values, plan)[0].T  # (M, C)
    if not bool(torch.isfinite(logits).all()):
        raise DivergedError(
            f"a linear probe that diverged at base_lr = {config.base_lr:g}",
            expected="finite weights",
            hint="lower the probe's base_lr",
        )
    return score(logits, asked.labels, protocol=_protocol(plan, train_images=len(known.labels)))


def fitted_logits(train: Labelled, values: Tensor, plan: Plan) -> Tensor:
    """The scores (G, C, M) of features (M, F) by heads fitted to the training features."""
    standard = standardization(train.values, plan.config.algorithm)
    heads = fit(Labelled(standard.apply(train.values), train.labels), plan)
    return heads.logits(standard.apply(values))


def _protocol(plan: Plan, *, train_images: int) -> dict[str, Any]:
    config = plan.config
    return {
        "evaluator": "linear",
        "algorithm": config.algorithm,
        "base_lr": config.base_lr,
        "lr": config.lr,
        "schedule": "cosine to 0, per step",
        "batch": config.batch,
        "epochs": config.epochs,
        "steps": plan.steps,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "augmentation": "none",
        "features": in_words(config.algorithm),
        "start": "zero" if config.algorithm == "sgd" else f"normal, std {LARS_START_STD}",
        "train_images": train_images,
        "epoch_samples": plan.epoch_samples,
    }
