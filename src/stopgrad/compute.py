"""Where and how the arithmetic runs: device, precision, memory format, CPU threads.

In: a `Config`. Out: a `Compute`, which the rooms that touch tensors take instead of three flags.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stopgrad.config import Config
from stopgrad.config.knobs import Precision
from stopgrad.errors import ConfigError


class Compute(NamedTuple):
    """A device and the way it is used."""

    device: torch.device
    precision: Precision
    channels_last: bool

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which matrix products and convolutions run at this precision."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    def place(self, module: nn.Module) -> nn.Module:
        """The module on this device, in this memory format."""
        if self.channels_last:
            module = module.to(memory_format=torch.channels_last)
        return module.to(self.device)

    def arrange(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in this memory format; no copy where they are already."""
        if self.channels_last:
            return x.contiguous(memory_format=torch.channels_last)
        return x.contiguous()


def compute_for(config: Config) -> Compute:
    """The device, precision and memory format that a config asks for.

    Raises:
        ConfigError: When the device is unknown or not there.
    """
    return Compute(_device(config.device), config.precision, config.channels_last)


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
