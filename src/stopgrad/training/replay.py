"""A training step as a CUDA graph, recorded once and replayed.

In: a step, and the processes that take it together. Out: the same step, replayed. It is some 400
kernels, and on an H200 the host took 27 ms to launch what the GPU did in 13 (docs/log.md). The
replay runs the very kernels of the step, so no bit changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from stopgrad.errors import LostProcessError
from stopgrad.method import Processes

log = logging.getLogger(__name__)

ONE_BY_ONE = 3
"""Steps taken before the recording: they build kernels, choose algorithms and make buffers."""


class Replay:
    """Takes steps: the first ones launched kernel by kernel, then as one graph.

    Args:
        work: A step, (B,) and its table -> (2,). It may change only tensors that stay where they
            are, and must not wait for the GPU.
        processes: Those that take each step together: all replay it, or none does.
    """

    def __init__(
        self, work: Callable[[Tensor, Tensor], Tensor], processes: Processes | None = None
    ) -> None:
        self._work = work
        self._processes = processes
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output = torch.empty(0)

    @property
    def is_recorded(self) -> bool:
        """Whether steps are already replayed."""
        return self._graph is not None

    def __call__(self, *inputs: Tensor) -> Tensor:  # (B,), table -> (2,)
        """Takes the step; the result is a tensor of its own."""
        self._taken += 1
        if self._graph is None and self._taken == ONE_BY_ONE + 1:
            self._record(inputs)
        if self._graph is None:
            return self._launch(inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._graph.replay()
        return self._output.clone()

    def _launch(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Launches a step kernel by kernel, on the recording's stream, which autograd uses too."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            output = self._work(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return output

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        """Records a step without taking it; if that fails, steps are still launched one by one."""
        places, graph = tuple(value.clone() for value in inputs), torch.cuda.CUDAGraph()
        processes, reason = self._processes, ""
        with nullcontext() if processes is None else processes.watched():
            try:
                with torch.cuda.graph(graph, stream=self._stream):
                    self._output = self._work(*places)
            except (RuntimeError, LostProcessError) as error:  # of a sum, which may not be recorded
                reason = str(error).partition("\n")[0] or type(error).__name__
        if processes is not None and not processes.all_agree(not reason):
            reason = reason or "another process cannot record them"
        if reason:
            log.warning("steps are launched kernel by kernel, which is slower (%s)", reason)
            return
        self._inputs, self._graph = places, graph
