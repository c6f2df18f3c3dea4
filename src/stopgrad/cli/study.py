"""`stopgrad study`: investigations over arms and seeds; list, run, status, table."""

from __future__ import annotations

import argparse
from pathlib import Path

import stopgrad
from stopgrad.cli.parser import add_changes, add_command, add_data, add_preset
from stopgrad.cli.screen import print_line, print_table, say

HELP = "run an investigation over arms and seeds, and read its table"

AGAIN = """\
Any knob is a flag (--KEY VALUE) and holds for all arms. Give the same command again after a
kill, or at the same time on another machine with the same files: runs that are finished are not
repeated, and each run is worked on by one process. A file that was edited meanwhile is refused
where other runs would be trained or another split be scored; other changes are taken up and
reported, and numbers that finished runs lack are scored. A study that DIR holds can be named
without its file."""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the four commands."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    names = add_command(commands, "list", "name the studies, or show the file of one")
    names.add_argument(
        "name", nargs="?", metavar="NAME", help="prints its file, a start for one of your own"
    )
    names.set_defaults(command=list_all)
    _add_run(add_command(commands, "run", "run what is left of a study"))
    state = add_command(commands, "status", "say how each run of a directory stands")
    state.add_argument("directory", type=Path, metavar="DIR", help="study directory")
    state.set_defaults(command=status)
    results = add_command(
        commands, "table", "print our numbers beside the published, from the records there are"
    )
    results.add_argument("directory", type=Path, metavar="DIR", help="study directory")
    results.add_argument("--study", metavar="NAME", help="one of its studies. Default: all")
    results.add_argument(
        "--format", choices=("markdown", "csv", "json"), default="markdown", help="of the output"
    )
    results.set_defaults(command=table)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.epilog = AGAIN
    parser.add_argument("name", metavar="NAME|FILE", help="a study by name, or a YAML file")
    add_data(parser)
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
    add_preset(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at once. Default: one per GPU, or two on a machine without",
    )
    parser.add_argument(
        "--retry", action="store_true", help="try again what failed before, whatever the reason"
    )
    add_changes(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Runs what is left of a study."""
    seeds = options.seeds
    stopgrad.study(
        options.name,
        data=options.data,
        out=options.out,
        preset=options.preset,
        seeds=seeds if len(seeds) > 1 else seeds[0],
        jobs=options.jobs,
        retry=options.retry,
        **options.changes,
    )
    say(f"see the results with: stopgrad study table {options.out}")


def list_all(options: argparse.Namespace) -> None:
    """Names the studies with their questions, or prints the file of one."""
    from stopgrad.studies import built_in_studies, read_study, study_file

    if options.name is not None:
        print_line(study_file(options.name).rstrip("\n"))
        return
    for name in built_in_studies():
        study = read_study(name).study
        split, arms = study.protocol.split, len(study.arms)
        print_line(f"{name:14} {study.question} ({arms} arms, {split} split)")


def status(options: argparse.Namespace) -> None:
    """Prints how the runs of each study stand."""
    for state in stopgrad.Studies(options.directory).states:
        print_table(*state.tables)
        for line in state.lines:
            print_line(line)


def table(options: argparse.Namespace) -> None:
    """Prints the tables of a directory, or that of one of its studies."""
    found = stopgrad.Studies(options.directory)
    print_line(found.table(options.study, form=options.format))
