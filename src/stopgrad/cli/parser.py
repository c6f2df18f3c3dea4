"""Arguments -> a command and its options; every knob is a flag by its key path.

Each command's file adds its own options. No torch.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn, get_args

import stopgrad
from stopgrad.cli.guesses import (
    check_command,
    check_data_named,
    check_names,
    unknown_flags,
    unrecognized,
)
from stopgrad.cli.screen import print_line
from stopgrad.config import (
    PRESET_WORDS,
    PRESETS,
    PresetName,
    config_from_dict,
    describe_knobs,
    key_paths,
    knob_values,
)
from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.storage import read_yaml, user_path

# In the order of a user's work.
COMMANDS = (
    *("quickstart", "check-data", "advise", "views", "pack", "pretrain", "resume", "evaluate"),
    *("finetune", "supervised", "compare", "report", "neighbors", "embed", "export", "verify"),
    *("bench", "import-weights", "study", "completion"),
)
HELP_ALL = "--help-all"
KNOBS = "knobs, with the defaults of the preset cifar"
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
    """An argparse parser that raises our errors: one line, exit code 2."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuses a value that is none of the choices, with the one that is meant."""
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            said = f"invalid choice: {value!r}{did_you_mean(str(value), names)}"
            raise argparse.ArgumentError(action, f"{said} (choose from {', '.join(names)})")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"see: {self.prog} --help")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command; `options.command` is the function that runs it.

    Knobs come as `options.config`, or as `options.changes` to the config of a run.

    Raises:
        ConfigError: For unknown commands, flags or values.
    """
    all_knobs = HELP_ALL in arguments
    if {"-h", "--help", HELP_ALL} & {*arguments} or [*arguments[:1]] == ["help"]:
        if [*arguments[:1]] == ["help"] and len(arguments) > 1:
            check_command(arguments[1], COMMANDS)
        arguments = [*_command_in(arguments), "--help"]  # whatever else is wrong with them
    named = [word for word in arguments[:1] if word in COMMANDS]
    parser = build_parser(named or COMMANDS, all_knobs=all_knobs)
    for words, known in ((arguments[:1], COMMANDS), (arguments[1:2], STUDY_COMMANDS)):
        if words and (known is COMMANDS or arguments[0] == "study"):
            check_command(words[0], known)
    if "--show-config" in arguments:
        _require_nothing(parser)
    try:
        options, rest = parser.parse_known_args(arguments)
    except ConfigError:
        check_data_named(arguments)
        raise
    if not hasattr(options, "command"):
        _print_version() if options.version else parser.print_help()
        raise SystemExit(0)
    shows = getattr(options, "show_config", False)
    if not shows and not hasattr(options, getattr(options, "required", "command")):
        options.parser.error("the following arguments are required: SPEC")
    check_names(options)
    knobs = getattr(options, "knobs", None)
    if knobs is None and rest:
        raise unrecognized(options.parser, rest)
    if knobs is not None:
        changes = _changes(options, rest)
        if knobs == "config":
            from_file = _knobs_of_file(options.file) if options.file else {}
            options.config = config_from_dict({**from_file, **changes}, preset=options.preset)
            if shows:
                _print_config(options, from_file, changes)
                raise SystemExit(0)
        else:
            options.changes = changes
    return options


def _command_in(arguments: Sequence[str]) -> list[str]:
    """The command named in the arguments, as one word or two."""
    found = [word for word in arguments if word in COMMANDS][:1]
    if found == ["study"]:
        found += [word for word in arguments if word in STUDY_COMMANDS][:1]
    return found


def _print_version() -> None:
    print_line(f"stopgrad {stopgrad.__version__}")


def build_parser(
    names: Sequence[str] = COMMANDS, *, all_knobs: bool = False
) -> argparse.ArgumentParser:
    """The parser of commands; `all_knobs` tells whether their help lists every knob."""
    parser = _Parser(
        prog="stopgrad",
        description="Learn image representations without labels (SimSiam); know how good they are.",
        epilog="Start with: stopgrad quickstart\nOptions of a command: stopgrad help COMMAND",
        formatter_class=_Help,
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in names:
        module = import_module(f"stopgrad.cli.{name.replace('-', '_')}")
        command = add_command(commands, name, module.HELP, example=module.EXAMPLE)
        command.set_defaults(command=module.run)
        module.add(command)
    if all_knobs:
        for command in commands_of(parser):
            _list_knobs(command)
    return parser


def commands_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands below one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from commands_of(command)


def add_command(
    commands: Any, name: str, help_text: str, *, example: str
) -> argparse.ArgumentParser:
    """Adds a command, with a description and an example but no options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}, such as\n\n  {example}",
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
        help="if the last checkpoint of a finished run is damaged, use an older one",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds --data, which is required and may be given several times."""
    help_text = f"{DATA}. Repeat it to use several data sets together"
    parser.add_argument("--data", required=True, action="append", metavar="SPEC", help=help_text)


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Adds --data, as other commands have it; the data may also be named without the flag."""
    absent = argparse.SUPPRESS  # so that neither default overwrites the other's value
    how: dict[str, Any] = {"metavar": "SPEC", "default": absent}
    parser.add_argument("data", nargs="*", action="extend", help=absent, **how)
    parser.add_argument("--data", action="append", help=DATA, **how)
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


def add_preset(parser: argparse.ArgumentParser, *, default: PresetName = "cifar") -> None:
    """Adds --preset, and a description of each preset."""
    help_text = f"settings to start from, see below. Default: {default}"
    parser.add_argument("--preset", default=default, metavar="NAME", help=help_text)
    words = [
        textwrap.fill(f"{name:10}{text}", 78, subsequent_indent=" " * 10)
        for name, text in PRESET_WORDS.items()
    ]
    parser.add_argument_group("presets", "\n".join(words))


def add_log(parser: argparse.ArgumentParser) -> None:
    """Adds --log."""
    parser.add_argument(
        "--log",
        nargs="+",
        default=[],
        metavar="TRACKER",
        help="mirror metrics, config, verdict and images to these trackers, each of which must be "
        "installed: tensorboard (in RUN/tensorboard), wandb, mlflow, trackio",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds --preset, --config, --show-config and the knobs, which become `options.config`."""
    add_preset(parser)
    parser.add_argument(
        "--config",
        dest="file",
        type=user_path,
        metavar="RUN|FILE",
        help="a run, its config.json or a YAML file, whose knobs change the preset; flags change "
        "both",
    )
    parser.add_argument(
        "--show-config",
        action="store_true",
        help="print every knob as YAML, say where its value comes from, and exit",
    )
    add_help_all(parser)
    begin = "usage: "
    indent = " " * len(f"{begin}{parser.prog} ")
    parser.usage = f"{parser.format_usage().removeprefix(begin)}{indent}[--KNOB VALUE ...]"
    _add_knobs(parser)
    parser.set_defaults(knobs="config")


def add_help_all(parser: argparse.ArgumentParser) -> None:
    """Adds --help-all, which lists the knobs."""
    help_text = "also list every knob, each a flag such as --epochs 20"
    parser.add_argument(HELP_ALL, action="store_true", help=help_text)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each knob; they become `options.changes`."""
    _add_knobs(parser)
    parser.set_defaults(knobs="changes")


def _add_knobs(parser: argparse.ArgumentParser) -> None:
    """Values stay text: the config parses them, in the same way as those of a file."""
    group = parser.add_argument_group(KNOBS)
    for knob in describe_knobs():
        how: dict[str, Any] = {"nargs": "?", "const": "true"} if knob.kind is bool else {}
        for name in dict.fromkeys((f"--{knob.key}", f"--{knob.key}".replace("_", "-"))):
            group.add_argument(
                name,
                dest=knob.key,
                default=argparse.SUPPRESS,
                metavar=_metavar(knob.kind),
                help=argparse.SUPPRESS,
                **how,
            )


def _list_knobs(parser: argparse.ArgumentParser) -> None:
    """Lists every knob in the help of a command that has --help-all."""
    knobs = {f"--{knob.key}": knob for knob in describe_knobs()}
    if HELP_ALL in parser._option_string_actions:
        for action in parser._actions:
            if (flag := "".join(action.option_strings)) in knobs:
                knob = knobs[flag]
                default = str(knob.default).lower() if knob.kind is bool else knob.default
                action.help = f"{knob.meaning}. Default: {default}".replace("%", "%%")


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


def _require_nothing(parser: argparse.ArgumentParser) -> None:
    for command in commands_of(parser):
        for action in command._actions:
            action.required = action.required and not action.option_strings


def _print_config(
    options: argparse.Namespace, from_file: Mapping[str, Any], changes: Mapping[str, str]
) -> None:
    """Prints every knob as a line of YAML, followed by the source of its value."""
    preset = PRESETS.get(options.preset, {})
    for key, value in knob_values(options.config).items():
        source = f"preset {options.preset}" if key in preset else "default"
        source = str(options.file) if key in from_file else source
        source = "flag" if key in changes else source
        print_line(f"{f'{key}: {json.dumps(value)}':42}  # {source}")


def _knobs_of_file(path: Path) -> dict[str, Any]:
    """The knobs in a YAML file, a run or its config.json, by key path.

    Raises:
        ConfigError: When it holds none.
    """
    values = read_yaml(
        path / "config.json" if path.is_dir() else path, expected="a YAML file of knobs, or a run"
    )
    if isinstance(values, dict) and "arms" in values:
        raise ConfigError(
            f"{path} is a study",
            expected="lines of KNOB: VALUE",
            hint=f"run it with: stopgrad study run {quote(str(path))} --data SPEC --out DIR",
        )
    if isinstance(values, dict) and isinstance(values.get("config"), dict):  # of a run
        values = values["config"]
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds no knobs",
            expected="lines of KNOB: VALUE",
            hint="see: stopgrad pretrain --help-all",
        )
    return key_paths(values)
