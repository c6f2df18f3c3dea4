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
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple, Required, TypedDict

from stopgrad.config import Config, Task, config_from_dict, config_to_dict, key_paths
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.images import Normalization, is_store
from stopgrad.method import Extent, extent
from stopgrad.runs.machine import RunEnvironment
from stopgrad.storage import as_text, check_types, in_short, odd_entry, read_json, refuse_links

FORMAT = 1
FILES = ("config.json", "status.json", "metrics.jsonl", "records.jsonl", "report.html", "lock")
FOLDERS = ("checkpoints", "labels")
OTHERS = {"costs.jsonl": "file"} | dict.fromkeys(("supervised", "finetune", "elsewhere"), "folder")
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

MACHINE = ("machine", "cpu", "cpu_capability", "gpu", "processes")
ROUNDING = ("torch", "numpy", "timm", "stopgrad", *MACHINE)
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

    def extent(self, step: int) -> Extent:
        """How far the pretraining has come at a step; each length has learning rates of its own."""
        images, begun, folds = self.data["images"], 0, 0.0
        lengths = [(change.step, int(str(change.old))) for change in self.extensions]
        for end, epochs in (*lengths, (step, self.config.epochs)):
            config, last = dataclasses.replace(self.config, epochs=epochs), min(end, step)
            before, after = (extent(config, images=images, steps=s) for s in (begun, last))
            begun, folds = last, folds + after.folds - before.folds
        return extent(self.config, images=images, steps=step)._replace(folds=folds)

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
    if not (path / "config.json").exists():
        found = mistaken(path)
        raise CheckpointError(
            f"{path} is not a run that can be read{found.what}",
            expected="a directory made by `stopgrad pretrain`",
            hint=found.hint,
        )
    try:
        info = info_from_dict(read_json(path / "config.json"))
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{path} is not a run that can be read ({in_short(error)})",
            expected="a directory made by `stopgrad pretrain`",
            hint="restore config.json; each checkpoint holds a copy of it",
        ) from error
    refuse_odd_files(path)
    return info


class Mistaken(NamedTuple):
    """What a path is that was taken for something else, and what to do with it."""

    what: str  # the end of a sentence that says what it is not
    hint: str


def mistaken(path: Path) -> Mistaken:
    """What a path is that was taken for something else."""
    name, above = quote(str(path)), quote(str(path.parent))
    table = "see the studies with: stopgrad study table"
    if not path.exists():
        return Mistaken(": it does not exist", "check the path")
    if path.is_file():
        return Mistaken(", but a file", "name the directory of the run, not a file in it")
    if (path / "config.json").exists():
        return Mistaken(", but a run", f"look at it with: stopgrad report {name}")
    if (path / "studies").is_dir():
        hint = f"{table} {name}; their runs are {name}/runs/ID/run"
        return Mistaken(", but a directory of studies", hint)
    if is_store(path):
        return Mistaken(", but a packed store", f"it is images: name it by --data {name}")
    if next((path.parent / "studies").glob("*.json"), None):
        return Mistaken(", but part of a directory of studies", f"{table} {above}")
    if run := next(path.glob("*/config.json"), None):
        return Mistaken(", but a folder", f"it holds runs; name them, such as {run.parent}")
    return Mistaken(", but a folder", "check the path; a folder of images is named by --data")


def refuse_odd_files(path: Path) -> None:
    """Refuses a run that holds a link, pipe or device, by a CheckpointError; later ones too."""
    refuse_links(path)
    own = {**dict.fromkeys(FILES, "file"), **dict.fromkeys(FOLDERS, "folder"), **OTHERS}
    odd = odd_entry(path, own)
    if odd is not None:
        raise CheckpointError(
            f"{as_text(odd)} is a link or not a regular file",
            expected="files and folders of the run's own",
            hint="do not use this run, or put the real files there",
        )


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
