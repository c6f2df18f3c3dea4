"""A run directory of several processes that train together: the first one writes for all.

In: a run directory and the `Processes`. Out: a `SharedWriter` in each of them. All learn what the
first one did, or failed to do, before they continue, so that a full disk ends every process and
not the first one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from stopgrad.method import Processes
from stopgrad.runs.checkpoint import Checkpoint
from stopgrad.runs.directory import RunPhase, RunWriter
from stopgrad.runs.info import RunInfo, info_from_dict, info_to_dict

AGREED_EVERY = 16  # steps, after which the processes tell each other of signals


class SharedWriter(RunWriter):
    """The writer of one of several processes; only the first one's touches the disk."""

    def __init__(self, path: Path, info: RunInfo, processes: Processes) -> None:
        super().__init__(path, info)
        self.processes = processes
        self._own_signal: int | None = None

    @classmethod
    def of(cls, make: Callable[[], RunWriter], processes: Processes) -> SharedWriter:
        """The writer that the first process makes, in every process."""
        made = processes.first_does(make)
        first = None if made is None else (str(made.path), info_to_dict(made.info))
        path, info = processes.tell(first)
        writer = cls(Path(path), info_from_dict(info), processes)
        writer._is_new = made is not None and made._is_new
        return writer

    def begin(self) -> Checkpoint | None:
        """As `RunWriter.begin`, in the first process; the checkpoint goes to all."""
        checkpoint = self.processes.first_does(super().begin)
        return spread(checkpoint, self.processes)

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """As `RunWriter.append`, in the first process."""
        self.processes.first_does(lambda: super(SharedWriter, self).append(rows))

    def save(self, checkpoint: Checkpoint) -> None:
        """As `RunWriter.save`, in the first process."""
        self.processes.first_does(lambda: super(SharedWriter, self).save(checkpoint))

    def set_status(self, state: RunPhase, **values: object) -> None:
        """As `RunWriter.set_status`, in the first process."""
        self.processes.first_does(lambda: self._write_status(state, **values))

    def _write_status(self, state: RunPhase, **values: object) -> None:
        if self.processes.is_first:
            super()._write_status(state, **values)

    def agree(self, step: int, *, last: bool) -> None:
        """Checks every few steps, and after an epoch's last, if any process has got a signal."""
        if last or step % AGREED_EVERY == 0:
            self.stop_signal = self.processes.largest(self._own_signal or 0) or None

    def decide(self, due: bool) -> bool:
        """The decision by the clock of the first process."""
        return bool(self.processes.tell(due))

    def _request_stop(self, number: int, frame: Any) -> None:
        self._own_signal = self._own_signal or number


def spread(checkpoint: Checkpoint | None, processes: Processes) -> Checkpoint | None:
    """The checkpoint of the first process in all of them: read once, then sent."""
    shapes = None
    if checkpoint is not None:
        parts = {"model": checkpoint.model, "optimizer": checkpoint.optimizer}
        shapes = {
            part: {n: (list(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in of.items()}
            for part, of in parts.items()
        }
    first = processes.tell(
        None if checkpoint is None else [checkpoint.step, checkpoint.state, shapes]
    )
    if first is None:
        return None
    step, state, shapes = first
    found: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}}
    for part, names in shapes.items():
        for name, (shape, kind) in names.items():
            tensor = torch.empty(shape, dtype=getattr(torch, kind), device=processes.device)
            if checkpoint is not None:
                tensor.copy_(getattr(checkpoint, part)[name])
            processes.spread(tensor)
            found[part][name] = tensor
    return checkpoint or Checkpoint(step, found["model"], found["optimizer"], state)
