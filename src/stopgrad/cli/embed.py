"""`stopgrad embed`: the features of images, as a table or a matrix."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import stopgrad
from stopgrad.cli.parser import DATA
from stopgrad.cli.screen import print_line, say
from stopgrad.config import BadImages, Layer

HELP = "write the features of images to a table or a matrix"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --data, --out, --bad-images and --layer."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--data", metavar="SPEC", help=f"{DATA}. Default: the run's own")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FILE",
        help=".parquet or .csv: a row per image with path, split, label and features; .npy: the "
        "features alone, with the rows in a .csv beside it. The same command goes on after a kill",
    )
    parser.add_argument(
        "--bad-images",
        choices=get_args(BadImages),
        help="what to do with damaged images. Default: as the run did",
    )
    parser.add_argument(
        "--layer",
        choices=get_args(Layer),
        default="features",
        help="the encoder's output, or the projector's. Default: features",
    )


def run(options: argparse.Namespace) -> None:
    """Writes the features, and prints the files."""
    made = stopgrad.Run(options.run).embed(
        options.data, out=options.out, layer=options.layer, bad_images=options.bad_images
    )
    if made.kept:
        say(f"{made.kept:,} images had been done before")
    say(f"done: {made.rows:,} images, {made.width} numbers each")
    for path in made.files:
        print_line(str(path))
