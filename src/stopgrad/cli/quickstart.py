"""`stopgrad quickstart`: pretrain, evaluate and report on images that come with the package."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import stopgrad
from stopgrad.cli.screen import print_line, say, show
from stopgrad.config import preset
from stopgrad.storage import user_path

HELP = "pretrain, evaluate and report on handwritten digits that come with stopgrad"
EXAMPLE = "stopgrad quickstart"


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
        f"pretrains on {len(data.dataset.train):,} digits without labels for {config.epochs} "
        f"epochs, then evaluates on {len(data.dataset.test or ()):,} other digits"
    )
    found = stopgrad.pretrain(data, out=options.out or _new_directory(), config=config)
    show(found.evaluate([1.0, 0.1, 0.01]))
    print_line(f"report: {found.report().page}")


def _new_directory() -> Path:
    """`runs/quickstart`, or the same with the first free number."""
    path = Path("runs") / "quickstart"
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())
