"""`stopgrad quickstart`: pretrain, evaluate and report on images that come with the package."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import stopgrad
from stopgrad.cli.screen import print_line, print_table, say
from stopgrad.config import preset
from stopgrad.evaluation import percent
from stopgrad.storage import user_path

if TYPE_CHECKING:
    from stopgrad.evaluation import Record

HELP = "pretrain, evaluate and report on handwritten digits that come with stopgrad"
EXAMPLE = "stopgrad quickstart"

BUSY = 1.5  # load per core above which the quickstart takes clearly longer


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --out."""
    parser.add_argument(
        "--out", type=user_path, metavar="RUN", help="run directory. Default: a new one in runs/"
    )


def run(options: argparse.Namespace) -> None:
    """Pretrains on handwritten digits, evaluates the run and writes its page."""
    config = preset("digits")
    data = stopgrad.load("mnist5k", side=config.image_side)
    say(
        f"Pretrains on {len(data.dataset.train):,} handwritten digits without their labels, then "
        "measures how well a classifier with few labels does on "
        f"{len(data.dataset.test or ()):,} other digits."
    )
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has none
    cores = os.cpu_count() or 1
    if busy > BUSY * cores:
        say(
            f"This machine is busy ({busy:.0f} processes want its {cores} cores), so it will take "
            "longer than the usual two to four minutes. Ctrl-C stops and saves at any time."
        )
    found = stopgrad.pretrain(data, out=options.out or _new_directory(), config=config)
    scores = found.evaluate([1.0, 0.1, 0.01])
    page = found.report().page
    print_table(f"{headline(scores)}\n", *scores.tables, *scores.lines)
    print_line(f"\nreport: {page}")
    say(f"Open it in a browser: {page.absolute().as_uri()}")
    say("Now your own images: stopgrad check-data --data FOLDER --preset cpu")


def headline(scores: Sequence[Record]) -> str:
    """The accuracy with the fewest labels, on the encoder's features and on raw pixels."""
    fewest = min(record.labels for record in scores)
    found = {r.of: r for r in scores if (r.labels, r.metric) == (fewest, "linear_accuracy")}
    encoder, pixels = (
        percent(found[of].value, images=found[of].images_scored) for of in ("encoder", "pixels")
    )
    labels = found["encoder"].protocol["train_images"]
    return (
        f"With {labels} labels a linear classifier gets {encoder} of the other digits right on the "
        f"encoder's features, and {pixels} on raw pixels."
    )


def _new_directory() -> Path:
    """`runs/quickstart`, or `runs/quickstart-N` with the first free N."""
    path = Path("runs") / "quickstart"
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())
