"""One checkpoint is one directory; its manifest, written last by rename, is the commit.

Tensors are safetensors, the rest is JSON; the manifest holds the sha256 of each file and is
verified at every load. A damaged newest checkpoint falls back to the one before.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.errors import CheckpointError
from stopgrad.runs.guards import check_changes
from stopgrad.runs.info import RunInfo, info_to_dict, read_run
from stopgrad.runs.parts import (
    INFO,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    STATE,
    DamagedError,
    TrainingState,
    decode_model,
    decode_optimizer,
    decode_state,
    encode_manifest,
    read_info,
    read_manifest,
    read_part,
)
from stopgrad.storage import LARGEST_JSON, replace_file, storage_errors, sync_directory

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2  # complete checkpoints on disk: the newest, and the one to fall back to


class Checkpoint(NamedTuple):
    """A verified checkpoint."""

    step: int  # steps taken
    model: dict[str, Tensor]  # state dict
    optimizer: dict[str, Tensor]  # momentum by "index.name"
    state: TrainingState
    damaged: tuple[str, ...] = ()  # a line for each newer checkpoint that was passed over
    info: RunInfo | None = None  # the run's when it was saved; None before that


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint, then removes all but the newest complete ones.

    Raises:
        DivergedError: When a tensor is not finite; nothing is written then.
        StorageError: When the disk refuses; older checkpoints are untouched then.
    """
    folder = run / "checkpoints" / _name(checkpoint.step)
    files = _encode(checkpoint)
    manifest = json.dumps(encode_manifest(checkpoint.step, files), indent=2).encode()
    needed = sum(map(len, files.values())) + len(manifest)
    with storage_errors(folder, needed=needed):
        try:
            _write(folder, files, manifest)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)  # gives its space back
            raise
    _prune(run)
    return folder


def load_checkpoint(run: Path, *, now: RunInfo | None = None) -> Checkpoint:
    """The newest checkpoint of a run that verifies.

    Args:
        run: The run directory.
        now: What would go on from it; None: only what config.json says is compared.

    Raises:
        ConfigError: When the run is no longer the one that was saved, with each difference.
        DataError: When its images are others.
        CheckpointError: When there is none, or when the newest was not written by stopgrad.
    """
    info, damaged = read_run(run), list[str]()
    folders, before = checkpoint_folders(run), list[Path]()
    while folders != before:  # a run that goes on meanwhile removes its old ones
        damaged.clear()
        for folder in reversed(folders):
            try:
                found = read_checkpoint(folder, info=info, now=now)
                return found._replace(damaged=tuple(damaged))
            except DamagedError as error:
                damaged.append(error.found)
        folders, before = checkpoint_folders(run), folders
    raise CheckpointError(
        "; ".join(damaged) or f"{run} holds no checkpoint",
        expected="a complete checkpoint",
        hint="start the run anew with: stopgrad pretrain",
    )


def read_checkpoint(folder: Path, *, info: RunInfo, now: RunInfo | None = None) -> Checkpoint:
    """One checkpoint, compared with its manifest and with the run.

    Raises:
        ConfigError, DataError: When the run is another than the one that was saved.
        DamagedError: Naming the first file that is missing, cut or changed.
        CheckpointError: Naming the first file that stopgrad did not write.
    """
    manifest = read_manifest(folder)
    begun = read_info(manifest)
    check_changes(begun, info, now or info)
    data = {name: read_part(manifest, name, info=info) for name in (MODEL, OPTIMIZER, STATE)}
    return Checkpoint(
        manifest.step,
        model=decode_model(data[MODEL], manifest, info=info),
        optimizer=decode_optimizer(data[OPTIMIZER], manifest, info=info),
        state=decode_state(data[STATE], manifest, info=info),
        info=begun,
    )


def checkpoint_folders(run: Path) -> list[Path]:
    """The folders of committed checkpoints, oldest first; unfinished ones do not count."""
    return [folder for folder in step_folders(run) if (folder / MANIFEST).exists()]


def step_folders(run: Path) -> list[Path]:
    """The folders that are ours by their name; copies and notes beside them are left alone."""
    folders = (run / "checkpoints").glob("step-*")
    ours = [folder for folder in folders if re.fullmatch(r"step-[0-9]{6,15}", folder.name)]
    return sorted((folder for folder in ours if folder.name == _name(step_of(folder))), key=step_of)


def step_of(folder: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(folder.name.removeprefix("step-"))


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint on disk, unverified; 0 when there is none."""
    return max(map(step_of, checkpoint_folders(run)), default=0)


def remove_after(run: Path, *, step: int) -> None:
    """Removes checkpoints after this step, which were passed over as damaged.

    Raises:
        StorageError: When the disk refuses.
    """
    for folder in step_folders(run):
        if step_of(folder) > step:
            _remove(folder)


def _encode(checkpoint: Checkpoint) -> dict[str, bytes]:
    from stopgrad.runs.tensors import encode_tensors

    assert checkpoint.info is not None
    state = json.dumps(checkpoint.state, allow_nan=False).encode()
    assert len(state) <= LARGEST_JSON, len(state)
    return {
        MODEL: encode_tensors(checkpoint.model),
        OPTIMIZER: encode_tensors(checkpoint.optimizer),
        STATE: state,
        INFO: json.dumps(info_to_dict(checkpoint.info), indent=2, allow_nan=False).encode(),
    }


def _write(folder: Path, files: dict[str, bytes], manifest: bytes) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    sync_directory(folder.parent)
    for name, data in files.items():
        replace_file(folder / name, data)
    replace_file(folder / MANIFEST, manifest)


def _remove(folder: Path) -> None:
    """The manifest first: from then on the checkpoint does not count."""
    with storage_errors(folder, needed=0):
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _prune(run: Path) -> None:
    kept = checkpoint_folders(run)[-KEPT:]
    for folder in step_folders(run):
        if folder not in kept:
            _remove(folder)
