"""The commands: each turns its options into one public call and prints what comes back."""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from stopgrad import runs
from stopgrad.cli.show import Screen, TrainingBar, epoch_line, print_line, scores_table
from stopgrad.config import Config, preset
from stopgrad.errors import ConfigError
from stopgrad.evaluation import (
    EVERYTHING,
    Record,
    Selection,
    evaluate_run,
    recorded_numbers,
    to_line,
)
from stopgrad.images import Changed, Dataset, how_it_was_read, normalization
from stopgrad.method import use_threads
from stopgrad.report import (
    Evidence,
    explore,
    finding,
    read_evidence,
    view_examples,
    view_grid,
    write_page,
)
from stopgrad.runs import RunInfo, TrainedRun, check_same_data, load_run, read_run, spec_to_keep
from stopgrad.storage import write_atomically
from stopgrad.training import Epoch, Weights, pretrain_run, read_weights


def pretrain(options: argparse.Namespace) -> None:
    """Pretrains an encoder in a new run directory."""
    config, screen = options.config, Screen()
    use_threads(config.threads)
    init = initial_weights(options.init, screen, config=config)
    dataset = load_images(options.data, screen, config=config)
    bar = TrainingBar(screen, options.out)
    epochs = pretrain_run(
        dataset, config, options.out, spec=options.data, init=init, track=bar.track
    )
    screen.line(how_it_was_read(dataset))
    show_training(epochs, bar)


def evaluate(options: argparse.Namespace) -> None:
    """Scores a run; appends the records to it and prints them."""
    screen, info = Screen(), read_run(options.run)
    use_threads(info.config.threads)
    spec = options.data or info.data["spec"]
    dataset = load_images(spec, screen, config=info.config, changed="tell")
    select = Selection(
        split=options.split,
        of=tuple(options.of),
        metrics=tuple(options.metrics),
        done=recorded_numbers(options.run) if options.missing else frozenset(),
    )
    _evaluate(options.run, dataset, screen, labels=options.labels, select=select, json=options.json)


def run_evidence(path: Path, data: str | None, screen: Screen) -> Evidence:
    """All that a report tells of a run, pictures too; `data` says where the images are now."""
    info = read_run(path)
    use_threads(info.config.threads)
    spec = data or info.data["spec"]
    dataset = load_images(spec, screen, config=info.config, changed="tell")
    check_same_data(info, dataset)
    return _evidence(path, dataset, screen)


def views(options: argparse.Namespace) -> None:
    """Draws images with two views of each."""
    config, screen = options.config, Screen()
    if options.count < 1:
        raise ConfigError(f"--count {options.count}", expected="at least 1", hint="raise it")
    train = load_images(options.data, screen, config=config).train
    panel = view_examples(train, config, normalization=normalization(train), count=options.count)
    picture = io.BytesIO()
    view_grid(panel).save(picture, format="PNG")
    write_atomically(options.out, picture.getvalue())
    screen.line(f"done: {options.out}")


def quickstart(options: argparse.Namespace) -> None:
    """Pretrains, evaluates and reports on embedded images."""
    screen, config = Screen(), preset("digits")
    out = options.out or _new_directory(Path("runs") / "quickstart")
    use_threads(config.threads)
    dataset = load_images("mnist5k", screen, config=config)
    screen.line(
        f"{len(dataset.train):,} digits without labels -> an encoder, in {config.epochs} epochs; "
        f"then kNN and linear probes on {len(dataset.test or ()):,} other digits"
    )
    bar = TrainingBar(screen, out)
    show_training(pretrain_run(dataset, config, out, spec="mnist5k", track=bar.track), bar)
    _evaluate(out, dataset, screen, labels=[1.0, 0.1, 0.01])
    page = write_page([_evidence(out, dataset, screen)], out=out / "report.html")
    print_line(f"report: {page}")


def _evaluate(
    path: Path,
    dataset: Dataset,
    screen: Screen,
    *,
    labels: list[float],
    select: Selection = EVERYTHING,
    json: bool = False,
) -> None:
    """Scores a run and prints what comes of it, each record as it comes with --json."""
    run, records = load_run(path), []
    tell_state(run, screen)
    with screen.progress():
        for record in evaluate_run(run, dataset, labels=labels, select=select, track=screen.track):
            records.append(record)
            if json:
                print_line(to_line(record))
    if not json:
        print_scores(records)


def _evidence(path: Path, dataset: Dataset, screen: Screen) -> Evidence:
    """A run with its pictures; neighbours come with their votes only where labels exist."""
    run = load_run(path)
    config, mean_std = run.info.config, run.info.normalization
    with screen.progress():
        exploration = explore(run, dataset, track=screen.track)
    panel = view_examples(dataset.train, config, normalization=mean_std, count=12)
    return read_evidence(path, views=panel, exploration=exploration)


def _new_directory(path: Path) -> Path:
    """The path, or the path with the first number that is free."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())


def tell_state(run: TrainedRun, screen: Screen) -> None:
    """Says what a reader of the scores should know of a run."""
    for line in run.damaged:
        screen.line(f"passed over: {line}")
    if run.epoch < run.info.config.epochs:
        screen.line(f"not finished: epoch {run.epoch} of {run.info.config.epochs} is scored")


def print_scores(records: list[Record]) -> None:
    """The table of scores and its finding on standard output; measures of collapse as a line."""
    from rich.console import Console

    console = Console(highlight=False)
    scores = [record for record in records if record.metric.endswith("_accuracy")]
    if scores:
        console.print(scores_table(scores))
        console.print(finding(scores), soft_wrap=True)
    for record in (record for record in records if record not in scores):
        console.print(f"{record.metric} {record.value:.4g}")


def load_images(spec: str, screen: Screen, *, config: Config, changed: Changed = "fail") -> Dataset:
    """The images of a spec, stored as a config asks, whole at a size that its encoder takes.

    A run that exists says `changed="tell"`: its own fingerprint guards it.
    """
    with screen.progress():
        return runs.load_images(spec, config, changed=changed, track=screen.track)


def images_of(
    info: RunInfo, data: str | None, screen: Screen, *, config: Config | None = None
) -> Dataset:
    """The images of a run, or others that are named, stored as the run or another config asks.

    Of a packed store whose folder has changed since, the run's own is told, another refused.
    """
    own = info.data["spec"]
    changed: Changed = "tell" if data is None or spec_to_keep(data) == own else "fail"
    return load_images(data or own, screen, config=config or info.config, changed=changed)


def initial_weights(spec: str | None, screen: Screen, *, config: Config) -> Weights | None:
    """The weights that `--init` names, said on the terminal; None without it."""
    if spec is None:
        return None
    init = read_weights(spec, config.encoder)
    screen.line(f"the encoder starts from {init.source}, sha256 {init.sha256[:12]}")
    return init


def show_training(epochs: Iterable[Epoch], bar: TrainingBar) -> None:
    """Trains, and shows what each epoch ended with."""
    screen, verdict = bar.screen, None
    with screen.progress():
        for epoch in epochs:
            verdict = epoch.verdict or verdict
            bar.show(epoch)
            screen.line(epoch_line(epoch, read_run(bar.run).config.epochs))
    if verdict is not None and verdict.advice:
        screen.line(f"verdict: {verdict.state}; try: {verdict.advice}")
    screen.line(f"done: {bar.run}; score it with: stopgrad evaluate {quote(str(bar.run))}")
