"""The unpacked size of the pages of a Parquet file, by the headers that Arrow allocates by.

In: an open file and a group of its rows. Out: bytes. The footer states this size too, but may lie;
the headers cannot, as Arrow unpacks no more than they say. Both are structs of Thrift's compact
protocol (its specification); field numbers are those of parquet.thrift. Anything that Arrow could
read differently is refused: a field that occurs twice, a number too large for its type.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pyarrow import Schema
    from pyarrow.parquet import ParquetFile

I32, I64, LIST, STRUCT = 5, 6, 9, 12  # types of Thrift
DATA, DATA_V2 = 0, 3  # types of pages
DEEPEST = 20  # nested structs
LONGEST, MOST = 1 << 24, 1_000_000  # bytes of a value, and parts of a list; Arrow's own limit
VALUE = 8  # bytes that a value takes in memory, at least

Struct: TypeAlias = dict[tuple[int, int], Any]
"""Values by number and type of their field: with another type it is another field."""


class PagedFile:
    """An open Parquet file whose rows are read in groups of known size.

    Args:
        file: The file as Arrow has opened it.
        raw: The same file, to follow its pages.

    Raises:
        ValueError: When its footer cannot be read.
    """

    def __init__(self, file: ParquetFile, raw: IO[bytes]) -> None:
        self.metadata = file.metadata
        self.schema_arrow, self.repeated = with_names_once(file.schema_arrow)
        self.iter_batches = file.iter_batches
        self._raw, self._groups = raw, groups_of(raw)
        self._leaves = [f"{file.schema.column(leaf).path}." for leaf in range(len(file.schema))]
        self.packed_bytes = raw.seek(0, io.SEEK_END)

    def group_bytes(self, group: int, name: str) -> int:
        """Bytes a column of a group unpacks to; a ValueError if its pages cannot be followed."""
        leaves = [place for place, of in enumerate(self._leaves) if of.startswith(f"{name}.")]
        return unpacked_bytes(self._raw, self._groups[group], leaves)


def with_names_once(schema: Schema) -> tuple[Schema, tuple[str, ...]]:
    """The schema without columns that share a name, which cannot be read, and those names."""
    times = Counter(schema.names)
    repeated = tuple(name for name, count in times.items() if count > 1)
    for name in repeated:
        for place in reversed(schema.get_all_field_indices(name)):
            schema = schema.remove(place)
    return schema, repeated


def groups_of(raw: IO[bytes]) -> list[Struct]:
    """The groups of rows of a Parquet file, by its footer; a ValueError if it lists none."""
    end = raw.seek(-8, io.SEEK_END)
    length = int.from_bytes(raw.read(4), "little")
    raw.seek(max(0, end - length))
    groups = _struct(io.BytesIO(raw.read(length))).get((4, LIST))
    if not isinstance(groups, list):
        raise ValueError("no groups of rows")
    return groups


def unpacked_bytes(raw: IO[bytes], group: Struct, leaves: Iterable[int] | None = None) -> int:
    """Bytes that the pages of a group of rows unpack to; a ValueError if they cannot be followed.

    Args:
        raw: The file.
        group: One of `groups_of`.
        leaves: The columns that count, by their order in the schema; None: all.
    """
    try:
        columns = group[1, LIST]
        chosen = range(len(columns)) if leaves is None else leaves
        return sum(_of_column(raw, columns[leaf][3, STRUCT]) for leaf in chosen)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("its pages cannot be followed") from error


def _of_column(raw: IO[bytes], column: Struct) -> int:
    """Bytes of one column in a group, whose pages follow each other until it has all values."""
    place = min(column[9, I64], column.get((11, I64)) or column[9, I64])
    end, left, total = place + column[7, I64], column[5, I64], 0
    while place < end and left > 0:
        raw.seek(place)
        page = _struct(raw)
        kind, unpacked, packed = (page[number, I32] for number in (1, 2, 3))
        header = page[{DATA: 5, DATA_V2: 8}[kind], STRUCT] if kind in (DATA, DATA_V2) else {}
        values = header.get((1, I32), 0)
        if min(unpacked, packed, values) < 0:
            raise ValueError("a page of a size below 0")
        total += max(unpacked, VALUE * values)
        left -= values
        place = raw.tell() + packed
    return total


def _struct(file: IO[bytes], depth: int = 0) -> Struct:
    found, number = Struct(), 0
    if depth > DEEPEST:
        raise ValueError("structs that are nested too deep")
    while head := _byte(file):
        number = number + (head >> 4) if head >> 4 else _signed(file, 16)
        key = number, head & 15
        if key in found or number >= 1 << 15:
            raise ValueError("a field that occurs twice")
        found[key] = None if key[1] in (1, 2) else _value(file, key[1], depth)  # true and false
    return found


def _value(file: IO[bytes], kind: int, depth: int) -> Any:
    match kind:
        case 1 | 2 | 3:  # true and false are bytes in a list
            return _byte(file)
        case 4 | 5 | 6:
            return _signed(file, {4: 16, 5: 32, 6: 64}[kind])
        case 7:
            return _bytes(file, 8)
        case 8:
            return _bytes(file, _unsigned(file))
        case 9 | 10:
            head = _byte(file)
            count = _unsigned(file) if head >> 4 == 15 else head >> 4
            if count > MOST:
                raise ValueError("a list that is too long")
            return [_value(file, head & 15, depth + 1) for _ in range(count)]
        case 12:
            return _struct(file, depth + 1)
    raise ValueError(f"a field of the type {kind}")


def _unsigned(file: IO[bytes]) -> int:
    number = shift = 0
    while (byte := _byte(file)) & 128:
        number |= (byte & 127) << shift
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
    return number | byte << shift


def _signed(file: IO[bytes], bits: int) -> int:
    number = _unsigned(file)
    if number >> bits:
        raise ValueError(f"a number of more than {bits} bits")
    return number >> 1 ^ -(number & 1)


def _byte(file: IO[bytes]) -> int:
    return _bytes(file, 1)[0]


def _bytes(file: IO[bytes], count: int) -> bytes:
    data = file.read(count) if count <= LONGEST else b""
    if len(data) < count:
        raise ValueError("it is cut off")
    return data
