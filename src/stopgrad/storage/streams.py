"""Standard output and error of a process whose work counts more than what it says of it."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Remarks(io.FileIO):
    """What cannot be written, on a full disk or to a reader that is gone, is lost."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def outlive(name: str) -> None:
    """Lets this process go on when `stdout` or `stderr` cannot be written; it takes any text."""
    stream = getattr(sys, f"__{name}__")
    if stream is None or getattr(sys, name) is not stream:
        return
    raw = _Remarks(stream.fileno(), "w", closefd=False)
    writer = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
    setattr(sys, name, writer)
