"""`stopgrad report`: a page, a poster and figures about runs and studies."""

from __future__ import annotations

import argparse

import stopgrad
from stopgrad.cli.screen import print_line
from stopgrad.errors import ConfigError
from stopgrad.storage import user_path

HELP = "write a page, a poster and figures about runs or studies"
EXAMPLE = "stopgrad report runs/mine --poster poster.pdf"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the directories and the files to write."""
    parser.add_argument(
        "directories", type=user_path, nargs="+", metavar="DIR", help="run or study directories"
    )
    parser.add_argument(
        "--data", action="append", metavar="SPEC", help="the run's images, if they have moved"
    )
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="HTML",
        help="page to write. Default: DIR/report.html, or ./report.html for several DIR",
    )
    parser.add_argument(
        "--pictures",
        nargs="?",
        const="",
        metavar="ARM",
        help="for a study: also show views, neighbours, a map and mistakes of a run of this arm. "
        "Default arm: the chosen one, or the baseline",
    )
    parser.add_argument(
        "--poster",
        type=user_path,
        metavar="PDF",
        help="also write a poster; needs: pip install 'stopgrad[pdf]'",
    )
    parser.add_argument(
        "--title", default="", help="of the poster. Default: the question of the study"
    )
    parser.add_argument("--authors", default="", help="of the poster")
    parser.add_argument("--affiliation", default="", help="of the poster's authors")
    parser.add_argument(
        "--repository", default="", metavar="URL", help="for a QR code on the poster"
    )
    parser.add_argument(
        "--size", choices=("A1", "A0"), default="A1", help="of the poster. Default: A1"
    )
    parser.add_argument(
        "--figures", type=user_path, metavar="FOLDER", help="also write each figure as SVG and PNG"
    )


def run(options: argparse.Namespace) -> None:
    """Writes the files, and prints their paths."""
    asked = stopgrad.Heading(
        options.title, options.authors, options.affiliation, options.repository, options.size
    )
    if options.poster is None and asked != stopgrad.Heading():
        raise ConfigError(
            "--title, --authors, --affiliation, --repository or --size without a poster",
            expected="--poster FILE.pdf beside them",
        )
    written = stopgrad.write_report(
        options.directories,
        out=options.out,
        data=options.data,
        arm=options.pictures,
        poster=options.poster,
        heading=asked if options.poster else None,
        figures=options.figures,
    )
    print_line(f"report: {written.page}")
    if written.poster:
        print_line(f"poster: {written.poster}")
    if options.figures:
        print_line(f"figures: {len(written.figures)} files in {options.figures}")
