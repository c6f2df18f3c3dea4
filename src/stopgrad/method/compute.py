"""Where and how the arithmetic runs: device, precision, memory format, CPU threads.

In: a `Config`. Out: a `Compute`, which functions take instead of separate flags.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stopgrad.config import Config
from stopgrad.errors import ConfigError
from stopgrad.images import Packed, Rows
from stopgrad.method.processes import Processes, joined_on, process_count
from stopgrad.method.resnet import RESNETS
from stopgrad.storage import keep_apart

COPIED_BYTES = 1 << 28  # of images copied to a GPU at a time

KINDS = ("cuda", "mps", "cpu")  # of devices, in the order that auto prefers them

Arithmetic = Literal["bf16", "fp32"]

F = TypeVar("F", bound=Callable[..., object])
M = TypeVar("M", bound=nn.Module)


class Compute(NamedTuple):
    """A device and the way it is used."""

    device: torch.device
    precision: Arithmetic
    channels_last: bool
    compiled: bool = False  # torch.compile: fewer and larger kernels, after a minute of compiling

    def autocast(self) -> AbstractContextManager[object]:
        """A context with matrix products and convolutions at this precision."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    def place(self, module: M) -> M:
        """The module on this device, in this memory format."""
        if self.channels_last:
            module = module.to(memory_format=torch.channels_last)
        return module.to(self.device)

    def compile(self, function: F) -> F:
        """The function, compiled for fixed shapes if `compiled` is set."""
        if not self.compiled:
            return function
        return cast("F", torch.compile(function, dynamic=False))

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """A context for calls of compiled functions, which compile at their first call.

        Raises:
            ConfigError: When compiling fails. torch.compile's own error is pages long.
        """
        if not self.compiled:
            yield
            return
        with warnings.catch_warnings():
            # The heads are fp32 on purpose, and a small part of the work.
            warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
            try:
                yield
            except RuntimeError as error:
                if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                raise _not_compiled(error) from error

    def keep(self, pixels: Rows) -> Tensor | Packed:  # (N, H, W, 3) uint8
        """All images, on the device if they fill at most half of its free memory.

        Otherwise they stay in memory or on disk.
        """
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if pixels.nbytes <= free / 2:
                return self._copied(pixels)
        return pixels if isinstance(pixels, Packed) else _as_tensor(pixels)

    def _copied(self, pixels: Rows) -> Tensor:
        """All images on the device, copied a few at a time."""
        copy = torch.empty(pixels.shape, dtype=torch.uint8, device=self.device)
        step = max(1, COPIED_BYTES * len(pixels) // pixels.nbytes)
        for start in range(0, len(pixels), step):
            copy[start : start + step] = _as_tensor(pixels[start : start + step])
        return copy

    def fetch(self, pixels: Tensor | Packed, batch: Tensor) -> Tensor:
        """A batch of images on the device; the host does not wait for the copy.

        Args:
            pixels: As returned by `keep`.
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
        elif self.device.type == "mps":  # which shares the memory of the host
            some = some.to(self.device)
        return some.permute(0, 3, 1, 2)

    def arrange(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in this memory format, copied only if necessary."""
        if self.channels_last:
            return x.contiguous(memory_format=torch.channels_last)
        return x.contiguous()


def _as_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Copies only read-only pixels, about which PyTorch would warn."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def compute_for(config: Config) -> Compute:
    """The device, precision, memory format and compilation that a config asks for.

    Raises:
        ConfigError: When the device is unknown or missing.
    """
    device = own_device(_device(config.device))
    compiled = config.compile == "on" or (config.compile == "auto" and device.type == "cuda")
    # Convolutions of MPS have been wrong in this memory format, and are no faster in it.
    channels_last = config.channels_last and device.type != "mps"
    return Compute(device, _arithmetic(config, device), channels_last, compiled)


def joined(config: Config) -> AbstractContextManager[Processes | None]:
    """The processes that train together by this config; see `processes`.

    Raises:
        ConfigError: For more processes than a batch has images; for fused kernels, see
            `check_kernels`.
    """
    check_kernels(config)
    count = process_count()
    if count == 1:
        return nullcontext()
    if config.has_own_parts:
        raise ConfigError(
            f"an encoder or views given in Python with {count} processes",
            expected="one process, because several would not draw the same random numbers",
            hint="start one process, or use a built-in encoder and built-in views",
        )
    if count > config.batch:
        raise ConfigError(
            f"{count} processes for batch = {config.batch}",
            expected="at least one image of each batch per process",
            hint="start fewer processes, or raise the batch",
        )
    if config.repeatable:  # NVLink's own sums have no fixed order
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    share = ":" in config.device
    device = compute_for(config).device
    if device.type == "mps":
        raise ConfigError(
            f"{count} processes on Apple's GPU",
            expected="one process, or --device cpu",
            hint="torch cannot sum over several processes there",
        )
    return joined_on(device, share=share, timeout=config.process_timeout)


def check_kernels(config: Config) -> None:
    """Refuses `batch_norm_kernel = fused` where its kernels do not run.

    Raises:
        ConfigError: Without a GPU of CUDA or Triton (which can also interpret them, for tests), for
            an encoder other than our ResNets, and for BN over several processes.
    """
    if config.batch_norm_kernel == "plain":
        return
    if _device(config.device).type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        where = f"on {_device(config.device)}, which cannot run its kernels"
    elif not find_spec("triton"):
        where = "without Triton, which compiles its kernels"
    elif config.encoder.name not in RESNETS:
        where = f"in {config.encoder.name}, whose layers are not ours"
    elif process_count() > 1 and config.batch_norm_over == "all":
        where = f"over {process_count()} processes, whose statistics it does not sum"
    else:
        return
    raise ConfigError(
        f"batch_norm_kernel = fused {where}",
        expected="one of our ResNets on one CUDA GPU",
        hint="add --batch_norm_kernel plain",
    )


def unused_gpus(config: Config) -> int:
    """How many GPUs of this machine a training in one process leaves idle."""
    alone = process_count() == 1 and _device(config.device).type == "cuda"
    return torch.cuda.device_count() - 1 if alone else 0


def _arithmetic(config: Config, device: torch.device) -> Arithmetic:
    """The precision; `auto` avoids bf16 on a CPU that emulates it, five times slower than fp32."""
    if config.precision != "auto":
        return config.precision
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if device.type == "cuda" or (has_bf16 and device.type == "cpu") else "fp32"


def _not_compiled(error: RuntimeError) -> ConfigError:
    reason = " ".join(str(error).split())[:200]
    return ConfigError(
        f"torch.compile fails with torch {torch.__version__} ({reason})",
        hint="add --compile off, which is slower and gives the same results up to rounding",
    )


@contextmanager
def plain_torch() -> Iterator[None]:
    """PyTorch with its defaults, whatever the caller has set, which is restored afterwards.

    This covers gradients, inference mode, the default type and device of new tensors, autocast and
    `torch.set_float32_matmul_precision`.
    The number of threads and cuDNN's choice of algorithms stay the caller's, but are restored too.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as settings:
            settings.enter_context(torch.inference_mode(False))
            settings.enter_context(torch.enable_grad())
            if device != torch.device("cpu"):
                settings.enter_context(torch.device("cpu"))
            for kind in KINDS:
                if torch.is_autocast_enabled(kind):
                    settings.enter_context(torch.autocast(kind, enabled=False))
            settings.enter_context(_full_precision())
            yield
    finally:
        torch.set_default_dtype(dtype)
        cudnn.deterministic, cudnn.benchmark = flags
        use_threads(threads)


@contextmanager
def _full_precision() -> Iterator[None]:
    """A context in which matrix products in fp32 have all their digits."""
    backends: Any = torch.backends
    switches = (backends.cuda.matmul, backends.mkldnn.matmul)
    found, before = [each.fp32_precision for each in switches], None
    with suppress(RuntimeError):  # the old switch refuses to be read where only new ones are set
        before = torch.get_float32_matmul_precision()
    if before is None:
        for each in switches:
            each.fp32_precision = "ieee"
    elif before != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if before not in (None, "highest"):
            torch.set_float32_matmul_precision(before)
        for each, value in zip(switches, found, strict=True):
            each.fp32_precision = "none"  # as torch's common switch says
            if each.fp32_precision != value:
                each.fp32_precision = value


def set_back_torch() -> None:
    """Resets what a call has set to PyTorch's initial state."""
    torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False
    use_threads(usual_threads())


def use_repeatable(repeatable: bool) -> None:
    """Restricts cuDNN to repeatable algorithms, or lets it choose the fastest."""
    torch.backends.cudnn.deterministic = repeatable
    torch.backends.cudnn.benchmark = not repeatable


@functools.cache
def usual_threads() -> int:
    """PyTorch's number of threads when this was first called: its own choice, or the caller's."""
    return torch.get_num_threads()


def use_threads(threads: int) -> int:
    """Sets the number of CPU threads and returns it; 0 keeps PyTorch's (OMP_NUM_THREADS)."""
    usual_threads()
    if threads not in (0, torch.get_num_threads()):
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def keep_threads_apart() -> None:
    """Pins the threads that PyTorch computes with, one to a core; see `storage.keep_apart`."""
    for openmp in Path(torch.__file__).parent.glob("lib/libgomp*"):
        keep_apart(torch.get_num_threads(), openmp=openmp)


def on_this_machine(config: Config) -> Config:
    """The config of a finished training, with device auto where its own is not on this machine."""
    return config if has_device(config.device) else replace(config, device="auto")


def has_device(name: str) -> bool:
    """Whether this machine has the device "cuda:1", "mps" or "cpu"."""
    kind, _, number = name.partition(":")
    match kind:
        case "cuda":
            there = torch.cuda.device_count() if number.isdecimal() else 0
            return torch.cuda.is_available() and (not there or int(number) < there)
        case "mps":
            return torch.backends.mps.is_available()
        case _:
            return True


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device(next(kind for kind in KINDS if has_device(kind)))
    try:
        device = torch.device(name)
        if device.type not in KINDS:
            raise RuntimeError("another kind of device")
    except RuntimeError as error:
        raise ConfigError(
            f"device = {name!r}",
            expected="auto, cpu, mps, cuda or cuda:N",
            hint="auto takes the GPU if there is one",
        ) from error
    if device.type == "mps" and not has_device("mps"):
        raise ConfigError(
            "device = 'mps', but this machine or this torch has no support for Apple's GPU",
            hint="use --device auto or --device cpu",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device = {name!r} on a machine with {torch.cuda.device_count()} CUDA devices",
            expected="one of those devices",
            hint="use --device auto or --device cpu",
        )
    return device


def own_device(device: torch.device) -> torch.device:
    """The device of this process: among several, the GPU of its LOCAL_RANK.

    A GPU that is named by its number is shared by all.

    Raises:
        ConfigError: When there are fewer GPUs than processes on this machine.
    """
    if device.type != "cuda" or ":" in str(device) or process_count() == 1:
        return device
    rank, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    # Refused in all of them where torchrun says how many there are: only the first one prints.
    wanted = int(os.environ.get("LOCAL_WORLD_SIZE", rank + 1))
    if wanted > there:
        raise ConfigError(
            f"{wanted} processes on a machine with {there} GPUs",
            expected="at most one process for each GPU",
            hint="start fewer, or use --device cpu",
        )
    return torch.device("cuda", rank)
