"""Images -> their features: in blocks on disk that survive a kill, then in one file.

The file is Parquet, CSV or NumPy; it holds the names and labels of the images too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import nn

from stopgrad.config import Layer
from stopgrad.errors import StorageError
from stopgrad.evaluation import embed, finite
from stopgrad.export.places import check_out, nearest_folder
from stopgrad.images import Dataset, Images, Track, no_progress
from stopgrad.method import Compute
from stopgrad.runs import TrainedRun, tensors_sha256
from stopgrad.storage import (
    OddFileError,
    appearing,
    cell_text,
    lock,
    read_file,
    read_json,
    remove_temporaries,
    storage_errors,
    write_atomically,
    write_json,
)

FeatureRows = npt.NDArray[np.float32]

COLUMNS = ("path", "split", "label", "class_name")
BLOCK = 256  # images in a block; a kill costs at most one block
LETTERS = 14  # of a number in CSV with its comma; a sign or an exponent may add some
DIGEST, HEADER = 32, 1024  # bytes of a sha256; most bytes of a block besides its numbers
GROUP = 16  # blocks in a row group of Parquet


class Embedded(NamedTuple):
    """The files that were written, and their contents."""

    files: tuple[Path, ...]
    rows: int  # images
    width: int  # features of each image
    kept: int  # images that an earlier, killed process had embedded


class Block(NamedTuple):
    """Consecutive images of a split."""

    number: int  # counted over all splits
    split: str
    whole: Images  # the whole split
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """The number of images."""
        return self.stop - self.start

    def pixels_only(self) -> Images:
        """The images without labels and names; not copied if in memory or mapped."""
        return self.whole.with_pixels(self.whole.pixels[self.start : self.stop])

    def columns(self) -> list[list[Any]]:
        """The values of `COLUMNS`: SPLIT:INDEX where the path is unknown, None without labels."""
        whole, places = self.whole, range(self.start, self.stop)
        paths = [whole.sources[i] if whole.sources else f"{self.split}:{i}" for i in places]
        labels: list[int | None] = [None] * self.rows
        if whole.labels is not None:
            own = whole.labels[self.start : self.stop].tolist()
            labels = [label if label >= 0 else None for label in own]
        names = [None if label is None else whole.class_names[label] for label in labels]
        return [paths, [self.split] * self.rows, labels, names]


Filled: TypeAlias = tuple[Block, FeatureRows]


def embed_dataset(
    run: TrainedRun,
    dataset: Dataset,
    *,
    out: Path,
    layer: Layer = "features",
    track: Track = no_progress,
) -> Embedded:
    """Writes the features of every image, those of the train split first.

    Args:
        run: The run whose encoder is used.
        dataset: Any images. Labels are written if there are any.
        out: A file that ends in .parquet, .csv or .npy, replaced if it exists.
        layer: The encoder's output, or the projector's.
        track: Shows progress over blocks.

    Raises:
        ConfigError: For another kind of file, or a folder without write permission.
        DivergedError: When features are not finite.
        LockedError: When another process writes the same file.
        StorageError: When the disk refuses or is too full.
    """
    check_out(out)
    splits = {"train": dataset.train} | ({"test": dataset.test} if dataset.test else {})
    plan, folder = _plan(run, splits, layer), out.with_name(f".{out.name}.parts")
    width, rows = plan["width"], sum(map(len, splits.values()))
    with _claimed(folder):
        remove_temporaries(out.parent, out.name)
        parts = _Parts(folder, plan)
        _check_room(out, rows=rows, width=width, there=parts.bytes)
        blocks = list(_blocks(splits))
        kept = _fill(parts, blocks, run, layer=layer, track=track)
        files = _write(out, lambda: ((b, parts.read(b)) for b in blocks), rows=rows, width=width)
        shutil.rmtree(folder, ignore_errors=True)
    return Embedded(files, rows, width, kept)


def _claimed(folder: Path) -> IO[str]:
    """The lock on the folder of blocks, which is created if it is missing.

    A block's checksum shows that it is intact, not who wrote it. So blocks are reused only from a
    folder that this user alone can write to.

    Raises:
        LockedError: When another process holds it.
        StorageError: For a link, a folder that belongs to somebody else, and when the disk refuses.
    """
    with storage_errors(folder, needed=0):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return lock(folder)
        if folder.is_symlink():
            raise OddFileError(f"{folder.name} is a link")
        held, found = lock(folder), folder.stat()
    if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
        held.close()
        raise StorageError(
            f"another user can write to {folder}, which an earlier process left",
            expected="blocks that only this user can have written",
            hint="remove it, or choose another --out",
        )
    return held


def _plan(run: TrainedRun, splits: dict[str, Images], layer: Layer) -> dict[str, Any]:
    """Everything that determines the features; blocks from another plan are not used."""
    width = run.info.config.projector.out if layer == "z" else run.model.encoder.feature_width
    return {
        "weights": tensors_sha256(_network(run, layer).state_dict()),
        "normalization": [list(values) for values in run.info.normalization],
        "layer": layer,
        "width": width,
        "block": BLOCK,
        "splits": [
            [name, images.fingerprint, len(images), *images.whole_size]
            for name, images in splits.items()
        ],
    }


def _blocks(splits: dict[str, Images]) -> Iterator[Block]:
    number = itertools.count()
    for name, images in splits.items():
        for start in range(0, len(images), BLOCK):
            yield Block(next(number), name, images, start, min(start + BLOCK, len(images)))


def _fill(
    parts: _Parts, blocks: list[Block], run: TrainedRun, *, layer: Layer, track: Track
) -> int:
    """Embeds the missing blocks; returns how many images the others hold."""
    network, kept = _network(run, layer), 0
    compute = Compute(run.compute.device, "fp32", run.compute.channels_last)
    for block in track(blocks, "embed", len(blocks)):
        if parts.has(block):
            kept += block.rows
            continue
        found = embed(
            network, block.pixels_only(), normalization=run.info.normalization, compute=compute
        )
        finite(found.values, role=block.split)
        parts.write(block, found.values.cpu().numpy())
    return kept


def _network(run: TrainedRun, layer: Layer) -> nn.Module:
    if layer == "z":
        return nn.Sequential(run.model.encoder, run.model.projector)
    return run.model.encoder


class _Parts:
    """The features of each block, in a file of its own; blocks from another plan are deleted."""

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.folder, self.width = folder, plan["width"]
        try:
            known = read_json(folder / "plan.json")
        except (OSError, ValueError):
            known = None
        if known != plan:
            with storage_errors(folder, needed=0):
                for path in folder.glob("*.npy"):
                    path.unlink()
            write_json(folder / "plan.json", plan)

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*.npy"))

    def has(self, block: Block) -> bool:
        try:
            self.read(block)
        except (OSError, ValueError, StorageError):
            return False
        return True

    def read(self, block: Block) -> FeatureRows:  # (rows, F)
        path = self._path(block)
        data = read_file(path, most=self.width * block.rows * 4 + HEADER)
        if hashlib.sha256(data[:-DIGEST]).digest() != data[-DIGEST:]:
            raise StorageError(
                f"{path} is not what was written",
                expected="the block as it was written",
                hint="repeat the command; it computes the block again",
            )
        values: FeatureRows = np.load(io.BytesIO(data), allow_pickle=False)
        if values.shape != (block.rows, self.width) or values.dtype != np.float32:
            raise ValueError(f"{path.name} has the shape {values.shape}")
        return values

    def write(self, block: Block, values: FeatureRows) -> None:
        file = io.BytesIO()
        np.save(file, values)
        data = file.getvalue()
        write_atomically(self._path(block), data + hashlib.sha256(data).digest())

    def _path(self, block: Block) -> Path:
        return self.folder / f"{block.number:06d}.npy"


def _check_room(out: Path, *, rows: int, width: int, there: int) -> None:
    """Refuses, before hours of work, a disk that cannot hold the blocks and the file.

    An earlier process has already written `there` bytes of the blocks.
    """
    written = LETTERS if out.suffix.lower() == ".csv" else 4  # bytes of a number
    needed, free = rows * width * (4 + written) - there, shutil.disk_usage(nearest_folder(out)).free
    if needed > free:
        raise StorageError(
            f"{needed:,} bytes needed in {nearest_folder(out)}, {free:,} bytes free",
            expected="space for the features, in blocks and in the file, while they are written",
            hint="free some space, or choose another --out",
        )


def _write(
    out: Path, blocks: Callable[[], Iterator[Filled]], *, rows: int, width: int
) -> tuple[Path, ...]:
    """Writes all blocks in order, from the first with each call; returns the files, `out` first.

    Raises:
        StorageError: When the disk refuses, or the file does not hold all rows.
    """
    needed = rows * width * 4
    if out.suffix.lower() == ".csv":
        with _appearing(out, needed=needed) as file:
            _check(out, _csv(file, blocks(), width), rows)
        return (out,)
    if out.suffix.lower() == ".parquet":
        with _appearing(out, needed=needed) as file:
            _parquet(file, blocks(), width)
            _check(out, _parquet_shape(file.name), (rows, width))
        return (out,)
    beside = out.with_suffix(".rows.csv")  # first: a matrix never lacks its rows
    with _appearing(beside, needed=rows) as file:
        _check(beside, _csv(file, blocks(), 0), rows)
    with _appearing(out, needed=needed) as file:
        _npy(file, blocks(), (rows, width))
        _check(out, np.load(file.name, mmap_mode="r").shape, (rows, width))
    return (out, beside)


@contextmanager
def _appearing(out: Path, *, needed: int) -> Iterator[IO[bytes]]:
    """As `appearing`; a StorageError when the disk refuses."""
    with storage_errors(out, needed=needed), appearing(out) as file:
        yield file


def _parquet(file: IO[bytes], blocks: Iterator[Filled], width: int) -> None:
    """A row per image: path, split, label and class_name (null without labels), features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.string(), pa.int64(), pa.string(), pa.list_(pa.float32(), width))
    schema = pa.schema(list(zip((*COLUMNS, "features"), kinds, strict=True)))
    with pq.ParquetWriter(file, schema) as writer:
        for some in iter(lambda: list(itertools.islice(blocks, GROUP)), []):
            known = zip(*(block.columns() for block, _ in some), strict=True)
            columns = [
                pa.array(itertools.chain(*parts), kind)
                for parts, kind in zip(known, kinds[:-1], strict=True)
            ]
            flat = pa.array(np.concatenate([values.reshape(-1) for _, values in some]))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, width))
            writer.write_table(pa.table(columns, schema=schema))
    file.flush()


def _parquet_shape(path: str) -> tuple[int, int]:
    """Rows and width, from the footer of a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.OSFile(os.fsencode(path)) as file:
        found = pq.ParquetFile(file)
        width = found.schema_arrow.field("features").type.list_size
        return int(found.metadata.num_rows), int(width)


def _csv(file: IO[bytes], blocks: Iterator[Filled], width: int) -> int:
    """A row per image, with features f0, f1, ... in all their digits; returns the rows."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer, rows = csv.writer(text), 0
    writer.writerow([*COLUMNS, *(f"f{number}" for number in range(width))])
    for block, values in blocks:
        for *known, features in zip(*block.columns(), values, strict=True):
            # str of a float32 has just enough digits to restore it.
            writer.writerow([*map(cell_text, known), *map(str, features[:width])])
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
