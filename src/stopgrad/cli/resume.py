"""`stopgrad resume`: continue a run, or make it longer."""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.devices import add_devices
from stopgrad.cli.parser import add_changes, add_log, add_run
from stopgrad.cli.pretrain import say_done

HELP = "continue a run where it stopped, or train it for more epochs"
EXAMPLE = "stopgrad resume runs/mine"

FREE_TO_CHANGE = """\
On the same kind of machine the result is bit for bit the same as without the
interruption. Other images, settings or numbers of threads are refused, and every
difference is named. Only knobs that do not affect training can be changed, with
--KNOB VALUE: device (of the same kind), checkpoint_every, knn_every, knn.k,
knn.temperature, measure_every, process_timeout, stop_on_collapse."""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --data and --extend."""
    add_run(parser)
    parser.add_argument(
        "--extend",
        type=int,
        metavar="EPOCHS",
        help="train to this many epochs in total; the learning rates follow the new length, which "
        "the run records",
    )
    add_devices(parser)
    add_log(parser)
    parser.epilog = FREE_TO_CHANGE
    add_changes(parser)


def run(options: argparse.Namespace) -> None:
    """Continues to the last epoch."""
    found = stopgrad.Run(options.run)
    found.resume(data=options.data, extend=options.extend, log=options.log, **options.changes)
    say_done(found)
