"""`stopgrad supervised`: the baseline, the same encoder trained from scratch with labels."""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.evaluate import print_record
from stopgrad.cli.parser import add_config, add_data, add_labels
from stopgrad.cli.screen import show
from stopgrad.errors import ConfigError
from stopgrad.storage import user_path

HELP = "train the same encoder from scratch with labels, as a baseline"
EXAMPLE = "stopgrad supervised --data images/ --out runs/mine --preset cpu"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --data, --out, --labels, --json and the knobs."""
    add_data(parser)
    parser.add_argument(
        "--out",
        required=True,
        type=user_path,
        metavar="RUN",
        help="a new directory, or that of a pretraining run on the same images; if it is killed, "
        "repeat the command",
    )
    parser.add_argument("--init", help=argparse.SUPPRESS)  # to name the command that takes it
    add_labels(parser)
    add_config(parser)
    parser.set_defaults(section="supervised")


def run(options: argparse.Namespace) -> None:
    """Trains with each fraction of the labels, and prints the records."""
    if options.init is not None:
        raise ConfigError(
            f"--init {options.init[:200]}: the supervised baseline starts from random weights",
            hint="train a run with labels with: stopgrad finetune RUN; pretrain from other weights "
            "with: stopgrad pretrain --init",
        )
    scores = stopgrad.supervised(
        options.data,
        out=options.out,
        labels=options.labels,
        config=options.config,
        each=print_record if options.json else None,
    )
    if not options.json:
        show(scores)
