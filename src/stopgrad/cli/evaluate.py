"""`stopgrad evaluate`: scores a run and two baselines, and keeps the records in the run."""

from __future__ import annotations

import argparse
import sys

import stopgrad
from stopgrad.cli.parser import add_labels, add_older, add_run
from stopgrad.cli.screen import print_line, show
from stopgrad.evaluation import FROZEN, MEASURES, Record, to_line
from stopgrad.storage import user_path

HELP = "score a run by kNN and linear probes, beside two baselines"
EXAMPLE = "stopgrad evaluate runs/mine --labels 1 0.1 0.01"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --data, --labels, --json and what to score."""
    add_run(
        parser,
        data="where the run's images are now, or other labelled images to score the encoder on",
    )
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="DIR",
        help="directory for the records. Default: the run; for other images a folder in "
        "RUN/elsewhere",
    )
    add_older(parser)
    add_labels(parser)
    parser.add_argument(
        "--split",
        default="auto",
        metavar="NAME",
        help="images to score: test, validation (those that the run holds out, else the data's "
        "own), or the name of another split in the data. Default: auto, the first of test and "
        "validation with labels",
    )
    subjects = ("encoder", "untrained", "pixels")
    parser.add_argument(
        "--of",
        nargs="+",
        choices=subjects,
        default=subjects,
        metavar="SUBJECT",
        help="what to score: encoder, untrained (the same encoder before training), pixels (the "
        "raw images). Default: all three",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=(*FROZEN, *MEASURES),
        default=FROZEN,
        metavar="METRIC",
        help=f"what to compute: {', '.join(FROZEN)} (the default), or the measures of collapse of "
        f"z: {', '.join(MEASURES)}",
    )
    parser.add_argument(
        "--missing", action="store_true", help="skip scores that are already recorded"
    )


def run(options: argparse.Namespace) -> None:
    """Scores the run and prints its records."""
    scores = stopgrad.Run(options.run, older=options.older).evaluate(
        options.labels,
        data=options.data,
        out=options.out,
        split=options.split,
        of=options.of,
        metrics=options.metrics,
        missing=options.missing,
        each=print_record if options.json else None,
    )
    if options.missing and not scores:
        sys.stderr.write("stopgrad: nothing is missing; the scores are in records.jsonl\n")
    if not options.json:
        show(scores)


def print_record(record: Record) -> None:
    """Prints a record as in records.jsonl."""
    print_line(to_line(record))
