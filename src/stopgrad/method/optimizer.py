"""Parameter groups, SGD and LARS. Paper: Sec. 3 (SGD).

The optimisers are written here because the classes of `torch.optim` import torch.compile, which
costs every process more than a second before its first step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from stopgrad.config import OptimizerConfig
from stopgrad.method.simsiam import SimSiam

LARS_TRUST = 0.001  # You et al. 2017, Sec. 5


@dataclass
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay."""

    name: str  # encoder, predictor or head, whose learning rate they take
    parameters: list[Tensor]
    weight_decay: float = 0.0
    lr: float | Tensor = 0.0  # of the next step; a tensor () for a step recorded as a CUDA graph


def parameter_groups(model: SimSiam, config: OptimizerConfig) -> Iterator[ParameterGroup]:
    """Groups named `encoder` or `predictor`, with and without weight decay."""
    siamese = [model.encoder, model.projector]
    for name, modules in (("encoder", siamese), ("predictor", [model.predictor])):
        parameters: list[Tensor] = [p for module in modules for p in module.parameters()]
        weights = [p for p in parameters if p.ndim > 1 or config.decay_norm_and_bias]
        others = [p for p in parameters if p.ndim <= 1 and not config.decay_norm_and_bias]
        if weights:
            yield ParameterGroup(name, weights, config.weight_decay)
        if others:
            yield ParameterGroup(name, others)


class Optimizer(ABC):
    """Gradients -> new parameters, with one momentum buffer for each parameter.

    Args:
        groups: The parameters, in the order of the buffers in a checkpoint.
        momentum: Factor on the buffer in each step.
    """

    def __init__(self, groups: list[ParameterGroup], *, momentum: float) -> None:
        self.groups = groups
        self.momentum = momentum
        self.buffers: dict[Tensor, Tensor] = {}  # by parameter, from its first step on

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of all groups."""
        return [p for group in self.groups for p in group.parameters]

    def zero_grad(self) -> None:
        """Removes all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, refused: Tensor | None = None) -> None:
        """One update of every parameter that has a gradient.

        Args:
            refused: (); nothing changes unless it is 0. None: always update.
        """
        for group in self.groups:
            learning = [p for p in group.parameters if p.grad is not None]
            self._update(group, learning, refused)

    @abstractmethod
    def _update(
        self, group: ParameterGroup, learning: list[Tensor], refused: Tensor | None
    ) -> None: ...

    def set_learning_rates(self, rates: Mapping[str, float]) -> None:
        """Sets the learning rates of the next step, by group name."""
        for group in self.groups:
            if isinstance(group.lr, Tensor):
                group.lr.fill_(rates[group.name])
            else:
                group.lr = rates[group.name]

    def keep_learning_rates_on(self, device: torch.device) -> None:
        """Turns the learning rates into tensors () on a device, for a recorded step."""
        for group in self.groups:
            group.lr = torch.tensor(group.lr, device=device, dtype=torch.float32)

    def state(self) -> dict[str, Tensor]:
        """The momentum buffers as a checkpoint names them, `INDEX.momentum_buffer`."""
        known = enumerate(self.buffers.get(p) for p in self.parameters)
        return {f"{index}.momentum_buffer": value for index, value in known if value is not None}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Loads the buffers of `state`, each in the memory format of its parameter."""
        parameters = self.parameters
        for key, value in state.items():
            parameter = parameters[int(key.partition(".")[0])]
            buffer = torch.empty_like(parameter, requires_grad=False)
            self.buffers[parameter] = buffer.copy_(value)


class SGD(Optimizer):
    """SGD with momentum, by PyTorch's own function.

    Args:
        groups: As for `Optimizer`.
        momentum: As for `Optimizer`.
        fused: Use one kernel for all parameters, which reads `refused` on the device. PyTorch's
            default rounds differently and makes the host wait.
    """

    def __init__(self, groups: list[ParameterGroup], *, momentum: float, fused: bool) -> None:
        super().__init__(groups, momentum=momentum)
        self.fused = fused

    def _update(
        self, group: ParameterGroup, learning: list[Tensor], refused: Tensor | None
    ) -> None:
        if not self.fused and refused is not None and bool(refused):
            return
        buffers = [self.buffers.get(p) for p in learning] if self.momentum else []
        missing = sum(buffer is None for buffer in buffers)
        if 0 < missing < len(buffers):  # a first gradient after those of others
            buffers = [self.buffers.get(p, torch.zeros_like(p)) for p in learning]
        sgd(
            learning,
            [p.grad for p in learning if p.grad is not None],
            buffers,
            fused=self.fused or None,
            found_inf=refused if self.fused else None,
            weight_decay=group.weight_decay,
            momentum=self.momentum,
            lr=group.lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        pairs = zip(learning, buffers, strict=False)  # buffers is [] without momentum
        self.buffers |= {parameter: buffer for parameter, buffer in pairs if buffer is not None}


class LARS(Optimizer):
    """SGD with momentum and a learning rate per layer (You et al. 2017, Algorithm 1).

    `lars_scale` scales the step of every parameter, BN and biases included, as the code of the
    paper does in its linear probe (LARC without clipping).
    """

    def _update(
        self, group: ParameterGroup, learning: list[Tensor], refused: Tensor | None
    ) -> None:
        for parameter in learning:
            assert parameter.grad is not None
            gradient = parameter.grad + group.weight_decay * parameter
            norms = parameter.norm(), parameter.grad.norm()
            gradient = gradient * lars_scale(*norms, weight_decay=group.weight_decay)
            if parameter not in self.buffers:
                self.buffers[parameter] = torch.zeros_like(parameter)
            buffer = self.buffers[parameter]
            momentum = buffer * self.momentum + gradient
            moved = parameter - momentum * group.lr
            if refused is not None:
                momentum = torch.where(refused > 0, buffer, momentum)
                moved = torch.where(refused > 0, parameter, moved)
            buffer.copy_(momentum)
            parameter.copy_(moved)


def lars_scale(weight_norm: Tensor, gradient_norm: Tensor, *, weight_decay: float) -> Tensor:
    """trust x |w| / (|g| + weight_decay x |w|), and 1 where a norm is 0; tensors of any shape."""
    scale = LARS_TRUST * weight_norm / (gradient_norm + weight_decay * weight_norm)
    return torch.where((weight_norm > 0) & (gradient_norm > 0), scale, torch.ones_like(scale))


def build_optimizer(model: SimSiam, config: OptimizerConfig) -> Optimizer:
    """SGD or LARS over the groups of `parameter_groups`; learning rates are set at each step."""
    groups = list(parameter_groups(model, config))
    match config.algorithm:
        case "sgd":
            return SGD(groups, momentum=config.momentum, fused=True)
        case "lars":
            return LARS(groups, momentum=config.momentum)
