"""Blocks of pictures -> blocks of features on disk -> one file."""

from __future__ import annotations

import functools
import io
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

BLOCK = 256  # pictures whose features are kept together, and the most that a kill can cost


class Embedded(NamedTuple):
    """What was written."""

    files: tuple[Path, ...]
    rows: int  # pictures
    width: int  # numbers of each
    kept: int  # pictures that an earlier, killed process had done


def embed_dataset(
    run: TrainedRun,
    dataset: Dataset,
    *,
    out: Path,
    layer: Layer = "features",
    track: Track = no_progress,
) -> Embedded:
    """Writes the features of every picture, those of the train split first.

    Args:
        run: The run whose encoder is used.
        dataset: The pictures, its own or others; labels are written where there are any.
        out: A file that ends in .parquet, .csv or .npy, replaced if it is there.
        layer: The encoder's output, or the projector's.
        track: Shows progress over blocks.

    Raises:
        ConfigError: For another kind of file, or a folder that may not be written to.
        DivergedError: For features that are not finite.
        LockedError: When another process writes the same file.
        StorageError: When the disk refuses, or has too little room.
    """
    check_out(out)
    splits = {"train": dataset.train} | ({"test": dataset.test} if dataset.test else {})
    plan, folder = _plan(run, splits, layer), out.with_name(f".{out.name}.parts")
    with storage_errors(folder, needed=0):
        folder.mkdir(parents=True, exist_ok=True)
        held = lock(folder)
    with held:
        blocks = _blocks(folder, plan)
        rows = sum(len(images) for images in splits.values())
        check_room(out, rows=rows, width=plan["width"], there=blocks.bytes)
        kept = _fill(blocks, run, splits, layer=layer, track=track)
        filled = functools.partial(_filled, blocks, splits)
        files = write_table(out, filled, rows=rows, width=plan["width"])
        shutil.rmtree(folder, ignore_errors=True)
    return Embedded(files, rows, plan["width"], kept)


def _plan(run: TrainedRun, splits: dict[str, Images], layer: Layer) -> dict[str, Any]:
    """All that decides the blocks; blocks of another plan are not used."""
    module = _network(run, layer)
    width = run.info.config.projector.out if layer == "z" else run.model.encoder.feature_width
    return {
        "weights": tensors_sha256(module.state_dict()),
        "normalization": [list(values) for values in run.info.normalization],
        "layer": layer,
        "width": width,
        "block": BLOCK,
        "splits": [
            [name, images.fingerprint, len(images), *images.whole_size]
            for name, images in splits.items()
        ],
    }


def _blocks(folder: Path, plan: dict[str, Any]) -> Blocks:
    """The blocks that are there, when they are of this plan; else none."""
    try:
        known = read_json(folder / "plan.json")
    except (OSError, ValueError):
        known = None
    blocks = Blocks(folder, width=plan["width"])
    if known != plan:
        with storage_errors(folder, needed=0):
            blocks.clear()
        write_json(folder / "plan.json", plan)
    return blocks


def _fill(
    blocks: Blocks, run: TrainedRun, splits: dict[str, Images], *, layer: Layer, track: Track
) -> int:
    """Embeds the blocks that are missing; how many pictures were not."""
    network, kept = _network(run, layer), 0
    compute = Compute(run.compute.device, "fp32", run.compute.channels_last)
    places = list(_places(splits))
    for number, place in enumerate(track(places, "embed", len(places))):
        if blocks.has(number, rows=len(place)):
            kept += len(place)
            continue
        found = embed(
            network, place.images(), normalization=run.info.normalization, compute=compute
        )
        finite(found.values, role=place.split)
        blocks.write(number, found.values.cpu().numpy())
    return kept


def _filled(blocks: Blocks, splits: dict[str, Images]) -> Iterator[Block]:
    for number, place in enumerate(_places(splits)):
        yield Block(place.split, place.whole, place.start, blocks.read(number, rows=len(place)))


class _Place(NamedTuple):
    """A block of pictures within its split."""

    split: str
    whole: Images
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def images(self) -> Images:
        """The pictures of the block, not copied where the whole are in memory or mapped."""
        return self.whole.with_pixels(self.whole.pixels[self.start : self.stop])


def _places(splits: dict[str, Images]) -> Iterator[_Place]:
    for name, images in splits.items():
        for start in range(0, len(images), BLOCK):
            yield _Place(name, images, start, min(start + BLOCK, len(images)))


def _network(run: TrainedRun, layer: Layer) -> nn.Module:
    if layer == "z":
        return nn.Sequential(run.model.encoder, run.model.projector)
    return run.model.encoder


class Blocks:
    """The blocks of one folder."""

    def __init__(self, folder: Path, *, width: int) -> None:
        self.folder, self.width = folder, width

    @property
    def bytes(self) -> int:
        """Bytes of all blocks that are there."""
        return sum(path.stat().st_size for path in self.folder.glob("*.npy"))

    def has(self, number: int, *, rows: int) -> bool:
        """Whether a block is there with all of its rows."""
        try:
            self.read(number, rows=rows)
        except (OSError, ValueError):
            return False
        return True

    def read(self, number: int, *, rows: int) -> Values:  # (rows, F)
        """A block.

        Raises:
            OSError: When it is not there.
            ValueError: When it is not of this shape.
        """
        values: Values = np.load(self._path(number), allow_pickle=False)
        if values.shape != (rows, self.width) or values.dtype != np.float32:
            raise ValueError(f"{self._path(number).name} is of shape {values.shape}")
        return values

    def write(self, number: int, values: Values) -> None:
        """Writes a block, durably.

        Raises:
            StorageError: When the disk refuses.
        """
        file = io.BytesIO()
        np.save(file, values)
        write_atomically(self._path(number), file.getvalue())

    def clear(self) -> None:
        """Removes all blocks."""
        for path in self.folder.glob("*.npy"):
            path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"
