"""`stopgrad views`: draws images with the views that the network will see."""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.parser import add_config, add_data
from stopgrad.cli.screen import say
from stopgrad.storage import user_path

HELP = "draw images with two random views of each"
EXAMPLE = "stopgrad views --data images/ --out views.png"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --data, --out, --count and the knobs."""
    add_data(parser)
    parser.add_argument("--out", required=True, type=user_path, metavar="PNG", help="file to write")
    parser.add_argument(
        "--count", type=int, default=12, metavar="N", help="number of images. Default: 12"
    )
    add_config(parser)


def run(options: argparse.Namespace) -> None:
    """Draws them."""
    path = stopgrad.views(options.data, out=options.out, count=options.count, config=options.config)
    say(f"done: {path}")
