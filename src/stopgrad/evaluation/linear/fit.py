"""Training of G softmax regressions side by side, which differ only in the learning rate.

In: standardised features (N, F) with labels. Out: `Heads`. The gradient has a closed form, so a
step is two small matrix products, and more heads cost little: they share the features they read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import LinearConfig, torch_generator
from stopgrad.evaluation.features import Labelled
from stopgrad.method import cosine_with_warmup, lars_scale

LARS_START_STD = 0.01  # of the weights; SGD starts at 0


class Plan(NamedTuple):
    """What one training needs to know besides the features."""

    config: LinearConfig
    base_lrs: tuple[float, ...]  # G of them; that of the config is not read
    classes: int
    seed: int
    epoch_samples: int

    @property
    def steps(self) -> int:
        """Number of steps; the last batch of an epoch may be smaller."""
        return self.config.epochs * math.ceil(self.epoch_samples / self.config.batch)


class Heads(NamedTuple):
    """G linear classifiers, or the gradients of theirs."""

    weight: Tensor  # (G, C, F)
    bias: Tensor  # (G, C)

    def logits(self, x: Tensor) -> Tensor:  # (B, F) -> (G, C, B)
        """The class scores of each classifier; samples last, which is the fast order to reduce."""
        flat = torch.addmm(self.bias.view(-1, 1), self.weight.flatten(0, 1), x.T)
        return flat.view(*self.bias.shape, len(x))


def fit(train: Labelled, plan: Plan) -> Heads:
    """Heads after all steps; each step is that of one probe, at its own learning rate."""
    config, heads = plan.config, start(plan, like=train.values)
    momentum = Heads(torch.zeros_like(heads.weight), torch.zeros_like(heads.bias))
    peak = heads.bias.new_tensor(plan.base_lrs)[:, None] * (config.batch / 256)  # (G, 1)
    for step, index in enumerate(batches(plan, train.labels)):
        batch = Labelled(*(part.index_select(0, index) for part in train))
        update = _update(heads, batch, config)
        curve = cosine_with_warmup(step, total=plan.steps)
        momentum.weight.mul_(config.momentum).add_(update.weight)
        momentum.bias.mul_(config.momentum).add_(update.bias)
        heads.weight.addcmul_(momentum.weight, peak[:, :, None], value=-curve)
        heads.bias.addcmul_(momentum.bias, peak, value=-curve)
    return heads


def start(plan: Plan, *, like: Tensor) -> Heads:
    """Zeros for SGD (the loss is convex); small weights, one draw for all heads, for LARS."""
    shape = (len(plan.base_lrs), plan.classes, like.shape[1])
    weight, bias = like.new_zeros(shape), like.new_zeros(shape[:2])
    if plan.config.algorithm == "lars":
        generator = torch_generator(plan.seed, "linear", "start")
        weight.copy_(torch.randn(shape[1:], generator=generator) * LARS_START_STD)
    return Heads(weight, bias)


def batches(plan: Plan, labels: Tensor) -> Iterator[Tensor]:
    """Indices (<= B,) of the samples of each step: the set, repeated to a full epoch, shuffled."""
    size, samples = len(labels), plan.epoch_samples
    repeated = size * math.ceil(samples / size)
    for epoch in range(plan.config.epochs):
        generator = torch_generator(plan.seed, "linear", epoch)
        order = torch.randperm(repeated, generator=generator)[:samples] % size
        yield from torch.split(order.to(labels.device), plan.config.batch)


def loss_gradient(heads: Heads, batch: Labelled) -> Heads:
    """Gradient of each head's mean cross-entropy, (softmax - one-hot) x / B."""
    error = heads.logits(batch.values).softmax(dim=1)  # (G, C, B)
    one_hot = torch.eye(error.shape[1], device=error.device).index_select(1, batch.labels)
    error = error.sub_(one_hot).div_(len(batch.labels))
    weight = error.flatten(0, 1) @ batch.values  # (G * C, F)
    return Heads(weight.view_as(heads.weight), error.sum(dim=2))


def _update(heads: Heads, batch: Labelled, config: LinearConfig) -> Heads:
    """What the momentum takes in at a step: the gradient with weight decay, scaled for LARS.

    Biases are not scaled, as in stopgrad.method.optimizer.
    """
    gradient = loss_gradient(heads, batch)
    weight = gradient.weight.add(heads.weight, alpha=config.weight_decay)
    bias = gradient.bias.add(heads.bias, alpha=config.weight_decay)
    match config.algorithm:
        case "sgd":
            return Heads(weight, bias)
        case "lars":
            norms = (w.flatten(1).norm(dim=1) for w in (heads.weight, gradient.weight))  # (G,)
            scale = lars_scale(*norms, weight_decay=config.weight_decay)
            return Heads(weight * scale[:, None, None], bias)
