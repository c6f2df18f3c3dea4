"""Blocks of features, with the names and labels of their images -> Parquet, CSV or NumPy."""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from stopgrad.errors import ConfigError, StorageError
from stopgrad.images import Images
from stopgrad.storage import storage_errors, sync_directory

Values = npt.NDArray[np.float32]

SUFFIXES = (".parquet", ".csv", ".npy")
COLUMNS = ("path", "split", "label", "class_name")
GROUP = 16  # blocks in a row group of Parquet


class Block(NamedTuple):
    """Images that follow each other in a split."""

    number: int  # counted over all splits
    split: str
    whole: Images  # the whole split
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many images."""
        return self.stop - self.start

    def pixels_only(self) -> Images:
        """The images without labels and names; not copied if in memory or mapped."""
        return self.whole.with_pixels(self.whole.pixels[self.start : self.stop])

    @property
    def names(self) -> list[str]:
        """Where each image came from; SPLIT:INDEX if that is unknown."""
        sources = self.whole.sources
        return [
            sources[i] if sources else f"{self.split}:{i}" for i in range(self.start, self.stop)
        ]

    @property
    def labels(self) -> list[int | None]:
        """The label of each image, or None."""
        if self.whole.labels is None:
            return [None] * self.rows
        found: list[int] = self.whole.labels[self.start : self.stop].tolist()
        return [label if label >= 0 else None for label in found]

    @property
    def class_names(self) -> list[str | None]:
        """The class of each image, or None."""
        names = self.whole.class_names
        return [None if label is None else names[label] for label in self.labels]


Filled: TypeAlias = tuple[Block, Values]


def check_out(out: Path) -> None:
    """Refuses an unsuitable file before anything is computed.

    Raises:
        ConfigError: For another kind of file, or a folder without write permission.
    """
    if out.suffix not in SUFFIXES or out.is_dir():
        raise ConfigError(
            f"--out {out}",
            expected=f"a file name that ends in {', '.join(SUFFIXES)}",
            hint="for example --out features.parquet",
        )
    folder = _folder(out)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--out {out}: cannot write to {folder}",
            expected="a file in a folder with write permission",
            hint="choose another folder",
        )


def check_room(out: Path, *, rows: int, width: int, there: int) -> None:
    """Refuses, before hours of work, a disk that cannot hold the blocks and the file.

    Args:
        out: The file.
        rows: N of all blocks.
        width: F.
        there: Bytes of blocks that an earlier process wrote.

    Raises:
        StorageError: With the bytes needed and the bytes free.
    """
    needed, free = 2 * rows * width * 4 - there, shutil.disk_usage(_folder(out)).free
    if needed > free:
        raise StorageError(
            f"{needed:,} bytes needed in {_folder(out)}, {free:,} bytes free",
            expected="space for the features, twice while they are written",
            hint="free some space, or choose another --out",
        )


def _folder(out: Path) -> Path:
    """The nearest folder above that exists."""
    return next(parent for parent in out.absolute().parents if parent.exists())


def write_table(
    out: Path, blocks: Callable[[], Iterator[Filled]], *, rows: int, width: int
) -> tuple[Path, ...]:
    """Writes all blocks in order; returns the files, `out` first.

    Args:
        out: The file.
        blocks: Starts again at the first block with each call.
        rows: N of all blocks.
        width: F.

    Raises:
        StorageError: When the disk refuses, or the file does not hold all rows.
    """
    needed = rows * width * 4
    match out.suffix:
        case ".parquet":
            with _appearing(out, needed=needed) as file:
                _parquet(file, blocks(), width)
                _check(out, _parquet_shape(file.name), (rows, width))
            return (out,)
        case ".csv":
            with _appearing(out, needed=needed) as file:
                _check(out, _csv(file, blocks(), width), rows)
            return (out,)
        case _:
            beside = out.with_suffix(".rows.csv")  # first: a matrix never lacks its rows
            with _appearing(beside, needed=rows) as file:
                _check(beside, _csv(file, blocks(), 0), rows)
            with _appearing(out, needed=needed) as file:
                _npy(file, blocks(), (rows, width))
                _check(out, np.load(file.name, mmap_mode="r").shape, (rows, width))
            return (out, beside)


@contextmanager
def _appearing(out: Path, *, needed: int) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is complete on the disk, and vanishes after an error."""
    temporary = out.with_name(f".{out.name}.tmp")
    with storage_errors(out, needed=needed):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(out)
            sync_directory(out.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _parquet(file: IO[bytes], blocks: Iterator[Filled], width: int) -> None:
    """A row per image: path, split, label and class_name (null without labels), features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.string(), pa.int64(), pa.string(), pa.list_(pa.float32(), width))
    schema = pa.schema(list(zip((*COLUMNS, "features"), kinds, strict=True)))
    with pq.ParquetWriter(file, schema) as writer:
        for some in iter(lambda: list(itertools.islice(blocks, GROUP)), []):
            flat = pa.array(np.concatenate([values.reshape(-1) for _, values in some]))
            columns = [
                pa.array([n for b, _ in some for n in b.names], pa.string()),
                pa.array([b.split for b, values in some for _ in values], pa.string()),
                pa.array([label for b, _ in some for label in b.labels], pa.int64()),
                pa.array([n for b, _ in some for n in b.class_names], pa.string()),
                pa.FixedSizeListArray.from_arrays(flat, width),
            ]
            writer.write_table(pa.table(columns, schema=schema))
    file.flush()


def _parquet_shape(path: str) -> tuple[int, int]:
    """Rows and width, from the footer of a file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as found:
        width = found.schema_arrow.field("features").type.list_size
        return int(found.metadata.num_rows), int(width)


def _csv(file: IO[bytes], blocks: Iterator[Filled], width: int) -> int:
    """A row per image, with features f0, f1, ... in all their digits; returns the rows."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer, rows = csv.writer(text), 0
    writer.writerow([*COLUMNS, *(f"f{number}" for number in range(width))])
    for block, values in blocks:
        known = zip(block.names, block.labels, block.class_names, values, strict=True)
        for name, label, class_name, features in known:
            # str of a float32 has just enough digits to restore it.
            digits = [str(value) for value in features[:width]]
            writer.writerow([name, block.split, label, class_name, *digits])
            rows += 1
    text.detach()
    return rows


def _npy(file: IO[bytes], blocks: Iterator[Filled], shape: tuple[int, int]) -> None:
    """Only the features, (N, F) float32."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for _, values in blocks:
        file.write(np.ascontiguousarray(values, "<f4").data)
    file.flush()


def _check(out: Path, found: object, wanted: object) -> None:
    if found != wanted:
        raise StorageError(
            f"{out} would be incomplete: {found} rows (and features)",
            expected=f"{wanted}",
            hint="repeat the command; computed features are kept",
        )
