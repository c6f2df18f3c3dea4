"""metrics.jsonl: appended, fsynced, cut back on resume; a torn last line is tolerated."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.errors import CheckpointError
from stopgrad.runs.info import as_text, in_short, whole_number
from stopgrad.storage import check_types, read_file, storage_errors, strict_json, write_atomically

MOST = 1 << 40  # bytes: as many as were written

Row = dict[str, Any]

ROW: dict[str, Any] = {
    "kind": str,
    "step": int,
    "epoch": int,
    "loss": float | None,
    "lr": float | None,
    "predictor_lr": float | None,
    "knn": float | None,
    "views_per_s": float | None,
    "seconds": float,
    "measures": dict[str, dict[str, float | None]] | None,  # by layer
    "verdict": dict[str, str] | None,
    "spectra": dict[str, list[float]] | None,
}
"""What the values of a row are, where it has them."""


class Lines(NamedTuple):
    """A file of JSON lines."""

    rows: list[Row]
    torn: bytes  # what a crash has left of a last line


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
        CheckpointError: When a line before the last one is no row.
    """
    path = run / "metrics.jsonl"
    return read_rows(path).rows if path.exists() else []


def read_rows(path: Path) -> Lines:
    """The rows of a file of metrics, each with its step.

    Raises:
        CheckpointError: As `read_lines`, and for a row that `check_row` refuses.
    """
    lines = read_lines(path)
    for number, row in enumerate(lines.rows, start=1):
        try:
            check_row(row)
        except (KeyError, ValueError, TypeError) as error:
            raise _no_row(path, number, error) from error
    return lines


def check_row(row: Any) -> None:
    """Refuses a row that readers could not count or draw.

    Raises:
        KeyError: Without a step, or an epoch's row without its number.
        ValueError, TypeError: For no object, a value of another type, or spectra that no chart
            can show.
    """
    if not isinstance(row, dict):
        raise TypeError("no object")
    check_types(row, ROW)
    whole_number(row["step"])
    if row.get("kind") == "epoch" and not whole_number(row["epoch"]):
        raise ValueError("epoch 0, of epochs that count from 1")
    if row.get("spectra") is not None:
        weights, others = row["spectra"]["representation"], ("ranks", "predictor")
        sizes = {len(row["spectra"][name]) for name in others} | {len(weights)}
        if len(sizes) > 1 or not all(weight > 0 for weight in weights):
            raise ValueError("spectra with lists of several lengths, or weights not above 0")


def read_lines(path: Path) -> Lines:
    """The rows of a file of JSON lines, each an object, and what a crash left of a last one.

    Raises:
        CheckpointError: When a line before the last one is no object of strict JSON.
    """
    try:
        *whole, torn = read_file(path, most=MOST).split(b"\n")
    except OSError as error:
        raise CheckpointError(
            f"{as_text(path)} cannot be read ({in_short(error)})",
            expected="a file of JSON lines",
            hint="restore the file",
        ) from error
    if whole and not torn and _is_torn(whole[-1]):
        torn = whole.pop()
    return Lines(list(_decode(whole, path)), torn)


def once_each(numbers: list[int], *, name: str, least: int) -> None:
    """Checks that numbers count 1, 2, 3 to `least` or beyond.

    Raises:
        ValueError: With the first number that is missing, twice or out of order.
    """
    for wanted, number in enumerate(numbers, start=1):
        if number != wanted:
            times = Counter(numbers)[number]
            reason = f"{name} {number} {times} times" if times > 1 else f"{name} {wanted} missing"
            raise ValueError(f"{reason}, in row {wanted} of the {name}s")
    if len(numbers) < least:
        raise ValueError(f"{name}s 1 to {len(numbers)}, of {least}")


def cut_back(run: Path, *, step: int) -> None:
    """Drops the rows of steps after this one, which a resumed run will write again."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return
    rows, torn = read_rows(path)
    kept = [row for row in rows if row["step"] <= step]
    if torn or len(kept) < len(rows):
        write_atomically(path, _encode(kept))


def _encode(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def _decode(lines: list[bytes], path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        try:
            row = strict_json(line)
            if not isinstance(row, dict):
                raise TypeError("no object")
            yield row
        except (ValueError, TypeError) as error:
            raise _no_row(path, number, error) from error


def _is_torn(line: bytes) -> bool:
    """Whether a line is a part of one: no part of a JSON object is JSON."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _no_row(path: Path, number: int, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{as_text(path)}, line {number}, is not a row of strict JSON ({in_short(error)})",
        expected="one JSON object a line",
        hint="the file was changed from outside; restore it or start a new run",
    )
