"""Images -> their features, in blocks on disk that survive a kill, then in one file."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from stopgrad.config import Layer
from stopgrad.evaluation import embed, finite
from stopgrad.export.tables import Block, Values, check_out, check_room, write_table
from stopgrad.images import Dataset, Images, Track, no_progress
from stopgrad.method import Compute
from stopgrad.runs import TrainedRun, tensors_sha256
from stopgrad.storage import lock, read_json, storage_errors, write_atomically, write_json

BLOCK = 256  # images in a block; a kill costs at most one block


class Embedded(NamedTuple):
    """What was written."""

    files: tuple[Path, ...]
    rows: int  # images
    width: int  # features of each image
    kept: int  # images that an earlier, killed process had embedded


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
    with storage_errors(folder, needed=0):
        folder.mkdir(parents=True, exist_ok=True)
        held = lock(folder)
    with held:
        parts = _parts(folder, plan)
        check_room(out, rows=rows, width=width, there=parts.bytes)
        blocks = list(_blocks(splits))
        kept = _fill(parts, blocks, run, layer=layer, track=track)
        files = write_table(
            out, lambda: ((block, parts.read(block)) for block in blocks), rows=rows, width=width
        )
        shutil.rmtree(folder, ignore_errors=True)
    return Embedded(files, rows, width, kept)


def _plan(run: TrainedRun, splits: dict[str, Images], layer: Layer) -> dict[str, Any]:
    """Everything that determines the features; blocks made by another plan are not used."""
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


def _parts(folder: Path, plan: dict[str, Any]) -> _Parts:
    """The blocks on disk, emptied if they were made by another plan."""
    try:
        known = read_json(folder / "plan.json")
    except (OSError, ValueError):
        known = None
    if known != plan:
        with storage_errors(folder, needed=0):
            for path in folder.glob("*.npy"):
                path.unlink()
        write_json(folder / "plan.json", plan)
    return _Parts(folder, width=plan["width"])


class _Parts:
    """The features of each block, in a file of its own."""

    def __init__(self, folder: Path, *, width: int) -> None:
        self.folder, self.width = folder, width

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*.npy"))

    def has(self, block: Block) -> bool:
        try:
            self.read(block)
        except (OSError, ValueError):
            return False
        return True

    def read(self, block: Block) -> Values:  # (rows, F)
        path = self._path(block)
        values: Values = np.load(path, allow_pickle=False)
        if values.shape != (block.rows, self.width) or values.dtype != np.float32:
            raise ValueError(f"{path.name} has the shape {values.shape}")
        return values

    def write(self, block: Block, values: Values) -> None:
        file = io.BytesIO()
        np.save(file, values)
        write_atomically(self._path(block), file.getvalue())

    def _path(self, block: Block) -> Path:
        return self.folder / f"{block.number:06d}.npy"
