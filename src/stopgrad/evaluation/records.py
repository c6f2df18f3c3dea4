"""One JSON line per result: the number, its protocol, its cost, and what is needed to trust it.

In: a `Record`. Out: a line of `records.jsonl`, and back. Not-a-number becomes null. No torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stopgrad.storage import append_lines, check_types, is_there, read_lines, typed

Subject = Literal["encoder", "untrained", "pixels", "supervised"]

FROZEN = (
    "knn_accuracy",
    "linear_accuracy",
    "linear_published_accuracy",
    "linear_lars_accuracy",
)
"""Metrics of a frozen encoder."""

FINETUNE, SUPERVISED = "finetune_accuracy", "supervised_accuracy"
ACCURACIES = (*FROZEN, FINETUNE, SUPERVISED)

MEASURES = (
    "participation_ratio",
    "effective_rank",
    "top_share",
    "correlation_strength",
    "output_std",
    "positive_minus_random",
    "centre_norm",
)
"""The fields of `method.Measures`, of z; listed here so that reading needs no torch."""

RECORDS = "records.jsonl"  # in the folder of a run
LARGEST, MOST_EPOCHS, MOST_CLASSES = 10**12, 1_000_000, 100_000
MEASURED = 1024  # images whose two views are measured; fixed for a run
CLEAN = 8192  # images without augmentation on which z is measured at the end


class Energy(NamedTuple):
    """Energy and what it emits, with the factors behind them."""

    kwh: float
    co2_kg: float
    source: str  # "rapl", "nvml", "nvml + rapl" (all that the machine used), or "estimate"
    watts: float | None  # that an estimate assumes, None where it was counted
    kg_co2_per_kwh: float


class Balance(NamedTuple):
    """What an accuracy hides where some classes have far more images than others; else None."""

    balanced: float | None = None  # mean of the accuracies of the classes
    majority: float | None = None  # part of the images that the largest class has


@dataclass(frozen=True, kw_only=True)
class Record:
    """One result, in the order of its JSON keys."""

    metric: str  # "knn_accuracy" or "correlation_strength" for instance
    value: float  # accuracies are fractions
    top5: float | None = None  # top-5 accuracy; None where it has no meaning
    per_class: tuple[float | None, ...] = ()  # accuracies; None for a class without images
    balanced: float | None = None  # mean of per_class, where classes differ more than twofold
    majority: float | None = None  # part of the images that the largest class has, likewise
    labels: float = 1.0  # fraction of the training labels that was used
    label_draw: int | None = None  # seed of the draw of those labels; None: all were used
    of: Subject  # what was evaluated
    split: str  # the images it was scored on: "test", "validation" or "train"
    images_scored: int  # number of those images
    protocol: dict[str, Any]  # all that defines the number (k, T, learning rate, ...)
    config: dict[str, Any] | None = None  # of the run; None: the number is not from a run
    seed: int | None = None  # of the run
    epoch: int | None = None  # of the run, at which it was scored
    verdict: str | None = None  # on the representation at that epoch, "healthy" for instance
    data: dict[str, str]  # {"name", "fingerprint"} of the training images; "scored", the
    # fingerprint of those behind an accuracy; and "pretrained_on", the fingerprint of the run's
    # own, where the evaluators had others
    init: dict[str, str] | None = None  # {"from", "sha256"} of the encoder's start; None: random
    code: str  # version of stopgrad, with the commit when it runs from a checkout
    versions: dict[str, str]  # of python, torch, numpy and stopgrad
    device: str  # where it was computed
    device_name: str | None = None  # its name, such as that of the processor
    threads: int  # CPU threads that were used
    wall_s: float  # time of this number, s: embedding its images, and scoring them
    embed_s: float | None = None  # the part of it that records of the same images share
    extent: dict[str, Any] | None = None  # how far pretraining had come: the fields of
    # `method.Extent`, and "images", how many it learned from; folds are null for LARS
    views: int | None = None  # that pretraining had processed
    flops: float | None = None  # floating-point operations of that pretraining
    train_s: float | None = None  # wall time of that pretraining, s, with its measurements
    energy: dict[str, Any] | None = None  # of that pretraining, the fields of `Energy`
    time: str  # when it was made, ISO 8601, UTC

    def __post_init__(self) -> None:
        """Makes per_class a tuple with None for NaN, so that a record equals its copy."""
        clean = tuple(None if x is None or math.isnan(x) else float(x) for x in self.per_class)
        object.__setattr__(self, "per_class", clean)


class Key(NamedTuple):
    """Identifies a number among those of one run."""

    metric: str
    labels: float
    of: Subject
    split: str


def key_of(record: Record) -> Key:
    """The key of a record among those of its run."""
    return Key(record.metric, record.labels, record.of, record.split)


def newest(records: Iterable[Record]) -> dict[Key, Record]:
    """The last record of each key, in their order: a run that was scored again counts once."""
    found: dict[Key, Record] = {}
    for record in records:
        found.pop(key_of(record), None)
        found[key_of(record)] = record
    return found


def scored_last(records: Iterable[Record]) -> list[Record]:
    """The newest accuracies on the split scored last, the encoder's only of its last epoch."""
    known = [*newest(r for r in records if r.metric in ACCURACIES).values()]
    own = [record for record in known if record.split == known[-1].split]
    last = max((record.epoch or 0 for record in own if record.of == "encoder"), default=0)
    return [r for r in own if r.of != "encoder" or (r.epoch or 0) == last]


def to_line(record: Record) -> str:
    """A record as one line of strict ASCII JSON, without the newline; numbers must be finite."""
    return json.dumps(dataclasses.asdict(record), allow_nan=False)


def from_values(values: Mapping[str, object]) -> Record:
    """The record of a line's values; keys that older versions did not write are None.

    A ValueError when an accuracy is not a fraction, a TypeError for wrong keys or types.
    """
    record = typed(Record, values)
    if record.metric in ACCURACIES and not 0 <= record.value <= 1:
        raise ValueError(f"{record.metric} is {record.value}, not a fraction")
    _check_counts(record)
    for name, found, keys in (
        ("data", record.data, ("name", "fingerprint")),
        ("init", record.init, ("from", "sha256")),
    ):
        if found is not None and not found.keys() >= {*keys}:
            raise TypeError(f"{name} is {found}, without {' or '.join(keys)}")
    if record.energy is not None:
        typed(Energy, record.energy)
    if record.metric in (FINETUNE, SUPERVISED):
        check_types(record.protocol, {"views": int, "flops": float})
    return record


def _check_counts(record: Record) -> None:
    """A ValueError for numbers that no evaluation produces and no table or chart can show."""
    shares = [share for share in record.per_class if share is not None]
    shares += [share for share in (record.balanced, record.majority) if share is not None]
    wrong = {
        "images_scored": not 0 < record.images_scored <= LARGEST,
        "labels": not 0 < record.labels <= 1,
        "epoch": record.epoch is not None and not 0 <= record.epoch <= MOST_EPOCHS,
        "per_class": len(record.per_class) > MOST_CLASSES,
        "accuracies": not all(0 <= share <= 1 for share in shares),
        "threads": record.threads < 0,
    }
    if any(wrong.values()):
        raise ValueError(f"{', '.join(name for name in wrong if wrong[name])} out of bounds")


def append(path: Path, record: Record) -> None:
    """Adds a record at the end of a file, durably, whole or not at all; see `append_lines`."""
    append_lines(path, [dataclasses.asdict(record)])


def read(path: Path) -> list[Record]:
    """All records of a file, in order, except a last one torn by a crash; see `read_lines`."""
    hint = "restore the file, or make it with: stopgrad evaluate RUN"
    return read_lines(path, from_values, what="a record", hint=hint).rows


def records_of(folder: Path) -> list[Record]:
    """The records of a run or of another folder; none where nothing was scored into it yet."""
    path = folder / RECORDS
    return read(path) if is_there(path) else []
