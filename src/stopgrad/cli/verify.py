"""`stopgrad verify`: whether a file of a run or of a packed store is damaged."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import stopgrad
from stopgrad.cli.screen import print_json, print_line
from stopgrad.storage import user_path

if TYPE_CHECKING:
    from stopgrad.storage import Finding

HELP = "check every file of a run or a packed store for damage"
EXAMPLE = "stopgrad verify runs/mine"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the path and --json."""
    parser.add_argument("run", type=user_path, metavar="RUN", help="run directory or packed store")
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")
    parser.epilog = "Exit code 0: no damage; 7: a damaged run; 3: a damaged store."


def run(options: argparse.Namespace) -> None:
    """Prints a line per file: ok or BAD, its name and a note."""
    stopgrad.verify(options.run, each=_print_json if options.json else _print_finding)


def _print_json(finding: Finding) -> None:
    print_json(finding._asdict())


def _print_finding(finding: Finding) -> None:
    note = f": {finding.note}" if finding.note else ""
    print_line(f"{'ok ' if finding.ok else 'BAD'}  {finding.file}{note}")
