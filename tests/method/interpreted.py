"""The kernels of `fused` in Triton's interpreter, for `test_fused`: how far from the plain modules.

    python -m tests.method.interpreted OUT.json

A process of its own: the environment says when Triton is loaded whether kernels are interpreted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor, nn

from stopgrad.config import torch_generator
from stopgrad.method import fused, use_threads
from stopgrad.method.layers import PerViewBatchNorm2d, bn_relu, fuse_batch_norm
from tests.training.together import training

FP32, BF16 = torch.float32, torch.bfloat16
CASES: dict[str, dict[str, Any]] = {
    "sum and ReLU": {"shortcut": True},
    "ReLU": {},
    "sum": {"shortcut": True, "relu": False},
    "neither": {"relu": False},
    "sum and ReLU in bf16": {"shortcut": True, "dtype": BF16},
    "ReLU in bf16, not channels_last": {"dtype": BF16, "layout": torch.contiguous_format},
    "even sizes": {"shortcut": True, "shape": (4, 32, 4, 4)},
    "one pixel": {"shape": (10, 6, 1, 1)},
    "joint": {"shortcut": True, "kind": nn.BatchNorm2d},
    "a mean of 1000": {"mean": 1000.0},
    "compiled": {"shortcut": True, "compiled": True},
}


def compared(
    case: str,
    *,
    dtype: torch.dtype = FP32,
    shortcut: bool = False,
    relu: bool = True,
    shape: tuple[int, ...] = (6, 3, 5, 7),
    kind: type[nn.BatchNorm2d] = PerViewBatchNorm2d,
    layout: torch.memory_format = torch.channels_last,
    mean: float = 2.0,
    compiled: bool = False,
) -> dict[str, float]:
    """How far all results are from the plain module's in fp64, over the largest of each."""
    generator = torch_generator(0, case)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    x, added, above = (drawn(*shape) + shift for shift in (mean, 0, 0))
    x, added, above = (v.to(dtype).contiguous(memory_format=layout) for v in (x, added, above))
    weight, bias = drawn(shape[1]), drawn(shape[1])
    found = []
    for ours in (True, False):
        bn = kind(shape[1])
        with torch.no_grad():
            bn.weight.copy_(weight)
            bn.bias.copy_(bias)
        if ours:
            fuse_batch_norm(bn)
        else:
            bn.double()
        inputs = [v.clone() if ours else v.double() for v in (x, added)][: 1 + shortcut]
        for value in inputs:
            value.requires_grad_()
        function = bn_relu if relu else summed
        if compiled and ours:
            function = torch.compile(function, backend="aot_eager", fullgraph=True)
        y = function(bn, *inputs)
        y.backward(above.to(y.dtype))
        assert y.dtype == inputs[0].grad.dtype == inputs[0].dtype
        gradients = [value.grad for value in (*inputs, bn.weight, bn.bias)]
        found.append([y.detach(), *gradients, *bn.buffers()])
    names = ["y", "x", *["shortcut"][: int(shortcut)], "weight", "bias", *dict(bn.named_buffers())]
    pairs = zip(names, *found, strict=True)
    return {name: float((a - b).abs().max() / b.abs().max()) for name, a, b in pairs}


def summed(bn: Any, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """bn(x) + shortcut: no network of ours asks for a sum without a ReLU."""
    if shortcut is not None and hasattr(bn, "by_kernels"):
        return bn.by_kernels(x, shortcut)
    return bn(x) if shortcut is None else bn(x) + shortcut


def poisoned() -> list[int]:
    """How many values of y, by view, are NaN when one of the first view's 5 x 2 x 3 x 3 is."""
    bn, x = PerViewBatchNorm2d(5), torch.ones(4, 5, 3, 3)
    fuse_batch_norm(bn)
    x[0, 2, 1, 1] = torch.nan
    return [int(view.isnan().sum()) for view in bn_relu(bn, x).chunk(2)]


def trained(**changes: Any) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and tensors of two steps of a small network."""
    learner = training(None, **changes)
    for batch in [*learner.batches()][:2]:
        learner.advance(batch)
    return learner.read_losses(), learner.model.state_dict()


def main() -> None:
    """Compares, and prints."""
    use_threads(1)
    # So small that a program has several tiles, and a view several programs.
    fused.TILE, fused.PROGRAMS = 32, 6
    apart = {case: compared(case, **what) for case, what in CASES.items()}
    fused.TILE, fused.PROGRAMS = 4096, 1024
    losses, state = trained()
    others, other = trained(batch_norm_kernel="fused")
    found = {
        "apart": apart,
        "nan": poisoned(),
        "losses": [losses, others],
        "states": max(float((state[name] - other[name]).abs().max()) for name in state),
    }
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
