"""A table (CSV, TSV, JSON lines, Parquet) -> its columns by name, values unchanged.

Columns of a file without a header are called 1, 2, ... The fields of an object are columns too,
`annotation.label`; of two columns of one name the second is called `label (column 3)`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stopgrad.images.sources.columns import whole_column
from stopgrad.images.sources.endings import names_image
from stopgrad.images.sources.rows import opened_parquet
from stopgrad.storage import few, first_line, read_patiently

UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # its byte-order marks, which spreadsheets write
MOST_BYTES = 1 << 28  # of a table
BEYOND = "\0"  # the column that tells whether a row holds more than the header has columns
TWICE = re.compile(r" \(column \d+\)$")  # after a name that another column has


class UnfitTableError(Exception):
    """Why a table gives no labels."""


def columns_of(path: Path) -> dict[str, list[Any]]:
    """The columns of a table; those of a file without a header are called 1, 2, ...

    Raises:
        UnfitTableError: When it cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return read_patiently(path, lambda: _of_parquet(path))
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise UnfitTableError(f"more than {MOST_BYTES:,} bytes, or not a regular file")
        data = read_patiently(path, path.read_bytes)
        try:
            text = data.decode("utf-16" if data.startswith(UTF_16) else "utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        return _of_lines(text) if path.suffix.lower() in (".jsonl", ".ndjson") else _of_csv(text)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        reason = first_line(error)
        raise UnfitTableError(f"it cannot be read ({reason[:200]})") from error


def _of_csv(text: str) -> dict[str, list[Any]]:
    # Blank lines, comments, and Excel's own line.
    text = re.sub(r"\A(#[^,;\t|\n]*\n|sep=.\r?\n|[ \t]*\r?\n)+", "", text)
    first = text.partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    delimiter = delimiter if delimiter in first else " "
    lines = io.StringIO(text, newline="")
    rows = [*filter(None, csv.reader(lines, delimiter=delimiter, skipinitialspace=True))]
    if not rows:
        raise UnfitTableError("it is empty")
    width, longest = len(rows[0]), max(map(len, rows))
    if any(_is_file_name(cell) for cell in rows[0]):
        header = [str(number + 1) for number in range(width)]
    else:
        header = [name.strip() for name in rows.pop(0)]
        # R leaves out the name of the column of row numbers.
        if rows and all(len(row) == width + 1 and _is_numbered(row) for row in rows):
            header, width = ["", *header], longest
    columns: dict[str, list[Any]] = {}
    for place, name in enumerate(header):
        own = f"{name} (column {place + 1})" if name and name in columns else name
        columns[own] = [row[place] if place < len(row) else None for row in rows]
    if longest > width:
        columns[BEYOND] = [any(map(str.strip, row[width:])) for row in rows]
    return columns


def _is_numbered(row: list[str]) -> bool:
    return row[0].strip().isdecimal() and any(map(_is_file_name, row[1:]))


def _is_file_name(cell: str) -> bool:
    return names_image(cell.strip())


def _of_lines(text: str) -> dict[str, list[Any]]:
    rows = [
        json.loads(line, object_pairs_hook=_object) for line in text.split("\n") if line.strip()
    ]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UnfitTableError("its lines are not JSON objects")
    return _of_rows(rows)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"an object with the same key twice, one of {few([*found])}")
    return found


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of rows; the fields of an object are columns too, `annotation.label`."""
    flat = [dict(_flat(row)) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    return {name: [row.get(name) for row in flat] for name in names}


def _flat(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", each) for inner, each in _flat(value))
        else:
            yield name, value


def _of_parquet(path: Path) -> dict[str, list[Any]]:
    try:
        with opened_parquet(path) as file:
            if file.repeated:
                raise ValueError(f"several columns are called {few(file.repeated)}")
            names = file.schema_arrow.names
            columns = [whole_column(file, name).to_pylist() for name in names]
    except Exception as error:
        raise ValueError(str(error.__cause__ or error)) from error
    return _of_rows([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])
