"""The machine's limit: the rate of a large matrix product, in bf16 and in fp32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import torch_generator
from stopgrad.method import Arithmetic
from stopgrad.speed.stopwatch import per_call, times

DTYPES: dict[Arithmetic, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}


class MatrixRates(NamedTuple):
    """Floating-point operations per second, measured right after each other."""

    bf16: float
    fp32: float

    def of(self, precision: Arithmetic) -> float:
        """The rate at a precision."""
        return self.bf16 if precision == "bf16" else self.fp32


class Matrices(NamedTuple):
    """Two factors and the memory for their product."""

    left: Tensor  # (S, S)
    right: Tensor  # (S, S)
    product: Tensor  # (S, S)


class MatrixProduct:
    """A product of S x S matrices in each precision, to be timed repeatedly.

    Attributes:
        measured: All rates so far, oldest first.

    Args:
        side: S. On two cores the rate in bf16 differs by 7 % between 1024 and 4096.
        device: Where to compute it.
        at_least: Seconds of each measurement.
    """

    def __init__(self, side: int, *, device: torch.device, at_least: float) -> None:
        self.side = side
        self.device = device
        self.at_least = at_least
        self._matrices = {
            name: _matrices(side, dtype=dtype, device=device) for name, dtype in DTYPES.items()
        }
        self.measured: list[MatrixRates] = []
        self.rates()  # warms up: the first product also chooses and builds its kernel
        self.measured.clear()

    def rates(self) -> MatrixRates:
        """Measures the rates, and adds them to `measured`. A product takes 2 S^3 operations."""
        self.measured.append(MatrixRates(self._rate("bf16"), self._rate("fp32")))
        return self.measured[-1]

    def _rate(self, precision: Arithmetic) -> float:
        left, right, product = self._matrices[precision]
        multiply = times(lambda: torch.mm(left, right, out=product))
        return 2 * self.side**3 / per_call(multiply, device=self.device, at_least=self.at_least)


def _matrices(side: int, *, dtype: torch.dtype, device: torch.device) -> Matrices:
    generator = torch_generator(0, "speed", "matrices", device=device)
    left, right = (
        torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2)
    )
    return Matrices(left, right, torch.empty_like(left))
