"""`stopgrad pack`: decodes a data set once into a store on disk."""

from __future__ import annotations

import argparse
from shlex import quote
from typing import get_args

import stopgrad
from stopgrad.cli.parser import add_spec
from stopgrad.cli.screen import print_line
from stopgrad.config import BadImages
from stopgrad.storage import user_path

HELP = "decode images once into a store on disk, to train with little memory"
EXAMPLE = "stopgrad pack --data images/ --out images.store"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the data, --out, --side, --bad-images and the columns."""
    add_spec(parser)
    parser.add_argument(
        "--out",
        required=True,
        type=user_path,
        metavar="STORE",
        help="folder to write, or to continue",
    )
    parser.add_argument(
        "--side",
        type=int,
        default=256,
        metavar="PX",
        help="side of the stored images; larger or mixed ones are cropped to centred squares. 8/7 "
        "of views.size is usual. Default: 256",
    )
    parser.add_argument(
        "--bad-images",
        choices=get_args(BadImages),
        default="fail",
        help="damaged images: fail, or skip them (at most 5 %% of the images). Default: fail",
    )
    for name, what in (("image", "the images or their paths"), ("label", "the labels")):
        parser.add_argument(
            f"--{name}-column",
            default="",
            metavar="NAME",
            help=f"column of a table (Parquet, CSV, ...) that holds {what}. Default: automatic",
        )
    parser.add_argument(
        "--white-level", type=float, default=0.0, metavar="X", help="as for pretrain"
    )
    parser.add_argument("--bands", default="auto", metavar="TEXT", help="as for pretrain")


def run(options: argparse.Namespace) -> None:
    """Packs, and says how to use the store."""
    out = options.out
    dataset = stopgrad.pack(
        options.data,
        out,
        side=options.side,
        bad_images=options.bad_images,
        image_column=options.image_column,
        label_column=options.label_column,
        white_level=options.white_level,
        bands=options.bands,
    ).dataset
    pixels = sum(part.pixels.nbytes for part in (dataset.train, dataset.test) if part)
    print_line(f"done: {out}, {pixels / 1e6:,.0f} MB of pixels; use it as --data {quote(str(out))}")
