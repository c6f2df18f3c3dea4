"""Text that others wrote, made safe for terminals, tables and messages.

In: values, names and errors of other programs. Out: text of bounded length that no program obeys.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

LONGEST = 200  # characters of a value in a message

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Text that XML and UTF-8 can hold, and that no terminal obeys.

    Control characters and lone surrogates, which file names may have, are replaced; newlines and
    tabs stay.
    """
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def cell_text(value: object) -> object:
    """A value for a cell of CSV; text that a spreadsheet would compute begins with an apostrophe.

    Paths and class names come from others: a name may begin with =, +, - or @.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


_FORMULA, _NUMBER = re.compile(r"\s*[=+@-]|[\t\r]"), re.compile(r"[-+0-9.,eE%\u00b1\s]+")


def wrapped(text: str, columns: int) -> str:
    """Printable text in lines of so many columns, broken between words; a longer word is kept.

    A command that does not fit has a line of its own and is never broken, so that it can be pasted.
    """
    lines = printable(text).splitlines()
    return "\n".join(part for line in lines for part in _parts(line, columns))


def _parts(line: str, columns: int) -> Iterator[str]:
    found = _COMMAND.fullmatch(line) if len(line) > columns else None
    before, command = found.groups() if found else (line, "")
    how: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    yield textwrap.fill(before, columns, subsequent_indent="  ", **how)
    if command:
        yield f"  {command}"


_COMMAND = re.compile(r"(.*?: )(stopgrad .*)")


def as_file_name(text: str) -> str:
    """A name read from a file, encoded so that its bytes on disk are UTF-8 in any locale."""
    with suppress(UnicodeEncodeError):  # lone surrogates, which no file name has
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text


def as_text(value: object) -> str:
    """Any value on one line of bounded length, without what a terminal would obey."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(value).split()))
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def in_short(error: Exception) -> str:
    """An error's message, short enough to quote inside another message."""
    return as_text(error.strerror if isinstance(error, OSError) and error.strerror else error)


def first_line(error: Exception) -> str:
    """The first line of an error of another library, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def few(names: Sequence[str], *, most: int = 5) -> str:
    """The first names, quoted, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def some(names: Sequence[str], *, most: int = 3) -> str:
    """The first names, quoted, for a message that says how many there are."""
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")
