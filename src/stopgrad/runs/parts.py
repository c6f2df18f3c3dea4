"""The files of one checkpoint: to bytes, and from bytes that are not to be trusted.

Bytes that are not those that the manifest promises are damaged: an older checkpoint is used. Bytes
that are, and yet hold what stopgrad never writes, were put there: nothing older is used either.
Nothing is unpickled, nothing outside of the folder is read, and no file is read that is larger
than this run's can be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Required, TypedDict, cast

from stopgrad.config import Config
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.runs.info import RunInfo, info_from_dict, whole_number
from stopgrad.storage import (
    LARGEST_JSON,
    OddFileError,
    as_text,
    fits,
    in_short,
    read_file,
    strict_json,
)

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2  # 1 had no copy of config.json
MODEL, OPTIMIZER, STATE, INFO = (
    *("model.safetensors", "optimizer.safetensors", "state.json"),
    "config.json",  # the run's own as it was then
)
NAMES = (MODEL, OPTIMIZER, STATE, INFO)
MANIFEST = "manifest.json"


class DamagedError(CheckpointError):
    """Bytes that are not those that were written; an older checkpoint may be whole."""


class TrainingState(TypedDict, total=False):
    """What a checkpoint keeps besides tensors; `state.json`."""

    step: Required[int]
    losses: Required[list[float]]  # of the epoch so far
    epoch: int  # epochs finished; absent: training with labels
    collapsed: int  # measurements in a row that said collapse


class CheckpointManifest(NamedTuple):
    """What a checkpoint says of itself."""

    folder: Path
    step: int
    sums: Mapping[str, str]  # sha256 in hex by file name


def encode_manifest(step: int, files: Mapping[str, bytes]) -> dict[str, object]:
    """The manifest of the files of a checkpoint."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {"format": FORMAT, "step": step, "sha256": sums}


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest of a checkpoint.

    Raises:
        DamagedError: When it is missing or damaged.
        CheckpointError: When it was made by somebody else.
    """
    if folder.is_symlink():
        raise _refused(folder, "is a link")
    data = _read(folder / MANIFEST, most=LARGEST_JSON)
    try:
        values = strict_json(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _damaged(folder / MANIFEST, "is not JSON") from error
    except ValueError as error:
        raise _refused(folder / MANIFEST, in_short(error)) from error
    if not isinstance(values, dict) or not isinstance(values.get("sha256", {}), dict):
        raise _refused(folder / MANIFEST, "is not a manifest")
    _check_names(folder, values.get("sha256", {}))
    step = int(folder.name.removeprefix("step-"))
    if (values.get("format"), values.get("step")) != (FORMAT, step):
        raise _damaged(folder / MANIFEST, f"is not of format {FORMAT} and step {step}")
    return CheckpointManifest(folder, step, values["sha256"])


def read_info(manifest: CheckpointManifest) -> RunInfo:
    """The run's info as it was at a checkpoint.

    Raises:
        DamagedError, CheckpointError: As `read_part`, and when it is none.
    """
    data = _promised(manifest, INFO, most=LARGEST_JSON)
    try:
        return info_from_dict(strict_json(data))
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise _refused(manifest.folder / INFO, f"cannot be read ({in_short(error)})") from error


def read_part(manifest: CheckpointManifest, name: str, *, info: RunInfo) -> bytes:
    """The bytes of a file of a checkpoint, as its manifest promises them.

    Raises:
        DamagedError: When they are others.
        CheckpointError: When it is no file, another kind of file, or larger than this run's can be.
    """
    from stopgrad.runs.tensors import tensors_of

    is_json = name not in (MODEL, OPTIMIZER)
    most = LARGEST_JSON if is_json else tensors_of(*_network(info)).most_bytes
    return _promised(manifest, name, most=most)


def decode_state(data: bytes, manifest: CheckpointManifest, *, info: RunInfo) -> TrainingState:
    """The state of a run at the step of its manifest.

    Raises:
        CheckpointError: When no run of this config has it.
    """
    path, step = manifest.folder / STATE, manifest.step
    try:
        state = strict_json(data)
        losses = state["losses"]
        if whole_number(state["step"]) != step or step > info.steps:
            raise ValueError(f"step {as_text(state['step'])}")
        if not fits(losses, list[float]):
            raise ValueError("losses that are no numbers")
        if len(losses) > info.steps_per_epoch:
            raise ValueError("more losses than an epoch has")
        whole_number(state.get("epoch", 0))
        whole_number(state.get("collapsed", 0))
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(path, f"is not this run's ({in_short(error)})") from error
    return cast(TrainingState, state)


def decode_model(data: bytes, manifest: CheckpointManifest, *, info: RunInfo) -> dict[str, Tensor]:
    """The state dict of the model.

    Raises:
        CheckpointError: When it is not safetensors, does not fit the config, or is not finite.
    """
    from stopgrad.runs.tensors import misfit, not_finite, tensors_of

    path = manifest.folder / MODEL
    tensors = _decode_tensors(data, path)
    _refuse_if(misfit(tensors, tensors_of(*_network(info)).model) or not_finite(tensors), path)
    return tensors


def decode_optimizer(
    data: bytes, manifest: CheckpointManifest, *, info: RunInfo
) -> dict[str, Tensor]:
    """The optimiser's tensors, `INDEX.NAME`.

    Raises:
        CheckpointError: As `decode_model`.
    """
    from stopgrad.runs.tensors import not_finite, optimizer_misfit, tensors_of

    path = manifest.folder / OPTIMIZER
    tensors = _decode_tensors(data, path)
    wrong = optimizer_misfit(tensors, tensors_of(*_network(info)).parameters)
    _refuse_if(wrong or not_finite(tensors), path)
    if manifest.step and _momentum(info) and not tensors:
        raise _refused(path, "holds no momentum")
    return tensors


def _network(info: RunInfo) -> tuple[Config, int]:
    """What decides the tensors of a run: its config, and the classes of a classifier or none."""
    labelled = info.task != "pretrain"
    return info.config, len(info.data.get("class_names", [])) if labelled else 0


def _momentum(info: RunInfo) -> float:
    match info.task:
        case "pretrain":
            return info.config.optimizer.momentum
        case "supervised":
            return info.config.supervised.momentum
        case "finetune":
            return info.config.finetune.momentum


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
    except (OddFileError, PermissionError) as error:
        raise _refused(path, in_short(error)) from error
    except OSError as error:
        raise _damaged(path, in_short(error)) from error


def _check_names(folder: Path, sums: Mapping[str, object]) -> None:
    """Names that a flipped bit can make are damage; others are somebody's work."""
    unknown, missing = sums.keys() - set(NAMES), set(NAMES) - sums.keys()
    if any(".." in name for name in unknown) or len(unknown) > len(missing):
        shown = ", ".join(ascii(name[:80]) for name in sorted(unknown)[:3])
        raise _refused(folder / MANIFEST, f"names files that no checkpoint has: {shown}")
    if unknown or missing:
        raise _damaged(folder / MANIFEST, "does not name the files of a checkpoint")


def _refuse_if(wrong: str, path: Path) -> None:
    if wrong:
        raise _refused(path, f"does not fit the run ({wrong})")


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
        hint="an older checkpoint is used when there is one",
    )
