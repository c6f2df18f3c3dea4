"""Arrow files as `datasets` writes them -> the interface of a Parquet file.

`save_to_disk` writes a folder with `state.json` and `data-00000-of-00002.arrow`, or one such folder
for each split next to `dataset_dict.json`. The cache of `datasets` names files by split,
`cifar10-train.arrow`. Caches of transformations (`cache-....arrow`) are not data.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stopgrad.errors import DataError
from stopgrad.images.sources.limits import refuse_bomb
from stopgrad.images.sources.pages import PagedFile, with_names_once
from stopgrad.storage import read_json

if TYPE_CHECKING:
    import pyarrow

HELD = 1 << 28  # bytes of values that are in memory at a time, or one value
MAGIC = b"ARROW1"  # of the file format; what `datasets` writes is the stream format


class RowGroup(NamedTuple):
    """Rows that were written together; no statistics are kept for them."""

    num_rows: int


class ArrowMetadata(NamedTuple):
    """The number of rows, in all and by group."""

    num_rows: int
    num_row_groups: int
    batches: tuple[int, ...]

    def row_group(self, index: int) -> RowGroup:
        """The group at an index."""
        return RowGroup(self.batches[index])


class ArrowFile:
    """A memory-mapped Arrow file with the interface of `PagedFile`."""

    def __init__(self, file: Any) -> None:
        import pyarrow.ipc

        is_file = file.read(len(MAGIC)) == MAGIC
        packed = sum(map(_packed_values, _messages(file, is_file=is_file)))
        refuse_bomb(packed, file.size(), where="an Arrow file")
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
        self.schema_arrow, self.repeated = with_names_once(reader.schema)
        self.packed_bytes = file.size()
        rows = tuple(batch.num_rows for batch in batches)
        self.metadata = ArrowMetadata(sum(rows), len(rows), rows)

    def group_bytes(self, group: int, name: str) -> int:
        """0: its values are mapped, not unpacked."""
        return 0

    def iter_batches(
        self, batch_size: int, row_groups: Sequence[int], columns: Sequence[str]
    ) -> Iterator[pyarrow.RecordBatch]:
        """Rows in order, of some columns, each batch checked so that no offset leads elsewhere.

        Batches are smaller where many rows share a value.
        """
        import pyarrow

        for chosen in (self._batches[group].select(columns) for group in row_groups):
            if any(isinstance(column, pyarrow.DictionaryArray) for column in chosen.columns):
                batch_size = max(1, min(batch_size, HELD // max(1, chosen.nbytes)))
            for start in range(0, chosen.num_rows, batch_size):
                part = chosen.slice(start, batch_size)
                part.validate(full=True)
                yield part


def _messages(file: Any, *, is_file: bool) -> Iterator[Any]:
    """The messages of a file as stored: listed in its footer, or one after another in a stream."""
    import pyarrow.ipc

    if not is_file:
        file.seek(0)
        yield from pyarrow.ipc.MessageReader.open_stream(file)
        return
    length = int.from_bytes(file.read_at(4, file.size() - 10), "little", signed=True)
    footer = file.read_at(length, file.size() - 10 - length)
    found = (_field(footer, _follow(footer, 0), number) for number in (2, 3))
    for blocks in (_follow(footer, field) for field in found if field):  # dictionaries, rows
        for place in range(_number(footer, blocks, 4)):
            file.seek(_number(footer, blocks + 4 + 24 * place, 8))
            yield pyarrow.ipc.read_message(file)


def _packed_values(message: Any) -> int:
    """Bytes that the compressed buffers of a message unpack to, by the number each begins with.

    Arrow allocates by it. Flatbuffers fields go by their number in Message.fbs.
    """
    data = message.metadata.to_pybytes()
    rows = _follow(data, _field(data, _follow(data, 0), 2))
    if message.type == "dictionary":
        rows = _follow(data, _field(data, rows, 1))
    if message.type not in ("dictionary", "record batch") or not _field(data, rows, 3):
        return 0
    buffers = _follow(data, _field(data, rows, 2))
    places = (buffers + 4 + 16 * place for place in range(_number(data, buffers, 4)))
    starts = [_number(data, place, 8) for place in places if _number(data, place + 8, 8) >= 8]
    sizes = (
        int.from_bytes(message.body[start : start + 8], "little", signed=True) for start in starts
    )
    return sum(max(0, size) for size in sizes)


def _field(data: bytes, table: int, number: int) -> int:
    """The offset of a field of a flatbuffers table; 0 when it is left out."""
    known = table - int.from_bytes(data[table : table + 4], "little", signed=True)
    entry = 4 + 2 * number
    offset = _number(data, known + entry, 2) if entry < _number(data, known, 2) else 0
    return table + offset if offset else 0


def _follow(data: bytes, place: int) -> int:
    return place + _number(data, place, 4)


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little")


GroupedFile: TypeAlias = PagedFile | ArrowFile
"""A file of either kind."""


@contextlib.contextmanager
def opened_arrow(path: Path) -> Iterator[ArrowFile]:
    """An open Arrow file."""
    import pyarrow

    with pyarrow.memory_map(os.fsencode(path)) as file:
        yield ArrowFile(file)


def check_listed(folder: Path) -> None:
    """Refuses a saved data set that lacks a file named in its own list.

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
