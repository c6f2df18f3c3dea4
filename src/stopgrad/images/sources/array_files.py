"""Files of arrays -> the arrays in them, by name, each read from its beginning in blocks of rows.

NumPy's .npy and .npz (nothing pickled), HDF5 (only what is in the file itself), MATLAB's .mat up to
version 7, MNIST's idx files, and the binary versions of CIFAR and STL-10. The sizes that a file
states are checked before anything is read.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import math
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from stopgrad.errors import DataError
from stopgrad.images.sources.array_images import AnyArray
from stopgrad.images.sources.endings import array_kind, why_broken
from stopgrad.images.sources.limits import refuse_bomb
from stopgrad.images.sources.names import ARRAY_LABELS, words_of

BLOCK_BYTES = 1 << 22  # of rows that are in memory at a time
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}  # by their code
CIFAR_BYTES = 3 * 32 * 32
STL_SHAPE = (3, 96, 96)  # its images are stored column by column


class StoredArray(NamedTuple):
    """An array in a file."""

    name: str  # of its file below the data, and in the file: "set/train.npz/x"
    shape: tuple[int, ...]  # (1,) for a single number
    dtype: np.dtype[Any]  # objects are pickled, and never read
    blocks: Callable[[], Iterator[AnyArray]]  # all of its rows in order, some at a time
    encoded: bool = False  # whether each row is an image file

    def read(self) -> AnyArray:
        """All rows at once, for labels and the like."""
        found = [*self.blocks()]
        return np.concatenate(found) if found else np.empty((0, *self.shape[1:]))


def stored_arrays(path: Path, *, name: str) -> list[StoredArray]:
    """The arrays in a file, whatever they hold.

    Args:
        path: A file whose name has an `array_kind`.
        name: Prefix of the name of each array; "": the names in the file alone.

    Raises:
        DataError: When it cannot be read, or would unpack to far more than its size.
    """
    read = READERS[array_kind(path.name)]
    with reading(path):
        if not path.is_file():
            raise ValueError("not a regular file")
        return [
            array._replace(
                name="/".join(filter(None, (name, array.name))) or path.stem,
                blocks=functools.partial(_guarded, path, array.blocks),
            )
            for array in read(path)
        ]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong with a file of arrays into a DataError."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    # NumPy, SciPy, h5py, zipfile and zlib raise a dozen unrelated types for damaged files; only
    # reads of this file happen inside this block.
    except Exception as error:
        reason = why_broken(path, error)
        raise (pickled(path) if "allow_pickle" in reason else _unreadable(path, reason)) from error


def _unreadable(path: Path, reason: str, hint: str = "copy or download it again") -> DataError:
    expected = "a whole file of arrays of numbers"
    return DataError(f"{str(path)!r} cannot be read ({reason})", expected=expected, hint=hint)


def pickled(path: Path) -> DataError:
    """The error for images that only pickle could read."""
    hint = "save images of one size as one array, np.stack(images), or as image files"
    return _unreadable(path, "it holds Python objects, which could run code", hint)


def _guarded(path: Path, blocks: Callable[[], Iterator[AnyArray]]) -> Iterator[AnyArray]:
    with reading(path):
        yield from blocks()


def _sliced(array: Any) -> Iterator[AnyArray]:
    """Blocks of anything that is sliced like an array."""
    rows = _rows_at_a_time(array.shape, array.dtype)
    for start in range(0, array.shape[0], rows):
        yield np.asarray(array[start : start + rows])


def _streamed(
    open_at_rows: Callable[[], contextlib.AbstractContextManager[IO[bytes]]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Iterator[AnyArray]:
    """Blocks of rows, read one after the other from a stream."""
    rows, size = _rows_at_a_time(shape, dtype), _row_bytes(shape, dtype)
    with open_at_rows() as file:
        for start in range(0, shape[0], rows):
            count = min(rows, shape[0] - start)
            data = file.read(count * size)
            if len(data) < count * size:
                raise ValueError(f"it ends in row {start + len(data) // size} of {shape[0]}")
            yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
        if file.read(1):  # reading to the end also compares the checksum
            raise ValueError(f"it continues after its {shape[0]} rows")


def _rows_at_a_time(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return max(1, BLOCK_BYTES // max(1, _row_bytes(shape, dtype)))


def _row_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape[1:]) * dtype.itemsize


def _stream(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    open_at_rows: Callable[[], contextlib.AbstractContextManager[IO[bytes]]],
) -> StoredArray:
    blocks = functools.partial(_streamed, open_at_rows, shape, dtype)
    return StoredArray(name, shape, dtype, blocks)


def _npy(path: Path) -> list[StoredArray]:
    try:
        array = np.atleast_1d(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        with path.open("rb") as file:
            shape, _, dtype = _npy_header(file)
        return [StoredArray("", shape or (1,), dtype, lambda: iter(()))]
    return [StoredArray("", array.shape, array.dtype, functools.partial(_sliced, array))]


def _npz(path: Path) -> list[StoredArray]:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        return [_member(path, archive, info) for info in members]


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredArray:
    name = info.filename.removesuffix(".npy")
    refuse_bomb(info.file_size, info.compress_size, where=f"{str(path)!r}, {name!r}")
    with archive.open(info) as file:
        shape, fortran, dtype = _npy_header(file)
        start = file.tell()
    if dtype.hasobject:
        # Not read, but named among the arrays that are not used.
        return StoredArray(name, shape or (1,), dtype, lambda: iter(()))
    if math.prod(shape) * dtype.itemsize != info.file_size - start:
        raise ValueError(f"{name!r} is not as long as its header says")

    @contextlib.contextmanager
    def at_rows() -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(path) as archive, archive.open(info) as file:
            file.read(start)
            yield file

    def whole() -> Iterator[AnyArray]:
        with zipfile.ZipFile(path) as archive, archive.open(info) as file:
            yield np.atleast_1d(np.lib.format.read_array(file, allow_pickle=False))

    if fortran or not shape:
        return StoredArray(name, shape or (1,), dtype, whole)
    return _stream(name, shape, dtype, at_rows)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _hdf5(path: Path) -> list[StoredArray]:
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{str(path)!r} is HDF5", expected="h5py", hint="pip install 'stopgrad[hdf5]'"
        ) from error
    file = h5py.File(path, "r")
    found: list[StoredArray] = []
    seen = set()  # a group may hold itself under another name
    pending = [("", file)]
    while pending:
        prefix, group = pending.pop()
        for key in sorted(group, reverse=True):
            # Only what lies in this file: soft and external links lead elsewhere.
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            item = group[key]
            if isinstance(item, h5py.Group) and item.id not in seen:
                seen.add(item.id)
                pending.append((f"{prefix}{key}/", item))
            elif isinstance(item, h5py.Dataset) and _is_array(item):
                refuse_bomb(
                    item.nbytes, item.id.get_storage_size(), where=f"{str(path)!r}, {key!r}"
                )
                found.append(_hdf5_array(f"{prefix}{key}", item, h5py))
    return sorted(found, key=lambda array: array.name)


def _is_array(dataset: Any) -> bool:
    """Whether it has values, and all of them in this file."""
    return not (dataset.shape is None or dataset.is_virtual or dataset.external)


def _hdf5_array(name: str, dataset: Any, h5py: Any) -> StoredArray:
    text = h5py.check_string_dtype(dataset.dtype) is not None
    encoded = h5py.check_vlen_dtype(dataset.dtype) == np.uint8 and len(dataset.shape) == 1
    dtype = np.dtype(str) if text else dataset.dtype
    rows = dataset.asstr() if text else dataset

    def blocks() -> Iterator[AnyArray]:
        if not dataset.shape:
            yield np.array([rows[()]])
            return
        step = _rows_at_a_time(dataset.shape, dataset.dtype)
        for start in range(0, dataset.shape[0], step):
            yield np.asarray(rows[start : start + step])

    return StoredArray(name, dataset.shape or (1,), dtype, blocks, encoded)


def _mat(path: Path) -> list[StoredArray]:
    from scipy.io import loadmat, whosmat

    try:
        listed = whosmat(path)
    except NotImplementedError as error:
        raise DataError(
            f"{str(path)!r} is a MATLAB file of version 7.3",
            expected="a .mat file up to version 7, or an HDF5 file with images first",
            hint="save it again with save(FILE, NAME, '-v7')",
        ) from error
    refuse_bomb(8 * sum(math.prod(shape) for _, shape, _ in listed), path.stat().st_size,
                where=str(path))  # fmt: skip
    found = []
    called = {*ARRAY_LABELS, "gt", "gnd"}
    vectors = [(name, of) for name, of, _ in listed if max(of, default=0) == math.prod(of)]
    lengths = {math.prod(of) for name, of in vectors if called & {*words_of(name)}}
    for name, shape, kind in listed:
        if kind in ("cell", "struct", "object", "opaque", "function", "unknown"):
            found.append(StoredArray(name, (math.prod(shape),), np.dtype("V1"), lambda: iter(())))
            continue

        def blocks(name: str = name) -> Iterator[AnyArray]:
            yield _images_first(loadmat(path, variable_names=[name])[name], lengths)

        array = _images_first(loadmat(path, variable_names=[name])[name], lengths)
        found.append(StoredArray(name, array.shape, array.dtype, blocks))
    return found


def _images_first(array: AnyArray, lengths: Collection[int]) -> AnyArray:
    """Moves N of (H, W, C, N), as in SVHN, to the front; flattens MATLAB's 2-D vectors.

    N of (H, W, N) is known by a vector of labels, one of the `lengths` of vectors in the file.
    """
    if array.ndim == 3 and array.shape[2] in lengths and array.shape[0] not in lengths:
        return np.moveaxis(array, 2, 0)
    if array.ndim == 4 and array.shape[2] in (1, 3) and array.shape[1] not in (1, 3):
        return np.moveaxis(array, 3, 0)
    return array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array


def _idx(path: Path) -> list[StoredArray]:
    def at_rows(skipped: int = 0) -> IO[bytes]:
        opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
        file: IO[bytes] = opened(path, "rb")
        file.read(skipped)
        return file

    with at_rows() as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES:
            raise ValueError("its first bytes are not those of an idx file")
        dtype = np.dtype(IDX_TYPES[magic[2]])
        shape = tuple(np.frombuffer(file.read(4 * magic[3]), ">u4").tolist())
        start = file.tell()
    if not shape or len(shape) != magic[3]:
        raise ValueError("it ends in its header")
    refuse_bomb(math.prod(shape) * dtype.itemsize, path.stat().st_size, where=repr(str(path)))
    return [_stream("", shape, dtype, functools.partial(at_rows, start))]


def _cifar(path: Path) -> list[StoredArray]:
    """Rows of one label (CIFAR-10) or two (CIFAR-100: coarse, fine) and 3 planes of 32 x 32."""
    size = path.stat().st_size
    labels = {1: ("labels",), 2: ("coarse_labels", "fine_labels")}
    before = next((n for n in labels if size and size % (n + CIFAR_BYTES) == 0), 0)
    if not before:
        raise ValueError(f"{size:,} bytes are not a whole number of CIFAR's images")
    rows = np.memmap(path, np.uint8, "r").reshape(-1, before + CIFAR_BYTES)
    columns = {name: rows[:, place] for place, name in enumerate(labels[before])}
    columns["images"] = rows[:, before:].reshape(-1, 3, 32, 32)
    return [
        StoredArray(name, column.shape, column.dtype, functools.partial(_sliced, column))
        for name, column in columns.items()
    ]


def _stl(path: Path) -> list[StoredArray]:
    """STL-10: images (N, 3, W, H), or labels, which it counts from 1 on."""
    rows: AnyArray = np.memmap(path, np.uint8, "r")
    images = path.stem.endswith("_X")
    rows = rows.reshape(-1, *STL_SHAPE).swapaxes(2, 3) if images else rows.astype(np.int64) - 1
    return [StoredArray("", rows.shape, rows.dtype, functools.partial(_sliced, rows))]


READERS: dict[str, Callable[[Path], list[StoredArray]]] = {  # by the kinds of `ARRAYS`
    "npy": _npy,
    "npz": _npz,
    "hdf5": _hdf5,
    "mat": _mat,
    "idx": _idx,
    "cifar": _cifar,
    "stl": _stl,
}
