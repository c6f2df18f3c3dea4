"""One checkpoint is one directory; its manifest, written last by rename, is the commit.

Tensors are safetensors, the rest is JSON; the manifest holds the sha256 of each file and is
verified at every load. Bytes that do not match it are damaged: the checkpoint before is used. Bytes
that cannot be read are not damaged: nothing is used, and nothing changed. Bytes that match it but
hold what stopgrad never writes were put there by others: nothing older is used either. Nothing is
unpickled, nothing outside the folder is read, and no file is read that is larger than this
run's can be.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Required, TypedDict, cast

from stopgrad.config import Config
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.runs.changes import check_changes
from stopgrad.runs.info import RunInfo, info_from_dict, info_to_dict, read_run, whole_number
from stopgrad.storage import (
    LARGEST_JSON,
    OddFileError,
    as_text,
    fits,
    in_short,
    is_there,
    make_folder,
    names_in,
    read_file,
    remove_file,
    remove_folder,
    replace_file,
    storage_errors,
    strict_json,
    sync_directory,
)

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2  # 1 had no copy of config.json
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
INFO = "config.json"  # the run's own as it was then
NAMES = (MODEL, OPTIMIZER, STATE, INFO)
MANIFEST = "manifest.json"
KEPT = 2  # complete checkpoints on disk: the newest, and the one to fall back to


class DamagedError(CheckpointError):
    """Bytes that differ from those written; an older checkpoint may be whole."""


class TrainingState(TypedDict, total=False):
    """The contents of a checkpoint besides tensors; `state.json`."""

    step: Required[int]
    losses: Required[list[float]]  # of the epoch so far
    epoch: int  # epochs finished; absent: training with labels
    collapsed: int  # measurements in a row that said collapse


class Checkpoint(NamedTuple):
    """A verified checkpoint."""

    step: int  # steps taken
    model: dict[str, Tensor]  # state dict
    optimizer: dict[str, Tensor]  # momentum by "index.name"
    state: TrainingState
    damaged: tuple[str, ...] = ()  # a line for each newer checkpoint that was passed over
    info: RunInfo | None = None  # the run's when it was saved; None until then


class CheckpointManifest(NamedTuple):
    """The manifest of a checkpoint."""

    folder: Path
    step: int
    sums: Mapping[str, str]  # sha256 in hex by file name


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, then removes all but the newest complete ones.

    Raises:
        DivergedError: When a tensor is not finite; nothing is written then.
        StorageError: When the disk refuses; older checkpoints are untouched then.
    """
    folder = run / "checkpoints" / _name(checkpoint.step)
    files = _encode(checkpoint)
    with storage_errors(folder, needed=sum(map(len, files.values()))):
        try:
            _remove(folder)  # what a kill has left of it
            make_folder(folder)
            sync_directory(folder.parent)
            for name, data in files.items():
                replace_file(folder / name, data)
        except OSError:
            remove_folder(folder)  # gives its space back
            raise
    kept = checkpoint_folders(run)[-KEPT:]
    for old in step_folders(run):
        if old not in kept:
            _remove(old)


def _encode(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files of a checkpoint in the order of writing, the manifest last."""
    from stopgrad.runs.tensors import encode_tensors

    assert checkpoint.info is not None
    state = json.dumps(checkpoint.state, allow_nan=False).encode()
    assert len(state) <= LARGEST_JSON, len(state)
    files = {
        MODEL: encode_tensors(checkpoint.model),
        OPTIMIZER: encode_tensors(checkpoint.optimizer),
        STATE: state,
        INFO: json.dumps(info_to_dict(checkpoint.info), indent=2, allow_nan=False).encode(),
    }
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = {"format": FORMAT, "step": checkpoint.step, "sha256": sums}
    return files | {MANIFEST: json.dumps(manifest, indent=2).encode()}


def load_checkpoint(run: Path, *, now: RunInfo | None = None) -> Checkpoint:
    """The newest checkpoint of a run that verifies.

    `now` is the info of the run that would resume; without it only config.json is compared.

    Raises:
        ConfigError, DataError: As `check_changes`, when the run is not the one that was saved.
        CheckpointError: When there is none, or when the newest was not written by stopgrad.
    """
    info, damaged = read_run(run), list[str]()
    folders, before = checkpoint_folders(run), list[Path]()
    while folders != before:  # a run that is still training removes its old ones
        damaged.clear()
        for folder in reversed(folders):
            try:
                found = _read_checkpoint(folder, info=info, now=now or info)
                return found._replace(damaged=tuple(damaged))
            except DamagedError as error:
                damaged.append(error.found)
        folders, before = checkpoint_folders(run), folders
    raise CheckpointError(
        "; ".join(damaged) or f"{run} holds no checkpoint",
        expected="a complete checkpoint",
        hint="start the run anew with: stopgrad pretrain",
    )


def _read_checkpoint(folder: Path, *, info: RunInfo, now: RunInfo) -> Checkpoint:
    manifest = read_manifest(folder)
    begun = read_info(manifest)
    check_changes(begun, info, now)
    data = {name: read_part(manifest, name, info=info) for name in (MODEL, OPTIMIZER, STATE)}
    return Checkpoint(
        manifest.step,
        model=decode_tensor_file(data[MODEL], manifest, MODEL, info=info),
        optimizer=decode_tensor_file(data[OPTIMIZER], manifest, OPTIMIZER, info=info),
        state=decode_state(data[STATE], manifest, info=info),
        info=begun,
    )


def checkpoint_folders(run: Path) -> list[Path]:
    """The folders of committed checkpoints, oldest first; unfinished ones do not count."""
    return [folder for folder in step_folders(run) if is_there(folder / MANIFEST)]


def step_folders(run: Path) -> list[Path]:
    """The folders named as ours; copies and notes next to them are left alone."""
    names = names_in(run / "checkpoints")
    ours = [run / "checkpoints" / name for name in names if re.fullmatch(r"step-[0-9]{6,15}", name)]
    return sorted((folder for folder in ours if folder.name == _name(step_of(folder))), key=step_of)


def step_of(folder: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(folder.name.removeprefix("step-"))


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint on disk, unverified; 0 when there is none."""
    return max(map(step_of, checkpoint_folders(run)), default=0)


def remove_after(run: Path, *, step: int) -> None:
    """Removes checkpoints after this step, which were damaged; a StorageError when it cannot."""
    for folder in step_folders(run):
        if step_of(folder) > step:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Removes the manifest first: from then on the checkpoint does not count."""
    with storage_errors(folder, needed=0):
        remove_file(folder / MANIFEST)
        remove_folder(folder)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest of a checkpoint; a DamagedError, or a CheckpointError when it is not ours."""
    if folder.is_symlink():
        raise _refused(folder, "is a link")
    path, step = folder / MANIFEST, step_of(folder)
    data = _read(path, most=LARGEST_JSON)
    try:
        values = strict_json(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _damaged(path, "is not JSON") from error
    except ValueError as error:
        raise _refused(path, in_short(error)) from error
    if not isinstance(values, dict) or not isinstance(values.get("sha256", {}), dict):
        raise _refused(path, "is not a manifest")
    _check_names(path, values.get("sha256", {}))
    if (values.get("format"), values.get("step")) != (FORMAT, step):
        raise _damaged(path, f"is not of format {FORMAT} and step {step}")
    return CheckpointManifest(folder, step, values["sha256"])


def _check_names(path: Path, sums: Mapping[str, object]) -> None:
    """Wrong names that a flipped bit can explain count as damage; all others are refused."""
    unknown, missing = sums.keys() - set(NAMES), set(NAMES) - sums.keys()
    if any(".." in name for name in unknown) or len(unknown) > len(missing):
        shown = ", ".join(ascii(name[:80]) for name in sorted(unknown)[:3])
        raise _refused(path, f"names files that no checkpoint has: {shown}")
    if unknown or missing:
        raise _damaged(path, "does not name the files of a checkpoint")


def read_info(manifest: CheckpointManifest) -> RunInfo:
    """The run's info as it was at a checkpoint; errors as for `read_part`."""
    data = _promised(manifest, INFO, most=LARGEST_JSON)
    try:
        return info_from_dict(strict_json(data))
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise _refused(manifest.folder / INFO, f"cannot be read ({in_short(error)})") from error


def read_part(manifest: CheckpointManifest, name: str, *, info: RunInfo) -> bytes:
    """The bytes of a file of a checkpoint, as its manifest promises them.

    Raises:
        DamagedError: When they do not match it.
        CheckpointError: For a pickle, a link or the like, or a file larger than this run's can be.
    """
    from stopgrad.runs.tensors import tensors_of

    is_json = name not in (MODEL, OPTIMIZER)
    most = LARGEST_JSON if is_json else tensors_of(*_network(info)).most_bytes
    return _promised(manifest, name, most=most)


def decode_state(data: bytes, manifest: CheckpointManifest, *, info: RunInfo) -> TrainingState:
    """The state of a run at the step of its manifest; a CheckpointError for an impossible one."""
    step = manifest.step
    try:
        state = strict_json(data)
        losses = state["losses"]
        if whole_number(state["step"]) != step or step > info.steps:
            raise ValueError(f"step {as_text(state['step'])}")
        if not fits(losses, list[float]):
            raise ValueError("losses that are not numbers")
        if len(losses) > info.steps_per_epoch:
            raise ValueError("more losses than an epoch has")
        for key in ("epoch", "collapsed"):
            whole_number(state.get(key, 0))
    except (ValueError, KeyError, TypeError) as error:
        reason = f"is not this run's ({in_short(error)})"
        raise _refused(manifest.folder / STATE, reason) from error
    return cast(TrainingState, state)


def decode_tensor_file(
    data: bytes, manifest: CheckpointManifest, name: str, *, info: RunInfo
) -> dict[str, Tensor]:
    """The state dict of the model, or the optimiser's tensors `INDEX.NAME`.

    Raises:
        CheckpointError: When it is not safetensors, does not fit the config, or is not finite.
    """
    from stopgrad.runs.tensors import misfit, not_finite, optimizer_misfit, tensors_of

    path, wanted = manifest.folder / name, tensors_of(*_network(info))
    tensors = _decode_tensors(data, path)
    if name == MODEL:
        wrong = misfit(tensors, wanted.model)
    else:
        wrong = optimizer_misfit(tensors, wanted.parameters)
    if wrong := wrong or not_finite(tensors):
        raise _refused(path, f"does not fit the run ({wrong})")
    config = info.config
    momentum = {
        "pretrain": config.optimizer.momentum,
        "supervised": config.supervised.momentum,
        "finetune": config.finetune.momentum,
    }
    if name == OPTIMIZER and not tensors and manifest.step and momentum[info.task]:
        raise _refused(path, "holds no momentum")
    return tensors


def _network(info: RunInfo) -> tuple[Config, int]:
    """What decides a run's tensors: its config, and the number of classes of a classifier or 0."""
    labelled = info.task != "pretrain"
    return info.config, len(info.data.get("class_names", [])) if labelled else 0


def _decode_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    from stopgrad.runs.tensors import decode_tensors

    try:
        return decode_tensors(data)
    except ValueError as error:
        raise _refused(path, in_short(error)) from error


def _promised(manifest: CheckpointManifest, name: str, *, most: int) -> bytes:
    path = manifest.folder / name
    data = _read(path, most=most)
    if hashlib.sha256(data).hexdigest() == manifest.sums[name]:
        return data
    from stopgrad.runs.tensors import PICKLED, is_pickle

    if is_pickle(data):
        raise _refused(path, PICKLED)
    raise _damaged(path, "does not match its sha256")


def _read(path: Path, *, most: int) -> bytes:
    try:
        return read_file(path, most=most)
    except OddFileError as error:
        raise _refused(path, in_short(error)) from error
    except OSError as error:
        raise _damaged(path, in_short(error)) from error


def _refused(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{as_text(path)} {reason}",
        expected="a file that stopgrad wrote for this run",
        hint="do not trust this run; nothing of the checkpoint was used",
    )


def _damaged(path: Path, reason: str) -> DamagedError:
    return DamagedError(
        f"{as_text(path)} is damaged: {path.name} {reason}",
        expected="files that agree with the manifest",
        hint="an older checkpoint is used if there is one",
    )
