"""Whole commands on one folder of PNG files, as a user types them: ours and lightly-train's.

Both train a ResNet-18 with the ImageNet stem on two views of 32 px without blur, in the precision
and with the workers that each chooses by default. lightly-train has no SimSiam: it trains SimCLR,
whose head is smaller (512 to 2048 to 128, no predictor). Each command runs twice, for one epoch and
for several: the difference is the rate without start and end; the longer one is what people wait
for. Each has a new output folder, ours an empty cache too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compare_peers import Turn

from stopgrad.images import Images

SIDE = 32  # px


def commands(turn: Turn, images: Images) -> dict[str, Any]:
    """Runs the command of a system for one epoch, then for all of its epochs.

    Raises:
        SystemExit: When one fails, with its last words.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = min(turn.files, len(images)) // turn.batch * turn.batch  # no batch is cut short
        _write(images, folder / "images", count=count)
        short, long = (_seconds_of(turn, folder, epochs=each) for each in (1, turn.epochs))
    return {
        "views_per_s": 2 * count * (turn.epochs - 1) / (long - short),
        "command_s": long,
        "one_epoch_s": short,
        "files": count,
        "peak_bytes": _peak_bytes(),
    }


def stopgrad_command(data: Path, out: Path, *, batch: int, epochs: int) -> list[str]:
    """`stopgrad pretrain`, with the stem that torchvision's ResNet has."""
    knobs = ["--encoder.stem", "large", "--batch", str(batch), "--epochs", str(epochs)]
    words = ["-m", "stopgrad.cli", "pretrain", "--data", str(data), "--out", str(out)]
    return [sys.executable, *words, "--preset", "cifar", *knobs]


def lightly_train_command(data: Path, out: Path, *, batch: int, epochs: int) -> list[str]:
    """`lightly-train pretrain`, which has no SimSiam."""
    views = [f"transform_args.image_size=[{SIDE},{SIDE}]", "transform_args.gaussian_blur=null"]
    knobs = ["model=torchvision/resnet18", "method=simclr", f"batch_size={batch}"]
    program = Path(sys.executable).with_name("lightly-train")
    paths = [f"data={data}", f"out={out}"]
    return [str(program), "pretrain", *paths, *knobs, f"epochs={epochs}", *views]


def _write(images: Images, folder: Path, *, count: int) -> None:
    from PIL import Image

    folder.mkdir()
    for number, pixels in enumerate(images.pixels[:count]):
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")


def _seconds_of(turn: Turn, folder: Path, *, epochs: int) -> float:
    """Of one command, from its start to its end."""
    command = {"stopgrad": stopgrad_command, "lightly-train": lightly_train_command}[turn.system]
    out, cache = folder / f"run-{epochs}", folder / f"cache-{epochs}"
    words = command(folder / "images", out, batch=turn.batch, epochs=epochs)
    began = time.perf_counter()
    _run(words, os.environ | {"STOPGRAD_CACHE": str(cache)})
    return time.perf_counter() - began


def _peak_bytes() -> int:
    """Of the largest process of all commands so far."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, kB on Linux
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def _run(words: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        sys.exit((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
