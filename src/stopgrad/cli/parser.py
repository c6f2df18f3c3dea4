"""Words and flags -> a command and its options. Config knobs are flags by their key path."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from stopgrad.cli.evaluate_words import add_selection
from stopgrad.cli.labels_words import add_finetune, add_labels, add_supervised
from stopgrad.cli.study_words import add_study
from stopgrad.cli.weights_words import EMBED, EXPORT, add_embed, add_export, add_init
from stopgrad.config import PRESETS, Config, config_from_dict, describe_knobs
from stopgrad.config.parse import kind_in_words
from stopgrad.errors import ConfigError

DATA_HELP = "mnist5k, cifar10, cifar100, hf:OWNER/NAME, a folder of Parquet files or of pictures"

FREE_TO_CHANGE = """A run goes on as it was begun: another setting, other images or another number
of threads is refused, all at once. Free to change, by --KEY VALUE, is what changes no bit of
training: device (of the same kind), checkpoint_every, knn_every, knn.k, knn.temperature,
measure_every, stop_on_collapse."""


class Command(NamedTuple):
    """A command ready to run."""

    run: Callable[[argparse.Namespace], None]
    options: argparse.Namespace


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(
            message, expected=f"what `{self.prog} --help` lists", hint="mend the command"
        )


def parse(arguments: Sequence[str]) -> Command:
    """The command that these words ask for.

    Raises:
        ConfigError: For unknown words, flags or values.
    """
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    if not hasattr(options, "command"):
        parser.print_help()
        raise SystemExit(0)
    if options.takes_config:
        options.config = _config(options, rest)
    elif options.command in ("finetune", "resume", "run_study"):
        options.changes = dict(_flags(rest))
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return Command(_lazy(options.command, module=options.module), options)


def _lazy(name: str, *, module: str) -> Callable[[argparse.Namespace], None]:
    """The function of a command; its room is imported when it runs."""

    def run(options: argparse.Namespace) -> None:
        getattr(import_module(f"stopgrad.cli.{module}"), name)(options)

    return run


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="stopgrad",
        description="Learn image representations without labels (SimSiam), and know how good "
        "they are.",
        epilog="Start with: stopgrad quickstart",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_quickstart(commands)
    _add_pretrain(commands)
    _add_resume(commands)
    _add_verify(commands)
    _add_evaluate(commands)
    _add_report(commands)
    _add_views(commands)
    _add_check_data(commands)
    _add_supervised(commands)
    _add_finetune(commands)
    add_embed(_add(commands, "embed", EMBED), data_help=DATA_HELP)
    add_export(_add(commands, "export", EXPORT))
    _add_bench(commands)
    add_study(commands, data_help=DATA_HELP)
    return parser


def _add(commands: Any, name: str, help_text: str, *, takes_config: bool = False) -> Any:
    parser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_knobs_page() if takes_config else None,
        allow_abbrev=False,
    )
    parser.set_defaults(command=name, module="commands", takes_config=takes_config)
    return parser


def _add_quickstart(commands: Any) -> None:
    parser = _add(commands, "quickstart", "pretrain, evaluate and report on embedded images")
    parser.add_argument("--out", type=Path, help="run directory. Default: a new one below runs/")


def _add_pretrain(commands: Any) -> None:
    parser = _add(
        commands, "pretrain", "pretrain an encoder on images without labels", takes_config=True
    )
    parser.add_argument("--data", required=True, metavar="SPEC", help=DATA_HELP)
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="run directory")
    add_init(parser)
    _add_config_sources(parser)


def _add_resume(commands: Any) -> None:
    parser = _add(
        commands,
        "resume",
        "go on with a run where it stopped, bit for bit on the same kind of machine",
    )
    _add_run(parser)
    parser.add_argument(
        "--extend",
        type=int,
        metavar="EPOCHS",
        help="train to this many epochs in all, more than the run had; the learning rates follow "
        "the new length, and the run says so",
    )
    parser.epilog = FREE_TO_CHANGE
    parser.set_defaults(module="runs")


def _add_verify(commands: Any) -> None:
    parser = _add(commands, "verify", "check every file of a run; exit code 0: all whole, 7: not")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--json", action="store_true", help="one JSON object per file")
    parser.set_defaults(module="runs")


def _add_evaluate(commands: Any) -> None:
    parser = _add(commands, "evaluate", "score a run by kNN and linear probes, beside baselines")
    _add_run(parser)
    add_labels(parser)
    add_selection(parser)


def _add_report(commands: Any) -> None:
    parser = _add(commands, "report", "write one page about a run: results, curves, neighbours")
    _add_run(parser)
    parser.add_argument(
        "--out", type=Path, metavar="HTML", help="page to write. Default: RUN/report.html"
    )


def _add_views(commands: Any) -> None:
    parser = _add(commands, "views", "draw images with two views of each", takes_config=True)
    parser.add_argument("--data", required=True, metavar="SPEC", help=DATA_HELP)
    parser.add_argument("--out", required=True, type=Path, metavar="PNG", help="picture to write")
    parser.add_argument("--count", type=int, default=12, help="images. Default: 12")
    _add_config_sources(parser)


def _add_check_data(commands: Any) -> None:
    parser = _add(
        commands,
        "check-data",
        "list damaged and odd pictures, and what pretraining will need; exit code 0: it would "
        "start, 3: not",
        takes_config=True,
    )
    parser.add_argument("data", metavar="SPEC", help=DATA_HELP)
    _add_config_sources(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.set_defaults(module="data", command="check_data")


def _add_supervised(commands: Any) -> None:
    help_text = "train the same encoder from scratch with labels: the baseline"
    parser = _add(commands, "supervised", help_text, takes_config=True)
    parser.add_argument("--data", required=True, metavar="SPEC", help=DATA_HELP)
    add_supervised(parser)
    _add_config_sources(parser)


def _add_finetune(commands: Any) -> None:
    help_text = "train a run's encoder on with labels (and --finetune.KNOB VALUE)"
    parser = _add(commands, "finetune", help_text)
    _add_run(parser)
    add_finetune(parser)


def _add_bench(commands: Any) -> None:
    parser = _add(commands, "bench", "measure how fast this machine is, on random pixels")
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N. Default: auto")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads. Default: one per core"
    )
    parser.add_argument(
        "--quick", action="store_true", help="whether it runs, in seconds; its numbers mean nothing"
    )
    parser.set_defaults(module="speed")


def _add_run(parser: Any) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--data", metavar="SPEC", help="where the images are now, if they moved")


def _add_config_sources(parser: Any) -> None:
    parser.add_argument("--preset", default="cifar", metavar="NAME", help=", ".join(PRESETS))
    parser.add_argument("--config", dest="file", type=Path, metavar="YAML", help="file of knobs")


def _config(options: argparse.Namespace, rest: Sequence[str]) -> Config:
    """Preset, then the file's keys, then the flags'."""
    from_file = _read_yaml(options.file) if options.file else {}
    return config_from_dict({**from_file, **dict(_flags(rest))}, preset=options.preset)


def _flags(rest: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--key value`, `--key=value` and a bare `--key` for a knob that is on or off."""
    switches = {knob.key for knob in describe_knobs() if knob.kind is bool}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigError(
                f"{word!r} where a flag should stand",
                expected="--KEY VALUE",
                hint="put the name of a knob before its value",
            )
        key, found, value = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if not found:
            bare = not words or words[0].startswith("--")
            value = ("true" if key in switches else "") if bare else words.pop(0)
        yield key, value


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


def _knobs_page() -> str:
    """Every knob with its type, default and meaning, as the end of a help page."""
    rows = [
        f"  --{knob.key} [{kind_in_words(knob.kind)}] "
        f"({str(knob.default).lower() if knob.kind is bool else knob.default})\n"
        f"        {knob.meaning}"
        for knob in describe_knobs()
    ]
    return "knobs, with type and default (before the preset's changes):\n" + "\n".join(rows)
