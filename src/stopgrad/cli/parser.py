"""Words and flags -> a command and its options. Config knobs are flags by their key path."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from stopgrad.cli.compare_words import add_compare
from stopgrad.cli.evaluate_words import add_selection
from stopgrad.cli.knobs import config_of, flags, knobs_page
from stopgrad.cli.labels_words import add_finetune, add_labels, add_supervised
from stopgrad.cli.neighbors_words import add_neighbors
from stopgrad.cli.store_words import add_packing
from stopgrad.cli.study_words import add_study
from stopgrad.cli.weights_words import EMBED, EXPORT, add_embed, add_export, add_init
from stopgrad.config import PRESETS
from stopgrad.errors import ConfigError

DATA_HELP = "mnist5k, cifar10, cifar100, hf:OWNER/NAME, a folder (Parquet, pictures) or a store"

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
        options.config = config_of(options, rest)
    elif options.command in ("finetune", "resume", "run_study"):
        options.changes = dict(flags(rest))
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
    add_compare(_add(commands, "compare", "rank runs without labels"), data_help=DATA_HELP)
    _add_report(commands)
    _add_neighbors(commands)
    _add_views(commands)
    _add_check_data(commands)
    _add_pack(commands)
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
        epilog=knobs_page() if takes_config else None,
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
    help_text = "check every file of a run or a store; exit code 0: all whole, 7 (store: 3): not"
    parser = _add(commands, "verify", help_text)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory or packed store")
    parser.add_argument("--json", action="store_true", help="one JSON object per file")
    parser.set_defaults(module="runs")


def _add_evaluate(commands: Any) -> None:
    parser = _add(commands, "evaluate", "score a run by kNN and linear probes, beside baselines")
    _add_run(parser)
    add_labels(parser)
    add_selection(parser)


def _add_report(commands: Any) -> None:
    parser = _add(commands, "report", "write a page, a poster and figures of runs and studies")
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
    parser.set_defaults(module="report")


def _add_neighbors(commands: Any) -> None:
    parser = _add(commands, "neighbors", "find the nearest training images of any picture")
    _add_run(parser)
    add_neighbors(parser)


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


def _add_pack(commands: Any) -> None:
    help_text = "decode a data set once into a store on disk, to train with little memory"
    parser = _add(commands, "pack", help_text)
    parser.add_argument("data", metavar="SPEC", help=DATA_HELP)
    add_packing(parser)
    parser.set_defaults(module="store")


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
