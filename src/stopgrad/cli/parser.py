"""Words -> a command and its options; every knob is a flag by its key path.

Each command's file adds its own options. Nothing here takes torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, get_args

from stopgrad.config import (
    PRESETS,
    Config,
    config_from_dict,
    describe_knobs,
)
from stopgrad.errors import ConfigError

COMMANDS = (
    *("quickstart", "pretrain", "resume", "verify", "evaluate", "compare", "report", "neighbors"),
    *("views", "check-data", "pack", "supervised", "finetune", "embed", "export", "bench", "study"),
)

DATA = "mnist5k, cifar10, cifar100, hf:OWNER/NAME, a folder (Parquet, images) or a packed store"


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(
            message, expected=f"what `{self.prog} --help` lists", hint="correct the command"
        )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command; `command` among them is the function that runs it.

    Commands with knobs have them as `config`, or as `changes` where a run has a config already.

    Raises:
        ConfigError: For unknown words, flags or values.
    """
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    if not hasattr(options, "command"):
        parser.print_help()
        raise SystemExit(0)
    knobs = getattr(options, "knobs", None)
    if knobs is None and rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if knobs is not None:
        changes = _changes(options, rest)
        if knobs == "config":
            options.config = _config(options, changes)
        else:
            options.changes = changes
    return options


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="stopgrad",
        description="Learn image representations without labels (SimSiam), and know how good "
        "they are.",
        epilog="Start with: stopgrad quickstart",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"stopgrad.cli.{name.replace('-', '_')}")
        command = add_command(commands, name, module.HELP)
        command.set_defaults(command=module.run)
        module.add(command)
    return parser


def add_command(commands: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds the run, and where its images are."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--data", metavar="SPEC", help="where the images are now, if they moved")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds --data, which must be given."""
    parser.add_argument("--data", required=True, metavar="SPEC", help=DATA)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Adds --labels and --json."""
    parser.add_argument(
        "--labels",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="FRACTION",
        help="fractions of the training labels, such as 1 0.1 0.01. Default: 1",
    )
    parser.add_argument("--json", action="store_true", help="one record per line, nothing else")


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Adds --preset."""
    parser.add_argument("--preset", default="cifar", metavar="NAME", help=", ".join(PRESETS))


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds --preset, --config and a flag for each knob; they come as `options.config`."""
    add_preset(parser)
    parser.add_argument("--config", dest="file", type=Path, metavar="YAML", help="file of knobs")
    parser.usage = f"{parser.format_usage().removeprefix('usage: ').strip()} [--KNOB VALUE ...]"
    group = parser.add_argument_group("knobs, with their defaults before the preset's changes")
    _add_knobs(group, shown=True)
    parser.set_defaults(knobs="config")


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each knob, which help leaves out; they come as `options.changes`."""
    _add_knobs(parser, shown=False)
    parser.set_defaults(knobs="changes")


def _add_knobs(parser: Any, *, shown: bool) -> None:
    """Text alone: what a value means is for the config to say, in one way for flags and files."""
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
    """The knobs that were given; unknown flags too, which the config refuses by name."""
    keys = [knob.key for knob in describe_knobs() if knob.key in vars(options)]
    unknown, words = dict[str, str](), iter(rest)
    for word in words:
        if not word.startswith("--"):
            raise ConfigError(
                f"{word!r} where a flag should stand",
                expected="--KEY VALUE",
                hint="put the name of a knob before its value",
            )
        key, found, value = word.removeprefix("--").partition("=")
        unknown[key.replace("-", "_")] = value if found else next(words, "")
    if unknown and options.knobs == "changes":
        config_from_dict(unknown)
    return {key: vars(options)[key] for key in keys} | unknown


def _config(options: argparse.Namespace, changes: dict[str, str]) -> Config:
    """Preset, then the file's keys, then the flags'."""
    from_file = _read_yaml(options.file) if options.file else {}
    return config_from_dict({**from_file, **changes}, preset=options.preset)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path} cannot be read ({reason})",
            expected="a YAML file of knobs",
            hint="check the path and its contents",
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds no knobs", expected="KEY: VALUE lines", hint="see pretrain --help"
        )
    return values
