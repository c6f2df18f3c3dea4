"""The commands that train with labels: the baseline from scratch, and fine-tuning of a run.

Each share of the labels is a run directory of its own. A finished share is never repeated, one
that was killed goes on where it stood: the same command does either.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping

from stopgrad.cli.commands import images_of, load_images, print_scores, tell_state
from stopgrad.cli.show import Screen, print_line
from stopgrad.config import Config, config_from_dict, config_to_dict
from stopgrad.errors import ConfigError
from stopgrad.evaluation import labels_text, to_line
from stopgrad.images import Changed
from stopgrad.runs import check_fractions, load_run
from stopgrad.training import (
    FractionEpoch,
    LabelledEpoch,
    finetune_fractions,
    supervised_fractions,
)

FREE = ("checkpoint_every", "device", "threads")


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
    check_fractions(options.labels)
    beside = (out / "config.json").exists()  # a pretraining, whose fingerprint guards the images
    changed: Changed = "tell" if beside else "fail"
    dataset = load_images(options.data, screen, config=config, changed=changed)
    found = supervised_fractions(
        dataset, config, out, spec=options.data, labels=options.labels, track=screen.track
    )
    _print(found, screen, epochs=config.length("supervised").epochs, json=options.json)


def finetune(options: argparse.Namespace) -> None:
    """Fine-tunes the encoder of a run, a share of the labels after the other.

    Images other than those it was pretrained on have their networks and records in --out.
    """
    run, screen = load_run(options.run), Screen()
    check_fractions(options.labels)
    config = _changed(run.info.config, options.changes)
    dataset = images_of(run.info, options.data, screen, config=config)
    tell_state(run, screen)
    found = finetune_fractions(
        run,
        dataset,
        config,
        options.out or options.run,
        spec=options.data or run.info.data["spec"],
        labels=options.labels,
        track=screen.track,
    )
    _print(found, screen, epochs=config.length("finetune").epochs, json=options.json)


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


def _print(found: Iterable[FractionEpoch], screen: Screen, *, epochs: int, json: bool) -> None:
    """Finishes what is not finished, and prints every record."""
    records = []
    with screen.progress():
        for done in found:
            if done.epoch is not None:
                screen.line(_line(done.labels, done.epoch, epochs=epochs))
            if done.record is not None:
                records.append(done.record)
                if json:
                    print_line(to_line(done.record))
    if not json:
        print_scores(records)


def _line(labels: float, epoch: LabelledEpoch, *, epochs: int) -> str:
    """One line: share of the labels, epoch, loss, speed, and the accuracy at the end."""
    accuracy = "" if epoch.score is None else f"  accuracy {epoch.score.accuracy:.2%}"
    return (
        f"{labels_text(labels)}: epoch {epoch.number:{len(str(epochs))}d}/{epochs}  "
        f"loss {epoch.loss:.4f}  {epoch.images_per_s:,.0f} images/s{accuracy}"
    )
