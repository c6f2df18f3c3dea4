"""`stopgrad compare`: runs ranked without labels, and what labels say of that."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

import stopgrad
from stopgrad.cli.parser import DATA
from stopgrad.cli.screen import print_json, print_line, print_table
from stopgrad.config import LabelFreeName, Layer

HELP = "rank runs without labels"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the runs and how they are measured."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--data",
        metavar="SPEC",
        help=f"images to measure on. Default: those the runs learned from. {DATA}",
    )
    parser.add_argument(
        "--by",
        choices=get_args(LabelFreeName),
        default="lidar",
        help="measure that orders the runs. Default: lidar",
    )
    parser.add_argument(
        "--layer",
        choices=get_args(Layer),
        default="features",
        help="what is measured: features (which kNN and the probe see, the default) or z",
    )
    parser.add_argument(
        "--no-scores",
        dest="score",
        action="store_false",
        help="take kNN and probe from the records alone, and score nothing that is missing",
    )
    parser.add_argument("--json", action="store_true", help="a JSON object per line, nothing else")
    parser.epilog = (
        "Every measure is taken without labels, from the same views of the same images for all\n"
        "runs; higher is better. Where kNN and the linear probe are in the runs' records, or the\n"
        "images have labels, Kendall's tau says how well each order agrees with theirs. Nothing\n"
        "is written into a run."
    )


def run(options: argparse.Namespace) -> None:
    """Prints the runs, best first, the agreements, and what to make of them."""
    from stopgrad.report import as_lines

    found = stopgrad.compare(
        options.runs, data=options.data, by=options.by, layer=options.layer, score=options.score
    )
    if options.json:
        notes = ({"kind": "note", "note": note} for note in found.found.notes)
        for line in (*found.rows, *found.agreements, *notes):
            print_json(line)
        return
    for table in found.tables:
        if sys.stdout.isatty():
            print_table(table)
        else:
            print_line("\n".join([*as_lines(table), ""]))
    print_table(*found.lines)
