"""The words of `stopgrad compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MEASURES = (
    *("lidar", "rankme", "effective_rank", "participation_ratio"),
    "positive_minus_random",
)
"""The fields of `stopgrad.evaluation.compare.LabelFree`, named here so that help takes no torch."""


def add_compare(parser: Any, *, data_help: str) -> None:
    """Adds the runs and the options to the parser of `compare`."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--data",
        metavar="SPEC",
        help=f"images to measure on. Default: those the runs learned from. {data_help}",
    )
    parser.add_argument(
        "--by", choices=MEASURES, default="lidar", help="measure that orders the runs"
    )
    parser.add_argument(
        "--layer",
        choices=("features", "z"),
        default="features",
        help="what is measured: features (which kNN and the probe see, the default) or z",
    )
    parser.add_argument(
        "--no-scores",
        dest="score",
        action="store_false",
        help="take kNN and probe from the records alone, and score nothing that is missing",
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line, nothing else")
    parser.epilog = (
        "Every measure is taken without labels, from the same views of the same images for all\n"
        "runs; higher is held to be better. Where kNN and the linear probe are in the runs'\n"
        "records, or the data have labels, Kendall's tau says how well each order agrees with\n"
        "theirs. Nothing is written into a run."
    )
    parser.set_defaults(module="compare", command="compare")
