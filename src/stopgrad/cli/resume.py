"""`stopgrad resume`: go on with a run, or make it longer."""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.parser import add_changes, add_run
from stopgrad.cli.pretrain import say_done

HELP = "go on with a run where it stopped, bit for bit on the same kind of machine"

FREE_TO_CHANGE = """A run goes on as it was begun: another setting, other images or another number
of threads is refused, and every difference is named. Free to change, by --KEY VALUE, is what
changes no bit of training: device (of the same kind), checkpoint_every, knn_every, knn.k,
knn.temperature, measure_every, stop_on_collapse."""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --data and --extend."""
    add_run(parser)
    parser.add_argument(
        "--extend",
        type=int,
        metavar="EPOCHS",
        help="train to this many epochs in all, more than the run had; the learning rates follow "
        "the new length, and the run says so",
    )
    parser.epilog = FREE_TO_CHANGE
    add_changes(parser)


def run(options: argparse.Namespace) -> None:
    """Goes on to the last epoch."""
    found = stopgrad.Run(options.run)
    found.resume(data=options.data, extend=options.extend, **options.changes)
    say_done(found.path)
