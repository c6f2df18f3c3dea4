"""`stopgrad finetune`: trains the encoder of a run with labels."""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.evaluate import print_record
from stopgrad.cli.parser import add_changes, add_labels, add_run
from stopgrad.cli.screen import show
from stopgrad.storage import user_path

HELP = "train the encoder of a run with labels"
EXAMPLE = "stopgrad finetune runs/mine --labels 1 0.1 0.01"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --data, --out, --labels and --json."""
    add_run(parser)
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="DIR",
        help="directory for networks and records; required if --data names other images than the "
        "run's. Default: RUN",
    )
    add_labels(parser)
    parser.epilog = (
        "The knobs finetune.* are flags as well, such as --finetune.epochs 20; see them\n"
        "with: stopgrad pretrain --help-all. If it is killed, repeat the command."
    )
    add_changes(parser)
    parser.set_defaults(section="finetune")


def run(options: argparse.Namespace) -> None:
    """Trains with each fraction of the labels, and prints the records."""
    scores = stopgrad.Run(options.run).finetune(
        options.labels,
        data=options.data,
        out=options.out,
        each=print_record if options.json else None,
        **options.changes,
    )
    if not options.json:
        show(scores)
