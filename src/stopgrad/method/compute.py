"""Where and how the arithmetic runs: device, precision, memory format, CPU threads.

In: a `Config`. Out: a `Compute`, which the rooms that touch tensors take instead of three flags.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stopgrad.config import Config
from stopgrad.errors import ConfigError
from stopgrad.images import Packed, Rows

COPIED_BYTES = 1 << 28  # of images that go to a GPU at a time

Arithmetic = Literal["bf16", "fp32"]

F = TypeVar("F", bound=Callable[..., object])
M = TypeVar("M", bound=nn.Module)


class Compute(NamedTuple):
    """A device and the way it is used."""

    device: torch.device
    precision: Arithmetic
    channels_last: bool
    compiled: bool = False  # torch.compile: fewer and larger kernels, after a minute of waiting

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which matrix products and convolutions run at this precision."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    def place(self, module: M) -> M:
        """The module on this device, in this memory format."""
        if self.channels_last:
            module = module.to(memory_format=torch.channels_last)
        return module.to(self.device)

    def compile(self, function: F) -> F:
        """The function compiled for one set of shapes, or as it is."""
        if not self.compiled:
            return function
        return cast("F", torch.compile(function, dynamic=False))

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """A context for calls of compiled functions, which are compiled at the first of them.

        Raises:
            ConfigError: When code cannot be compiled here. torch.compile's own error is pages long.
        """
        if not self.compiled:
            yield
            return
        with warnings.catch_warnings():
            # The heads are fp32 on purpose; what is outside autocast is little of the work.
            warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
            try:
                yield
            except RuntimeError as error:
                if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                raise _not_compiled(error) from error

    def keep(self, pixels: Rows) -> Tensor | Packed:  # (N, H, W, 3) uint8
        """All images on the device where they fill at most half of its free memory.

        Else they stay where they are: in memory, or on disk.
        """
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if pixels.nbytes <= free / 2:
                return self._copied(pixels)
        return pixels if isinstance(pixels, Packed) else _as_tensor(pixels)

    def _copied(self, pixels: Rows) -> Tensor:
        """All images on the device, by way of a few at a time."""
        copy = torch.empty(pixels.shape, dtype=torch.uint8, device=self.device)
        step = max(1, COPIED_BYTES * len(pixels) // pixels.nbytes)
        for start in range(0, len(pixels), step):
            copy[start : start + step] = _as_tensor(pixels[start : start + step])
        return copy

    def fetch(self, pixels: Tensor | Packed, batch: Tensor) -> Tensor:
        """Some of the images on the device; the host does not wait for the copy.

        Args:
            pixels: As `keep` gave them.
            batch: (B,) int64, on any device.

        Returns:
            (B, 3, H, W) uint8.
        """
        if isinstance(pixels, Packed):
            some = torch.from_numpy(pixels[batch.cpu().numpy()])
        else:
            some = pixels[batch.to(pixels.device)]
        if self.device.type == "cuda" and not some.is_cuda:
            some = some.pin_memory().to(self.device, non_blocking=True)
        return some.permute(0, 3, 1, 2)

    def arrange(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in this memory format; no copy where they are already."""
        if self.channels_last:
            return x.contiguous(memory_format=torch.channels_last)
        return x.contiguous()


def _as_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Without a copy, unless they are read-only, which PyTorch warns of."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def compute_for(config: Config) -> Compute:
    """The device, precision, memory format and compilation that a config asks for.

    Raises:
        ConfigError: When the device is unknown or not there.
    """
    device = _device(config.device)
    compiled = config.compile == "on" or (config.compile == "auto" and device.type == "cuda")
    return Compute(device, _arithmetic(config, device), config.channels_last, compiled)


def _arithmetic(config: Config, device: torch.device) -> Arithmetic:
    """What a precision comes to: a processor that has to imitate bf16 is five times as slow."""
    if config.precision != "auto":
        return config.precision
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if device.type == "cuda" or has_bf16 else "fp32"


def _not_compiled(error: RuntimeError) -> ConfigError:
    reason = " ".join(str(error).split())[:200]
    return ConfigError(
        f"torch.compile fails with torch {torch.__version__} ({reason})",
        expected="code that can be compiled for this device",
        hint="add --compile off: slower, and the same up to rounding",
    )


def use_repeatable(repeatable: bool) -> None:
    """Lets cuDNN choose among its repeatable algorithms alone, or the fastest of all it has."""
    torch.backends.cudnn.deterministic = repeatable
    torch.backends.cudnn.benchmark = not repeatable


def use_threads(threads: int) -> int:
    """Sets the number of CPU threads, 0: PyTorch's choice (OMP_NUM_THREADS); returns it."""
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device = {name!r}",
            expected="auto, cpu, cuda or cuda:N",
            hint="leave it at auto to take the GPU when there is one",
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"device = {name!r}",
            expected="auto, cpu, cuda or cuda:N",
            hint="name a device of these kinds",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device = {name!r} on a machine with {torch.cuda.device_count()} CUDA devices",
            expected="a device that is there",
            hint="use device = auto or cpu",
        )
    return device
