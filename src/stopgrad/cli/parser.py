"""Arguments -> a command and its options; every knob is a flag by its key path.

Each command's file adds its own options. No torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn, get_args

from stopgrad.cli.guesses import check_command, check_names, unknown_flags, unrecognized
from stopgrad.cli.screen import print_line
from stopgrad.config import PRESETS, Config, config_from_dict, describe_knobs
from stopgrad.errors import ConfigError
from stopgrad.storage import read_yaml, user_path

# In the order of a user's work.
COMMANDS = (
    *("quickstart", "check-data", "advise", "views", "pack", "pretrain", "resume", "evaluate"),
    *(
        "finetune",
        "supervised",
        "compare",
        "report",
        "neighbors",
        "embed",
        "export",
        "verify",
        "bench",
    ),
    *("import-weights", "study"),
)
STUDY_COMMANDS = ("list", "run", "status", "table")

DATA = (
    "images: mnist5k (comes with stopgrad), cifar10, cifar100, hf:OWNER/NAME (Hugging Face Hub), a "
    "folder of images or Parquet files, a .zip or .tar of one, a file of arrays (.npz, .npy, .h5), "
    "WebDataset shards (a folder or 'train-{000..099}.tar'), or a packed store"
)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Leaves room for the longest command before the help of each."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 14


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"see: {self.prog} --help")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command; `options.command` is the function that runs it.

    Knobs come as `options.config`, or as `options.changes` to the config of a run.

    Raises:
        ConfigError: For unknown commands, flags or values.
    """
    parser = _build_parser()
    if {"-h", "--help"} & {*arguments} or [*arguments[:1]] == ["help"]:
        arguments = [*_command_in(arguments), "--help"]  # whatever else is wrong with them
    for words, known in ((arguments[:1], COMMANDS), (arguments[1:2], STUDY_COMMANDS)):
        if words and (known is COMMANDS or arguments[0] == "study"):
            check_command(words[0], known)
    options, rest = parser.parse_known_args(arguments)
    if not hasattr(options, "command"):
        _print_version() if options.version else parser.print_help()
        raise SystemExit(0)
    if not hasattr(options, getattr(options, "required", "command")):
        options.parser.error("the following arguments are required: SPEC")
    check_names(options)
    knobs = getattr(options, "knobs", None)
    if knobs is None and rest:
        raise unrecognized(options.parser, rest)
    if knobs is not None:
        changes = _changes(options, rest)
        if knobs == "config":
            options.config = _config(options, changes)
        else:
            options.changes = changes
    return options


def _command_in(arguments: Sequence[str]) -> list[str]:
    """The command that is named among arguments, in one word or two."""
    found = [word for word in arguments if word in COMMANDS][:1]
    if found == ["study"]:
        found += [word for word in arguments if word in STUDY_COMMANDS][:1]
    return found


def _print_version() -> None:
    from importlib.metadata import version

    print_line(f"stopgrad {version('stopgrad')}")


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="stopgrad",
        description="Learn image representations without labels (SimSiam); know how good they are.",
        epilog="Start with: stopgrad quickstart\nOptions of a command: stopgrad COMMAND --help",
        formatter_class=_Help,
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"stopgrad.cli.{name.replace('-', '_')}")
        command = add_command(commands, name, module.HELP)
        command.set_defaults(command=module.run)
        module.add(command)
    return parser


def add_command(commands: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    """Adds a command, with a description but no options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.set_defaults(parser=parser)
    return parser


def add_run(
    parser: argparse.ArgumentParser, *, data: str = "the run's images, if they have moved"
) -> None:
    """Adds the run, and where its images are."""
    parser.add_argument("run", type=user_path, metavar="RUN", help="run directory")
    parser.add_argument("--data", action="append", metavar="SPEC", help=data)


def add_older(parser: argparse.ArgumentParser) -> None:
    """Adds --older."""
    parser.add_argument(
        "--older",
        action="store_true",
        help="use an older checkpoint of a finished run where the last one is damaged",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds --data, which is required and may be given several times."""
    help_text = f"{DATA}. Given several times: the images of all"
    parser.add_argument("--data", required=True, action="append", metavar="SPEC", help=help_text)


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Adds the data as the first word; --data SPEC, as of other commands, is the same."""
    absent = argparse.SUPPRESS  # neither of the two may put its default over the other's value
    parser.add_argument("data", nargs="*", metavar="SPEC", default=absent, help=DATA)
    parser.add_argument("--data", action="append", metavar="SPEC", default=absent, help=absent)
    parser.set_defaults(required="data")


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Adds --labels and --json."""
    parser.add_argument(
        "--labels",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="FRACTION",
        help="fractions of the training labels to use, such as 1 0.1 0.01. Default: 1",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON record per line")


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Adds --preset."""
    parser.add_argument(
        "--preset",
        default="cifar",
        metavar="NAME",
        help=f"settings to start from: {', '.join(PRESETS)}. Default: cifar, the paper's",
    )


def add_log(parser: argparse.ArgumentParser) -> None:
    """Adds --log."""
    parser.add_argument(
        "--log",
        nargs="+",
        default=[],
        metavar="TRACKER",
        help="mirror metrics, config, verdict and pictures to what is installed of tensorboard "
        "(in RUN/tensorboard), wandb, mlflow and trackio",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds --preset, --config and a flag for each knob; they become `options.config`."""
    add_preset(parser)
    parser.add_argument(
        "--config",
        dest="file",
        type=user_path,
        metavar="YAML",
        help="file of knobs, which change the preset; flags change both",
    )
    begin = "usage: "
    indent = " " * len(f"{begin}{parser.prog} ")
    parser.usage = f"{parser.format_usage().removeprefix(begin)}{indent}[--KNOB VALUE ...]"
    group = parser.add_argument_group("knobs, with the defaults of the preset cifar")
    _add_knobs(group, shown=True)
    parser.set_defaults(knobs="config")


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each knob, hidden from help; they become `options.changes`."""
    _add_knobs(parser, shown=False)
    parser.set_defaults(knobs="changes")


def _add_knobs(parser: Any, *, shown: bool) -> None:
    """Values stay text: the config parses them, in the same way as those of a file."""
    for knob in describe_knobs():
        flag, switch = f"--{knob.key}", knob.kind is bool
        default = str(knob.default).lower() if switch else knob.default
        how: dict[str, Any] = {"nargs": "?", "const": "true"} if switch else {}
        for name in dict.fromkeys((flag, flag.replace("_", "-"))):
            help_text = f"{knob.meaning}. Default: {default}".replace("%", "%%")
            parser.add_argument(
                name,
                dest=knob.key,
                default=argparse.SUPPRESS,
                metavar=_metavar(knob.kind),
                help=help_text if shown and name == flag else argparse.SUPPRESS,
                **how,
            )


def _metavar(kind: Any) -> str:
    if get_args(kind):
        return "|".join(map(str, get_args(kind)))
    return {bool: "true|false", int: "N", float: "X"}.get(kind, "TEXT")


def _changes(options: argparse.Namespace, rest: Sequence[str]) -> dict[str, str]:
    """The knobs that were given, and unknown flags, which the config refuses by name."""
    keys = [knob.key for knob in describe_knobs() if knob.key in vars(options)]
    unknown = unknown_flags(rest, section=getattr(options, "section", ""))
    if unknown and options.knobs == "changes":
        config_from_dict(unknown)
    return {key: vars(options)[key] for key in keys} | unknown


def _config(options: argparse.Namespace, changes: dict[str, str]) -> Config:
    """The preset, changed by the file, then by the flags."""
    from_file = _knobs_of(options.file) if options.file else {}
    return config_from_dict({**from_file, **changes}, preset=options.preset)


def _knobs_of(path: Path) -> dict[str, Any]:
    values = read_yaml(path, expected="a YAML file of knobs")
    if isinstance(values, dict) and "arms" in values:
        raise ConfigError(
            f"{path} is a study",
            expected="lines of KNOB: VALUE",
            hint=f"run it with: stopgrad study run {quote(str(path))} --data SPEC --out DIR",
        )
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds no knobs",
            expected="lines of KNOB: VALUE",
            hint="see: stopgrad pretrain --help",
        )
    return values
