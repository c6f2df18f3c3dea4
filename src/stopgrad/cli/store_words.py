"""The words of `stopgrad pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from stopgrad.config import BadImages


def add_packing(parser: Any) -> None:
    """Where the store goes, and what its pictures are like."""
    parser.add_argument(
        "--out", required=True, type=Path, metavar="STORE", help="folder to write, or to go on with"
    )
    parser.add_argument(
        "--side",
        type=int,
        default=256,
        metavar="PX",
        help="side of the stored pictures, centred squares resized by their short side; 8/7 of "
        "views.size is usual. Default: 256",
    )
    parser.add_argument(
        "--bad-images",
        choices=get_args(BadImages),
        default="fail",
        help="damaged pictures: fail, or skip (left out, at most 5 %% of the pictures). "
        "Default: fail",
    )
