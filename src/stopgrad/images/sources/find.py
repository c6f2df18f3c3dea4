"""A spec such as `cifar10`, `hf:OWNER/NAME` or a path -> its `DataSource`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from stopgrad.errors import DataError, did_you_mean
from stopgrad.images.store import is_store, store_source
from stopgrad.images.types import DataSource, Notes, Unused

ON_THE_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
ON_HUB = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)?(?:datasets/)?"
    r"([A-Za-z0-9][\w.-]*/[\w.-]*\w)(?:/(?:tree|viewer)\b.*)?/?"
)
"""OWNER/NAME, or the address of its page."""
KNOWN = ("mnist5k", *ON_THE_HUB)


def is_name(spec: str) -> bool:
    """Whether a spec is a name, and not the path of a file or folder of the user's."""
    return spec in KNOWN or spec.startswith("hf:")


def find_source(spec: str, *, split: str = "") -> DataSource:
    """The data set behind a spec, found but not read.

    Args:
        spec: As for `load_dataset`.
        split: The split that is scored, as the data call it; "": the first with labels.

    Raises:
        DataError: For an unknown name (with the nearest known one) or a missing path.
    """
    if spec == "mnist5k":
        from stopgrad.images.sources.embedded import mnist5k

        return mnist5k()
    if is_name(spec):
        from stopgrad.images.sources.hub import hub_source

        return hub_source(spec, repository=ON_THE_HUB.get(spec, spec.removeprefix("hf:")))
    path = os.path.expanduser(spec)
    if not os.path.exists(path):  # unlike Path.exists, it knows no error for odd text
        raise _unknown(spec)
    return _local(Path(path).resolve(), split=split)


def _local(path: Path, *, split: str) -> DataSource:
    from stopgrad.images.sources.files import list_folder
    from stopgrad.images.sources.folder import folder_source
    from stopgrad.images.sources.layout import MOST_STRAY
    from stopgrad.images.sources.parquet import count_images, is_parquet, parquet_source

    if is_store(path):
        return store_source(path)
    if (path / "checkpoints").is_dir() and (path / "config.json").is_file():
        raise DataError(
            f"{str(path)!r} is a run, not a data set",
            expected="images",
            hint="name the folder of the images; weights to start from go to --init",
        )
    if not path.is_dir():
        return parquet_source(path) if is_parquet(path) else folder_source(path)
    listing = list_folder(path)
    pictures = tuple("/".join(image.parts) for image in listing.images)
    # A folder of images stays one, whatever Parquet files lie in it, and the other way round.
    if is_parquet(path) and len(pictures) <= MOST_STRAY * count_images(path):
        source = parquet_source(path)
        beside = (Unused("image", "beside Parquet files, which are the data", pictures),)
        notes = Notes(unused=beside if pictures else ())
        return source._replace(notes=source.notes.and_those(notes))
    return folder_source(path, split=split, listing=listing)


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
