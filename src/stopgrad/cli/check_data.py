"""`stopgrad check-data`: what a data set holds, and what pretraining on it will need.

With --json one object: data, name, preset, bad_images, starts, verdict, error; pictures (number of
images in each split); damaged (split, name, reason), tiny, copies (split, name), duplicates (groups
of those), leaked (test, train), odd (a list for each trait); formats, sizes, classes (null without
labels); remarks (how the data were read); unused (groups of files, images, labels or bands that
are not used: what, reason, names); cost and suggestion (null if no step could be taken); packing
(null if no store is needed); extent. If the data set cannot be opened, only data, preset, starts,
verdict and error.
"""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.parser import add_config, add_spec
from stopgrad.cli.screen import print_json, show
from stopgrad.errors import DataError

HELP = "list damaged and odd images, and the time and memory of pretraining"
EXAMPLE = "stopgrad check-data --data images/ --preset cpu"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the data, the knobs and --json."""
    add_spec(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object, with everything that is not used",
    )
    add_config(parser)
    parser.epilog = "Exit code 0: pretraining would start; 2 (knobs) or 3 (data): it would not."


def run(options: argparse.Namespace) -> None:
    """Looks at all images, takes a few steps on them, and prints what was found.

    Raises:
        DataError: When pretraining would not start.
    """
    try:
        found = stopgrad.check(options.data, preset=options.preset, config=options.config)
    except DataError as error:
        if options.json:
            verdict = f"pretraining would be refused: {error.found}"
            spec = stopgrad.Data(options.data).spec
            known = {"data": spec, "preset": options.preset, "starts": False}
            print_json(known | {"verdict": verdict, "error": str(error)})
        raise
    if options.json:
        print_json(found.as_json())
    else:
        show(found)
    if found.outlook.refusal is not None:
        raise found.outlook.refusal
