"""A spec such as `cifar10`, `hf:OWNER/NAME` or a path -> its `DataSource`.

Only the reader of image folders is always loaded, the others when their data are met. `paths_in`
tells which objects of a Python caller are specs.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.config import BY_RULE, Reading
from stopgrad.errors import DataError, did_you_mean
from stopgrad.images.sources.files import list_folder
from stopgrad.images.sources.folder import folder_source
from stopgrad.images.sources.names import to_score
from stopgrad.images.sources.several import several_source, specs_of
from stopgrad.images.store import is_store, read_notes, store_source
from stopgrad.images.types import DataSource, Notes
from stopgrad.storage import first_line

ON_THE_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
ON_HUB = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)?(?:datasets/)?"
    r"([A-Za-z0-9][\w.-]*/[\w.-]*\w)(?:/(?:tree|viewer)\b.*)?/?"
)
"""OWNER/NAME, or the address of its page."""
KNOWN = ("mnist5k", *ON_THE_HUB)

log = logging.getLogger(__name__)


def is_name(spec: str) -> bool:
    """Whether a spec is a name rather than the path of a file or folder of the user's."""
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
    if spec in KNOWN and os.path.isdir(spec):
        return _beside_folder(spec, reading)
    if is_name(spec):
        return _named(spec, reading)
    path = os.path.expanduser(spec)
    if not os.path.exists(path):  # unlike Path.exists, it never raises for odd text
        from stopgrad.images.sources.contained import shards_of_pattern

        if (source := shards_of_pattern(spec, reading)) is not None:
            return source
        raise _unknown(spec)
    return _local(_place(Path(path)), reading)


def _named(spec: str, reading: Reading) -> DataSource:
    if spec == "mnist5k":
        from stopgrad.images.sources.embedded import mnist5k

        return _as_it_is(mnist5k(), reading, scored="test")
    from stopgrad.images.sources.hub import hub_source

    repository = ON_THE_HUB.get(spec, spec.removeprefix("hf:"))
    return hub_source(spec, repository=repository, reading=reading)


def _beside_folder(spec: str, reading: Reading) -> DataSource:
    """A data set that we know by name, where a folder of this name may be meant."""
    how = f"the folder {spec}/ is named ./{spec}"
    try:
        source = _named(spec, reading)
    except DataError as error:
        raise DataError(error.found, expected=error.expected, hint=how) from error
    remark = f"{spec} is the data set that stopgrad knows by this name: {how}"
    return source._replace(notes=Notes((remark,)).and_those(source.notes))


def _place(path: Path) -> Path:
    """The location of a data set, links resolved; but a file keeps the name by which it is known.

    The Hub's cache holds files under their checksums, and links to them by commit; a data set in
    it is read at the commit of its main branch.
    """
    if not path.is_dir():
        return path.parent.resolve() / path.name
    commits, main = path / "snapshots", path / "refs" / "main"
    if commits.is_dir() and main.is_file():
        commit = main.read_text("utf-8", "replace").strip()
        path = next((found for found in commits.iterdir() if found.name == commit), path)
    return path.resolve()


def _local(path: Path, reading: Reading, depth: int = 0) -> DataSource:
    """The data set in a file or a folder that was reached through `depth` archives."""
    if is_store(path):
        return _as_it_is(store_source(path), reading, scored=read_notes(path).scored or "test")
    if (path / "checkpoints").is_dir() and (path / "config.json").is_file():
        raise DataError(
            f"{str(path)!r} is a run, not a data set",
            expected="images",
            hint="name the folder of the images; give weights to start from with --init",
        )
    listing = list_folder(path) if path.is_dir() else None
    if listing and listing.images and not listing.packed:
        return folder_source(path, reading, listing=listing)
    from stopgrad.images.sources.contained import in_file, in_folder

    inside = functools.partial(_local, reading=reading, depth=depth + 1)
    if listing is None:
        return in_file(path, reading, inside=inside)
    return in_folder(path, listing, reading, inside=inside, depth=depth)


def _as_it_is(source: DataSource, reading: Reading, *, scored: str) -> DataSource:
    """A data set that can be read in one way only, whatever was asked for."""
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


def plain(images: Any) -> Any:
    """A tensor, a column of a table and the like as an array; an array of objects as a list.

    Raises:
        DataError: For a tensor or a column that cannot be converted.
    """
    # Each library raises types of its own, for tensors without values, sparse ones, odd types.
    try:
        return _plain(images)
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(
            f"values of the type {type(images).__name__} ({first_line(error)})",
            expected="an array, a dense tensor or a column of numbers, texts, paths or images",
            hint="convert them, as by x.to_dense() or np.asarray(x)",
        ) from error


def _plain(images: Any) -> Any:
    if isinstance(images, memoryview):
        return np.asarray(images)
    if hasattr(images, "detach"):  # a tensor, which may ask for gradients or lie on a GPU
        images = images.detach().cpu()
        kind = str(images.dtype)
        images = (images.float() if "bfloat16" in kind else images).numpy()
    elif hasattr(images, "to_numpy") and not hasattr(images, "columns"):  # no whole table
        arrow = next((n for n in ("to_numpy_ndarray", "to_pylist") if hasattr(images, n)), "")
        images = getattr(images, arrow or "to_numpy")()
    if isinstance(images, np.ndarray) and images.dtype.kind in "OUS":
        images = images.tolist()
    return images


def paths_in(data: Any) -> list[str] | None:
    """The paths in a sequence of nothing but texts and paths; None for anything else."""
    found = plain(data)
    if not isinstance(found, list | tuple) or not found:
        return None
    fits = all(isinstance(each, str | os.PathLike) for each in found)
    return [os.fspath(each) for each in found] if fits else None
