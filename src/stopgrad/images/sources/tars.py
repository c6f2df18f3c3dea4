"""A tar file, packed or not -> its members from first to last; nothing is unpacked here.

`tarfile` stops silently at a damaged header in the middle; here that is an error.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import logging
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from stopgrad.errors import DataError
from stopgrad.images.sources.endings import why_broken
from stopgrad.images.sources.limits import ALWAYS, MOST_TIMES

OPENERS: dict[bytes, Callable[[Path], Any]] = {  # by the first bytes
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
BLOCK = 1 << 20  # bytes
ZSTD = b"\x28\xb5\x2f\xfd"

log = logging.getLogger(__name__)


class TarMember(NamedTuple):
    """A member, to be read before the tar moves on."""

    name: str
    size: int  # bytes
    is_file: bool  # not a link, a device or a file with holes
    blocks: Callable[[], Iterator[bytes]]  # its content

    def read(self) -> bytes:
        """Its whole content."""
        return b"".join(self.blocks())


def tar_members(path: Path) -> Iterator[TarMember]:
    """The members of a tar in their order, folders left out.

    Raises:
        DataError: When it cannot be read to its end, or unpacks to far more than its size.
    """
    with _as_data_error(path), _unpacked(path) as stream:
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as tar:
            for info in tar:
                if not info.isdir():
                    is_file = info.isreg() and not info.issparse()
                    yield TarMember(
                        info.name, info.size, is_file, functools.partial(_blocks, path, tar, info)
                    )
                tar.members = []  # type: ignore[attr-defined]  # else a list of all of them grows
        if stream.last.strip(b"\0"):
            raise ValueError(f"a damaged header at byte {stream.place - len(stream.last):,}")
        if not stream.last:
            log.warning("%s lacks the end marker of a tar; it may have been cut off", path)
        # Read to the end, where the checksum of a packed tar is compared.
        if any(block.strip(b"\0") for block in iter(lambda: stream.read(BLOCK), b"")):
            log.warning("%s continues after its end marker; the rest is not read", path)


def _blocks(path: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    with _as_data_error(path):
        file = tar.extractfile(info)
        while file and (block := file.read(BLOCK)):
            yield block


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[_Forward]:
    if not path.is_file():
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        begin = file.read(6)
    if begin.startswith(ZSTD):
        raise DataError(
            f"{str(path)!r} is compressed by zstd",
            expected="a .tar, plain or compressed by gzip, bzip2 or xz",
            hint="unpack it with zstd -d",
        )
    opened = next((of for magic, of in OPENERS.items() if begin.startswith(magic)), None)
    packed = path.stat().st_size
    most = max(ALWAYS, MOST_TIMES * packed) if opened else packed
    with opened(path) if opened else path.open("rb") as file:
        yield _Forward(file, most)


class _Forward:
    """A stream that is only read forward, up to `most` bytes; `tarfile` needs no more."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.file, self.most = file, most
        self.place = 0
        self.last = b""  # what was read last

    def read(self, size: int = -1) -> bytes:
        self.last = self.file.read(size)
        self.place += len(self.last)
        self._check()
        return self.last

    def seek(self, place: int, whence: int = 0) -> int:
        if whence == 0 and place != self.place:
            self.place = place
            self._check()
            self.file.seek(place)
        return self.place

    def tell(self) -> int:
        return self.place

    def seekable(self) -> bool:
        return True

    def _check(self) -> None:
        if self.place > self.most:
            raise ValueError(f"it continues after byte {self.most:,}, far beyond its size")


@contextlib.contextmanager
def _as_data_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        reason = why_broken(path, error)
        raise DataError(
            f"{str(path)!r} cannot be read to its end ({reason})",
            expected="a whole tar file",
            hint="copy or download it again",
        ) from error
