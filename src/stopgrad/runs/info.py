"""What a run was asked to do: `config.json`. `changes` says what may differ when it resumes."""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from pathlib import Path
from typing import Any, NamedTuple, Required, TypedDict

from stopgrad.config import Config, Task, config_from_dict, config_to_dict
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.images import Images, Normalization
from stopgrad.method import Extent, extent
from stopgrad.runs.entries import mistaken, refuse_odd_files
from stopgrad.runs.machine import RunEnvironment
from stopgrad.storage import as_text, check_types, in_short, read_json

FORMAT = 1
MOST_THREADS = 4096


class Change(NamedTuple):
    """A change since the run was begun, from a step on."""

    step: int
    key: str  # "epochs" is an extension
    old: object
    new: object


class RunData(TypedDict, total=False):
    """The data that a run learns from."""

    spec: Required[str]
    name: Required[str]
    fingerprint: Required[str]  # of the whole training set
    images: Required[int]  # to learn from
    class_names: list[str]
    size: list[int]  # H and W at which they are stored, px
    views: str  # what they skip because the channels are not colours; absent: nothing
    unused: dict[str, int]  # files, images and labels of the data that are not used, by reason
    levels: list[list[Any]]  # depth, black and white of images of more than 8 bits; absent: none
    bands: str  # by which they were read, as `read_bands` takes them; absent: their colours
    init: dict[str, str]  # "from" and "sha256" of the weights that it starts from; absent: random
    task: Task  # absent: pretrain; the keys below are for other tasks
    images_labelled: int
    labels: float  # fraction that is used
    label_draw: int | None  # seed of their draw
    from_step: int  # of the encoder that is fine-tuned
    from_epoch: int
    pretrained_on: str  # fingerprint of its training images; absent: the same ones


class RunInfo(NamedTuple):
    """What a run was asked to do; `config.json`."""

    config: Config
    data: RunData
    normalization: Normalization
    environment: RunEnvironment
    changes: tuple[Change, ...] = ()  # oldest first

    @property
    def task(self) -> Task:
        """The training's kind: SimSiam, or a classifier with labels."""
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

    def learned_from(self, images: Images) -> bool:
        """Whether these are its training images, the whole set."""
        return self.data["fingerprint"] == images.fingerprint

    @property
    def extensions(self) -> tuple[Change, ...]:
        """Every extension; an extended run differs from one that had this length from the start."""
        return tuple(change for change in self.changes if change.key == "epochs")


def extended(info: RunInfo, *, epochs: int, step: int) -> RunInfo:
    """A pretraining made longer at a step; its learning rates follow the new length from there on.

    Raises:
        ConfigError: When it already has as many epochs, or is not a pretraining.
    """
    if info.task != "pretrain":
        raise ConfigError(
            f"--extend for a {info.task} run",
            expected="a pretraining",
            hint="train again from the start with more epochs",
        )
    if epochs <= info.config.epochs:
        done = step // info.steps_per_epoch
        raise ConfigError(
            f"--extend {epochs} for a run of {info.config.epochs} epochs, {done} of them done",
            expected="a larger total number of epochs",
            hint="leave --extend out to continue the run as it is",
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
    """A run's info from JSON; a ValueError, KeyError, TypeError or ConfigError otherwise."""
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
    if len(data.get("size", (0, 0))) != 2:
        raise ValueError("data.size that is not H and W")
    if "init" in data and not data["init"].keys() >= {"from", "sha256"}:
        raise TypeError("data.init without from and sha256")
    return typing.cast(RunData, data)


def _change(value: object) -> Change:
    change = Change(**mapping(value))
    whole_number(change.step)
    if change.key == "epochs" and whole_number(change.old) >= whole_number(change.new):
        raise ValueError("an extension to fewer epochs")
    return change
