"""Zip and tar archives -> the data set in them, unpacked into the cache while it is decoded.

Only plain files are written, below a folder of our own, which is removed once the data set is no
longer read. Members that are links or devices, that are encrypted, or whose path leads outside are
not unpacked but noted. An archive that unpacks to far more than its size, or to more than the disk
has room for, is refused. The folder is then read by the rules for any folder.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import re
import shutil
import stat
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stopgrad.errors import DataError, StorageError
from stopgrad.images.sources.endings import SUFFIXES, ZIPS, archive_ending, ending_of, why_broken
from stopgrad.images.sources.limits import bomb, refuse_bomb
from stopgrad.images.sources.names import split_of
from stopgrad.images.sources.tars import tar_members
from stopgrad.images.store import cache_folder
from stopgrad.images.types import (
    Contents,
    DataSource,
    Encoded,
    Notes,
    SplitReader,
    Unused,
    UnusedKind,
    stamp,
)
from stopgrad.storage import as_file_name, of_disk

OTHERS = (".7z", ".rar", ".zst", ".gz", ".bz2", ".xz")
ENCRYPTED = 1  # bit of a member's flags
ENCRYPTION = "encrypted members"
BLOCK = 1 << 20  # bytes


def refuse_other_archives(path: Path) -> None:
    """Refuses a file that is packed in an unsupported way.

    Raises:
        DataError: With what to do.
    """
    if path.name.lower().endswith(OTHERS) and not archive_ending(path.name):
        raise DataError(
            f"{str(path)!r} is an unsupported kind of archive",
            expected="a folder, a .zip or a .tar, plain or compressed by gzip, bzip2 or xz",
            hint="unpack it, and name its folder",
        )


def archive_source(
    files: Mapping[str, Path], *, root: Path, find: Callable[[Path], DataSource]
) -> DataSource:
    """The data set in one archive, or in several that stand for folders of their names.

    Args:
        files: The archives by the names of their folders; "": the data set itself.
        root: The archive, or the folder that holds them.
        find: Finds the data set in the folder that they are unpacked to.
    """
    name = root.name if "" not in files else root.name[: -len(archive_ending(root.name))]
    stamps = tuple(stamp(file, name=file.name) for file in files.values())
    return DataSource(name, str(root), stamps, lambda: _open(files, root, find))


def images_in_archive(path: Path) -> Iterator[str]:
    """The names of the images in an archive, by their endings; nothing is unpacked.

    Raises:
        DataError: When it cannot be read.
    """
    if archive_ending(path.name) in ZIPS:
        with _reading(path), zipfile.ZipFile(path) as archive:
            yield from filter(_is_image, archive.namelist())
    else:
        yield from filter(_is_image, (member.name for member in tar_members(path)))


def _is_image(name: str) -> bool:
    return ending_of(name) in SUFFIXES


class _Unpacked:
    """A folder that is removed when this object is no longer referenced."""

    def __init__(self, name: str) -> None:
        parent = cache_folder() / "images"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            self.above = Path(tempfile.mkdtemp(prefix=".unpacked-", dir=parent))
        except OSError as error:
            raise StorageError(
                f"cannot unpack into {parent} ({error.strerror})",
                expected="a writable cache",
                hint="set STOPGRAD_CACHE to a folder with room, or unpack it yourself",
            ) from error
        self.folder = self.above / name
        self.folder.mkdir()
        weakref.finalize(self, shutil.rmtree, self.above, ignore_errors=True)


def _open(files: Mapping[str, Path], root: Path, find: Callable[[Path], DataSource]) -> Contents:
    unpacked = _Unpacked(root.name)
    places = {unpacked.folder / below: path for below, path in files.items()}
    places.setdefault(unpacked.folder, root)
    notes = Notes()
    for below, path in files.items():
        notes = notes.and_those(_unpack(path, unpacked.folder / below))
    try:
        source = find(_inner(unpacked.folder))
        contents = source.open()
    except DataError as error:
        hint = error.hint
        if str(unpacked.folder) in hint:
            hint = "unpack it, and name the folder to learn from"
        found = _as_archives(error.found, places)
        raise DataError(found, expected=error.expected, hint=hint) from None
    notes = notes.and_those(source.notes).and_those(contents.notes)
    remarks = (_as_archives(remark, places) for remark in notes.remarks)
    return contents._replace(
        train=_held(contents.train, unpacked),
        test=contents.test and _held(contents.test, unpacked),
        notes=notes._replace(remarks=tuple(remarks)),
    )


def _as_archives(text: str, places: Mapping[Path, Path]) -> str:
    """A note on the unpacked folders, rewritten to name the archives."""
    for folder in sorted(places, reverse=True):
        text = text.replace(str(folder), str(places[folder]))
    return text


def _inner(folder: Path) -> Path:
    """The folder itself, or the only one in it, as zipping a folder leaves it."""
    inner = [each for each in folder.iterdir() if each.name[0] != "." and each.name != "__MACOSX"]
    if len(inner) == 1 and inner[0].is_dir() and split_of(inner[0].name) is None:
        return _inner(inner[0])
    return folder


def _held(reader: SplitReader, unpacked: _Unpacked) -> SplitReader:
    return reader._replace(items=functools.partial(_items, reader, unpacked))


def _items(reader: SplitReader, unpacked: _Unpacked) -> Iterator[Encoded]:
    assert unpacked.folder  # it stays as long as this generator does
    yield from reader.items()


class _Member(NamedTuple):
    """A file in an archive, or why it is not unpacked."""

    name: str
    size: int
    blocks: Callable[[], Iterator[bytes]]
    unfit: str = ""


def _unpack(path: Path, folder: Path) -> Notes:
    """Writes the plain files of an archive; notes the others."""
    unused: dict[tuple[UnusedKind, str], list[str]] = {}
    broken: list[str] = []
    in_zip = archive_ending(path.name) in ZIPS
    for member in _zip_members(path) if in_zip else _tar_members(path):
        parts = _parts(member.name)
        unfit = member.unfit or ("" if parts else "paths that lead out of the archive")
        path_of = folder.joinpath(*map(as_file_name, parts))
        if not unfit and not (unfit := _write(path_of, member, broken)):
            continue
        what: UnusedKind = "image" if _is_image(member.name) else "file"
        unused.setdefault((what, f"in {path.name}: {unfit}"), []).append(member.name)
    if any(ENCRYPTION in reason for _, reason in unused) and not any(folder.glob("*")):
        raise DataError(
            f"{str(path)!r} is encrypted",
            expected="an archive without a password",
            hint="unpack it with its password, and name its folder",
        )
    remarks = [f"{len(broken):,} damaged members of {path.name}: {of}" for of in broken[:1]]
    groups = (Unused(what, why, tuple(names)) for (what, why), names in unused.items())
    return Notes(tuple(remarks), tuple(groups))


def _parts(name: str) -> list[str]:
    """The parts of a member's path below the archive; [] when it leads outside."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    leads_out = ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name)
    return [] if leads_out or "\0" in name else parts


def _write(path: Path, member: _Member, broken: list[str]) -> str:
    """Writes a new file; returns why not, or "". A damaged member becomes an empty file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for block in _whole(member, broken):
                if block is None:
                    file.truncate(0)
                else:
                    file.write(block)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return "a name that is there already"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "names that are too long"
        raise StorageError(
            f"cannot unpack {member.name!r} into {path.parent} ({error.strerror})",
            expected="room for all that is in the archive",
            hint="make room, set STOPGRAD_CACHE to a larger disk, or unpack it yourself",
        ) from error
    return ""


def _whole(member: _Member, broken: list[str]) -> Iterator[bytes | None]:
    """The blocks of a member, then None if they are not what was packed."""
    try:
        yield from member.blocks()
    # zipfile raises a dozen unrelated types for damaged members, and says of some that it cannot
    # read them; nothing but reads of this member happens inside this block.
    except (DataError, MemoryError):
        raise
    except Exception as error:
        if failed := of_disk(error):
            raise DataError(f"{member.name!r} cannot be read ({failed.strerror})") from error
        broken.append(str(error) or type(error).__name__)
        yield None


def _tar_members(path: Path) -> Iterator[_Member]:
    for member in tar_members(path):
        unfit = "" if member.is_file else "links, devices and sparse files"
        yield _Member(member.name, member.size, member.blocks, unfit)


def _zip_members(path: Path) -> Iterator[_Member]:
    """The members of a zip.

    Raises:
        DataError: When it cannot be read, or unpacks to far more than its size.
        StorageError: When the disk has no room for it.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        files = [info for info in archive.infolist() if info.filename and not info.is_dir()]
        total = sum(info.file_size for info in files)
        refuse_bomb(total, path.stat().st_size, where=repr(str(path)))
        _check_room(path, total)
        for info in files:
            blocks = functools.partial(_zip_blocks, archive, info)
            yield _Member(info.filename, info.file_size, blocks, _unfit(info))


def _unfit(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if info.flag_bits & ENCRYPTED:
        return f"{ENCRYPTION}: unpack it with its password"
    if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
        return "links and devices"
    return bomb(info.file_size, info.compress_size)


def _zip_blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(info) as file:
        while block := file.read(BLOCK):
            yield block


def _check_room(path: Path, needed: int) -> None:
    cache = cache_folder().absolute()
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free
    if needed > free:
        raise StorageError(
            f"{path.name} unpacks to {needed:,} bytes, {free:,} bytes free in {cache}",
            expected="room for all that is in the archive",
            hint="make room, set STOPGRAD_CACHE to a larger disk, or unpack it yourself",
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        if not path.is_file():
            raise ValueError("not a regular file")
        yield
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        reason = why_broken(path, error)
        raise DataError(
            f"{str(path)!r} cannot be read ({reason})",
            expected="a whole zip archive",
            hint="copy or download it again, or unpack it yourself",
        ) from error
