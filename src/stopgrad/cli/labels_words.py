"""The words of the commands that need labels: `evaluate`, `supervised` and `finetune`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_labels(parser: Any) -> None:
    """Adds --labels and --json."""
    parser.add_argument(
        "--labels",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="SHARE",
        help="shares of the training labels, such as 1 0.1 0.01. Default: 1",
    )
    parser.add_argument("--json", action="store_true", help="one record per line, nothing else")


def add_supervised(parser: Any) -> None:
    """Adds --out, --labels and --json of `supervised`."""
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="RUN",
        help="directory of its own, or that of a pretraining run on the same images; "
        "the same command goes on with what is there",
    )
    parser.add_argument("--init", help=argparse.SUPPRESS)  # taken to say what does that
    add_labels(parser)
    parser.set_defaults(module="supervised")


def add_finetune(parser: Any) -> None:
    """Adds --out, --labels and --json of `finetune`."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="directory for networks and records; needed with --data of other images than the "
        "run's. Default: RUN",
    )
    add_labels(parser)
    parser.set_defaults(module="supervised")
