"""`stopgrad supervised`: the baseline, the same encoder trained from scratch with labels."""

from __future__ import annotations

import argparse
from pathlib import Path

import stopgrad
from stopgrad.cli.evaluate import print_record
from stopgrad.cli.parser import add_config, add_data, add_labels
from stopgrad.cli.screen import show
from stopgrad.errors import ConfigError

HELP = "train the same encoder from scratch with labels: the baseline"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --data, --out, --labels, --json and the knobs."""
    add_data(parser)
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="RUN",
        help="directory of its own, or that of a pretraining run on the same images; "
        "the same command goes on with what is there",
    )
    parser.add_argument("--init", help=argparse.SUPPRESS)  # taken to say which command does that
    add_labels(parser)
    add_config(parser)


def run(options: argparse.Namespace) -> None:
    """Trains with one fraction of the labels after the other, and prints the records."""
    if options.init is not None:
        raise ConfigError(
            f"supervised --init {options.init[:200]}",
            expected="the baseline from scratch, which starts from random weights",
            hint="train a run on with labels by: stopgrad finetune RUN; weights of others become "
            "a run by: stopgrad pretrain --init",
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
