"""One checkpoint is one directory; its manifest, written last by rename, is the commit.

Tensors are safetensors, the rest is JSON; the manifest holds the sha256 of each file and is
verified at every load. A damaged newest checkpoint falls back to the one before.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.errors import CheckpointError
from stopgrad.files import storage_errors, sync_directory, write_atomically, write_json

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2  # complete checkpoints on disk: the newest, and the one to fall back to
PARTS = ("model", "optimizer")


class Checkpoint(NamedTuple):
    """A verified checkpoint.

    Attributes:
        step: Steps taken.
        model: State dict of the model.
        optimizer: Momentum by "index.name".
        state: What JSON can hold: position, losses of the epoch so far.
        damaged: A line for each newer checkpoint that was passed over.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    damaged: tuple[str, ...] = ()


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint, then removes all but the newest complete ones.

    Raises:
        StorageError: When the disk refuses; older checkpoints are untouched then.
    """
    folder = run / "checkpoints" / f"step-{checkpoint.step:06d}"
    files = _encode(checkpoint)
    with storage_errors(folder, needed=sum(map(len, files.values()))):
        (folder / "manifest.json").unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        sync_directory(folder.parent)
    for name, data in files.items():
        write_atomically(folder / name, data)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    write_json(folder / "manifest.json", {"format": 1, "step": checkpoint.step, "sha256": sums})
    _prune(run)
    return folder


def load_checkpoint(run: Path) -> Checkpoint:
    """The newest checkpoint that verifies.

    Raises:
        CheckpointError: When there is none.
    """
    damaged: list[str] = []
    for folder in reversed(checkpoint_folders(run)):
        try:
            return verify_checkpoint(folder)._replace(damaged=tuple(damaged))
        except CheckpointError as error:
            damaged.append(error.found)
    raise CheckpointError(
        "; ".join(damaged) or f"{run} holds no checkpoint",
        expected="a complete checkpoint",
        hint="start the run anew with: stopgrad pretrain",
    )


def checkpoint_folders(run: Path) -> list[Path]:
    """The folders of committed checkpoints, oldest first; unfinished ones do not count."""
    manifests = (folder / "manifest.json" for folder in _step_folders(run))
    return sorted((path for path in manifests if path.exists()), key=_step_of)


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint on disk, unverified; 0 when there is none."""
    return max((_step_of(manifest) for manifest in checkpoint_folders(run)), default=0)


def verify_checkpoint(manifest_path: Path) -> Checkpoint:
    """Reads one checkpoint and compares each file with the manifest.

    Raises:
        CheckpointError: Naming the first file that is missing, cut or changed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = manifest_path.parent
    try:
        step, manifest = _step_of(manifest_path), json.loads(manifest_path.read_bytes())
        files = {name: _verified(folder / name, manifest) for name in _file_names()}
        state = json.loads(files["state.json"])
        if not manifest["format"] == 1 or not manifest["step"] == state["step"] == step:
            raise ValueError("manifest.json does not name this format and step")
        model, optimizer = (load(files[f"{part}.safetensors"]) for part in PARTS)
        return Checkpoint(step, model, optimizer, state)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} is damaged ({type(error).__name__}: {error})",
            expected="files that agree with its manifest",
            hint="an older checkpoint is used when there is one",
        ) from error


def _encode(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files of a checkpoint; serialised to memory, so that a full disk is an OSError."""
    from safetensors.torch import save

    tensors: tuple[Mapping[str, Tensor], ...] = (checkpoint.model, checkpoint.optimizer)
    files = {
        f"{part}.safetensors": save(
            {key: t.detach().cpu().contiguous() for key, t in part_.items()}
        )
        for part, part_ in zip(PARTS, tensors, strict=True)
    }
    return files | {"state.json": json.dumps(checkpoint.state, allow_nan=False).encode()}


def _file_names() -> tuple[str, ...]:
    return (*(f"{part}.safetensors" for part in PARTS), "state.json")


def _verified(path: Path, manifest: dict[str, Any]) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest["sha256"][path.name]:
        raise ValueError(f"{path.name} does not match its sha256")
    return data


def _step_folders(run: Path) -> list[Path]:
    """The folders that are ours by their name; copies and notes beside them are left alone."""
    folders = (run / "checkpoints").glob("step-*")
    return [folder for folder in folders if re.fullmatch(r"step-\d+", folder.name)]


def remove_after(run: Path, *, step: int) -> None:
    """Removes checkpoints after this step, which were passed over as damaged.

    Raises:
        StorageError: When the disk refuses.
    """
    for folder in _step_folders(run):
        if _step_of(folder / "manifest.json") > step:
            _remove(folder)


def _remove(folder: Path) -> None:
    """The manifest first: from then on the checkpoint does not count."""
    with storage_errors(folder, needed=0):
        (folder / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _step_of(manifest: Path) -> int:
    return int(manifest.parent.name.removeprefix("step-"))


def _prune(run: Path) -> None:
    complete = checkpoint_folders(run)
    kept = {manifest.parent for manifest in complete[-KEPT:]}
    for folder in _step_folders(run):
        if folder not in kept:
            _remove(folder)
