"""A spec such as `cifar10`, `hf:OWNER/NAME` or a path -> its `DataSource`."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stopgrad.config import BY_RULE, Reading
from stopgrad.errors import DataError, did_you_mean
from stopgrad.images.sources.names import to_score
from stopgrad.images.sources.several import several_source, specs_of
from stopgrad.images.store import is_store, read_notes, store_source
from stopgrad.images.types import DataSource, Notes, Unused

if TYPE_CHECKING:
    from stopgrad.images.sources.files import FolderListing

ON_THE_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
ON_HUB = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)?(?:datasets/)?"
    r"([A-Za-z0-9][\w.-]*/[\w.-]*\w)(?:/(?:tree|viewer)\b.*)?/?"
)
"""OWNER/NAME, or the address of its page."""
MOST_LOOSE = 100  # image files beside which archives and files of arrays are looked into
KNOWN = ("mnist5k", *ON_THE_HUB)

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
    if len(specs := specs_of(spec)) > 1:
        return several_source([find_source(each, reading=reading) for each in specs])._replace(
            reading=reading
        )
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
        from stopgrad.images.sources.contained import shards_of_pattern

        if (source := shards_of_pattern(spec, reading)) is not None:
            return source
        raise _unknown(spec)
    return _local(_place(Path(path)), reading)


def _place(path: Path) -> Path:
    """Where a data set lies, links followed; but a file keeps the name by which it is known.

    The Hub's cache holds files under their checksums, and links to them by commit: of a data set in
    it the commit counts that its main branch is at.
    """
    if not path.is_dir():
        return path.parent.resolve() / path.name
    commits, main = path / "snapshots", path / "refs" / "main"
    if commits.is_dir() and main.is_file():
        commit = main.read_text("utf-8", "replace").strip()
        path = next((found for found in commits.iterdir() if found.name == commit), path)
    return path.resolve()


def _local(path: Path, reading: Reading, depth: int = 0) -> DataSource:
    from stopgrad.images.sources.contained import in_file
    from stopgrad.images.sources.folder import folder_source
    from stopgrad.images.sources.parquet import is_parquet, parquet_source

    if is_store(path):
        return _as_it_is(store_source(path), reading, scored=read_notes(path).scored or "test")
    if (path / "checkpoints").is_dir() and (path / "config.json").is_file():
        raise DataError(
            f"{str(path)!r} is a run, not a data set",
            expected="images",
            hint="name the folder of the images; weights to start from go to --init",
        )
    if path.is_dir():
        return _in_folder(path, reading, depth)
    if is_parquet(path):
        return parquet_source(path, reading)
    inside = functools.partial(_local, reading=reading, depth=depth + 1)
    return in_file(path, reading, inside=inside) or folder_source(path, reading)


def _in_folder(path: Path, reading: Reading, depth: int) -> DataSource:
    """Images as files, as rows of Parquet, or in archives and arrays; what else lies there."""
    from stopgrad.images.sources.array_splits import NAME_LISTS
    from stopgrad.images.sources.contained import images_inside, in_folder
    from stopgrad.images.sources.files import list_folder
    from stopgrad.images.sources.folder import folder_source
    from stopgrad.images.sources.layout import MOST_STRAY
    from stopgrad.images.sources.parquet import count_images, is_parquet, looked_at, parquet_source

    listing, contained = list_folder(path), None
    images = ["/".join(image.parts) for image in listing.images]
    rows = count_images(path, reading) if is_parquet(path) else 0
    # As few image files as are stray in a split leave the data to archives and arrays.
    few, most = not rows and len(images) <= MOST_LOOSE, int(len(images) / MOST_STRAY)
    inner = [*itertools.islice(images_inside(path), most)] if few else []
    if few and len(inner) == most:
        inside = functools.partial(_local, reading=reading, depth=depth + 1)
        contained = in_folder(path, reading, inside=inside, depth=depth)
    if contained is not None:
        contained = _without(contained, "beside archives or arrays, which are the data", images)
        used = {os.path.basename(stamp.path) for stamp in contained.stamps} | {*NAME_LISTS}
        return _with_the_rest(contained, listing, lambda name: os.path.basename(name) in used)
    if is_parquet(path) and (rows or not images):
        source = parquet_source(path, reading)
        used = {stamp.path for stamp in source.stamps}
        beside = tuple(image for image in images if image not in used)
        # A folder of images stays one, whatever Parquet files lie in it, unless their rows name
        # most of its images; and the other way round.
        if 2 * len(beside) < len(images) or len(beside) <= MOST_STRAY * rows:
            source = _without(source, "beside Parquet files, which are the data", beside)
            return _with_the_rest(source, listing, looked_at)
    there = {os.path.basename(image) for image in images}
    lost = [name for name in inner if os.path.basename(name) not in there]
    why = "in archives or arrays beside image files, which are the data: name the file itself"
    return _without(folder_source(path, reading, listing=listing), why, lost)


def _without(source: DataSource, reason: str, names: Sequence[str]) -> DataSource:
    """A data set with a note of images that are not used."""
    unused = (Unused("image", reason, tuple(names)),) if names else ()
    return source._replace(notes=source.notes.and_those(Notes(unused=unused)))


def _with_the_rest(
    source: DataSource, listing: FolderListing, is_used: Callable[[str], bool]
) -> DataSource:
    """A data set in some files of a folder, with notes of all others that are no images."""
    left = (
        group._replace(names=tuple(name for name in group.names if not is_used(name)))
        for group in listing.unused
    )
    names = ("/".join(table.parts) for table in listing.tables)
    tables = tuple(name for name in names if not is_used(name))
    groups = (*left, Unused("file", "tables, which are read beside image files alone", tables))
    notes = Notes(unused=tuple(group for group in groups if group.names))
    return source._replace(notes=source.notes.and_those(notes))


def _as_it_is(source: DataSource, reading: Reading, *, scored: str) -> DataSource:
    """A data set that has one way to be read, whatever was asked for."""
    to_score({"train": "train", scored: None}, reading.split)
    if reading.image_column or reading.label_column:
        log.warning("%s has no columns to choose from", source.name)
    return source


def _unknown(spec: str) -> DataError:
    if hub := ON_HUB.fullmatch(spec):
        return DataError(
            f"no folder {spec[:200]!r}",
            expected="the path of a folder, or hf:OWNER/NAME",
            hint=f"a data set of the Hugging Face Hub is named hf:{hub[1]}; else check the path",
        )
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
