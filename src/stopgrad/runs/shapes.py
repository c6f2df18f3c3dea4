"""The tensors that a config's model has, known without a byte of memory for them.

So a checkpoint of others is compared with what it should be before it is read, and a config of
others cannot ask for more memory than there is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stopgrad.config import Config, EncoderConfig, torch_generator
from stopgrad.method import (
    Classifier,
    SimSiam,
    build_classifier,
    build_encoder,
    build_simsiam,
    parameter_groups,
)

HEADER = 16 << 20  # bytes, generous
NUMBERS = (torch.float32, torch.float64, torch.bfloat16, torch.int64)
BUFFERS = 4  # the optimiser's tensors for a parameter, generous


class Tensors(NamedTuple):
    """What a checkpoint of a config holds."""

    model: Mapping[str, Tensor]  # on the meta device: shape and type alone
    parameters: tuple[Tensor, ...]  # in the optimiser's order, on the meta device
    most_bytes: int  # that a file of tensors may have


class _WithoutMemory(TorchFunctionMode):
    """Lets a model that was laid out on the meta device stay there, without initial weights."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if "generator" in kwargs:  # an initial value that is drawn
            return args[0] if args else kwargs["tensor"]
        if func is torch.empty_like:  # Module.to_empty
            kwargs = kwargs | {"device": "meta"}
        return func(*args, **kwargs)


@functools.lru_cache(maxsize=8)
def tensors_of(config: Config, classes: int = 0) -> Tensors:
    """Names, shapes and types of the tensors of a config's model.

    Args:
        config: Every knob.
        classes: C of a classifier with the config's encoder; 0: SimSiam.

    Raises:
        ConfigError: For an encoder that does not exist.
    """
    with _WithoutMemory():
        model = _model(config, classes)
    values = {key: value.to("meta") for key, value in model.state_dict().items()}
    parameters = tuple(p.to("meta") for p in _parameters(model, config))
    return Tensors(values, parameters, HEADER + BUFFERS * size_of(values))


@functools.lru_cache(maxsize=8)
def encoder_tensors(config: EncoderConfig) -> Mapping[str, Tensor]:
    """Names, shapes and types of the tensors of an encoder, on the meta device.

    Raises:
        ConfigError: For an encoder that does not exist.
    """
    with _WithoutMemory():
        encoder = build_encoder(config, torch_generator(0, "encoder"))
    return {key: value.to("meta") for key, value in encoder.state_dict().items()}


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that tensors take."""
    return sum(value.numel() * value.element_size() for value in tensors.values())


def _model(config: Config, classes: int) -> SimSiam | Classifier:
    if classes:
        return build_classifier(config.encoder, classes=classes, seed=config.seed)
    return build_simsiam(config)


def _parameters(model: SimSiam | Classifier, config: Config) -> Iterator[Tensor]:
    """In the optimiser's order."""
    match model:
        case SimSiam():
            for group in parameter_groups(model, config.optimizer):
                yield from group.parameters
        case Classifier():
            yield from model.parameters()


def misfit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """How tensors differ from those wanted, in names, shapes and types; empty when they do not."""
    return "; ".join(
        [
            *_names("missing", wanted.keys() - found.keys()),
            *_names("unknown", found.keys() - wanted.keys()),
            *_names("of another shape or type", _of_another_kind(found, wanted)),
        ]
    )


def optimizer_misfit(found: Mapping[str, Tensor], parameters: tuple[Tensor, ...]) -> str:
    """How an optimiser's tensors `INDEX.NAME` differ from their parameters in number and shape."""
    known = {str(index): parameter for index, parameter in enumerate(parameters)}
    wrong = {
        key for key, value in found.items() if not _belongs(value, known.get(key.partition(".")[0]))
    }
    return "; ".join(_names("of no parameter's shape and type", wrong))


def _belongs(value: Tensor, parameter: Tensor | None) -> bool:
    """Of a parameter's shape and type, or one number for it."""
    if parameter is None:
        return False
    return value.dtype in NUMBERS and value.shape in (parameter.shape, ())


def _of_another_kind(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> set[str]:
    return {
        key
        for key in found.keys() & wanted.keys()
        if (found[key].shape, found[key].dtype) != (wanted[key].shape, wanted[key].dtype)
    }


def _names(what: str, names: set[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(ascii(name[:80]) for name in sorted(names)[:3])
    return [f"{what}: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")]
