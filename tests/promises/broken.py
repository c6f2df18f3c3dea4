"""The product broken on purpose, for negative controls: each sabotage must make its test fail.

The only module that knows the inside of the product, and the only one that may do what the source
scan (R25) forbids. A name that the product no longer has is an error, not a control.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

SABOTAGE: dict[str, Callable[[], None]] = {}


def apply(name: str) -> None:
    """Breaks the product of this process in the way of this name."""
    SABOTAGE[name]()


def _sabotage(function: Callable[[], None]) -> Callable[[], None]:
    SABOTAGE[function.__name__] = function
    return function


def _replace(module: str, name: str, value: Any) -> Any:
    """Puts another value under a name, and under that name wherever it was imported."""
    import importlib

    original = getattr(importlib.import_module(f"stopgrad.{module}"), name)
    for key, found in list(sys.modules.items()):
        if key.startswith("stopgrad") and getattr(found, name, None) is original:
            setattr(found, name, value)
    return original


def _patch(owner: Any, name: str, value: Any) -> Any:
    """Puts another value under a name that is there; returns what was."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    return original


@_sabotage
def global_generator() -> None:
    """Views are drawn from the generator of the process instead of from seed and step."""
    import torch

    def drawn(seed: int, *position: int | str, device: Any = "cpu") -> Any:
        if position[0] == "views":
            return torch.default_generator
        return original(seed, *position, device=device)

    original = _replace("config.randomness", "torch_generator", drawn)


@_sabotage
def swapped_batches() -> None:
    """The first two batches of each epoch change places."""
    from stopgrad.training import Pretraining

    def batches(training: Pretraining) -> Iterator[Any]:
        found = list(original(training))
        yield from (*found[1::-1], *found[2:])

    original = _patch(Pretraining, "batches", batches)


@_sabotage
def watching_trains() -> None:
    """Measuring an epoch leaves BN in training mode, so that it moves the statistics."""
    from stopgrad.method import SimSiam

    _patch(SimSiam, "eval", lambda model: model.train())


@_sabotage
def no_handlers() -> None:
    """Signals are not caught."""
    from stopgrad.runs import directory

    _patch(directory, "stop_signals", lambda act: contextlib.nullcontext())


@_sabotage
def no_lock() -> None:
    """Nobody waits for a lock."""
    import fcntl

    _patch(fcntl, "flock", lambda descriptor, operation: None)


@_sabotage
def silent_disk() -> None:
    """What the disk refuses is passed over."""

    @contextlib.contextmanager
    def nothing(path: Any, *, needed: int) -> Iterator[None]:
        with contextlib.suppress(OSError):
            yield

    _replace("storage.files", "storage_errors", nothing)


@_sabotage
def no_fsync() -> None:
    """Files are not brought to the disk before they are renamed."""
    import os

    _patch(os, "fsync", lambda descriptor: None)


@_sabotage
def old_removed_first() -> None:
    """The checkpoints on disk go before the new one is written."""
    import shutil

    def save(run: Any, checkpoint: Any) -> Any:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        return original(run, checkpoint)

    original = _replace("runs.checkpoint", "save_checkpoint", save)


@_sabotage
def unchecked_loss() -> None:
    """The step is taken whatever the loss."""
    from stopgrad.training import Pretraining

    _patch(Pretraining, "_refuse_unless_finite", lambda training, loss: None)


@_sabotage
def no_escaping() -> None:
    """Names reach the page as they are."""
    import jinja2

    def unescaped(environment: Any, *arguments: Any, **options: Any) -> None:
        off = {"autoescape": False} if "autoescape" in options else {}
        original(environment, *arguments, **options | off)

    original = _patch(jinja2.Environment, "__init__", unescaped)


@_sabotage
def unpickling() -> None:
    """What is no safetensors file is unpickled."""
    import pickle

    def load(data: bytes, path: Any) -> Any:
        try:
            return original(data, path)
        except Exception:
            return pickle.loads(data)

    original = _replace("runs.checkpoint", "_decode_tensors", load)


@_sabotage
def first_error_only() -> None:
    """Of several wrong values of a configuration only the first is told."""

    def first(flat: Any) -> Any:
        read = original(flat)
        return read._replace(wrong=read.wrong[:1])

    original = _replace("config.parse", "_read_values", first)


@_sabotage
def no_guards() -> None:
    """A run goes on with whatever settings it is given."""
    _replace("runs.changes", "check_changes", lambda *infos: [])


@_sabotage
def raw_memory() -> None:
    """Memory that runs out is an error of Python's or PyTorch's."""
    _replace("errors", "no_memory", lambda error: None)


@_sabotage
def uncaught() -> None:
    """Images that cannot be read are an error of Python's."""

    def fail(spec: str) -> Any:
        raise ValueError(spec)

    _replace("images.load", "find_source", fail)


@_sabotage
def trusted_hub() -> None:
    """What a server of the Hub answers is used as it is."""
    from stopgrad.images.sources import hub

    _patch(hub.Listing, "checked", lambda listing: listing)
    _replace("images.sources.hub", "checked_answers", contextlib.nullcontext)


@_sabotage
def impatient() -> None:
    """A read that fails is an answer."""
    _replace("storage.reading", "read_patiently", lambda path, read: read())


@_sabotage
def links_followed() -> None:
    """A link in a run or a study leads where it points."""
    import os

    _replace("storage.reading", "open_regular", lambda path, flags=0: os.open(path, flags, 0o666))
    _replace("storage.reading", "odd_entry", lambda folder, wanted: None)


@_sabotage
def paths_followed() -> None:
    """Files of a run or a study are opened by their paths, through whatever stands on the way."""
    _replace("storage.inside", "refuse_links", lambda root: None)


@_sabotage
def foreseen_names() -> None:
    """Temporary files have names that anybody can foresee, and are opened through links."""

    @contextlib.contextmanager
    def foreseen(path: Any, *, publish: Any = None) -> Iterator[Any]:
        temporary = path.parent / f".{path.name}.tmp"
        with temporary.open("wb") as file:
            yield file
        temporary.rename(path)

    _replace("storage.files", "appearing", foreseen)


@_sabotage
def fragile_output() -> None:
    """A process ends when its output cannot be written."""
    from stopgrad.face import progress

    _replace("storage.process", "outlive", lambda name: None)
    _patch(progress, "suppress", lambda kind: contextlib.nullcontext())
