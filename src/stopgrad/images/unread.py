"""The parts of image files that are not read -> notes, and back.

They are the pages of a file after its first, the only one that is read; and the bands of a TIFF
that are neither colours nor alpha, if the user has named none.
"""

from __future__ import annotations

from collections.abc import Iterable

from stopgrad.images.decoding import Unread
from stopgrad.images.gather import Tally
from stopgrad.images.types import Notes, Unused

PAGES = "pages{} after the first of a file, the only one that is read: save each as a file"
BANDS = "bands{} beside the colours: --bands chooses others, or all"


def unread_notes(tallies: Iterable[Tally]) -> Notes:
    """The pages and bands that are not read, each named as FILE:NUMBER."""
    unused = []
    for tally in tallies:
        pages, bands = (
            tuple(f"{name}:{n}" for name, of in tally.unread.items() for n in of[kind])
            for kind in range(2)
        )
        unused += [Unused("image", _of(PAGES, tally.split), pages)] * bool(pages)
        unused += [Unused("band", _of(BANDS, tally.split), bands)] * bool(bands)
    return Notes(unused=tuple(unused))


def unread_in(notes: Notes, split: str) -> dict[str, Unread]:
    """The pages and bands that `unread_notes` has noted for a split, by file."""
    found: dict[str, Unread] = {}
    for group in notes.unused:
        for name in group.names if group.reason in (_of(PAGES, split), _of(BANDS, split)) else ():
            file, _, number = name.rpartition(":")
            before, kind = found.get(file, Unread()), "bands" if group.what == "band" else "pages"
            found[file] = before._replace(**{kind: (*getattr(before, kind), int(number))})
    return found


def _of(reason: str, split: str) -> str:
    return reason.format("" if split == "train" else f" of {split}")
