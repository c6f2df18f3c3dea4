"""Arrow files as `datasets` writes them -> the same few things that a Parquet file offers.

`save_to_disk` leaves a folder with `state.json` and `data-00000-of-00002.arrow`, for several splits
in folders of their names beside `dataset_dict.json`. Its cache names files by split,
`cifar10-train.arrow`. Caches of transformations (`cache-....arrow`) are no data.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stopgrad.errors import DataError
from stopgrad.images.sources.limits import refuse_bomb
from stopgrad.images.sources.pages import PagedFile
from stopgrad.storage import read_json

if TYPE_CHECKING:
    import pyarrow

HELD = 1 << 28  # bytes of values that are in memory at a time, or one value
MAGIC = b"ARROW1"  # of the file format; what `datasets` writes is the stream format


class RowGroup(NamedTuple):
    """Some rows that were written together, of which no statistics are kept."""

    num_rows: int


class ArrowMetadata(NamedTuple):
    """What is known of all rows."""

    num_rows: int
    num_row_groups: int
    batches: tuple[int, ...]

    def row_group(self, index: int) -> RowGroup:
        """One of them."""
        return RowGroup(self.batches[index])


class ArrowFile:
    """An Arrow file, mapped, which offers what `PagedFile` does."""

    def __init__(self, file: Any) -> None:
        import pyarrow.ipc

        is_file = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        if is_file:
            reader = pyarrow.ipc.open_file(file)
            read = map(reader.get_batch, range(reader.num_record_batches))
        else:
            reader = pyarrow.ipc.open_stream(file)
            read = iter(reader)
        batches, unpacked = [], 0
        for batch in read:
            unpacked += batch.nbytes
            refuse_bomb(unpacked, file.size(), where="an Arrow file")
            batches.append(batch)
        self._batches: list[pyarrow.RecordBatch] = batches
        self.schema_arrow: pyarrow.Schema = reader.schema
        self.packed_bytes = file.size()
        rows = tuple(batch.num_rows for batch in batches)
        self.metadata = ArrowMetadata(sum(rows), len(rows), rows)

    def group_bytes(self, group: int) -> int:
        """None: its values are mapped, not unpacked."""
        return 0

    def iter_batches(
        self, batch_size: int, row_groups: Sequence[int], columns: Sequence[str]
    ) -> Iterator[pyarrow.RecordBatch]:
        """Rows in order, of some columns, each batch checked so that no offset leads elsewhere.

        Of values that many rows share there are fewer rows at a time.
        """
        import pyarrow

        for chosen in (self._batches[group].select(columns) for group in row_groups):
            if any(isinstance(column, pyarrow.DictionaryArray) for column in chosen.columns):
                batch_size = max(1, min(batch_size, HELD // max(1, chosen.nbytes)))
            for start in range(0, chosen.num_rows, batch_size):
                part = chosen.slice(start, batch_size)
                part.validate(full=True)
                yield part


GroupedFile: TypeAlias = PagedFile | ArrowFile
"""A file of either kind."""


@contextlib.contextmanager
def opened_arrow(path: Path) -> Iterator[ArrowFile]:
    """An open Arrow file."""
    import pyarrow

    with pyarrow.memory_map(os.fsencode(path)) as file:
        yield ArrowFile(file)


def check_listed(folder: Path) -> None:
    """Refuses a saved data set of which a file is missing that its own list names.

    Raises:
        DataError: With the file.
    """
    if missing := [name for name in _listed(folder) if not (folder / name).is_file()]:
        raise DataError(
            f"{str(folder / missing[0])!r} is not there",
            expected="all files that state.json names",
            hint="copy or save the data set again",
        )


def _listed(folder: Path) -> frozenset[str]:
    """The files that make up a saved data set."""
    try:
        state = read_json(folder / "state.json")
        return frozenset(str(file["filename"]) for file in state["_data_files"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
