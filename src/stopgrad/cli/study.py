"""`stopgrad study`: settings compared over several seeds; list, run, status, table."""

from __future__ import annotations

import argparse
import sys
from shlex import quote

import stopgrad
from stopgrad.cli.parser import add_changes, add_command, add_data, add_help_all, add_preset
from stopgrad.cli.screen import print_line, print_table, say
from stopgrad.errors import ConfigError
from stopgrad.storage import user_path

HELP = "compare settings over several seeds, in a table beside published numbers"
EXAMPLE = (
    "stopgrad study run weight-decay --data cifar10 --out studies/mine --preset miniature --seeds 3"
)

FORMS = {None: "markdown", "md": "markdown"}
COMMANDS = {  # what each does, and an example
    "list": (
        "list the built-in studies, or print the file of one",
        "stopgrad study list weight-decay > mine.yaml",
    ),
    "run": ("train and evaluate the runs that a study lacks", EXAMPLE),
    "status": ("show the state of each run", "stopgrad study status studies/mine"),
    "table": (
        "print the results so far beside the published numbers",
        "stopgrad study table studies/mine",
    ),
}

AGAIN = """\
Every knob is a flag (--KNOB VALUE) for all arms. If the command is killed, repeat
it; you can also run it at the same time on another machine with the same files.
Finished runs are not repeated, and only one process works on a run. You may edit
the study's file in between. Changes that need no other runs and no other split are
accepted and reported, and missing scores are computed; other changes are refused.
A study in DIR can be given by its name."""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the four commands."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    names, runs, state, results = (
        add_command(commands, name, help_text, example=example)
        for name, (help_text, example) in COMMANDS.items()
    )
    names.add_argument(
        "name", nargs="?", metavar="NAME", help="print this study's file, as a start for your own"
    )
    names.set_defaults(command=list_all)
    _add_run(runs)
    state.add_argument("directory", type=user_path, metavar="DIR", help="study directory")
    state.set_defaults(command=status)
    results.add_argument("directory", type=user_path, metavar="DIR", help="study directory")
    results.add_argument("--study", metavar="NAME", help="one of the studies in DIR. Default: all")
    results.add_argument(
        "--format",
        choices=("table", "md", "markdown", "csv", "json"),
        help="format of the output. Default: table on a terminal, else md (Markdown)",
    )
    results.set_defaults(command=table)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.epilog = AGAIN
    parser.add_argument("name", metavar="NAME|FILE", help="a built-in study, or a YAML file")
    add_data(parser)
    parser.add_argument(
        "--out",
        required=True,
        type=user_path,
        metavar="DIR",
        help="study directory; may hold several studies",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[5],
        metavar="N",
        help="how many seeds, or a list of seeds (3 3: seed 3 alone). Default: 5 (seeds 0 to 4)",
    )
    add_preset(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at once. Default: one per GPU, or two without a GPU; 16 on a cluster",
    )
    _add_cluster(parser)
    parser.add_argument("--retry", action="store_true", help="repeat runs that failed before")
    add_help_all(parser)
    add_changes(parser)
    parser.set_defaults(command=run)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on",
        choices=("local", "slurm", "ray"),
        default="local",
        help="where to train: processes on this machine, or jobs on a cluster, which continue when "
        "this command is killed. Default: local",
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="sbatch options for each job: partition=gpu gpus=1 time=4:00:00",
    )
    parser.add_argument(
        "--ray-address",
        default="auto",
        metavar="HOST:PORT",
        help="the Ray cluster. Default: the one that this machine belongs to",
    )
    parser.add_argument(
        "--devices",
        dest="devices_of_run",
        type=int,
        default=1,
        metavar="N",
        help="processes per pretraining, all on one node, with --on slurm or ray. Default: 1",
    )


def _slurm_options(words: list[str]) -> dict[str, str]:
    """The options of KEY=VALUE words; ConfigError for another word."""
    for word in words:
        if "=" not in word.strip("="):
            raise ConfigError(f"--slurm {word}", expected="KEY=VALUE, such as partition=gpu")
    return dict(word.lstrip("-").split("=", 1) for word in words)


def run(options: argparse.Namespace) -> None:
    """Runs what is left of a study."""
    seeds = options.seeds
    if len(seeds) > 1 == len({*seeds}):
        seeds = seeds[:1]
    elif len(seeds) == 1:
        seeds = seeds[0]
    stopgrad.study(
        options.name,
        data=options.data,
        out=options.out,
        preset=options.preset,
        seeds=seeds,
        jobs=options.jobs,
        retry=options.retry,
        on=options.on,
        slurm=_slurm_options(options.slurm),
        ray_address=options.ray_address,
        devices=options.devices_of_run,
        **options.changes,
    )
    say(f"see the results with: stopgrad study table {quote(str(options.out))}")


def list_all(options: argparse.Namespace) -> None:
    """Lists the studies with their questions, or prints the file of one."""
    if options.name is not None:
        print_line(stopgrad.study_file(options.name).rstrip("\n"))
        return
    for name in stopgrad.built_in_studies():
        study = stopgrad.read_study(name).study
        split, arms = study.protocol.split, len(study.arms)
        print_line(f"{name:14} {study.question} ({arms} arms, {split} split)")


def status(options: argparse.Namespace) -> None:
    """Prints the state of the runs of each study."""
    for state in stopgrad.Studies(options.directory).states:
        print_table(*state.tables)
        for line in state.lines:
            print_line(line)


def table(options: argparse.Namespace) -> None:
    """Prints the tables of all studies in a directory, or of one."""
    found, form = stopgrad.Studies(options.directory), options.format
    if form == "table" or (form is None and sys.stdout.isatty()):
        print_table(*found.parts(options.study))
    else:
        print_line(found.table(options.study, form=FORMS.get(form, form)))
