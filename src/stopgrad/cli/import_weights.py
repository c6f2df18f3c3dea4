"""`stopgrad import-weights`: weights of another tool, from a file of torch.save to safetensors."""

from __future__ import annotations

import argparse
from shlex import quote

import stopgrad
from stopgrad.cli.screen import say
from stopgrad.storage import user_path

HELP = "turn a .pth file of another tool into weights for --init"
EXAMPLE = "stopgrad import-weights moco.pth --out moco.safetensors"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the file, --out and --prefix."""
    parser.add_argument(
        "file", type=user_path, metavar="FILE", help="a file that torch.save wrote: .pth, .ckpt"
    )
    parser.add_argument(
        "--out", required=True, type=user_path, metavar="FILE", help="a .safetensors file to write"
    )
    parser.add_argument(
        "--prefix",
        default="",
        metavar="NAME",
        help="take only tensors whose names begin with NAME, such as teacher.backbone., and "
        "remove it from the names",
    )
    parser.epilog = (
        "No code in FILE is run. Only its tensors are read, in a process with limited memory."
    )


def run(options: argparse.Namespace) -> None:
    """Writes the file, and says how to use it."""
    made = stopgrad.import_weights(options.file, out=options.out, prefix=options.prefix)
    if made.left_out:
        say(f"left out: {', '.join(made.left_out[:8])}")
    say(
        f"done: {options.out}, {made.tensors} tensors; start from them with: stopgrad pretrain "
        f"--init {quote(str(options.out))}"
    )
