"""The names of Parquet files -> the files of each split of a data set; nothing is read.

A file's split is known by its name (`train-00000-of-00003.parquet`, `Training_1.parquet`) or by the
folder that it lies in (`default/train/0000.parquet`); the rest of the path is the configuration
(`plain_text/`, `data/`, none). Without a training split, files of no known split are trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from stopgrad.errors import DataError
from stopgrad.images.sources.endings import PARQUET
from stopgrad.images.sources.names import SplitOf, meanings, scored_as, split_of, to_score
from stopgrad.images.types import Notes, Unused
from stopgrad.storage import few

USUAL = ("", "default", "data")  # configurations that are taken first, of several
NUMBER = re.compile(r"(?:^|[-_. ]+)\d+(?:-of-\d+(?:-[0-9a-f]+)?)?$")  # of a shard
NOTHING = {"", "part", "shard", "chunk", "file", "data"}  # words that name no split


class ShardPlace(NamedTuple):
    """Where a file belongs: its configuration, its split as the data call it, its path."""

    config: str
    split: str
    path: str


class Shards(NamedTuple):
    """Relative paths of the files of each split, in order of name."""

    train: tuple[str, ...]
    scored: dict[str, tuple[str, ...]]  # the first of these with usable labels is scored
    others: dict[str, tuple[str, ...]]  # neither learned from nor scored
    meanings: dict[str, SplitOf | None]  # of all names of splits
    without_labels: tuple[str, ...] = ()  # splits that were passed over for lack of labels
    notes: Notes = Notes()

    def called(self, split: str, wanted: str) -> str:
        """The name in results of a split that is scored; "" for test."""
        return scored_as(split, self.meanings, wanted)


def place_of(path: str) -> ShardPlace | None:
    """Where a file belongs by its name, if it is a Parquet file of data that is not hidden."""
    file = PurePosixPath(path)
    if file.suffix.lower() not in PARQUET or any(part.startswith(".") for part in file.parts):
        return None
    # The first lies next to images in the Hub's layout of folders; `datasets` derives the others.
    if file.name == "metadata.parquet" or is_derived(file.name):
        return None
    name, folders = NUMBER.sub("", file.stem), list(file.parts[:-1])
    unnamed = re.split(r"[-_.]", name.lower())[0] in NOTHING
    if folders and (unnamed or split_of(folders[-1])):
        folder = folders.pop()
        name = name if split_of(name) else folder
    return ShardPlace("/".join(folders), name, path)


def is_derived(name: str) -> bool:
    """Whether a file is a cache of `datasets`, whose rows are copies of those in another file."""
    return name.endswith(".arrow") and name.startswith(("cache-", "tmp", "indices"))


def choose_shards(
    places: Iterable[ShardPlace],
    *,
    config: str | None = None,
    usual: Sequence[str] = USUAL,
    split: str = "",
    where: str,
) -> Shards:
    """The files to read.

    Args:
        places: The places of all files.
        config: The configuration to read; None: the only one, or the first of `usual` that exists.
        usual: Configurations, the preferred ones first.
        split: The split that is scored, as the data call it; "": by rule.
        where: The data set, for messages.

    Raises:
        DataError: When there is no train split, when a shard is missing from a numbered set, or
            when several configurations leave the choice open.
        ConfigError: For a split that is not there.
    """
    configs: dict[str, dict[str, list[str]]] = {}  # paths by configuration and split
    places = list(places)
    again = {f"{p.path.removesuffix('.parquet')}.arrow" for p in places}  # of the same rows
    places = [place for place in places if place.path not in again]
    for place in sorted(places, key=lambda place: place.path):
        configs.setdefault(place.config, {}).setdefault(place.split, []).append(place.path)
    chosen = _choose_config(configs, config, usual, where)
    splits = configs.pop(chosen)
    means = meanings(splits)
    learned = _learned(means)
    if not learned:
        raise no_train_split(where)
    means |= dict.fromkeys(learned, "train")
    scored = to_score(means, split)
    for name in learned:
        check_complete(splits[name], where)
    return Shards(
        tuple(sorted(path for name in learned for path in splits[name])),
        {name: tuple(splits[name]) for name in scored},
        {name: tuple(splits[name]) for name in splits if name not in {*learned, *scored}},
        means,
        notes=_notes(learned, chosen, configs),
    )


def no_train_split(where: str) -> DataError:
    """The error for Parquet files without any to train on."""
    return DataError(
        f"no train split in {where}",
        expected="Parquet files named train-*.parquet",
        hint="rename the files, or name a folder that has a train split, or one file alone",
    )


def _learned(means: Mapping[str, SplitOf | None]) -> list[str]:
    """The splits to learn from: those for training, else those of no known meaning."""
    for wanted in ("train", None):
        if found := [name for name, meaning in means.items() if meaning == wanted]:
            return found
    return []


def _choose_config(
    configs: Mapping[str, Mapping[str, object]],
    wanted: str | None,
    usual: Sequence[str],
    where: str,
) -> str:
    if not configs:
        raise no_train_split(where)
    trained = [name for name, splits in configs.items() if "train" in meanings(splits).values()]
    found = trained or list(configs)
    if wanted in configs:
        return str(wanted)
    for choice in found if len(found) == 1 else usual:
        if choice in found and not wanted:
            return choice
    named = ", ".join(name or "(none)" for name in sorted(configs if wanted else found))
    raise DataError(
        f"configuration {wanted!r} of {where}" if wanted else f"several configurations in {where}",
        expected=f"one of {named}",
        hint="name it, as in hf:OWNER/NAME/CONFIG, or name its folder",
    )


def _notes(
    learned: Sequence[str], chosen: str, others: Mapping[str, Mapping[str, Sequence[str]]]
) -> Notes:
    """Notes on how the names were understood."""
    notes = Notes()
    if any(split_of(name) != "train" for name in learned):
        notes = Notes((f"trained on {_named(learned)}, because no split is called train",))
    if not others:
        return notes
    remark = f"read the configuration {chosen or '(none)'!r}, not {_named(sorted(others))}"
    paths = [path for splits in others.values() for found in splits.values() for path in found]
    unused = Unused("file", "of another configuration", tuple(sorted(paths)))
    return notes.and_those(Notes((remark,), (unused,)))


def _named(names: Sequence[str]) -> str:
    return few([name or "(none)" for name in names])


def check_complete(paths: Sequence[str], where: str) -> None:
    """Files named ...-00001-of-00003 must all be there: two thirds are another data set.

    Raises:
        DataError: When some are missing.
    """
    numbered = [
        re.search(r"-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.(?:parquet|arrow)$", path) for path in paths
    ]
    if numbered and all(numbered):
        wanted = max(int(match[2]) for match in numbered if match)
        if len(paths) != wanted:
            raise DataError(
                f"{len(paths)} of {wanted} files of a split in {where} ({paths[0]}, ...)",
                expected="all files of a numbered set and no others",
                hint="copy or download the data set again",
            )
