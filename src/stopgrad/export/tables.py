"""Blocks of features with what is known of their pictures -> a file that appears whole or not."""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

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
    """Features of pictures that follow each other in a split."""

    split: str
    images: Images  # the whole split
    start: int
    values: Values  # (rows, F)

    @property
    def names(self) -> list[str]:
        """Where each picture came from; SPLIT:INDEX where nothing is known."""
        places = range(self.start, self.start + len(self.values))
        sources = self.images.sources
        return [sources[i] if sources else f"{self.split}:{i}" for i in places]

    @property
    def labels(self) -> list[int | None]:
        """The label of each picture, None where there is none."""
        if self.images.labels is None:
            return [None] * len(self.values)
        found: list[int | None] = self.images.labels[
            self.start : self.start + len(self.values)
        ].tolist()
        return found

    @property
    def class_names(self) -> list[str | None]:
        """The class of each picture, None where there is none."""
        names = self.images.class_names
        return [None if label is None else names[label] for label in self.labels]


def check_out(out: Path) -> None:
    """Refuses a file of another kind or in a place that is none, before anything is computed.

    Raises:
        ConfigError: With the kinds that there are, or the folder.
    """
    if out.suffix not in SUFFIXES or out.is_dir():
        raise ConfigError(
            f"--out {out}",
            expected=f"the name of a file that ends in {', '.join(SUFFIXES)}",
            hint="write for example --out features.parquet",
        )
    folder = _folder(out)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--out {out}, where {folder} is no folder that may be written to",
            expected="a file in a folder that may be written to",
            hint="choose another place",
        )


def check_room(out: Path, *, rows: int, width: int, there: int) -> None:
    """Refuses before hours of work what the disk cannot hold: the blocks, and the file of them.

    Args:
        out: The file.
        rows: N of all blocks together.
        width: F.
        there: Bytes of blocks that an earlier process has written.

    Raises:
        StorageError: With the bytes needed and those free.
    """
    needed, free = 2 * rows * width * 4 - there, shutil.disk_usage(_folder(out)).free
    if needed > free:
        raise StorageError(
            f"{needed:,} bytes needed in {_folder(out)}, {free:,} bytes free",
            expected="room for the features, twice while they are written",
            hint="make room, or choose another --out",
        )


def _folder(out: Path) -> Path:
    """The nearest folder above that is there; those between are made."""
    return next(parent for parent in out.absolute().parents if parent.exists())


def write_table(
    out: Path, blocks: Callable[[], Iterator[Block]], *, rows: int, width: int
) -> tuple[Path, ...]:
    """Writes all blocks in order; the files, the one asked for first.

    Args:
        out: The file.
        blocks: Gives the blocks anew with each call.
        rows: N of all blocks together.
        width: F.

    Raises:
        StorageError: When the disk refuses, or holds other rows than it was given.
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
            beside = out.with_suffix(".rows.csv")  # first: where the matrix is, its rows are
            with _appearing(beside, needed=rows) as file:
                _check(beside, _csv(file, blocks(), 0), rows)
            with _appearing(out, needed=needed) as file:
                _npy(file, blocks(), (rows, width))
                _check(out, np.load(file.name, mmap_mode="r").shape, (rows, width))
            return (out, beside)


@contextmanager
def _appearing(out: Path, *, needed: int) -> Iterator[IO[bytes]]:
    """A file that takes its name when all of it is on the disk, and vanishes after an error."""
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


def _parquet(file: IO[bytes], blocks: Iterator[Block], width: int) -> None:
    """A row per picture: path, split, label and class_name (null without labels), features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("path", pa.string()),
            ("split", pa.string()),
            ("label", pa.int64()),
            ("class_name", pa.string()),
            ("features", pa.list_(pa.float32(), width)),
        ]
    )
    with pq.ParquetWriter(file, schema) as writer:
        for some in iter(lambda: list(itertools.islice(blocks, GROUP)), []):
            flat = pa.array(np.concatenate([block.values.reshape(-1) for block in some]))
            columns = [
                pa.array([n for b in some for n in b.names], pa.string()),
                pa.array([b.split for b in some for _ in b.values], pa.string()),
                pa.array([label for b in some for label in b.labels], pa.int64()),
                pa.array([n for b in some for n in b.class_names], pa.string()),
                pa.FixedSizeListArray.from_arrays(flat, width),
            ]
            writer.write_table(pa.table(columns, schema=schema))
    file.flush()


def _parquet_shape(path: str) -> tuple[int, int]:
    """Rows and width by the footer of a file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as found:
        width = found.schema_arrow.field("features").type.list_size
        return int(found.metadata.num_rows), int(width)


def _csv(file: IO[bytes], blocks: Iterator[Block], width: int) -> int:
    """A row per picture, features as f0, f1, ... with all digits; how many rows."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer, rows = csv.writer(text), 0
    writer.writerow([*COLUMNS, *(f"f{number}" for number in range(width))])
    for block in blocks:
        known = zip(block.names, block.labels, block.class_names, block.values, strict=True)
        for name, label, class_name, values in known:
            # str of a float32 has as many digits as bring it back, and no more.
            digits = [str(value) for value in values[:width]]
            writer.writerow([name, block.split, label, class_name, *digits])
            rows += 1
    text.detach()
    return rows


def _npy(file: IO[bytes], blocks: Iterator[Block], shape: tuple[int, int]) -> None:
    """The features alone, (N, F) float32."""
    how = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, how)
    for block in blocks:
        file.write(np.ascontiguousarray(block.values, "<f4").data)
    file.flush()


def _check(out: Path, found: object, wanted: object) -> None:
    if found != wanted:
        raise StorageError(
            f"{out} would hold {found}",
            expected=f"{wanted}, rows and numbers of each",
            hint="repeat the command; what was computed is kept",
        )
