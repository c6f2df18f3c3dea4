"""The words of `stopgrad neighbors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def add_neighbors(parser: Any) -> None:
    """Adds --query, --out and --json."""
    parser.add_argument(
        "--query",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="pictures of your own. Default: examples of the run's images, chosen by rule",
    )
    parser.add_argument("--out", type=Path, metavar="PNG", help="picture to write")
    parser.add_argument("--json", action="store_true", help="one JSON object per query")
    parser.set_defaults(module="neighbors")
