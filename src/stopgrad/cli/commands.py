"""The commands: each turns its options into one public call and prints what comes back."""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from pathlib import Path

from stopgrad.checkpoint import (
    RunWriter,
    newest_step,
    read_run,
    read_status,
)
from stopgrad.cli.show import Screen, TrainingBar, epoch_line, scores_table
from stopgrad.compute import use_threads
from stopgrad.config import preset
from stopgrad.errors import ConfigError
from stopgrad.evaluate import check_same_data, keep_label_draws, load_run
from stopgrad.evaluate import evaluate as evaluate_run
from stopgrad.examples import neighbor_examples, view_examples
from stopgrad.figures import view_grid
from stopgrad.files import write_atomically
from stopgrad.images import Dataset, load_dataset, normalization
from stopgrad.pretrain import describe_run, prepare
from stopgrad.pretrain import pretrain as pretrain_epochs
from stopgrad.records import Record, append, to_line
from stopgrad.report import finding, write_report


def pretrain(options: argparse.Namespace) -> None:
    """Pretrains an encoder in a new run directory."""
    config, screen = options.config, Screen()
    use_threads(config.threads)
    dataset = _load(options.data, screen, side=config.image_side)
    info = describe_run(dataset, config, spec=options.data)
    _train(RunWriter.create(options.out, info), dataset, screen)


def resume(options: argparse.Namespace) -> None:
    """Goes on with a run, with the threads that it was begun with."""
    info, screen = read_run(options.run), Screen()
    use_threads(info.config.threads or info.environment["threads"])
    if read_status(options.run).get("state") == "finished":
        screen.line(f"{options.run} is finished")
        return
    dataset = _load(options.data or info.data["spec"], screen, side=info.config.image_side)
    check_same_data(info, dataset)
    _train(RunWriter.resume(options.run), dataset, screen)


def evaluate(options: argparse.Namespace) -> None:
    """Scores a run; appends the records to it and prints them."""
    screen, info = Screen(), read_run(options.run)
    use_threads(info.config.threads)
    dataset = _load(options.data or info.data["spec"], screen, side=info.config.image_side)
    records = _evaluate(options.run, dataset, screen, options=options)
    if not options.json:
        print_scores(records)


def report(options: argparse.Namespace) -> None:
    """Writes one page about a run."""
    screen, info = Screen(), read_run(options.run)
    use_threads(info.config.threads)
    dataset = _load(options.data or info.data["spec"], screen, side=info.config.image_side)
    check_same_data(info, dataset)
    out = options.out or options.run / "report.html"
    print_line(f"report: {_report(options.run, dataset, screen, out=out)}")


def views(options: argparse.Namespace) -> None:
    """Draws images with two views of each."""
    config, screen = options.config, Screen()
    if options.count < 1:
        raise ConfigError(f"--count {options.count}", expected="at least 1", hint="raise it")
    train = _load(options.data, screen, side=config.image_side).train
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
    dataset = _load("mnist5k", screen, side=config.image_side)
    screen.line(
        f"{len(dataset.train):,} digits without labels -> an encoder, in {config.epochs} epochs; "
        f"then kNN and linear probes on {len(dataset.test or ()):,} other digits"
    )
    _train(RunWriter.create(out, describe_run(dataset, config, spec="mnist5k")), dataset, screen)
    options = argparse.Namespace(json=False, labels=[1.0, 0.1, 0.01])
    print_scores(_evaluate(out, dataset, screen, options=options))
    print_line(f"report: {_report(out, dataset, screen, out=out / 'report.html')}")


def _evaluate(
    path: Path, dataset: Dataset, screen: Screen, *, options: argparse.Namespace
) -> list[Record]:
    """Scores a run, appending each record as it comes."""
    run, records = load_run(path), []
    for line in run.damaged:
        screen.line(f"passed over: {line}")
    if run.epoch < run.info.config.epochs:
        screen.line(f"not finished: epoch {run.epoch} of {run.info.config.epochs} is scored")
    keep_label_draws(path, dataset, labels=options.labels)
    with screen.progress():
        for record in evaluate_run(run, dataset, labels=options.labels, track=screen.track):
            append(path / "records.jsonl", record)
            records.append(record)
            if options.json:
                print_line(to_line(record))
    return records


def _report(path: Path, dataset: Dataset, screen: Screen, *, out: Path) -> Path:
    """Writes the page of a run; neighbours come with their votes only where labels exist."""
    run = load_run(path)
    config, mean_std = run.info.config, run.info.normalization
    with screen.progress():
        neighbors = neighbor_examples(run, dataset, track=screen.track)
    panel = view_examples(dataset.train, config, normalization=mean_std, count=12)
    return write_report(path, out=out, neighbors=neighbors, views=panel)


def _new_directory(path: Path) -> Path:
    """The path, or the path with the first number that is free."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())


def print_line(text: str) -> None:
    """A line of results on standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_scores(records: list[Record]) -> None:
    """The table of scores and its finding on standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(scores_table(records))
    console.print(finding(records), soft_wrap=True)


def _load(spec: str, screen: Screen, *, side: int) -> Dataset:
    with screen.progress():
        return load_dataset(spec, side=side, track=screen.track)


def _train(writer: RunWriter, dataset: Dataset, screen: Screen) -> None:
    config = writer.info.config
    images = prepare(dataset, config)
    steps = len(images.train) // config.batch
    done = newest_step(writer.path)
    verdict = None
    with writer, screen.progress():
        bar = TrainingBar(screen, total=steps * config.epochs, done=done, batch=config.batch)
        for epoch in pretrain_epochs(images, config, writer=writer, track=bar.track):
            verdict = epoch.verdict
            bar.show(epoch)
            screen.line(epoch_line(epoch, config.epochs))
    if verdict is not None and verdict.advice:
        screen.line(f"verdict: {verdict.state}; try: {verdict.advice}")
    screen.line(f"done: {writer.path}; score it with: stopgrad evaluate {writer.path}")
