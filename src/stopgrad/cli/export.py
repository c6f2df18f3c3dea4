"""`stopgrad export`: writes the encoder of a run for other tools."""

from __future__ import annotations

import argparse
from typing import get_args

import stopgrad
from stopgrad.cli.parser import add_older
from stopgrad.cli.screen import print_line, say
from stopgrad.config import ExportFormat
from stopgrad.storage import user_path

HELP = "write the encoder of a run for other tools"
EXAMPLE = "stopgrad export runs/mine --format onnx --out encoder.onnx"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --format and --out."""
    parser.add_argument("run", type=user_path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--format",
        required=True,
        choices=get_args(ExportFormat),
        help="torchvision or timm: weights for their models; safetensors: weights for any stopgrad "
        "encoder; onnx; hub: a folder with a model card for the Hugging Face Hub",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=user_path,
        metavar="FILE|DIR",
        help="a .safetensors or .onnx file, which gets a JSON card beside it; a new folder for hub",
    )
    add_older(parser)
    parser.epilog = (
        "The file is loaded back and its features are compared with the encoder's, if\n"
        "the other tool is installed."
    )


def run(options: argparse.Namespace) -> None:
    """Writes the encoder, and prints the code that loads it."""
    made = stopgrad.Run(options.run, older=options.older).export(options.format, options.out)
    if made.difference is None:
        say(f"not compared: {options.format} is not installed")
    else:
        rounding = f" up to {made.difference:.1g} of the largest" if made.difference else ""
        say(f"compared: {made.card.get('checked', 'stopgrad')} gives the same features{rounding}")
    say(f"done: {', '.join(str(path) for path in made.files)}; load it with:")
    for line in made.lines:
        print_line(line)
