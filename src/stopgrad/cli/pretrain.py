"""`stopgrad pretrain`: an encoder from images without labels, in a new run directory."""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.devices import add_devices
from stopgrad.cli.parser import add_config, add_data, add_log
from stopgrad.cli.screen import say
from stopgrad.storage import user_path

HELP = "pretrain an encoder on images without labels"
EXAMPLE = "stopgrad pretrain --data images/ --out runs/mine --preset cpu"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --data, --out, --init, --devices, --log and the knobs."""
    add_data(parser)
    parser.add_argument(
        "--out", required=True, type=user_path, metavar="RUN", help="run directory to create"
    )
    parser.add_argument(
        "--init",
        metavar="RUN|FILE|timm:NAME",
        help="start from the weights of a run, a safetensors file or a timm model. Default: "
        "random weights",
    )
    add_devices(parser)
    add_log(parser)
    add_config(parser)


def run(options: argparse.Namespace) -> None:
    """Pretrains, and names the next command."""
    found = stopgrad.pretrain(
        options.data, out=options.out, config=options.config, init=options.init, log=options.log
    )
    say_done(found)


def say_done(run: stopgrad.Run) -> None:
    """Names the next command for a run that has reached its last epoch."""
    say(f"done: {run.path}; {run.next_step}")
