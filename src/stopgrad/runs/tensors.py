"""Tensors to safetensors and back, and the tensors that a config's model has.

Bytes are not trusted: nothing is unpickled, and what a checkpoint should hold is worked out without
allocating it, so that somebody else's config cannot ask for more memory than there is.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stopgrad.config import Config, EncoderConfig, torch_generator
from stopgrad.errors import DivergedError
from stopgrad.method import (
    Classifier,
    SimSiam,
    build_classifier,
    build_encoder,
    build_simsiam,
    parameter_groups,
)
from stopgrad.runs.info import whole_number
from stopgrad.storage import LARGEST_JSON, in_short, strict_json

HEADER = 16 << 20  # bytes, generous
NUMBERS = (torch.float32, torch.float64, torch.bfloat16, torch.int64)
BUFFERS = 4  # the optimiser's tensors for a parameter, generous
PICKLED = "is a pickle, which is never opened"
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def encode_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors, in memory; a DivergedError when one is not finite."""
    values = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    seen = set[int]()
    for key, value in values.items():  # tied weights have two names, which safetensors refuses
        if value.untyped_storage().data_ptr() in seen:
            values[key] = value.clone()
        seen.add(value.untyped_storage().data_ptr())
    wrong = not_finite(values)
    if wrong:
        raise DivergedError(
            wrong,
            expected="finite weights; the checkpoint before is the last",
            hint="lower optimizer.base_lr or add optimizer.warmup_epochs",
        )
    # A failed allocation in Rust is a panic, not an error; it needs a copy of all and the result.
    bytearray(2 * sum(value.nbytes for value in values.values()))
    return save(values)


def decode_tensors(data: bytes) -> dict[str, Tensor]:
    """Tensors from bytes of a bounded size; a ValueError when they are not safetensors."""
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > min(len(data) - 8, LARGEST_JSON):
            raise ValueError("no header of safetensors")
        strict_json(data[8 : 8 + length])  # refuses keys that occur twice
        bytearray(2 * len(data))  # as in `encode_tensors`: the copies in Rust and in PyTorch
        return load(data)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"is not safetensors ({in_short(error)})") from error


def header_tensors(start: bytes) -> dict[str, Tensor]:
    """Names, shapes and types that a safetensors file claims, on the meta device.

    Args:
        start: The file to the end of its header, see `header_bytes`.

    Raises:
        ValueError: When the bytes are not a header of safetensors.
    """
    known = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16}
    known |= {"BF16": torch.bfloat16, "I64": torch.int64}
    found = {}
    try:
        for key, entry in strict_json(start[8:]).items():
            if key != "__metadata__":
                shape = [whole_number(side) for side in entry["shape"]]
                dtype = known.get(entry["dtype"], torch.bool)  # the others are not weights
                found[key] = torch.empty(shape, dtype=dtype, device="meta")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"is not safetensors ({in_short(error)})") from error
    return found


def header_bytes(start: bytes) -> int:
    """Bytes to the end of a safetensors header, by its first 8; a ValueError for other files."""
    length = int.from_bytes(start[:8], "little")
    if is_pickle(start):
        raise ValueError(PICKLED)
    if len(start) < 8 or length > LARGEST_JSON:
        raise ValueError("is not safetensors (no header)")
    return 8 + length


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """sha256 in hex of tensors, whatever file they are in: over name, type, shape and bytes."""
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """A clause about the first tensor with a NaN or an infinity; empty when there is none."""
    for key, value in tensors.items():
        # One cheap pass: no sum over a NaN or an infinity is finite.
        if not torch.isfinite(value.sum()) and not torch.isfinite(value).all():
            return f"{key[:80]!a} is not finite"
    return ""


def is_pickle(data: bytes) -> bool:
    """Whether these bytes begin like those of torch.save or pickle.

    Safetensors begin with a length of 8 bytes; a short one has zeros where a pickle has text.
    """
    return data.startswith(PICKLES) and data[2:8].count(0) < 5


class Tensors(NamedTuple):
    """The tensors in a checkpoint of a config; on the meta device, shape and type alone."""

    model: Mapping[str, Tensor]
    parameters: tuple[Tensor, ...]  # in the optimiser's order
    most_bytes: int  # that a file of tensors may have


class _WithoutMemory(TorchFunctionMode):
    """Builds a model on the meta device, without drawing its initial weights."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        if "generator" in kwargs:  # an initial value that is drawn
            return args[0] if args else kwargs["tensor"]
        if func is torch.empty:  # memory of a layer
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@functools.lru_cache(maxsize=8)
def tensors_of(config: Config, classes: int = 0) -> Tensors:
    """The tensors of a config's SimSiam, or of a classifier of `classes` with its encoder."""
    model: SimSiam | Classifier
    with _WithoutMemory():
        if classes:
            model = build_classifier(config.encoder, classes=classes, seed=config.seed)
            parameters: list[Tensor] = list(model.parameters())
        else:
            model = build_simsiam(config)
            groups = parameter_groups(model, config.optimizer)
            parameters = [parameter for group in groups for parameter in group.parameters]
    values = {key: value.to("meta") for key, value in model.state_dict().items()}
    most_bytes = HEADER + BUFFERS * size_of(values)
    return Tensors(values, tuple(p.to("meta") for p in parameters), most_bytes)


@functools.lru_cache(maxsize=8)
def encoder_tensors(config: EncoderConfig) -> Mapping[str, Tensor]:
    """Names, shapes and types of the tensors of an encoder that exists, on the meta device."""
    with _WithoutMemory():
        encoder = build_encoder(config, torch_generator(0, "encoder"))
    return {key: value.to("meta") for key, value in encoder.state_dict().items()}


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that tensors take."""
    return sum(value.numel() * value.element_size() for value in tensors.values())


def misfit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """How tensors differ from those wanted, in names, shapes and types; empty when they do not."""
    kinds = {key: (value.shape, value.dtype) for key, value in found.items()}
    both = found.keys() & wanted.keys()
    others = {key for key in both if kinds[key] != (wanted[key].shape, wanted[key].dtype)}
    missing, unknown = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    wrong = {"missing": missing, "unknown": unknown, "of another shape or type": others}
    return "; ".join(_named(what, names) for what, names in wrong.items() if names)


def optimizer_misfit(found: Mapping[str, Tensor], parameters: tuple[Tensor, ...]) -> str:
    """How an optimiser's tensors `INDEX.NAME` differ from their parameters in number and shape."""
    known = {str(index): parameter for index, parameter in enumerate(parameters)}
    wrong = set()
    for key, value in found.items():
        parameter = known.get(key.partition(".")[0])
        shapes = () if parameter is None else (parameter.shape, ())  # or one number for it
        if value.dtype not in NUMBERS or value.shape not in shapes:
            wrong.add(key)
    return _named("of no parameter's shape and type", wrong) if wrong else ""


def _named(what: str, names: set[str]) -> str:
    shown = ", ".join(ascii(name[:80]) for name in sorted(names)[:3])
    return f"{what}: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
