"""The words about weights that come and features and weights that go: --init, embed, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

EMBED = "write the features of pictures to a table or a matrix"
EXPORT = "write a run's encoder for other tools, checked in them"
FORMATS = ("torchvision", "timm", "safetensors", "onnx", "hub")


def add_init(parser: Any) -> None:
    """Adds --init."""
    parser.add_argument(
        "--init",
        metavar="RUN|FILE|timm:NAME",
        help="weights that the encoder starts from: those of a run, of a safetensors file or of "
        "timm. Default: random",
    )


def add_embed(parser: Any, *, data_help: str) -> None:
    """Adds the run, --data, --out, --bad-images and --layer of `embed`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--data", metavar="SPEC", help=f"{data_help}. Default: the run's own")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FILE",
        help=".parquet or .csv: a row per picture with path, split, label and features; .npy: the "
        "features alone, with the rows in a .csv beside it. The same command goes on after a kill",
    )
    parser.add_argument(
        "--bad-images",
        choices=("fail", "skip"),
        help="what to do with damaged pictures. Default: as the run did",
    )
    parser.add_argument(
        "--layer",
        choices=("features", "z"),
        default="features",
        help="the encoder's output, or the projector's. Default: features",
    )
    parser.set_defaults(module="weights")


def add_export(parser: Any) -> None:
    """Adds the run, --format and --out of `export`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="torchvision, timm: weights that their models load strictly; safetensors: the "
        "weights by stopgrad's names; onnx; hub: a folder with a model card",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FILE|DIR",
        help="a .safetensors or .onnx file, with a card beside it; a new folder for hub",
    )
    parser.set_defaults(module="weights", command="export")
