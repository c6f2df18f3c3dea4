"""`stopgrad export`: a run's encoder for other tools, checked in them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import stopgrad
from stopgrad.cli.screen import print_line, say
from stopgrad.config import ExportFormat

HELP = "write a run's encoder for other tools, checked in them"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --format and --out."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--format",
        required=True,
        choices=get_args(ExportFormat),
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


def run(options: argparse.Namespace) -> None:
    """Writes the encoder, and says how to load it there."""
    made = stopgrad.Run(options.run).export(options.format, options.out)
    if made.difference is None:
        say(f"not compared: {options.format} is not installed")
    else:
        but = f" but for {made.difference:.1g} of the largest" if made.difference else ""
        say(f"compared: {made.card.get('checked', 'stopgrad')} gives the same features{but}")
    say(f"done: {', '.join(str(path) for path in made.files)}; load it with:")
    for line in made.lines:
        print_line(line)
