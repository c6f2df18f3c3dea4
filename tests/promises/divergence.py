"""R7: a run that diverges stops before the bad step; all that it leaves is finite."""

from __future__ import annotations

import array
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tests.promises import state
from tests.promises.lab import Lab
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done

TOO_FAST = ("--optimizer.base_lr", "1e20", "--checkpoint_every", "1")
DIVERGED = 4


def check(lab: Lab, tries: int) -> Outcome:
    """Diverges with so many seeds, one after the other."""
    failures: list[str] = []
    for seed in range(tries):
        run = lab.place("diverged")
        done = lab.run(*lab.pretraining(run, *TOO_FAST, "--seed", seed))
        failures += [f"seed {seed}: {line}" for line in _wrong(run, done)]
    return Outcome(tries, tuple(failures), (_blind(lab),))


def _wrong(run: Path, done: Done) -> Iterator[str]:
    """What is wrong with a run that had to diverge."""
    if done.crashed:
        yield done.crashed
    if done.code != DIVERGED:
        yield f"exit code {done.code}: {done.last_line}"
    status, last = state.status(run), state.last_row_step(run)
    if status.get("state") != "diverged" or not status.get("reason"):
        yield f"status {status.get('state')}"
    said = re.search(r"at step (\d+)", done.last_line)
    if said is None or int(said[1]) != last + 1 or state.newest_step(run) != last:
        yield f"stopped after step {state.newest_step(run)}, rows to {last}: {done.last_line}"
    for path in sorted(run.rglob("*.safetensors")):
        if not _finite(path):
            yield f"{path.relative_to(run)} is not finite"
    for path in (*run.rglob("*.json"), *run.rglob("*.jsonl")):
        yield from _not_strict(path)


def _finite(path: Path) -> bool:
    floats = (tensor.data for tensor in state.tensors(path) if tensor.dtype == "F32")
    return all(math.isfinite(value) for data in floats for value in array.array("f", data))


def _not_strict(path: Path) -> Iterator[str]:
    text = path.read_text()
    for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
        try:
            json.loads(part, parse_constant=_refuse)
        except ValueError as error:
            yield f"{path.name}: {error}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _blind(lab: Lab) -> Control:
    run = lab.place("blind")
    done = lab.run(*lab.pretraining(run, *TOO_FAST), sabotage="unchecked_loss")
    return control("the bad step taken", _wrong(run, done), sees="status failed")
