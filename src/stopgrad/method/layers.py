"""Initial weights, and BN over each of two views, in one process or over several.

In: modules of PyTorch or timm. Out: the same modules with initial weights, with BN per view, with
BN over the batches of all processes or with BN, sum and ReLU as one. Parameters and buffers keep
PyTorch's names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

if TYPE_CHECKING:
    from stopgrad.method.processes import Processes


class PerView:
    """Makes a BN class normalise the two halves of a training batch separately.

    The halves are the two views of the same images. The running statistics are updated by the
    first half, then by the second. Evaluation is unchanged. Put it before the BN class:
    `class PerViewBatchNorm2d(PerView, nn.BatchNorm2d)`.
    """

    training: bool

    def forward(self, x: Tensor) -> Tensor:  # (2B, ...) -> the same
        """One half after the other in training, the whole batch in evaluation."""
        whole = super().forward  # type: ignore[misc]
        if not self.training:
            return whole(x)  # type: ignore[no-any-return]
        return torch.cat([whole(view) for view in x.chunk(2)])


class PerViewBatchNorm1d(PerView, nn.BatchNorm1d):
    """`nn.BatchNorm1d` of each view."""


class PerViewBatchNorm2d(PerView, nn.BatchNorm2d):
    """`nn.BatchNorm2d` of each view."""


def batch_norm_1d(width: int, *, per_view: bool, affine: bool = True) -> nn.BatchNorm1d:
    """BN over (B, width), of each view or of the whole batch."""
    return (PerViewBatchNorm1d if per_view else nn.BatchNorm1d)(width, affine=affine)


def batch_norm_2d(channels: int, *, per_view: bool) -> nn.BatchNorm2d:
    """BN over (B, channels, H, W), of each view or of the whole batch."""
    return (PerViewBatchNorm2d if per_view else nn.BatchNorm2d)(channels)


def bn_relu(bn: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """relu(bn(x) + shortcut), (B, C, H, W); by the kernels of `fused` after `fuse_batch_norm`."""
    if isinstance(bn, Fused) and bn.training:
        return bn.by_kernels(x, shortcut, relu=True)
    x = bn(x)
    if shortcut is not None:
        x += shortcut
    return F.relu(x, inplace=True)


def split_views_in(module: nn.Module) -> None:
    """Lets every BN of a backbone normalise each view, with the same parameters and buffers.

    For timm's backbones, which are built without this choice; takes any BN class, also timm's BN
    with an activation.
    """
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            kind = type(layer)
            layer.__class__ = type(f"PerView{kind.__name__}", (PerView, kind), {})


def drops(module: nn.Module) -> bool:
    """Whether a module drops values or paths at random in training, as some timm models do.

    The random numbers come from PyTorch's global generators.
    """
    rates = (getattr(m, name, 0) for m in module.modules() for name in ("drop_prob", "drop_rate"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates) or any(
        isinstance(m, _DropoutNd) and m.p > 0 for m in module.modules()
    )


def initialize(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Initialises every parameter and buffer of a module built on the meta device.

    Convolutions: He normal over the fan out, as in torchvision's ResNets. Linear layers: uniform
    within 1 / sqrt(fan in), PyTorch's default. BN: gain 1, offset 0, mean 0, variance 1.
    Draws in the order of `modules()` on the CPU, so that the device does not matter.
    """
    for layer in module.modules():
        _allocate(layer)
        match layer:
            case nn.Conv2d():
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", generator=generator)
            case nn.Linear():
                _uniform_linear(layer, generator)
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                layer.reset_parameters()
    return module


def _allocate(layer: nn.Module) -> None:
    """Allocates memory on the CPU; `to_empty` does the same, but imports sympy, half a second."""
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, nn.Parameter(_memory(parameter)))
    for name, buffer in list(layer.named_buffers(recurse=False)):
        setattr(layer, name, _memory(buffer))


def _memory(of: Tensor) -> Tensor:
    return torch.empty(of.shape, dtype=of.dtype, device="cpu")


def _uniform_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(layer.in_features)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)


class _NormalizeTogether(torch.autograd.Function):
    """BN of x (V * b, C, ...) by statistics over the batches of all processes, by view.

    In: x, gain and offset (C,) or None. Out: y, mean and variance (V, C), and the number of values
    n () behind them. One sum over the processes forward and one backward, in fp64.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        how: _Together,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        views = x.view(how.views, -1, *x.shape[1:])  # (V, b, C, ...)
        over = [1, *range(3, views.ndim)]
        wide = views.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, dim=over, correction=0)  # (V, C)
        n = views[0].numel() // views.shape[2]
        mean, variance = mean.double(), variance.double()
        sums = torch.stack([mean * n, (variance + mean.square()) * n, torch.full_like(mean, n)])
        how.processes.sum(sums)
        total = sums[2, 0, 0]
        mean = sums[0] / total
        variance = (sums[1] / total - mean.square()).clamp_min(0)
        mean, variance = mean.to(wide.dtype), variance.to(wide.dtype)
        parts = [
            F.batch_norm(part, m, v, weight, bias, training=False, eps=how.eps)
            for part, m, v in zip(views, mean, variance, strict=True)
        ]
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + how.eps), total)
        ctx.how = how
        ctx.mark_non_differentiable(mean, variance, total)
        return torch.cat(parts), mean, variance, total

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, total = ctx.saved_tensors
        views = x.view(ctx.how.views, -1, *x.shape[1:])
        over, shape = [1, *range(3, views.ndim)], (len(mean), 1, -1, *[1] * (x.ndim - 2))
        wide = views.to(mean.dtype)
        above = dy.reshape(views.shape).to(mean.dtype)
        normal = (wide - mean.view(shape)) * scale.view(shape)
        sums = torch.stack([above.sum(over), (above * normal).sum(over)])  # (2, V, C)
        of_bias, of_weight = sums.sum(1)
        shared = sums.double()
        ctx.how.processes.sum(shared)
        share = (shared / total).to(mean.dtype).view(2, *shape)
        gain = scale if weight is None else scale * weight
        dx = (above - share[0] - normal * share[1]) * gain.view(shape)
        return (
            dx.to(x.dtype).flatten(0, 1),
            None if weight is None else of_weight.to(weight.dtype),
            None if weight is None else of_bias.to(weight.dtype),
            None,
        )


class _Together(NamedTuple):
    """How the BN of several processes is computed."""

    processes: Processes
    views: int  # V, normalised one by one
    eps: float


class OverProcesses:
    """Makes a BN class normalise by statistics over the batches of all processes.

    The running statistics are updated as by one process with the whole batch: by the first view,
    then by the second, where views are normalised one by one. Evaluation is unchanged.
    """

    training: bool
    processes: Processes

    def forward(self: Any, x: Tensor) -> Tensor:  # (2b, ...) -> the same
        """Uses the statistics of all processes in training, the running ones in evaluation."""
        if not self.training:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        how = _Together(self.processes, 2 if isinstance(self, PerView) else 1, self.eps)
        y, means, variances, total = _NormalizeTogether.apply(x, self.weight, self.bias, how)
        with torch.no_grad():
            for mean, variance in zip(means, variances, strict=True):
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(
                    variance * (total / (total - 1)).to(variance.dtype), self.momentum
                )
        for name in ("drop", "act"):  # of timm's BN with an activation
            y = getattr(self, name)(y) if hasattr(self, name) else y
        return y  # type: ignore[no-any-return]


def normalize_over_processes(module: nn.Module, processes: Processes) -> None:
    """Lets every BN normalise over all processes, with the same parameters and buffers."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            kind = type(layer)
            layer.__class__ = type(f"{kind.__name__}OverProcesses", (OverProcesses, kind), {})
            cast("Any", layer).processes = processes


class Fused:
    """Makes a BN class of images compute in training by the kernels of `fused`.

    The running statistics are updated by the first view, then by the second. Evaluation is
    unchanged.
    """

    training: bool
    kernels: Callable[..., tuple[Tensor, Tensor]]  # `fused.normalize`, which needs Triton

    def by_kernels(
        self: Any, x: Tensor, shortcut: Tensor | None = None, *, relu: bool = False
    ) -> Tensor:  # (2B, C, H, W) twice -> the same
        """bn(x) + shortcut, with a ReLU after it if asked for."""
        views = 2 if isinstance(self, PerView) else 1
        y, statistics = self.kernels(x, shortcut, self.weight, self.bias, views, self.eps, relu)
        means, variances = statistics
        n = x.numel() // means.numel()
        with torch.no_grad():
            for mean, variance in zip(means, variances, strict=True):
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
        return y  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:  # (2B, C, H, W) -> the same
        """Uses the kernels in training, the running statistics in evaluation."""
        if self.training:
            return self.by_kernels(x)
        return super().forward(x)  # type: ignore[misc, no-any-return]


def fuse_batch_norm(module: nn.Module) -> None:
    """Lets every BN of images compute by kernels, with its sum and its ReLU in `bn_relu`."""
    from stopgrad.method.fused import normalize

    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            kind = type(layer)
            own = {"kernels": staticmethod(normalize)}
            layer.__class__ = type(f"Fused{kind.__name__}", (Fused, kind), own)
