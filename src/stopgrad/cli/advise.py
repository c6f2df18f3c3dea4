"""`stopgrad advise`: short runs within a budget of time -> the command of a long run."""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.parser import add_changes, add_data, add_help_all, add_preset
from stopgrad.cli.screen import say, show
from stopgrad.storage import user_path

HELP = "find a setting for a long run on your images, without labels"
EXAMPLE = "stopgrad advise --data images/ --budget 2h --out advice/"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the data, the budget, the directory and the preset."""
    add_data(parser)
    parser.add_argument(
        "--budget", required=True, metavar="TIME", help="time to spend, such as 2h, 1h30m or 90m"
    )
    parser.add_argument(
        "--out", required=True, type=user_path, metavar="DIR", help="study directory"
    )
    add_preset(parser, default="miniature")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at once. Default: one per GPU, or two without a GPU",
    )
    add_help_all(parser)
    add_changes(parser)
    parser.epilog = (
        "Tries nine settings of learning rate, alpha_h and crop_min in short runs, the best\n"
        "three in longer runs and the best one in the longest, ranked by RankMe of the\n"
        "features. Every knob is a flag (--KNOB VALUE) that changes the preset. If the\n"
        "command is killed, repeat it to continue. DIR/advice.md names the setting, says\n"
        "why and what to expect, and gives the command for the long run."
    )


def run(options: argparse.Namespace) -> None:
    """Runs what is left, and prints the advice."""
    found = stopgrad.advise(
        options.data,
        budget=options.budget,
        out=options.out,
        preset=options.preset,
        jobs=options.jobs,
        **options.changes,
    )
    show(found)
    say(f"written to {options.out / 'advice.md'}")
