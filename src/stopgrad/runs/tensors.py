"""Tensors to safetensors and back from bytes that are not to be trusted; nothing is unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stopgrad.errors import DivergedError
from stopgrad.runs.info import whole_number
from stopgrad.storage import LARGEST_JSON, in_short, strict_json

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def encode_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors, in memory, so that a full disk is an OSError.

    Raises:
        DivergedError: When one is not finite.
    """
    from safetensors.torch import save

    values = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    wrong = not_finite(values)
    if wrong:
        raise DivergedError(
            wrong,
            expected="finite weights; the checkpoint before is the last",
            hint="lower optimizer.base_lr or add optimizer.warmup_epochs",
        )
    # What Rust cannot allocate is a panic, not an error; it takes a copy of all and the result.
    bytearray(2 * sum(value.nbytes for value in values.values()))
    return save(values)


def decode_tensors(data: bytes) -> dict[str, Tensor]:
    """Tensors from the bytes of a safetensors file, of a size that the caller has bounded.

    Raises:
        ValueError: A clause that says what the bytes are not.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

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
        start: The file up to the end of its header, see `header_bytes`.

    Raises:
        ValueError: A clause that says what the bytes are not.
    """
    import torch

    known = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16}
    known |= {"BF16": torch.bfloat16, "I64": torch.int64}
    found = {}
    try:
        for key, entry in strict_json(start[8:]).items():
            if key != "__metadata__":
                shape = [whole_number(side) for side in entry["shape"]]
                dtype = known.get(entry["dtype"], torch.bool)  # the others are no weights
                found[key] = torch.empty(shape, dtype=dtype, device="meta")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"is not safetensors ({in_short(error)})") from error
    return found


def header_bytes(start: bytes) -> int:
    """Bytes of a safetensors file up to the end of its header, by its first 8.

    Raises:
        ValueError: When no safetensors file begins like this.
    """
    length = int.from_bytes(start[:8], "little")
    if is_pickle(start):
        raise ValueError("is a pickle, which is never opened")
    if len(start) < 8 or length > LARGEST_JSON:
        raise ValueError("is not safetensors (no header)")
    return 8 + length


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """What tensors hold, whatever file they are in: sha256 over name, type, shape and bytes."""
    import torch

    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """A clause about the first tensor with a NaN or an infinity; empty when there is none."""
    import torch

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
