"""`stopgrad finetune`: the encoder of a run, trained on with labels."""

from __future__ import annotations

import argparse
from pathlib import Path

import stopgrad
from stopgrad.cli.evaluate import print_record
from stopgrad.cli.parser import add_changes, add_labels, add_run
from stopgrad.cli.screen import show

HELP = "train a run's encoder on with labels (and --finetune.KNOB VALUE)"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --data, --out, --labels and --json."""
    add_run(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="directory for networks and records; needed with --data of other images than the "
        "run's. Default: RUN",
    )
    add_labels(parser)
    add_changes(parser)


def run(options: argparse.Namespace) -> None:
    """Trains with one fraction of the labels after the other, and prints the records."""
    scores = stopgrad.Run(options.run).finetune(
        options.labels,
        data=options.data,
        out=options.out,
        each=print_record if options.json else None,
        **options.changes,
    )
    if not options.json:
        show(scores)
