"""Whether training from a packed store takes little memory: a store, a limit, a real training.

    PYTHONPATH=src python bench/store_memory.py --out OUT [--gigabytes 3] [--limit 1.5]

Packs random images of 224 px into a temporary store, then works through it in a control group of
its own with a hard limit on memory (Linux, root): a fifth of the images are held out, the
statistics of the others counted, all batches of an epoch read, `--steps` of them trained on,
features of 1,000 held-out images computed. Writes OUT/store_memory.json: bytes of the store, the
limit, peaks of the group (which count the pages that the system keeps of files), of the process's
own memory and of what is resident.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.config import preset
from stopgrad.evaluation import embed
from stopgrad.images import Encoded, load_dataset, normalization, pack, packing
from stopgrad.images.types import Contents, DataSource, SplitReader
from stopgrad.runs import environment, prepare
from stopgrad.training import start_training

SIDE = 224  # px
EMBEDDED = 1000  # held-out images whose features are computed
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


def main() -> int:
    """Packs, trains under the limit, writes the record."""
    options = _options()
    if options.work is not None:
        work(options.work, options.steps)
        return 0
    count = round(options.gigabytes * 1e9 / (3 * SIDE**2))
    with tempfile.TemporaryDirectory(dir=options.temporary) as folder:
        store = Path(folder) / "store"
        packed_s = _pack_random(store, count)
        spent = _train(store, steps=options.steps, limit=round(options.limit * 1e9))
        pixels = load_dataset(str(store)).train.pixels.nbytes
    here = environment(device="cpu", threads=1)
    record = {
        "pictures": count,
        "side": SIDE,
        "store_bytes": pixels,
        "pack_seconds": packed_s,
        **spent,
        "load": os.getloadavg(),
        "cpu": here.device_name,
        "code": here.code,
        "versions": here.versions,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "store_memory.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
    return int(spent["exit_code"] != 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--work", type=Path, metavar="STORE", help=argparse.SUPPRESS)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="of pixels. Default: 3")
    parser.add_argument("--limit", type=float, default=1.5, help="of memory, GB. Default: 1.5")
    parser.add_argument("--steps", type=int, default=20, help="real steps. Default: 20")
    parser.add_argument("--temporary", type=Path, help="where the store goes meanwhile")
    return parser.parse_args()


def _pack_random(store: Path, count: int) -> float:
    """Random images of ten classes, through the real packing; seconds."""
    header = f"P6 {SIDE} {SIDE} 255\n".encode()

    def items() -> Iterator[Encoded]:
        for number in range(count):
            rng = np.random.default_rng(number)
            yield Encoded(f"{number:06d}", header + rng.bytes(3 * SIDE**2))

    names = tuple(f"class {number}" for number in range(10))
    reader = SplitReader(count, np.arange(count) % 10, items)
    source = DataSource("random", "random", (), lambda: Contents(names, reader, None))
    packing.find_source = lambda _: source  # type: ignore[assignment]
    began = time.perf_counter()
    pack("hf:random/pictures", store, side=SIDE)
    return time.perf_counter() - began


def work(store: Path, steps: int) -> None:
    """An epoch as training reads it: statistics, every batch, some real steps, some features."""
    config = preset(
        "tiny", **{"views.size": 32, "image_size": SIDE, "batch": 128, "validation": 0.2}
    )
    images = prepare(load_dataset(str(store), side=SIDE), config)
    statistics = normalization(images.train)
    training = start_training(images.train, config, normalization=statistics)
    for number, batch in enumerate(training.batches()):
        if number < steps:
            training.take_step(training.views(batch))
            training.read_losses()
        else:
            training.compute.fetch(training.pixels, batch)
    assert images.watch is not None
    some = images.watch.take(np.arange(min(EMBEDDED, len(images.watch))))
    embed(training.model.encoder, some, normalization=statistics, compute=training.compute)


def _train(store: Path, *, steps: int, limit: int) -> dict[str, Any]:
    """Does `work` in a process of its own, under the limit."""
    peaks = {"anonymous_bytes": 0, "resident_bytes": 0}
    with _group(limit) as group:
        command = [sys.executable, __file__, "--work", str(store), "--steps", str(steps)]
        began = time.perf_counter()
        child = subprocess.Popen(command, preexec_fn=group.enter)
        while child.poll() is None:
            for name, value in _memory_of(child.pid).items():
                peaks[name] = max(peaks[name], value)
            time.sleep(0.2)
        return {
            "steps": steps,
            "exit_code": child.returncode,
            "seconds": time.perf_counter() - began,
            "limit_bytes": limit,
            "group_peak_bytes": group.peak(),
            **peaks,
        }


def _memory_of(process: int) -> dict[str, int]:
    with suppress(OSError, ValueError, KeyError):
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        lines = dict(line.split(":", 1) for line in text.splitlines()[1:])
        kilobytes = {name: int(value.split()[0]) for name, value in lines.items()}
        return {
            "anonymous_bytes": 1024 * kilobytes["Anonymous"],
            "resident_bytes": 1024 * kilobytes["Rss"],
        }
    return {}


class _Group:
    """A control group with a limit of memory, of version 1 or 2."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.old = path.parent == V1
        path.mkdir()
        name = "memory.limit_in_bytes" if self.old else "memory.max"
        (path / name).write_text(str(limit))

    def enter(self) -> None:
        """Puts the calling process into it."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self) -> int:
        """The most bytes that it had."""
        name = "memory.max_usage_in_bytes" if self.old else "memory.peak"
        return int((self.path / name).read_text())


@contextmanager
def _group(limit: int) -> Iterator[_Group]:
    root = V1 if V1.is_dir() else V2
    group = _Group(root / f"stopgrad-{os.getpid()}", limit)
    try:
        yield group
    finally:
        group.path.rmdir()


if __name__ == "__main__":
    sys.exit(main())
