"""Training and test features -> the score of a linear classifier.

In: features (N, F) and (M, F) with labels. Out: a `Score` of the M. G softmax regressions that
differ only in the learning rate are trained side by side: the gradient has a closed form, so a step
is two small matrix products, and the heads share the features they read.
Paper: Sec. 4 and Appendix A (LARS, base lr 0.02, batch 4096, 90 epochs). Report: SGD, base lr 30,
batch 256, 90 epochs; `REPORT_SGD` has standardised features, `AS_PUBLISHED` all as in the report's
code (docs/method.md). A learning rate may be chosen on a part of the training labels, never on the
test set.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import LinearConfig, OptimizerName, torch_generator
from stopgrad.errors import DataError, DivergedError
from stopgrad.evaluation.features import Features, Labelled, Score, class_count, labelled, score
from stopgrad.images import Track, no_progress
from stopgrad.method import cosine_with_warmup, lars_scale

REPORT_SGD = LinearConfig()
AS_PUBLISHED = LinearConfig(as_published=True)
PAPER_LARS = LinearConfig(algorithm="lars", base_lr=0.02, batch=4096)

CONSTANT = 1e-6
"""A channel whose std is a smaller share of its mean varies by no more than float32 rounding."""

LARS_START_STD = 0.01  # of the weights; SGD starts at 0

LR_FACTORS: dict[OptimizerName, tuple[float, ...]] = {
    "sgd": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    # The paper's base_lr is for ImageNet's 28,000 steps; CIFAR's 1,170 need up to 100 times that.
    "lars": (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
}
"""The grid of learning rates, as factors on the config's base_lr."""

HELD_OUT = 0.2
"""Share of each class's training labels that the choice is scored on, at least one image."""


def linear_probe(
    train: Features,
    test: Features,
    config: LinearConfig,
    *,
    seed: int,
    full_size: int | None = None,
    track: Track = no_progress,
) -> Score:
    """Accuracy on every test image of a linear classifier trained on frozen features.

    Args:
        train: N features with labels; no augmentation.
        test: M features with labels.
        config: Algorithm, learning rate, batch, epochs over 100 % of the labels.
        seed: Decides the order of the samples and, for LARS, the start.
        full_size: Samples in an epoch, N when left out. With a fraction s of the labels it is the
            number of images that it was drawn from: the set is repeated 1/s times, so that the
            number of steps stays that of 100 % (report).
        track: Shows the progress of the steps.

    Raises:
        DataError: When a set is empty or has no labels.
        DivergedError: When a feature, or a weight after training, is not finite.
    """
    known, asked = labelled(train, role="training"), labelled(test, role="test")
    plan = Plan(
        config=config,
        base_lrs=(config.base_lr,),
        classes=class_count(known, asked),
        seed=seed,
        epoch_samples=full_size or len(known.labels),
        track=track,
    )
    logits = fitted_logits(known, asked.values, plan)[0].T  # (M, C)
    if not bool(torch.isfinite(logits).all()):
        raise DivergedError(
            f"a linear probe that diverged at base_lr = {config.base_lr:g}",
            expected="finite weights",
            hint="leave the probes out with --metrics knn_accuracy, or train the run again",
        )
    return score(logits, asked.labels, protocol=_protocol(plan, train_images=len(known.labels)))


def fitted_logits(train: Labelled, values: Tensor, plan: Plan) -> Tensor:
    """The scores (G, C, M) of features (M, F) by heads fitted to the training features."""
    if plan.config.as_published:
        return fit(train, plan).logits(values)
    standard = standardization(train.values, plan.config.algorithm)
    heads = fit(Labelled(standard.apply(train.values), train.labels), plan)
    return heads.logits(standard.apply(values))


def _protocol(plan: Plan, *, train_images: int) -> dict[str, object]:
    config, is_sgd = plan.config, plan.config.algorithm == "sgd"
    if config.as_published:
        features, start = "raw", "uniform within 1 / sqrt(F), PyTorch's default"
    else:
        features = "standardised by the training features' mean and std"
        features += ", divided by sqrt(F)" if is_sgd else ""
        start = "zero" if is_sgd else f"normal, std {LARS_START_STD}"
    return {
        "evaluator": "linear",
        "algorithm": config.algorithm,
        "base_lr": config.base_lr,
        "lr": config.lr,
        "schedule": f"cosine to 0, per {'epoch' if config.as_published else 'step'}",
        "batch": config.batch,
        "epochs": config.epochs,
        "steps": plan.steps,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "augmentation": "none",
        "features": features,
        "start": start,
        **({"last_batch": "dropped"} if config.as_published else {}),
        "train_images": train_images,
        "epoch_samples": plan.epoch_samples,
    }


class Standardization(NamedTuple):
    """x -> (x - mean) * scale."""

    mean: Tensor  # (F,)
    scale: Tensor  # (F,), 0 for a constant channel

    def apply(self, values: Tensor) -> Tensor:  # (N, F) -> (N, F)
        """Standardised copies of these features."""
        return (values - self.mean).mul_(self.scale)


def standardization(values: Tensor, algorithm: OptimizerName) -> Standardization:  # (N, F)
    """Zero mean and unit variance for each channel; for SGD also a mean squared length of 1.

    Report: raw features; here: standardised and, for SGD, divided by sqrt(F), because a learning
    rate has no meaning without a scale: base_lr 30 on raw features diverges as soon as they are
    larger than the report's were, and cost 3 points on random patches (docs/log.md). With a mean
    squared length of 1 the curvature of the cross-entropy is at most 1/2, whatever the encoder, and
    raw pixels take the same learning rate. The set of linear classifiers stays the same. LARS keeps
    unit variance, which its start at std 0.01 expects (He et al. 2022, Appendix A.1, put a BN
    without affine parameters there).
    """
    variance, mean = torch.var_mean(values, dim=0, correction=0)
    constant = variance.sqrt() <= CONSTANT * mean.abs()
    scale = torch.where(constant, 0, variance.rsqrt())
    return Standardization(mean, scale / values.shape[1] ** 0.5 if algorithm == "sgd" else scale)


class Plan(NamedTuple):
    """The settings of one training, besides the features."""

    config: LinearConfig
    base_lrs: tuple[float, ...]  # G of them, instead of the config's
    classes: int
    seed: int
    epoch_samples: int
    track: Track = no_progress

    @property
    def epoch_steps(self) -> int:
        """Batches of an epoch: the last may be smaller, or is dropped if it is not the only one."""
        batches = self.epoch_samples / self.config.batch
        return max(1, int(batches)) if self.config.as_published else math.ceil(batches)

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.config.epochs * self.epoch_steps


class Heads(NamedTuple):
    """G linear classifiers, or the gradients of theirs."""

    weight: Tensor  # (G, C, F)
    bias: Tensor  # (G, C)

    def logits(self, x: Tensor) -> Tensor:  # (B, F) -> (G, C, B)
        """The class scores of each classifier; samples last, which is the fast order to reduce."""
        flat = torch.addmm(self.bias.view(-1, 1), self.weight.flatten(0, 1), x.T)
        return flat.view(*self.bias.shape, len(x))


def fit(train: Labelled, plan: Plan) -> Heads:
    """The heads after all steps; each is trained like a single probe at its own learning rate."""
    config, heads = plan.config, start(plan, like=train.values)
    momentum = Heads(torch.zeros_like(heads.weight), torch.zeros_like(heads.bias))
    peak = heads.bias.new_tensor(plan.base_lrs)[:, None] * (config.batch / 256)  # (G, 1)
    steps = plan.track(batches(plan, train.labels), "linear probe", plan.steps)
    for step, index in enumerate(steps):
        batch = Labelled(*(part.index_select(0, index) for part in train))
        update = _update(heads, batch, config)
        moved = step - step % plan.epoch_steps if config.as_published else step
        curve = cosine_with_warmup(moved, total=plan.steps)
        momentum.weight.mul_(config.momentum).add_(update.weight)
        momentum.bias.mul_(config.momentum).add_(update.bias)
        heads.weight.addcmul_(momentum.weight, peak[:, :, None], value=-curve)
        heads.bias.addcmul_(momentum.bias, peak, value=-curve)
    return heads


def start(plan: Plan, *, like: Tensor) -> Heads:
    """Zeros for SGD (the loss is convex); small weights for LARS; PyTorch's default as published.

    All heads share one draw.
    """
    shape = (len(plan.base_lrs), plan.classes, like.shape[1])
    weight, bias = like.new_zeros(shape), like.new_zeros(shape[:2])
    generator = torch_generator(plan.seed, "linear", "start")
    if plan.config.as_published:
        bound = 1 / math.sqrt(shape[2])
        for part in (weight, bias):
            drawn = torch.rand(part.shape[1:], generator=generator)
            part.copy_((2 * drawn - 1) * bound)
    elif plan.config.algorithm == "lars":
        weight.copy_(torch.randn(shape[1:], generator=generator) * LARS_START_STD)
    return Heads(weight, bias)


def batches(plan: Plan, labels: Tensor) -> Iterator[Tensor]:
    """Indices (<= B,) of the samples of each step: the set, repeated to a full epoch, shuffled."""
    size, samples = len(labels), plan.epoch_samples
    repeated = size * math.ceil(samples / size)
    for epoch in range(plan.config.epochs):
        generator = torch_generator(plan.seed, "linear", epoch)
        order = torch.randperm(repeated, generator=generator)[:samples] % size
        parts = torch.split(order.to(labels.device), plan.config.batch)
        yield from parts[: plan.epoch_steps]


def loss_gradient(heads: Heads, batch: Labelled) -> Heads:
    """Gradient of each head's mean cross-entropy, (softmax - one-hot) x / B."""
    error = heads.logits(batch.values).softmax(dim=1)  # (G, C, B)
    one_hot = torch.eye(error.shape[1], device=error.device).index_select(1, batch.labels)
    error = error.sub_(one_hot).div_(len(batch.labels))
    weight = error.flatten(0, 1) @ batch.values  # (G * C, F)
    return Heads(weight.view_as(heads.weight), error.sum(dim=2))


def _update(heads: Heads, batch: Labelled, config: LinearConfig) -> Heads:
    """The update that goes into the momentum: the gradient with weight decay, scaled for LARS.

    LARS scales weights and biases, each head's by its own norms.
    """
    updates = []
    for value, gradient in zip(heads, loss_gradient(heads, batch), strict=True):
        update = gradient.add(value, alpha=config.weight_decay)
        if config.algorithm == "lars":
            norms = (tensor.flatten(1).norm(dim=1) for tensor in (value, gradient))  # (G,)
            scale = lars_scale(*norms, weight_decay=config.weight_decay)
            update = update * scale.view(-1, *[1] * (update.ndim - 1))
        updates.append(update)
    return Heads(*updates)


def tuned_probe(
    train: Features,
    test: Features,
    config: LinearConfig,
    *,
    seed: int,
    full_size: int | None = None,
    track: Track = no_progress,
) -> Score:
    """`linear_probe` at the rate from `choose_lr`, which the protocol states; raises as both do."""
    best = choose_lr(train, config, seed=seed, full_size=full_size, track=track)
    chosen = dataclasses.replace(config, base_lr=best)
    result = linear_probe(train, test, chosen, seed=seed, full_size=full_size, track=track)
    choice = {
        "base_lr_candidates": list(lr_candidates(config)),
        "base_lr_chosen_on": f"{HELD_OUT:.0%} of the training labels, stratified",
    }
    return result._replace(protocol=result.protocol | choice)


def lr_candidates(config: LinearConfig) -> tuple[float, ...]:
    """The grid of a config: LR_FACTORS x base_lr, in rising order."""
    return tuple(factor * config.base_lr for factor in LR_FACTORS[config.algorithm])


def choose_lr(
    train: Features,
    config: LinearConfig,
    *,
    seed: int,
    full_size: int | None = None,
    track: Track = no_progress,
) -> float:
    """The candidate that is most accurate on held-out training labels; the first of equals.

    Candidates are `lr_candidates` of the config, trained on the other labels, for as many steps as
    the probe itself takes. `full_size` and errors are those of `linear_probe`, and a DataError when
    no class has two images.
    """
    whole = labelled(train, role="training")
    candidates = lr_candidates(config)
    held_out = validation_mask(whole.labels, seed=seed)
    kept, asked = (Labelled(*(part[mask] for part in whole)) for mask in (~held_out, held_out))
    plan = Plan(
        config=config,
        base_lrs=candidates,
        classes=class_count(whole, whole),
        seed=seed,
        epoch_samples=full_size or len(whole.labels),
        track=track,
    )
    logits = fitted_logits(kept, asked.values, plan)  # (G, C, M)
    # A candidate that diverged has no scores left to rank: it gets none right.
    finite = torch.isfinite(logits).all(dim=1)  # (G, M)
    right = (logits.argmax(dim=1) == asked.labels) & finite
    return candidates[int(right.sum(dim=1).argmax())]


def validation_mask(labels: Tensor, *, seed: int) -> Tensor:  # (N,) -> (N,) bool
    """True for a fifth of each class, at least one but never all; a DataError if none is left."""
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
