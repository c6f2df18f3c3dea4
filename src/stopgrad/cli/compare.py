"""`stopgrad compare`: ranks runs without labels, and compares that with labels if there are any."""

from __future__ import annotations

import argparse
import sys
from typing import get_args

import stopgrad
from stopgrad.cli.parser import DATA
from stopgrad.cli.screen import print_json, print_line, show
from stopgrad.config import RANKED_BY, LabelFreeName, Layer
from stopgrad.storage import user_path

HELP = "rank runs without labels"
EXAMPLE = "stopgrad compare runs/one runs/two"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the runs and how they are measured."""
    parser.add_argument("runs", nargs="+", type=user_path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--data",
        action="append",
        metavar="SPEC",
        help=f"{DATA}. Default: the images of the runs",
    )
    parser.add_argument(
        "--by",
        choices=get_args(LabelFreeName),
        default=RANKED_BY,
        metavar="MEASURE",
        help=f"measure to sort by: {', '.join(get_args(LabelFreeName))}. Default: {RANKED_BY}",
    )
    parser.add_argument(
        "--layer",
        choices=get_args(Layer),
        default="features",
        help="what to measure: the encoder's features or the projector's z. Default: features",
    )
    parser.add_argument(
        "--no-scores",
        dest="score",
        action="store_false",
        help="use only the scores in the records, and compute no new ones",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.epilog = (
        "The measures need no labels and use the same views of the same images for all\n"
        "runs; higher is better. If the runs have records of kNN and linear probe, or\n"
        "the images have labels, Kendall's tau says how well each measure's order of the\n"
        "runs agrees with that of the scores. Nothing is written into a run.\n\n"
        "How far to trust the default: on CIFAR-10 (24 runs: 12 settings of one N, two seeds)\n"
        "the tau of RankMe is +0.75 (95 %: 0.51 to 0.89) with kNN and +0.75 (0.45 to 0.90)\n"
        "with the linear probe. There, with a wider network, on Fashion-MNIST and on photos of\n"
        "flowers (tau with kNN +0.22 to +0.85) the run that it ranked first was at most 0.3\n"
        "points below the best; no other of these measures chose as well in all of them.\n"
        "Between runs of different N the order may be reversed: a network that has hardly\n"
        "begun to learn ranks high, with low retrieval."
    )


def run(options: argparse.Namespace) -> None:
    """Prints the runs, best first, the agreement with labels, and a conclusion."""
    found = stopgrad.compare(
        options.runs, data=options.data, by=options.by, layer=options.layer, score=options.score
    )
    if options.json:
        notes = ({"kind": "note", "note": note} for note in found.found.notes)
        for line in (*found.rows, *found.agreements, *notes):
            print_json(line)
        return
    if sys.stdout.isatty():
        show(found)
    else:
        print_line(found.for_a_pipe())
