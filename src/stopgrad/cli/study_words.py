"""The words of `stopgrad study`: list, run, status, table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stopgrad.config import PRESETS


def add_study(commands: Any, *, data_help: str) -> None:
    """Adds `study` with its four commands.

    Args:
        commands: The sub-commands of the parser, from `add_subparsers`.
        data_help: What a data set may be.
    """
    parser = _add(commands, "study", "run an investigation over arms and seeds, and read its table")
    studies = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_list(studies)
    _add_run(studies, data_help=data_help)
    _add_status(studies)
    _add_table(studies)


def _add(commands: Any, name: str, help_text: str, *, function: str | None = None) -> Any:
    parser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if function is not None:
        parser.set_defaults(command=function, module="studies", takes_config=False)
    return parser


def _add_list(studies: Any) -> None:
    parser = _add(studies, "list", "name the studies, or show the file of one", function="list_all")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="prints its file, a start for one of your own"
    )


def _add_run(studies: Any, *, data_help: str) -> None:
    parser = _add(studies, "run", "run what is left of a study", function="run_study")
    parser.epilog = (
        "Any knob is a flag (--KEY VALUE) and holds for all arms. Give the same command again\n"
        "after a kill, or at the same time on another machine with the same files: runs that are\n"
        "finished are not repeated, and each run is worked on by one process. A file that was\n"
        "edited meanwhile is refused where other runs would be trained or another split be\n"
        "scored; other changes are taken up and told, and what finished runs lack of the\n"
        "numbers is scored. A study that DIR holds can be named without its file."
    )
    parser.add_argument("name", metavar="NAME|FILE", help="a study by name, or a YAML file")
    parser.add_argument("--data", required=True, metavar="SPEC", help=data_help)
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="may hold several studies"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[5],
        metavar="N",
        help="how many (5: seeds 0 to 4), or which, when there are several numbers. Default: 5",
    )
    parser.add_argument("--preset", default="cifar", metavar="NAME", help=", ".join(PRESETS))
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at once. Default: one per GPU, or two on a machine without",
    )
    parser.add_argument(
        "--retry", action="store_true", help="try again what failed before, whatever the reason"
    )


def _add_status(studies: Any) -> None:
    parser = _add(studies, "status", "say how each run of a directory stands", function="status")
    parser.add_argument("directory", type=Path, metavar="DIR", help="study directory")


def _add_table(studies: Any) -> None:
    parser = _add(
        studies,
        "table",
        "print our numbers beside the published, from the records there are",
        function="table",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="study directory")
    parser.add_argument("--study", metavar="NAME", help="one of its studies. Default: all")
    parser.add_argument(
        "--format", choices=("markdown", "csv", "json"), default="markdown", help="of the output"
    )
