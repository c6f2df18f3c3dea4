"""How fast a folder is packed, and how fast views come from the store, on this machine.

    PYTHONPATH=src python bench/pack.py --out OUT [--pictures 10000] [--data CIFAR10]

Writes JPEGs of 500 x 375 px into a temporary folder (enlarged mosaics of CIFAR-10's test images,
or of the embedded digits, with noise). Then, in turn and several times:

- Pillow alone: open, decode, resize the centred square to 224 px; in one process, whose rate times
  the cores is the one to compare with, and in a process per core at the same time, which says what
  these cores give when all are busy. Neither side may let a JPEG decode at a fraction of its size:
  at twice 224 px, which stopgrad asks for, none of these images is large enough for that.
- `stopgrad pack` of all images at 224 px, in a process of its own, its start included.
- Views of 224 px: pairs from the store by the batch, as training makes them, and from the folder by
  an ImageFolder with torchvision's transforms in a DataLoader of as many workers as cores.

Ratios compare what was measured within one round: by the clock, which needs a machine that does
nothing else, and by the processor's time, which others disturb less. Writes OUT/pack.json.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from stopgrad.config import preset
from stopgrad.images import load_dataset, normalization
from stopgrad.runs import environment
from stopgrad.storage import usable_cores
from stopgrad.training import start_training

SIDE, WIDTH, HEIGHT = 224, 500, 375  # px
ALONE = 400  # images that Pillow alone decodes in a round


def main() -> int:
    """Makes the images, measures all rounds, writes the record."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.temporary) as temporary:
        folder = Path(temporary) / "pictures"
        bytes_each = _write_images(folder, options.pictures, options.data)
        before = os.getloadavg()
        rounds = [
            _round(folder, Path(temporary) / f"store-{number}", options)
            for number in range(options.rounds)
        ]
    keys = [key for key in rounds[0] if key.endswith(("share", "ratio"))]
    here = environment(device="cpu", threads=usable_cores())
    record = {
        "pictures": options.pictures,
        "jpeg_bytes": bytes_each,
        "cores": usable_cores(),
        "load_before": before,
        "load_after": os.getloadavg(),
        "rounds": rounds,
        **{key: statistics.median([each[key] for each in rounds]) for key in keys},
        "cpu": here.device_name,
        "code": here.code,
        "versions": here.versions,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pack.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--data", default="mnist5k", help="what the mosaics are made of")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of views, for each side")
    parser.add_argument("--temporary", type=Path, help="where the files go meanwhile")
    return parser.parse_args()


def _write_images(folder: Path, count: int, data: str) -> float:
    """JPEGs in ten folders; their mean size in bytes."""
    dataset = load_dataset(data)
    source = (dataset.test or dataset.train).pixels[:]
    size = 0
    for number in range(count):
        rng = np.random.default_rng(number)
        tiles = source[rng.integers(len(source), size=(3, 4))]  # (3, 4, h, w, 3)
        mosaic = np.concatenate(np.concatenate(tiles, axis=1), axis=1)
        large = Image.fromarray(mosaic).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        noisy = np.asarray(large, np.float32) + rng.normal(0, 6, (HEIGHT, WIDTH, 1))
        content = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=90)
        path = folder / f"class{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue())
        size += len(content.getvalue())
    return size / count


class Rate(NamedTuple):
    """How many a second, by the clock and by the time of all processors that worked."""

    clock: float
    processor: float


class _Stopwatch:
    """Clock and processor time, of this process and of its children that have ended."""

    def __init__(self) -> None:
        self.clock, self.processor = time.perf_counter(), _processor_seconds()

    def rate(self, done: int) -> Rate:
        """What was done since the start."""
        seconds = time.perf_counter() - self.clock
        return Rate(done / seconds, done / (_processor_seconds() - self.processor))


def _processor_seconds() -> float:
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, both))


def _round(folder: Path, store: Path, options: argparse.Namespace) -> dict[str, float]:
    before, before_at_once = _pillow_rate(folder), _pillow_at_once(folder)
    watch = _Stopwatch()
    words = ["pack", str(folder), "--out", str(store), "--side", str(SIDE)]
    subprocess.run([sys.executable, "-m", "stopgrad.cli", *words], check=True)
    packed = watch.rate(options.pictures)
    # Before and after, as others may work on this machine.
    after, after_at_once = _pillow_rate(folder), _pillow_at_once(folder)
    alone = Rate(*map(statistics.mean, zip(before, after, strict=True)))
    at_once = (before_at_once + after_at_once) / 2
    ours, theirs = _store_views(store, options.seconds), _folder_views(folder, options.seconds)
    each = {
        "pillow_per_s": alone.clock,
        "pillow_per_processor_s": alone.processor,
        "pillow_at_once_per_s": at_once,
        "pack_per_s": packed.clock,
        "pack_per_processor_s": packed.processor,
        "pack_share": packed.clock / (alone.clock * usable_cores()),
        "pack_at_once_share": packed.clock / at_once,
        "pack_processor_share": packed.processor / alone.processor,
        "store_views_per_s": ours.clock,
        "store_views_per_processor_s": ours.processor,
        "imagefolder_views_per_s": theirs,
        "views_ratio": ours.clock / theirs,
    }
    print(json.dumps(each), flush=True)
    return each


def _pillow_rate(folder: Path) -> Rate:
    """Images per second that Pillow decodes, crops and resizes in one thread."""
    paths, watch = sorted(folder.rglob("*.jpg"))[:ALONE], _Stopwatch()
    _by_pillow(paths)
    return watch.rate(len(paths))


def _pillow_at_once(folder: Path) -> float:
    """Images per second that Pillow does in a process per core, all at the same time."""
    paths = sorted(folder.rglob("*.jpg"))[:ALONE]
    with multiprocessing.get_context("spawn").Pool(usable_cores()) as pool:
        pool.map(_by_pillow, [paths[:1]] * usable_cores(), chunksize=1)  # all have started
        began = time.perf_counter()
        pool.map(_by_pillow, [paths] * usable_cores(), chunksize=1)
        return len(paths) * usable_cores() / (time.perf_counter() - began)


def _by_pillow(paths: list[Path]) -> None:
    left = (WIDTH - HEIGHT) // 2
    box = (left, 0, left + HEIGHT, HEIGHT)
    for path in paths:
        with Image.open(path) as image:
            image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)


def _store_views(store: Path, seconds: float) -> Rate:
    """Views per second of 224 px, from indices to normalised tensors."""
    images = load_dataset(str(store), side=SIDE).train
    narrow: dict[str, Any] = {"encoder.name": "cifar_resnet8", "batch": 64}
    config = preset("imagenet", **narrow)
    some = images.take(np.arange(64))
    training = start_training(images, config, normalization=normalization(some))
    batches = training.batches()
    training.views(next(batches))  # compiles the loops
    done, watch = 0, _Stopwatch()
    while time.perf_counter() - watch.clock < seconds:
        batch = next(batches, None)
        if batch is None:
            break
        training.views(batch)
        done += 2 * len(batch)
    return watch.rate(done)


def _folder_views(folder: Path, seconds: float) -> float:
    """The same views by torchvision, image by image."""
    from torch.utils.data import DataLoader
    from torchvision import datasets
    from torchvision import transforms as t

    jitter = t.RandomApply([t.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
    blur = t.RandomApply([t.GaussianBlur(23, (0.1, 2.0))], p=0.5)
    crop = t.RandomResizedCrop(SIDE, scale=(0.2, 1.0))
    rest = [t.RandomGrayscale(p=0.2), blur, t.RandomHorizontalFlip(), t.ToTensor()]
    normalize = t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    one = t.Compose([crop, jitter, *rest, normalize])
    data = datasets.ImageFolder(str(folder), transform=lambda image: (one(image), one(image)))
    loader = iter(DataLoader(data, batch_size=64, shuffle=True, num_workers=usable_cores()))
    next(loader)  # the workers have started
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        pair = next(loader, None)
        if pair is None:
            break
        done += 2 * len(pair[1])
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
