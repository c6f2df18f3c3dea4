"""`stopgrad report`: a page, a poster and figures of runs and studies."""

from __future__ import annotations

import argparse
from pathlib import Path

import stopgrad
from stopgrad.cli.screen import print_line

HELP = "write a page, a poster and figures of runs and studies"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the directories and the files to write."""
    parser.add_argument(
        "directories", type=Path, nargs="+", metavar="DIR", help="runs, or directories of studies"
    )
    parser.add_argument(
        "--data", metavar="SPEC", help="where a run's images are now, if they moved"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="HTML",
        help="page to write. Default: DIR/report.html, or report.html here for several",
    )
    parser.add_argument(
        "--pictures",
        nargs="?",
        const="",
        metavar="ARM",
        help="of a study: also views, neighbours, map and mistakes of one run. "
        "Default: of the arm that was chosen, or the baseline",
    )
    parser.add_argument("--poster", type=Path, metavar="PDF", help="also a poster, A1, one page")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="also each as SVG and PNG")


def run(options: argparse.Namespace) -> None:
    """Writes what was asked for, and says where."""
    written = stopgrad.write_report(
        options.directories,
        out=options.out,
        data=options.data,
        arm=options.pictures,
        poster=options.poster,
        figures=options.figures,
    )
    print_line(f"report: {written.page}")
    if written.poster:
        print_line(f"poster: {written.poster}")
    if options.figures:
        print_line(f"figures: {len(written.figures)} files in {options.figures}")
