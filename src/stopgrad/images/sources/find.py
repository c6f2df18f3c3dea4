"""A spec such as `cifar10`, `hf:OWNER/NAME` or a path -> its `DataSource`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from stopgrad.errors import DataError, did_you_mean
from stopgrad.images.sources.several import several_source, specs_of
from stopgrad.images.store import is_store, store_source
from stopgrad.images.types import DataSource

ON_THE_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
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
    if len(specs := specs_of(spec)) > 1:
        return several_source([find_source(each, split=split) for each in specs])
    if spec == "mnist5k":
        from stopgrad.images.sources.embedded import mnist5k

        return mnist5k()
    if is_name(spec):
        from stopgrad.images.sources.hub import hub_source

        return hub_source(spec, repository=ON_THE_HUB.get(spec, spec.removeprefix("hf:")))
    path = os.path.expanduser(spec)
    if not os.path.exists(path):  # unlike Path.exists, it knows no error for odd text
        from stopgrad.images.sources.contained import shards_of_pattern

        if (source := shards_of_pattern(spec, split=split)) is not None:
            return source
        raise _unknown(spec)
    return _local(Path(path).resolve(), split)


def _local(path: Path, split: str, depth: int = 0) -> DataSource:
    from stopgrad.images.sources.contained import contained_source
    from stopgrad.images.sources.folder import folder_source
    from stopgrad.images.sources.parquet import is_parquet, parquet_source

    if is_store(path):
        return store_source(path)
    if (source := contained_source(path, split=split, inside=_local, depth=depth)) is not None:
        return source
    return parquet_source(path) if is_parquet(path) else folder_source(path)


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
