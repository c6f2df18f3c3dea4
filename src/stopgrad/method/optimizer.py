"""Parameter groups, SGD and LARS, and the learning rates as a function of the step.

Paper: Sec. 3 (SGD, cosine; the predictor keeps its learning rate). The ratio alpha_h of the
predictor's learning rate is the report's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stopgrad.config import Config, OptimizerConfig
from stopgrad.method.simsiam import SimSiam


class LearningRates(NamedTuple):
    """The learning rates of one step."""

    lr: float  # encoder and projector
    predictor_lr: float


def learning_rates(config: Config, *, step: int, steps_per_epoch: int) -> LearningRates:
    """The learning rates at a step, counted from 0.

    lr: linear warm-up, then base_lr x batch / 256 x (1 + cos(pi t)) / 2 with t the share of the
    remaining steps done. Predictor: alpha_h x lr, constant or on the same curve.
    Paper: the cosine moves once per epoch; here: each step, because that has no jumps.
    """
    warmup = round(config.optimizer.warmup_epochs * steps_per_epoch)
    curve = cosine_with_warmup(step, total=config.epochs * steps_per_epoch, warmup=warmup)
    predictor_peak = config.optimizer.alpha_h * config.lr
    match config.optimizer.predictor_schedule:
        case "constant":
            return LearningRates(config.lr * curve, predictor_peak)
        case "cosine":
            return LearningRates(config.lr * curve, predictor_peak * curve)


def cosine_with_warmup(step: int, *, total: int, warmup: int = 0) -> float:
    """The factor on the peak learning rate at a step, from 0 of `total`; 0 is reached at total."""
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2


def build_optimizer(model: SimSiam, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD or LARS over the groups of `parameter_groups`; learning rates are set per step.

    Both obey `found_inf` (a tensor (), not 0: no update), as PyTorch's fused optimisers do, so a
    bad step is left out without waiting for the device.
    """
    groups = list(parameter_groups(model, config))
    match config.algorithm:
        case "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, fused=True)
        case "lars":
            return LARS(groups, momentum=config.momentum)


def parameter_groups(model: SimSiam, config: OptimizerConfig) -> Iterator[dict[str, Any]]:
    """Groups named `encoder` or `predictor`, with and without weight decay."""
    siamese = [model.encoder, model.projector]
    for name, modules in (("encoder", siamese), ("predictor", [model.predictor])):
        parameters = [p for module in modules for p in module.parameters()]
        weights = [p for p in parameters if p.ndim > 1 or config.decay_norm_and_bias]
        others = [p for p in parameters if p.ndim <= 1 and not config.decay_norm_and_bias]
        if weights:
            yield {"name": name, "params": weights, "weight_decay": config.weight_decay}
        if others:
            yield {"name": name, "params": others, "weight_decay": 0.0}


def set_learning_rates(optimizer: torch.optim.Optimizer, rates: LearningRates) -> None:
    """Writes the learning rates of a step into the groups, or into their tensors on a device."""
    for group in optimizer.param_groups:
        lr = rates.predictor_lr if group["name"] == "predictor" else rates.lr
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def keep_learning_rates_on(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Makes the learning rates tensors () on a device, where a recorded step reads them."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=device, dtype=torch.float32)


class LARS(torch.optim.Optimizer):
    """SGD with momentum and a learning rate per layer (You et al. 2017, Algorithm 1).

    Each weight's step is scaled by trust x |w| / (|g| + weight_decay x |w|); BN parameters and
    biases (one dimension or none) are not scaled, as SimSiam's linear probe does.
    """

    def __init__(self, params: Any, *, momentum: float = 0.9, trust: float = 0.001) -> None:
        super().__init__(
            params, {"lr": 0.0, "momentum": momentum, "trust": trust, "weight_decay": 0.0}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient, unless `found_inf` forbids it."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if parameter.ndim > 1:
            scale = lars_scale(parameter, gradient, group)
            gradient = (gradient + group["weight_decay"] * parameter) * scale
        else:
            gradient = gradient + group["weight_decay"] * parameter
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"] * group["momentum"] + gradient
        refused = getattr(self, "found_inf", torch.zeros((), device=parameter.device)) > 0
        state["momentum_buffer"].copy_(torch.where(refused, state["momentum_buffer"], momentum))
        parameter.copy_(torch.where(refused, parameter, parameter - momentum * group["lr"]))


def lars_scale(weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:  # -> ()
    """trust x |w| / (|g| + weight_decay x |w|), and 1 where either norm is 0."""
    weight_norm, gradient_norm = weight.norm(), gradient.norm()
    scale = group["trust"] * weight_norm / (gradient_norm + group["weight_decay"] * weight_norm)
    return torch.where((weight_norm > 0) & (gradient_norm > 0), scale, torch.ones_like(scale))
