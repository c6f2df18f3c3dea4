"""A folder -> its image files in order, the tables that may label them, and all else by reason.

Images are the files with the ending of one (`SUFFIXES`, in any case), and those without an ending
whose first bytes are an image's. Links are followed, but not in loops. An entry with such an ending
that is not a readable file counts as a damaged image; so does a folder of such a name, unless it
holds images.

Everything else is skipped and noted with its path: images in other formats, hidden ones, those in
thumbnail and system folders, folders that cannot be opened, and files that are not images. System
files (`Thumbs.db`) and hidden files that are not images are not worth a note. Runs, stores and
figures written by stopgrad itself are recognised by their files.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stopgrad.errors import DataError
from stopgrad.images.manifest import MANIFEST
from stopgrad.images.sources.endings import (
    DICOM,
    FIRST_BYTES,
    OTHERS,
    PACKED,
    SUFFIXES,
    TABLES,
    ending_of,
    holds_many,
    holds_no_pixels,
    is_image,
    is_read,
    kind_of,
    why_not_read,
)
from stopgrad.images.store import PACKING
from stopgrad.images.types import Unused, UnusedKind
from stopgrad.storage import read_patiently

SYSTEM = frozenset(  # folders and files that systems and their viewers keep, in lower case
    {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", ".@__thumb"}
    | {"lost+found", "$recycle.bin", "recycler", "system volume information", "__macosx"}
    | {".trash", ".trashes", ".thumbnails", ".thumbs", ".spotlight-v100", ".fseventsd"}
    | {".appledouble", ".ipynb_checkpoints", "__pycache__", ".snapshot", ".snapshots"}
    | {
        "found.000",
        ".picasaoriginals",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
    }
    | {"picasa.ini", "icon\r"}
)
TABLE_NAMES = frozenset(  # the Hub's, Tiny ImageNet's, and lists of paths with their classes
    {"metadata.parquet", "val_annotations.txt", "labels.txt", "train.txt", "val.txt", "test.txt"}
)
RUN = frozenset({"config.json", "status.json"})  # a folder with both is a run
RUN_FILES = RUN | {"metrics.jsonl", "records.jsonl", "report.html", "lock"}
OURS = "written by stopgrad"
SHEETS, TEXTS = (".xls", ".xlsx", ".ods"), (".json", ".txt", ".yaml", ".yml")
ANNOTATIONS = ("annotation", "annotations", "instances", "coco", "label", "labels", "metadata")
LABELS = (
    "{} files that may hold labels, such as COCO annotations, are not read: save them as a CSV, "
    "labels.csv, with the columns file and label"
)
MARK = b"tEXtSoftware\0stopgrad"
MOST_LOOKED_INTO = 1000  # PNG files of a folder that are opened to tell whether they are figures


class Found(NamedTuple):
    """A file: the parts of its path below some folder, and the whole path."""

    parts: tuple[str, ...]
    path: str  # text, not a Path: making Paths of 60,000 files takes half a second


class FolderListing(NamedTuple):
    """The contents of a folder and below, in order of the path by code point."""

    root: str
    images: tuple[Found, ...]
    tables: tuple[Found, ...]
    unused: tuple[Unused, ...]  # the reasons with the most first
    packed: bool  # whether any file, used or not, may hold many images

    def below(self, path: str) -> str:
        """A path in the folder as the text that messages show."""
        return as_text(os.path.relpath(path, self.root))


def list_folder(root: Path) -> FolderListing:
    """Look through a folder; no image is decoded.

    Raises:
        DataError: When the folder itself may not be read.
    """
    state = read_patiently(root, root.stat)
    above = frozenset({(state.st_dev, state.st_ino)})
    walk, pending = _Walk(), [_Folder(str(root), (), above, None)]
    while pending:
        here = pending.pop()
        try:
            pending += walk.enter(here, _entries(here.path))
        except OSError as error:
            if not here.parts:
                raise _unreadable(here.path, error) from None
            walk.closed(here, error)
    return walk.listing(str(root))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder; a PermissionError is raised at once, without further tries."""

    def read() -> list[os.DirEntry[str]] | PermissionError:
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except PermissionError as error:
            return error

    found = read_patiently(Path(folder), read)
    if isinstance(found, PermissionError):
        raise found
    return found


def as_text(name: str) -> str:
    """A file name as text in any locale; bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def sign_figure(png: bytes) -> bytes:
    """A PNG file that names its writer, so that among images it is not taken for one of them."""
    header = 33  # bytes: the signature and the chunk IHDR, which is always the first
    chunk = struct.pack(">I", len(MARK) - 4) + MARK + struct.pack(">I", zlib.crc32(MARK))
    return png[:header] + chunk + png[header:]


class _Folder(NamedTuple):
    path: str
    parts: tuple[str, ...]
    above: frozenset[tuple[int, int]]  # (device, inode) of the folders on the way here
    passed: tuple[UnusedKind, str] | None  # why the images in it are not used


class _Walk:
    """The files and folders found so far."""

    def __init__(self) -> None:
        self.images: list[Found] = []
        self.tables: list[Found] = []
        self.folders: list[Found] = []  # named like images
        self.unused: dict[tuple[UnusedKind, str], list[str]] = {}
        self.packed = False

    def enter(self, here: _Folder, entries: list[os.DirEntry[str]]) -> Iterator[_Folder]:
        """Takes in the entries of a folder; yields the folders to enter."""
        names = {entry.name for entry in entries}
        self.packed = self.packed or any(map(holds_many, names))
        if here.parts and here.passed is None and (names >= RUN or names & {MANIFEST, PACKING}):
            self._pass_over("file", OURS, (*here.parts, ""))
            return
        ours = _ours(here, names)
        for entry in entries:
            parts = (*here.parts, as_text(entry.name))
            passed = here.passed or _hidden(entry.name)
            if _is_folder(entry):
                below = _folder_below(entry, here)
                if below is not None:
                    yield below._replace(parts=parts, passed=passed)
                self._take_folder(Found(parts, entry.path), passed, loops=below is None)
            elif passed is not None:
                if _names_an_image(entry.name):
                    self._pass_over(*passed, parts)
            elif entry.name in ours:
                self._pass_over("file", OURS, parts)
            elif entry.name.lower() not in SYSTEM:
                self._take(Found(parts, entry.path), ending_of(entry.name))

    def _take_folder(
        self, folder: Found, passed: tuple[UnusedKind, str] | None, *, loops: bool
    ) -> None:
        if passed is None and ending_of(folder.parts[-1]) in SUFFIXES:
            (self.images if loops else self.folders).append(folder)
        elif passed is None and loops:
            self._pass_over("file", "links to folders above them", folder.parts)

    def _take(self, file: Found, ending: str) -> None:
        """Classifies a file that is neither hidden nor written by stopgrad."""
        if ending in DICOM and holds_no_pixels(_first_bytes(file.path)):
            self._pass_over("file", "DICOM files without pixels (reports, plans, ...)", file.parts)
        elif is_read(ending):
            self.images.append(file)
        elif reason := why_not_read(ending):
            self._pass_over("image", reason, file.parts)
        elif ending in TABLES or file.parts[-1] in TABLE_NAMES:
            self.tables.append(file)
        elif ending in PACKED:
            self._pass_over("file", f"{ending} files are not opened: unpack them", file.parts)
        elif ending in OTHERS:
            words = {*re.findall("[a-z]+", file.parts[-1].lower())} if ending in TEXTS else set()
            labels = ending in SHEETS or not words.isdisjoint(ANNOTATIONS)
            reason = LABELS.format(ending) if labels else f"{ending} files are not read"
            self._pass_over("file", reason, file.parts)
        else:
            self._take_odd(file, ending)

    def _take_odd(self, file: Found, ending: str) -> None:
        """Classifies a file with no ending or an unknown one, by its first bytes."""
        kind = kind_of(_first_bytes(file.path))
        if not os.path.exists(file.path):
            self._pass_over("image", "links that lead nowhere", file.parts)
        elif kind and not ending:
            self._take(file, kind)
        elif kind:
            reason = f"images of type {kind} that end in {ending}: rename them"
            self._pass_over("image", reason, file.parts)
        else:
            named = f"{ending} files" if ending else "files without an ending that are not images"
            self._pass_over("file", f"{named} are not read" if ending else named, file.parts)

    def closed(self, folder: _Folder, error: OSError) -> None:
        """Notes a folder that cannot be opened."""
        reason = f"folders that cannot be opened ({error.strerror})"
        self._pass_over(*(folder.passed or ("image", reason)), (*folder.parts, ""))

    def _pass_over(self, what: UnusedKind, reason: str, parts: tuple[str, ...]) -> None:
        self.unused.setdefault((what, reason), []).append("/".join(parts))

    def listing(self, root: str) -> FolderListing:
        """Everything found, in order."""
        images = [*self.images, *self._damaged_folders()]
        groups = [Unused(*key, tuple(sorted(names))) for key, names in self.unused.items()]
        groups.sort(key=lambda group: (-len(group.names), group.reason))
        tables = in_order(self.tables)
        return FolderListing(root, in_order(images), tables, tuple(groups), self.packed)

    def _damaged_folders(self) -> list[Found]:
        """Folders named like an image that hold no image, read or not."""
        if not self.folders:
            return []
        others = [name for (what, _), of in self.unused.items() if what == "image" for name in of]
        inside = [*(image.parts for image in self.images), *(tuple(n.split("/")) for n in others)]
        above = {parts[:depth] for parts in inside for depth in range(1, len(parts))}
        return [folder for folder in self.folders if folder.parts not in above]


def in_order(files: Iterable[Found]) -> tuple[Found, ...]:
    """Files in the order of their names, folder by folder."""
    return tuple(sorted(files, key=lambda file: file.parts))


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(
        f"folder {path!r} cannot be read ({error.strerror})",
        expected="a readable folder",
        hint="correct its permissions or move it away",
    )


def _hidden(name: str) -> tuple[UnusedKind, str] | None:
    """Why a folder or a file of this name is not used; None if it is."""
    lower = name.lower()
    if lower in SYSTEM or lower.startswith((".trash-", "._")):
        return "file", "thumbnails and system folders"
    return ("image", "hidden: the name begins with a dot") if name.startswith(".") else None


def _names_an_image(hidden: str) -> bool:
    """Whether a hidden name is an image's, such as `.png` or (not downloaded) `.1.jpg.icloud`."""
    name = hidden.removesuffix(".icloud")
    return is_image(ending_of(name) or name.lower())


def _ours(here: _Folder, names: set[str]) -> set[str]:
    """The files in a folder written by stopgrad: those of a run, and figures.

    Figures are looked for where the command line puts them: in the data folder itself, or in one
    that holds SVG files too.
    """
    ours = names & RUN_FILES if names >= RUN else set[str]()
    drawings = {name for name in names if name.endswith(".svg")}
    images = [name for name in names if name.lower().endswith(".png")]
    if here.passed or (here.parts and not drawings) or len(images) > MOST_LOOKED_INTO:
        return ours
    figures = {name for name in images if MARK in _first_bytes(os.path.join(here.path, name))}
    return ours | figures | {f"{name[:-4]}.svg" for name in figures} & drawings


def _first_bytes(path: str) -> bytes:
    """At most `FIRST_BYTES` of a regular file; b"" for any other, which might block for ever."""
    try:
        return read_patiently(Path(path), lambda: _start_of(path))
    except OSError:
        return b""


def _start_of(path: str) -> bytes:
    if not os.path.isfile(path):
        return b""
    with open(path, "rb", buffering=0) as file:
        return file.read(FIRST_BYTES)


def _folder_below(entry: os.DirEntry[str], here: _Folder) -> _Folder | None:
    """A folder to enter; None for one of the folders above."""
    state = entry.stat()
    identity = (state.st_dev, state.st_ino)
    if identity in here.above:
        return None
    return _Folder(entry.path, (), here.above | {identity}, None)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links is not a folder; decoding will name it
        return False
