"""What a run was asked to do, and whether what goes on is that run: `config.json`.

A run goes on with its own config, images, kind of device and number of threads; every difference
is named at once, `key: old -> new`. What changes no bit of training may change (`FREE`). Another
machine or another version takes the same steps with other rounding: it may go on, and says so
(`ROUNDING`). More epochs need an extension. All changes are kept in config.json.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import stat
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Required, TypedDict

from stopgrad.config import Config, Task, config_from_dict, config_to_dict, key_paths
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.images import Normalization
from stopgrad.runs.machine import RunEnvironment
from stopgrad.storage import as_text, check_types, in_short, read_json

FORMAT = 1
FILES = ("config.json", "status.json", "metrics.jsonl", "records.jsonl", "report.html", "lock")
FOLDERS = ("checkpoints", "labels")
MOST_THREADS = 4096

FREE = {
    "checkpoint_every": "saving changes nothing",
    "knn_every": "looking changes nothing",
    "measure_every": "looking changes nothing",
    "stop_on_collapse": "each step is as it would be",
    "knn.k": "looking changes nothing",
    "knn.temperature": "looking changes nothing",
    "device": "any of the same kind, which is compared as environment.device",
    "process_timeout": "waiting changes nothing",
}

ELSEWHERE = (
    *("threads", "precision", "bad_images", "image_column", "label_column", "white_level", "bands"),
)
"""What is compared by what came of it: environment.threads, environment.precision and
data.fingerprint."""

DATA = ("fingerprint", "images", "task", "labels", "label_draw", "from_step")
"""What decides a run besides its config; the last four where it learns from labels. The weights
that its encoder started from are `data.init`."""

ROUNDING = ("torch", "numpy", "stopgrad", "machine", "cpu", "cpu_capability", "gpu", "processes")
"""Another one of these and the steps stay the same; the last bits of their numbers may not."""


class Change(NamedTuple):
    """One thing that is not as the run was begun, from a step on."""

    step: int
    key: str  # "epochs" is an extension
    old: object
    new: object


class Difference(NamedTuple):
    """One thing that is not as it was."""

    key: str
    old: object
    new: object


class RunData(TypedDict, total=False):
    """What a run learns from."""

    spec: Required[str]
    name: Required[str]
    fingerprint: Required[str]  # of the whole training set
    images: Required[int]  # to learn from
    class_names: list[str]
    views: str  # what they skip because the channels are no colours; absent: nothing
    unused: dict[str, int]  # files, images and labels of the data that are not used, by reason
    init: dict[str, str]  # "from" and "sha256" of the weights that it starts from; absent: random
    task: Task  # absent: pretrain; the others follow where it is not
    images_labelled: int
    labels: float  # fraction that is used
    label_draw: int | None  # seed of their draw
    from_step: int  # of the encoder that is fine-tuned
    from_epoch: int


class RunInfo(NamedTuple):
    """What a run was asked to do; `config.json`."""

    config: Config
    data: RunData
    normalization: Normalization
    environment: RunEnvironment
    changes: tuple[Change, ...] = ()  # oldest first

    @property
    def task(self) -> Task:
        """What is trained: SimSiam, or a classifier with labels."""
        return self.data.get("task", "pretrain")

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.data["images"] // self.config.length(self.task).batch

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.config.length(self.task).epochs * self.steps_per_epoch

    @property
    def extensions(self) -> tuple[Change, ...]:
        """How often and when the run was made longer; such a run is not one of that length."""
        return tuple(change for change in self.changes if change.key == "epochs")


def extended(info: RunInfo, *, epochs: int, step: int) -> RunInfo:
    """A pretraining made longer at a step; its learning rates follow the new length from there on.

    Raises:
        ConfigError: When it has as many epochs or more, or is no pretraining.
    """
    if info.task != "pretrain":
        raise ConfigError(
            f"--extend for a run of the kind {info.task}",
            expected="a pretraining",
            hint="train anew with more epochs",
        )
    if epochs <= info.config.epochs:
        done = step // info.steps_per_epoch
        raise ConfigError(
            f"--extend {epochs} for a run of {info.config.epochs} epochs, {done} of them done",
            expected="a larger number of epochs in all",
            hint="leave --extend out to go on with the run as it is",
        )
    change = Change(step, "epochs", info.config.epochs, epochs)
    config = dataclasses.replace(info.config, epochs=epochs)
    return info._replace(config=config, changes=(*info.changes, change))


def read_run(path: Path) -> RunInfo:
    """Reads the config of a run.

    Raises:
        CheckpointError: When the directory is not a run, when its config cannot be read, or when
            something in it is a link, a pipe or the like.
    """
    if (path / "manifest.json").is_file():  # else a resumed "run" would write into its checkpoint
        raise CheckpointError(
            f"{path} is a checkpoint",
            expected="a directory made by `stopgrad pretrain`",
            hint=f"name the run, {path.absolute().parents[1]}",
        )
    try:
        info = info_from_dict(read_json(path / "config.json"))
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{path} is not a run that can be read ({in_short(error)})",
            expected="a directory made by `stopgrad pretrain`",
            hint=_where_runs_are(path),
        ) from error
    refuse_odd_files(path)
    return info


def _where_runs_are(path: Path) -> str:
    """The next step for a directory that is no run: what it may be instead."""
    if (path / "config.json").exists():
        return "restore config.json; each checkpoint holds a copy of it"
    if (path / "studies").is_dir():
        return (
            "it holds studies; see them with: stopgrad study status DIR; a run is DIR/runs/ID/run"
        )
    if path.is_file():
        return "name the directory of the run, not a file in it"
    if run := next(path.glob("*/config.json"), None):
        return f"it holds runs; name them, such as {run.parent}"
    return "check the path; a folder of images is named by --data"


def refuse_odd_files(path: Path) -> None:
    """Refuses a run that holds a link, pipe or device, by a CheckpointError."""
    own = [(path / name, "file") for name in FILES] + [(path / name, "folder") for name in FOLDERS]
    odd = [entry for entry, wanted in own if _kind(entry) not in (wanted, "none")]
    for folder in (path / name for name in FOLDERS if not odd):
        for here, folders, files in os.walk(folder):
            entries = (Path(here, name) for name in (*folders, *files))
            odd += [entry for entry in entries if _kind(entry) == "odd"]
    if odd:
        raise CheckpointError(
            f"{as_text(odd[0])} is a link or no regular file",
            expected="files and folders of the run's own",
            hint="do not use this run, or put the real files there",
        )


def _kind(path: Path) -> str:
    """none for what a run that goes on has just removed, too."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "none"
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "odd"


def info_to_dict(info: RunInfo) -> dict[str, Any]:
    """A run's info, ready for JSON."""
    return {
        "format": FORMAT,
        "config": config_to_dict(info.config),
        "data": info.data,
        "normalization": {key: list(value) for key, value in info.normalization._asdict().items()},
        "environment": info.environment,
        "changes": [change._asdict() for change in info.changes],
    }


def info_from_dict(values: object) -> RunInfo:
    """A run's info from JSON; a ValueError, KeyError, TypeError or ConfigError for others."""
    values = mapping(values)
    environment = mapping(values["environment"])
    check_types(environment, typing.get_type_hints(RunEnvironment))
    config = _config(json.dumps(mapping(values["config"])))
    info = RunInfo(
        config=config,
        data=_run_data(values["data"]),
        normalization=_normalization(values["normalization"], config.encoder.channels),
        environment=typing.cast(RunEnvironment, environment),
        changes=tuple(_change(value) for value in values.get("changes", [])),
    )
    if values.get("format") != FORMAT:
        raise ValueError(f"format {as_text(values.get('format'))}, not {FORMAT}")
    if not 0 < whole_number(info.environment["threads"]) <= MOST_THREADS:
        raise ValueError("threads")
    if info.steps_per_epoch < 1:
        raise ValueError("fewer images than a batch")
    return info


@functools.lru_cache(maxsize=8)
def _config(text: str) -> Config:
    """A config from JSON; a run and its checkpoints hold the same one, which is slow to check."""
    return config_from_dict(json.loads(text))


def whole_number(value: object) -> int:
    """The value, when it is a whole number that is not negative; else a ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{as_text(value)} where a whole number should be")
    return value


def mapping(value: object) -> dict[str, Any]:
    """The value, when it is an object; else a TypeError."""
    if not isinstance(value, dict):
        raise TypeError(f"{as_text(value)} where an object should be")
    return value


def _normalization(value: object, channels: int) -> Normalization:
    values = mapping(value)
    check_types(values, {"mean": list[float], "std": list[float]})
    mean, std = (tuple(map(float, values[key])) for key in ("mean", "std"))
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(f"normalization, not {channels} means and {channels} std above 0")
    return Normalization(mean, std)


def _run_data(values: object) -> RunData:
    data = mapping(values)
    check_types(data, typing.get_type_hints(RunData))
    for key in RunData.__required_keys__ - data.keys():
        raise KeyError(f"data.{key}")
    whole_number(data["images"])
    if "init" in data and not data["init"].keys() >= {"from", "sha256"}:
        raise TypeError("data.init without from and sha256")
    return typing.cast(RunData, data)


def _change(value: object) -> Change:
    change = Change(**mapping(value))
    whole_number(change.step)
    if change.key == "epochs" and whole_number(change.old) >= whole_number(change.new):
        raise ValueError("an extension to fewer epochs")
    return change


def check_changes(begun: RunInfo, *others: RunInfo) -> list[Difference]:
    """What differs between a run and what would go on with it, if all of it may.

    Args:
        begun: The run, as it was saved with a checkpoint.
        others: What there is now: the run's config.json, and what a resumed run would do.

    Raises:
        ConfigError: With every difference that is not allowed.
        DataError: When the images are all that is not allowed.
    """
    found = {new.key: new for other in others for new in _differences(begun, other)}
    refused = [new for key, new in found.items() if not _may_change(key)]
    if not refused:
        return list(found.values())
    of_data = all(new.key.startswith(("data.", "normalization.")) for new in refused)
    hint = "begin a new run for another setting"
    if any(new.key == "epochs" for new in refused):
        hint = "train longer with: stopgrad resume RUN --extend EPOCHS"
    elif [new.key for new in refused] == ["environment.precision"]:
        hint = f"add --precision {refused[0].old}, which the run was begun with"
    elif of_data:
        hint = "name the run's own images with --data, or begin a new run"
    raise (DataError if of_data else ConfigError)(
        differences_text(refused),
        expected=f"the run as it was begun; free to change are {', '.join(FREE)}",
        hint=hint,
    )


def cannot_promise(found: Iterable[Difference], info: RunInfo) -> str:
    """Why a resumed run may not have the bits of one that never stopped; empty when it has."""
    reasons = [differences_text([new]) for new in found if _is_rounding(new.key)]
    if info.environment["device"].startswith("cuda") and not info.config.repeatable:
        reasons.append("a GPU with repeatable = false")
    return ", ".join(reasons)


def differences_text(differences: Iterable[Difference]) -> str:
    """`key: old -> new` of each."""
    return ", ".join(f"{d.key}: {_value(d.old)} -> {_value(d.new)}" for d in differences)


def _may_change(key: str) -> bool:
    return key in FREE or key in ELSEWHERE or _is_rounding(key)


def _is_rounding(key: str) -> bool:
    return key.startswith("environment.") and key.removeprefix("environment.") in ROUNDING


def _differences(begun: RunInfo, other: RunInfo) -> Iterator[Difference]:
    """What differs and is not explained by a change that the other has noted since."""
    known = len(begun.changes)
    if other.changes[:known] != begun.changes:
        yield Difference("changes", len(begun.changes), len(other.changes))
    noted = {c.key: c.new for c in other.changes[known:] if c.key == "epochs" or _may_change(c.key)}
    old, new = _facts(begun) | noted, _facts(other)
    for key in new:
        if key in old and old[key] != new[key]:
            yield Difference(key, old[key], new[key])


def _facts(info: RunInfo) -> dict[str, object]:
    """All that decides a run, by key path."""
    environment = dict(info.environment)
    if "device" in environment:
        environment["device"] = str(environment["device"]).partition(":")[0]  # cuda:1 is cuda:0
    environment.pop("python", None)  # takes no part in the arithmetic
    environment.setdefault("processes", 1)
    sections = {
        "data": {key: value for key, value in info.data.items() if key in DATA}
        | {"init": info.data.get("init", {}).get("sha256")},
        "normalization": {k: list(v) for k, v in info.normalization._asdict().items()},
        "environment": environment,
    }
    config = config_to_dict(info.config)
    if info.task == "pretrain":
        del config["supervised"], config["finetune"]  # other trainings
    return key_paths(config | sections)


def _value(value: object) -> str:
    """A value as a reader writes it; of a fingerprint its first 12 letters."""
    text = str(value).lower() if isinstance(value, bool) else as_text(value)
    return text[:12] if len(text) == 64 else text
