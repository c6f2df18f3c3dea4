"""`stopgrad embed`: writes the features of images to a table or a matrix."""

from __future__ import annotations

import argparse
from typing import get_args

import stopgrad
from stopgrad.cli.parser import DATA, add_older
from stopgrad.cli.screen import print_line, say
from stopgrad.config import BadImages, Layer
from stopgrad.storage import user_path

HELP = "write the features of images to a Parquet, CSV or NumPy file"
EXAMPLE = "stopgrad embed runs/mine --out features.parquet"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --data, --out, --bad-images and --layer."""
    parser.add_argument("run", type=user_path, metavar="RUN", help="run directory")
    help_text = f"{DATA}. Embeds the training images and the split that is scored, and names what "
    help_text += "it leaves out. Default: the run's images"
    parser.add_argument("--data", action="append", metavar="SPEC", help=help_text)
    parser.add_argument(
        "--out",
        required=True,
        type=user_path,
        metavar="FILE",
        help=".parquet or .csv: a row per image with path, split, label and features; .npy: only "
        "the features, with a .csv of the rows beside it. If it is killed, repeat the command",
    )
    parser.add_argument(
        "--bad-images",
        choices=get_args(BadImages),
        help="damaged images: fail, or skip them. Default: as in the run",
    )
    add_older(parser)
    parser.add_argument(
        "--layer",
        choices=get_args(Layer),
        default="features",
        help="the encoder's features or the projector's z. Default: features",
    )


def run(options: argparse.Namespace) -> None:
    """Writes the features, and prints the paths."""
    from stopgrad.export import check_out

    check_out(options.out)  # before the run is read
    made = stopgrad.Run(options.run, older=options.older).embed(
        options.data, out=options.out, layer=options.layer, bad_images=options.bad_images
    )
    if made.kept:
        say(f"{made.kept:,} images had been embedded before")
    say(f"done: {made.rows:,} images, {made.width} features each")
    for path in made.files:
        print_line(str(path))
