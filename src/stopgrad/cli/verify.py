"""`stopgrad verify`: whether every file of a run or of a packed store is whole."""

from __future__ import annotations

import argparse
from pathlib import Path

import stopgrad
from stopgrad.cli.screen import print_json, print_line

HELP = "check every file of a run or a store; exit code 0: all whole, 7 (store: 3): not"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the path and --json."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory or packed store")
    parser.add_argument("--json", action="store_true", help="one JSON object per file")


def run(options: argparse.Namespace) -> None:
    """Prints a line per file: whether it is whole, its name, and what is to be said of it."""
    for finding in stopgrad.verify(options.run):
        if options.json:
            print_json(finding._asdict())
        else:
            note = f": {finding.note}" if finding.note else ""
            print_line(f"{'ok ' if finding.ok else 'BAD'}  {finding.file}{note}")
