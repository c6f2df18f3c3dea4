"""Names of Parquet files -> which belong to which split, by the Hub's conventions.

A file belongs to a split if its name starts with the split's (`train-00000-of-00003.parquet`,
`train.parquet`) or if it lies in a folder of that name (`default/train/0000.parquet`). What
remains of the folder is the configuration (`plain_text/`, `data/`, none).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from stopgrad.errors import DataError

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
PREFERRED = ("", "default", "data")  # configurations, when there are several


class Shards(NamedTuple):
    """Relative paths of the files of each split, in order of name; `test` may be empty."""

    train: tuple[str, ...]
    test: tuple[str, ...]


class _ShardPlace(NamedTuple):
    config: str
    split: str


def choose_shards(paths: Iterable[str], *, config: str | None, where: str) -> Shards:
    """The files to read. Without a test split the validation split is the test split.

    Args:
        paths: Relative paths with /, of any files.
        config: The configuration to read, or None where there is one or a usual one.
        where: The data set, for messages.

    Raises:
        DataError: When there is no train split, when a shard is missing from a numbered set, or
            when several configurations leave the choice open.
    """
    placed: dict[_ShardPlace, list[str]] = {}
    for path in sorted(paths):
        if place := _place(path):
            placed.setdefault(place, []).append(path)
    chosen = _choose_config(sorted({place.config for place in placed}), config, where)
    train = placed.get(_ShardPlace(chosen, "train"), [])
    test = placed.get(_ShardPlace(chosen, "test")) or placed.get(
        _ShardPlace(chosen, "validation"), []
    )
    if not train:
        raise no_train_split(where)
    for shards in (train, test):
        _check_complete(shards, where)
    return Shards(tuple(train), tuple(test))


def no_train_split(where: str) -> DataError:
    """The error for Parquet files among which none are to train on."""
    return DataError(
        f"no train split in {where}",
        expected="Parquet files named train-*.parquet",
        hint="rename the files, or name a folder that has a train split",
    )


def _place(path: str) -> _ShardPlace | None:
    file = PurePosixPath(path)
    if file.suffix.lower() != ".parquet" or any(part.startswith(".") for part in file.parts):
        return None
    folders = list(file.parts[:-1])
    split = SPLITS.get(re.split(r"[-_.]", file.name.lower())[0])
    if split is None and folders:
        split = SPLITS.get(folders.pop().lower())
    return _ShardPlace("/".join(folders), split) if split else None


def _choose_config(found: list[str], wanted: str | None, where: str) -> str:
    if not found:
        raise no_train_split(where)
    choices = [wanted] if wanted else PREFERRED if len(found) > 1 else found
    for choice in choices:
        if choice in found:
            return choice
    named = ", ".join(name or "(none)" for name in found)
    raise DataError(
        f"configuration {wanted!r} of {where}" if wanted else f"several configurations in {where}",
        expected=f"one of {named}",
        hint="name it, as in hf:OWNER/NAME/CONFIG, or name its folder",
    )


def _check_complete(paths: list[str], where: str) -> None:
    """Of files named ...-00001-of-00003 all must be there: two thirds are another data set."""
    numbered = [re.search(r"-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet$", path) for path in paths]
    if numbered and all(numbered):
        wanted = max(int(match[2]) for match in numbered if match)
        if len(paths) != wanted:
            raise DataError(
                f"{len(paths)} of {wanted} files of a split in {where} ({paths[0]}, ...)",
                expected="all files of a numbered set and no others",
                hint="copy or download the data set again",
            )
