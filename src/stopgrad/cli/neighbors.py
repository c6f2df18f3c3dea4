"""`stopgrad neighbors`: the training images nearest to an image, as a table, JSON or PNG.

With --json a line per query: query (its file, or null), class and taken_for (null if unknown),
neighbors (index in the training images, file, class, similarity; the nearest first), protocol.
"""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.parser import add_run
from stopgrad.cli.screen import print_json, say, show
from stopgrad.storage import check_ending, user_path

HELP = "find the training images that are most similar to an image"
EXAMPLE = "stopgrad neighbors runs/mine --query cat.jpg --out cat.png"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --data, --query, --out and --json."""
    add_run(parser)
    parser.add_argument(
        "--query",
        type=user_path,
        nargs="+",
        metavar="FILE",
        help="your own image files. Default: a few images of the run",
    )
    parser.add_argument(
        "--out", type=user_path, metavar="PNG", help="also draw the images into a file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per query")


def run(options: argparse.Namespace) -> None:
    """Prints the neighbours of each query."""
    if options.out is not None:
        check_ending(options.out, ".png")  # before anything is computed
    found = stopgrad.Run(options.run).neighbors(options.query, data=options.data)
    if options.json:
        for row in found.rows:
            print_json(row)
    else:
        show(found)
    if options.out is not None:
        say(f"done: {found.save(options.out)}")
