"""The commands that train with labels: the baseline from scratch, and fine-tuning of a run.

Each share of the labels is a run directory of its own. A finished share is never repeated, one
that was killed goes on where it stood: the same command does either.
"""

from __future__ import annotations

import argparse
import functools
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.cli.commands import images_of, load_images, print_scores, tell_state
from stopgrad.cli.show import Screen, print_line
from stopgrad.config import Config, config_from_dict, config_to_dict
from stopgrad.errors import ConfigError, InterruptedRunError
from stopgrad.evaluation import Record, append, append_cost, labels_text, start_meter, to_line
from stopgrad.images import Changed, Dataset, normalization
from stopgrad.method import compute_for, use_threads
from stopgrad.runs import (
    RunInfo,
    RunWriter,
    check_same_data,
    check_shares,
    evaluation_split,
    keep_label_draws,
    load_run,
    read_run,
)
from stopgrad.training import (
    LabelledEpoch,
    Start,
    describe_share,
    draw_share,
    finetune_epochs,
    newest_record,
    open_share,
    recorded,
    share_folder,
    supervised_epochs,
    trained_record,
)

FREE = ("checkpoint_every", "device", "threads")


class Training(NamedTuple):
    """One share of the labels, ready to be trained with or to go on."""

    out: Path  # where the records go
    info: RunInfo
    dataset: Dataset
    split: str  # name of the images that are scored
    epochs: Callable[..., Iterator[LabelledEpoch]]  # by writer and track

    @property
    def path(self) -> Path:
        """Its own run directory."""
        return share_folder(self.out, self.info.task, self.info.data["labels"])

    @property
    def records(self) -> Path:
        """The file that its record goes to."""
        return self.out / "records.jsonl"


def supervised(options: argparse.Namespace) -> None:
    """Trains the baseline from scratch, a share of the labels after the other."""
    config, screen, out = options.config, Screen(), options.out
    if options.init is not None:
        raise ConfigError(
            f"supervised --init {options.init[:200]}",
            expected="the baseline from scratch, which starts from random weights",
            hint="train a run on with labels by: stopgrad finetune RUN; weights of others become "
            "a run by: stopgrad pretrain --init",
        )
    check_shares(options.labels)
    beside = (out / "config.json").exists()  # a pretraining, whose fingerprint guards the images
    changed: Changed = "tell" if beside else "fail"
    dataset = load_images(options.data, screen, config=config, changed=changed)
    if beside:
        check_same_data(read_run(out), dataset)
    split = evaluation_split(dataset, config)

    def training(share: float) -> Training:
        _use_threads(config, share_folder(out, "supervised", share))
        images = draw_share(split.train, split.test, share=share, seed=config.seed)
        info = describe_share(
            images,
            config,
            task="supervised",
            normalization=normalization(images.train),
            data=_card(dataset, spec=options.data),
        )
        epochs = functools.partial(supervised_epochs, images, config)
        return Training(out, info, dataset, split.name, epochs)

    _finish(map(training, options.labels), screen, json=options.json)


def finetune(options: argparse.Namespace) -> None:
    """Fine-tunes the encoder of a run, a share of the labels after the other.

    Images other than those it was pretrained on have their networks and records in --out.
    """
    run, screen = load_run(options.run), Screen()
    check_shares(options.labels)
    config = _changed(run.info.config, options.changes)
    spec = options.data or run.info.data["spec"]
    dataset = images_of(run.info, options.data, screen, config=config)
    out = options.out or options.run
    if out.resolve() == options.run.resolve():
        check_same_data(run.info, dataset)
        keep_label_draws(options.run, dataset, labels=options.labels)
    split = evaluation_split(dataset, config)
    tell_state(run, screen)

    def training(share: float) -> Training:
        _use_threads(config, share_folder(out, "finetune", share))
        images = draw_share(split.train, split.test, share=share, seed=config.seed)
        start = Start(run.model.encoder, run.info.normalization)
        info = describe_share(
            images,
            config,
            task="finetune",
            normalization=start.normalization,
            data=_card(dataset, spec=spec)
            | {"from_step": run.step, "from_epoch": run.epoch}
            | {key: run.info.data[key] for key in ("init",) if key in run.info.data},
        )
        epochs = functools.partial(finetune_epochs, images, config, start=start)
        return Training(out, info, dataset, split.name, epochs)

    _finish(map(training, options.labels), screen, json=options.json)


def _card(dataset: Dataset, *, spec: str) -> dict[str, Any]:
    return {"spec": spec, "name": dataset.name, "fingerprint": dataset.train.fingerprint}


def _use_threads(config: Config, path: Path) -> None:
    """The threads that a training was begun with, as other numbers round otherwise."""
    begun = read_run(path).environment["threads"] if (path / "config.json").exists() else 0
    use_threads(config.threads or begun)


def _changed(config: Config, changes: Mapping[str, str]) -> Config:
    """The config of a run with other knobs of fine-tuning.

    Raises:
        ConfigError: For knobs of the pretraining, which is done, or values no run could use.
    """
    wrong = [key for key in changes if not key.startswith("finetune.") and key not in FREE]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} for an encoder that is trained already",
            expected=f"finetune.KNOB, {', '.join(FREE)}",
            hint="see the knobs of finetune in: stopgrad pretrain --help",
        )
    return config_from_dict(config_to_dict(config) | dict(changes))


def _finish(trainings: Iterable[Training], screen: Screen, *, json: bool) -> None:
    """Finishes what is not finished, and prints every record."""
    records = []
    for training in trainings:
        paths = training.records, training.path
        done = recorded(*paths, training.info, split=training.split)
        record = done or _train(training, screen)
        records.append(record)
        if json:
            print_line(to_line(record))
    if not json:
        print_scores(records)


def _train(training: Training, screen: Screen) -> Record:
    """Trains, or goes on, to the last epoch; the record of it is kept once."""
    record, config = None, training.info.config
    meter = start_meter(device=str(compute_for(config).device), threads=use_threads(0))
    with open_share(training.path, training.info) as writer, screen.progress():
        for epoch in training.epochs(writer=writer, track=screen.track):
            append_cost(training.path, meter.spent())
            screen.line(_line(epoch, writer.info))
            if epoch.score is not None:
                record = _keep(training, writer, epoch)
        if writer.stop_signal is not None:
            raise InterruptedRunError(
                signal.Signals(writer.stop_signal),
                step=epoch.step,
                run=str(training.path),
                hint="go on with the same command",
            )
    assert record is not None
    return record


def _keep(training: Training, writer: RunWriter, epoch: LabelledEpoch) -> Record:
    """Adds the record, unless a kill came after that was done."""
    known = newest_record(training.records, writer.info, split=training.split)
    if known is not None:
        return known
    keep_label_draws(training.path, training.dataset, labels=[writer.info.data["labels"]])
    record = trained_record(writer.info, epoch, split=training.split)
    append(training.records, record)
    return record


def _line(epoch: LabelledEpoch, info: RunInfo) -> str:
    """One line: share of the labels, epoch, loss, speed, and the accuracy at the end."""
    accuracy = "" if epoch.score is None else f"  accuracy {epoch.score.accuracy:.2%}"
    epochs = info.config.length(info.task).epochs
    return (
        f"{labels_text(info.data['labels'])}: epoch {epoch.number:{len(str(epochs))}d}/{epochs}  "
        f"loss {epoch.loss:.4f}  {epoch.images_per_s:,.0f} images/s{accuracy}"
    )
