"""The words that say which numbers `stopgrad evaluate` gives."""

from __future__ import annotations

from typing import Any

from stopgrad.evaluation import FROZEN, MEASURES


def add_selection(parser: Any) -> None:
    """Adds --split, --of, --metrics and --missing."""
    parser.add_argument(
        "--split",
        choices=("auto", "test", "validation"),
        default="auto",
        help="images to score. Default: the test split, where the data have one",
    )
    subjects = ("encoder", "untrained", "pixels")
    parser.add_argument(
        "--of", nargs="+", choices=subjects, default=subjects, help="subjects. Default: all"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=(*FROZEN, *MEASURES),
        default=FROZEN,
        metavar="METRIC",
        help=f"numbers, of {', '.join(FROZEN)} (the default) and measures of collapse of z: "
        f"{', '.join(MEASURES)}",
    )
    parser.add_argument("--missing", action="store_true", help="leave out what is recorded already")
