"""`stopgrad export`: writes the encoder of a run for other tools."""

from __future__ import annotations

import argparse
from typing import get_args

import stopgrad
from stopgrad.cli.parser import add_older
from stopgrad.cli.screen import print_line, say
from stopgrad.config import ExportFormat
from stopgrad.errors import ConfigError
from stopgrad.storage import user_path

HELP = "write the encoder of a run for other tools"
EXAMPLE = "stopgrad export runs/mine --format onnx --out encoder.onnx"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the run, --format, --out and --push."""
    parser.add_argument("run", type=user_path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--format",
        choices=get_args(ExportFormat),
        help="torchvision or timm: weights for their models; safetensors: weights for any stopgrad "
        "encoder; onnx; hub: a folder with a model card for the Hugging Face Hub (default with "
        "--push)",
    )
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="FILE|DIR",
        help="a .safetensors or .onnx file, which gets a JSON card beside it; a new folder for hub "
        "(default with --push: NAME)",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="upload the folder for hub to this model of the Hub (first: hf auth login)",
    )
    add_older(parser)
    parser.epilog = (
        "The file is loaded back and its features are compared with the encoder's, if\n"
        "the other tool is installed."
    )


def run(options: argparse.Namespace) -> None:
    """Writes the encoder, and prints the code that loads it."""
    push = options.push
    if push is None and None in (options.format, options.out):
        missing = "--out" if options.format else "--format"
        raise ConfigError(f"no {missing}", expected="--format and --out, or --push OWNER/NAME")
    name: ExportFormat = options.format or "hub"
    out = options.out or user_path(push.rpartition("/")[2])
    made = stopgrad.Run(options.run, older=options.older).export(name, out, push=push)
    if made.difference is None:
        say(f"not compared: {name} is not installed")
    else:
        rounding = f" up to {made.difference:.1g} of the largest" if made.difference else ""
        say(f"compared: {made.card.get('checked', 'stopgrad')} gives the same features{rounding}")
    say(f"done: {', '.join(str(path) for path in made.files)}; load it with:")
    for line in made.lines:
        print_line(line)
