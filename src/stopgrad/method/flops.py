"""Floating-point operations of training per view, from a forward pass of one view.

Not on the meta device, on which PyTorch computes shapes by code that imports torch._dynamo.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stopgrad.config import Config, EncoderConfig
from stopgrad.method.classifier import build_classifier
from stopgrad.method.simsiam import build_simsiam


class ClassifierShape(NamedTuple):
    """What the cost of a classifier depends on."""

    encoder: EncoderConfig
    classes: int
    size: tuple[int, int]  # height and width of the input, px


@functools.cache
def training_flops(config: Config) -> float:
    """FLOPs of SimSiam. The backward pass takes twice the forward pass; a target has none.

    0 for an encoder given in Python, which cannot be built from a config.
    """
    if config.encoder.is_given:
        return 0.0
    model = build_simsiam(config).eval()
    size = (config.views.size, config.views.size)
    with _counted() as products:
        z = model.projector(model.encoder(_view(config.encoder, size)))
        forward = products.flops
        model.predictor(z)
    target = forward if model.target is not None else 0
    return float(3 * products.flops + target)


@functools.cache
def classifier_flops(shape: ClassifierShape) -> float:
    """FLOPs of a classifier; 0 as for `training_flops`."""
    if shape.encoder.is_given:
        return 0.0
    model = build_classifier(shape.encoder, classes=shape.classes, seed=0).eval()
    with _counted() as products:
        model(_view(shape.encoder, shape.size))
    return float(3 * products.flops)


@contextmanager
def _counted() -> Iterator[_Products]:
    """Counts in here, with unfused attention: fused kernels have no formula."""
    products = _Products()  # type: ignore[no-untyped-call]
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), products:
        yield products


def _view(encoder: EncoderConfig, size: tuple[int, int]) -> Tensor:
    return torch.zeros(1, encoder.channels, *size)


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts matrix products and convolutions, attention included, by PyTorch's own formulas.

    `FlopCounterMode` gives the same number, but imports torch._dynamo, which takes longer than
    everything else that an evaluation imports.
    """

    flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if count := flop_registry.get(func.overloadpacket):
            self.flops += count(*args, **kwargs, out_val=out)
        return out
