"""A folder of Arrow files, as `datasets` saves and caches data sets -> a `DataSource`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from stopgrad.images.sources.arrow_files import arrow_places, opened_arrow
from stopgrad.images.sources.names import first_scored, split_of
from stopgrad.images.sources.parquet import Shards, no_train_split, shards_source
from stopgrad.images.sources.split_words import why_unread
from stopgrad.images.types import DataSource, Notes, Unused


def arrow_source(path: Path, *, split: str = "") -> DataSource | None:
    """The Arrow files of a folder, or one file as a train split; None where there are none.

    Raises:
        DataError: When there is no train split, or a file is missing.
    """
    if path.is_file():
        return shards_source(Shards((path.name,), ()), name=path.stem, root=path.parent)
    places = arrow_places(path)
    if places is None:
        return None
    splits = places.splits
    train = next((word for word in splits if split_of(word) == "train"), "")
    if train not in splits:
        raise no_train_split(str(path))
    possible = [word for word, _ in first_scored(splits)]
    scored = ([word for word in possible if word == split] or possible)[:1]
    unread = [word for word in splits if word not in (train, *scored)]
    unused = (of for word in unread for of in _rows(path, splits[word], why_unread(word)))
    shards = Shards(splits[train], tuple(name for word in scored for name in splits[word]))
    source = shards_source(shards, name=path.name, root=path)
    return source._replace(notes=Notes(unused=(*unused, *places.unused)))


def _rows(folder: Path, names: Sequence[str], reason: str) -> Iterator[Unused]:
    """The rows of files that are not read, as images that are not used."""
    for name in names:
        try:
            with opened_arrow(folder / name) as file:
                count = file.metadata.num_rows
        except Exception as error:  # of Arrow's many types; the file is not to be read
            yield Unused("file", f"cannot be read ({type(error).__name__})", (name,))
        else:
            yield Unused("image", reason, tuple(f"{name}:{row}" for row in range(count)))
