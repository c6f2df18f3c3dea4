"""`stopgrad bench`: how fast this machine is, as tables or as one JSON object."""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.screen import print_json, show

HELP = "measure how fast this machine trains and evaluates, on random pixels"
EXAMPLE = "stopgrad bench"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --json, --device, --threads, --beside and --quick."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps. Default: auto"
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads. Default: one per core"
    )
    parser.add_argument(
        "--beside",
        type=int,
        default=0,
        metavar="N",
        help="measure steps on the CPU beside N busy programs too, with one thread and with all",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="only check in a few seconds that everything runs; the numbers mean nothing",
    )


def run(options: argparse.Namespace) -> None:
    """Measures everything and prints it."""
    found = stopgrad.bench(
        device=options.device, threads=options.threads, beside=options.beside, quick=options.quick
    )
    if options.json:
        print_json(found.as_json())
    else:
        show(found)
