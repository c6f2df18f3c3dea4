"""metrics.jsonl: appended, fsynced, cut back on resume; a torn last line is tolerated."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stopgrad.errors import CheckpointError
from stopgrad.files import storage_errors, write_atomically

Row = dict[str, Any]


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Appends rows as strict JSON lines and makes them durable.

    Raises:
        StorageError: When the disk refuses.
    """
    data = _encode(rows)
    with storage_errors(path, needed=len(data)), path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_metrics(run: Path) -> list[Row]:
    """All rows of a run, in order; a last line torn by a crash is left out.

    Raises:
        CheckpointError: When a line before the last one is not JSON.
    """
    path = run / "metrics.jsonl"
    return list(_decode(path)) if path.exists() else []


def cut_back(run: Path, *, step: int) -> None:
    """Drops the rows of steps after this one, which a resumed run will write again."""
    kept = [row for row in read_metrics(run) if row["step"] <= step]
    write_atomically(run / "metrics.jsonl", _encode(kept))


def _encode(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def _decode(path: Path) -> Iterator[Row]:
    *whole, torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(whole, start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            if number == len(whole) and not torn:
                return
            raise CheckpointError(
                f"{path}, line {number}, is not JSON",
                expected="one JSON object a line",
                hint="the file was changed from outside; restore it or start a new run",
            ) from error
