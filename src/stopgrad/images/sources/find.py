"""A spec such as `cifar10`, `hf:OWNER/NAME` or a path -> its `DataSource`."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from stopgrad.errors import DataError, did_you_mean
from stopgrad.images.sources.names import to_score
from stopgrad.images.store import is_store, read_notes, store_source
from stopgrad.images.types import DataSource, Notes, Reading, Unused

ON_THE_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
KNOWN = ("mnist5k", *ON_THE_HUB)
MOST_STRAY = 0.05  # as many images as these of the rows may lie beside Parquet files
BY_RULE = Reading()

log = logging.getLogger(__name__)


def is_name(spec: str) -> bool:
    """Whether a spec is a name, and not the path of a file or folder of the user's."""
    return spec in KNOWN or spec.startswith("hf:")


def find_source(spec: str, *, reading: Reading = BY_RULE) -> DataSource:
    """The data set behind a spec, found but not read.

    Args:
        spec: As for `load_dataset`.
        reading: The split that is scored, and the columns that are read.

    Raises:
        DataError: For an unknown name (with the nearest known one) or a missing path.
        ConfigError: For a split that the data do not have.
    """
    return _found(spec, reading)._replace(reading=reading)


def _found(spec: str, reading: Reading) -> DataSource:
    if spec == "mnist5k":
        from stopgrad.images.sources.embedded import mnist5k

        return _as_it_is(mnist5k(), reading, scored="test")
    if is_name(spec):
        from stopgrad.images.sources.hub import hub_source

        repository = ON_THE_HUB.get(spec, spec.removeprefix("hf:"))
        return hub_source(spec, repository=repository, reading=reading)
    path = os.path.expanduser(spec)
    if not os.path.exists(path):  # unlike Path.exists, it knows no error for odd text
        raise _unknown(spec)
    return _local(Path(path).resolve(), reading)


def _local(path: Path, reading: Reading) -> DataSource:
    from stopgrad.images.sources.folder import folder_source
    from stopgrad.images.sources.parquet import is_parquet, parquet_source

    if is_store(path):
        return _as_it_is(store_source(path), reading, scored=read_notes(path).scored or "test")
    if not is_parquet(path):
        return folder_source(path)
    return parquet_source(path, reading) if path.is_file() else _mixed(path, reading)


def _mixed(path: Path, reading: Reading) -> DataSource:
    """A folder that holds Parquet files, and maybe images that are rows of them or more than they.

    A folder of images stays one, whatever Parquet files lie in it, and the other way round.
    """
    from stopgrad.images.sources.folder import find_images, folder_source
    from stopgrad.images.sources.parquet import count_images, names_images, parquet_source

    pictures = ["/".join(found.parts) for found in find_images(path)]
    named = bool(pictures) and names_images(path, reading)
    if not named and len(pictures) > MOST_STRAY * count_images(path, reading):
        return folder_source(path)
    source = parquet_source(path, reading)
    used = {stamp.path for stamp in source.stamps}
    beside = tuple(picture for picture in pictures if picture not in used)
    unused = Unused("image", "beside Parquet files, which are the data", beside)
    return source._replace(notes=source.notes.and_those(Notes(unused=(unused,) if beside else ())))


def _as_it_is(source: DataSource, reading: Reading, *, scored: str) -> DataSource:
    """A data set that has one way to be read, whatever was asked for."""
    to_score({"train": "train", scored: None}, reading.split)
    if reading.image_column or reading.label_column:
        log.warning("%s has no columns to choose from", source.name)
    return source


def _unknown(spec: str) -> DataError:
    if os.sep in spec or re.match(r"[.~]|[A-Za-z]:\\", spec):
        return DataError(
            f"no folder {spec[:200]!r}",
            expected="the path of a folder of images or Parquet files, or of a store",
            hint="check the path",
        )
    return DataError(
        f"unknown data set {spec[:80]!r}{did_you_mean(spec.lower(), KNOWN)}",
        expected=f"{', '.join(KNOWN)}, hf:OWNER/NAME or the path of a folder",
        hint="check the name or the path",
    )
