"""Training begun from Python: without labels, and the baseline with them.

In: a data set and knobs. Out: a `Run`, or the `Scores` of the baseline; both are on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stopgrad import method, runs, training
from stopgrad.config import Config
from stopgrad.face.arguments import (
    LabelFractions,
    chosen_config,
    chosen_start,
    fractions,
    in_plain_torch,
)
from stopgrad.face.data import AnyData, as_data, tell_data, tell_notes
from stopgrad.face.opened import Each, collect
from stopgrad.face.progress import Screen, TrainingBar, at_work, show_fractions
from stopgrad.face.run import Run
from stopgrad.face.tables import Scores
from stopgrad.face.trackers import Mirror
from stopgrad.storage import user_path

if TYPE_CHECKING:
    from stopgrad.images import Dataset
    from stopgrad.training import Epoch, Weights


@at_work
@in_plain_torch
def pretrain(
    data: AnyData,
    *,
    out: str | Path,
    preset: str = "cifar",
    config: Config | None = None,
    init: str | os.PathLike[str] | None = None,
    log: str | Sequence[str] = (),
    on_epoch: Callable[[Epoch], object] | None = None,
    **knobs: Any,
) -> Run:
    """Pretrains an encoder without labels, in a new run directory.

    Args:
        data: As for `load`.
        out: The run directory, absent or empty.
        preset: What the knobs start from.
        config: All knobs at once, instead of `preset` and `knobs`.
        init: A run, a safetensors file or `timm:NAME` that the encoder starts from; None: random.
        log: Trackers that mirror the run: tensorboard, wandb, mlflow, trackio.
        on_epoch: Called with each `Epoch` when it is on disk. An exception in it stops the run;
            `resume` continues it.
        **knobs: By name, `epochs=5`; those of a section as a mapping, `views={"size": 24}`, or by
            their key path, `**{"views.size": 24}`. Also parts of your own: `encoder`, a module
            (B, C, S, S) -> (B, F), copied with its weights; and `views`, a function of pixels
            (B, 3, H, W) uint8 and a generator that returns two views (B, 3, S, S), in [0, 1] or
            uint8, which are normalised for you.

    Raises:
        ConfigError: For an unknown knob, a value no run could use, or an `out` that is in use.
        DataError: For images that cannot be trained on.
        StopgradError: While it trains: it diverged, was interrupted, or the disk is full.
    """
    config, screen, out = chosen_config(config, knobs, preset=preset), Screen(), user_path(out)
    start, mirror = chosen_start(init, config), Mirror(log, out, screen)
    source = as_data(data, config)
    config = source.with_reading(config)
    method.use_threads(config.threads)
    weights = None if start is None else training.read_weights(start, config.encoder)
    _tell_start(config, weights, screen)
    with method.joined(config) as processes:
        if method.was_restarted() and runs.is_begun_run(out, config):
            return Run(out, data=source).resume(log=log, on_epoch=on_epoch)
        runs.check_new(out)  # again when it is made; here, before hours of reading
        dataset = method.one_by_one(processes, lambda: source.stored_for(config, screen))
        _tell_views(config, dataset, screen)
        bar = TrainingBar(screen, out)
        epochs = training.pretrain_run(
            dataset,
            config,
            out,
            spec=source.spec,
            init=weights,
            processes=processes,
            track=bar.track,
        )
        tell_data(dataset, screen)
        if skipped := runs.skipped_in_views(config):
            screen.line(skipped)
        bar.show(mirror.watch(epochs, dataset), on_epoch)
    return Run(out, data=source)


@at_work
@in_plain_torch
def supervised(
    data: AnyData,
    *,
    out: str | Path,
    labels: LabelFractions = 1.0,
    preset: str = "cifar",
    config: Config | None = None,
    each: Each | None = None,
    **knobs: Any,
) -> Scores:
    """Trains the same encoder from scratch with labels: the baseline.

    A finished training is not repeated, and a killed one is continued.

    Args:
        data: As for `load`, with labels.
        out: A directory of its own, or that of a pretraining on the same images.
        labels: One or several fractions of the training labels.
        preset: As for `pretrain`.
        config: As for `pretrain`.
        each: Called with each record when it is on disk.
        **knobs: As for `pretrain`.

    Raises:
        StopgradError: As `pretrain`.
    """
    config, screen, out = chosen_config(config, knobs, preset=preset), Screen(), user_path(out)
    labels = fractions(labels)
    beside = (out / "config.json").exists()  # a pretraining, whose fingerprint guards the images
    source = as_data(data, config)
    config = source.with_reading(config)
    dataset = source.stored_for(config, screen, changed="warn" if beside else "fail")
    tell_notes(dataset, screen)
    found = training.supervised_fractions(
        dataset,
        config,
        out,
        spec=source.spec,
        labels=labels,
        track=screen.track,
    )
    epochs = config.length("supervised").epochs
    return collect(show_fractions(found, screen, epochs=epochs), each)


@at_work
def import_weights(file: str | Path, *, out: str | Path, prefix: str = "") -> training.Imported:
    """Converts a file of torch.save into a safetensors file, which `init` takes.

    Args:
        file: A state dict of any tool, or a checkpoint that holds one.
        out: The file to write.
        prefix: Takes only the tensors whose names begin with it, and removes it.

    Raises:
        CheckpointError: For a file that holds no such tensors, or is not to be trusted.
    """
    return training.import_weights(user_path(file), user_path(out), prefix=prefix)


def _tell_start(config: Config, weights: Weights | None, screen: Screen) -> None:
    """Says what the encoder starts from unless it is random, and that GPUs are left idle."""
    if weights is not None:
        where = f"{weights.source} ({weights.remark})" if weights.remark else weights.source
        screen.line(f"the encoder starts from {where}, sha256 {weights.sha256[:12]}")
    if idle := method.unused_gpus(config):
        screen.line(f"one of {idle + 1} GPUs is used; --devices {idle + 1} trains on all")


def _tell_views(config: Config, dataset: Dataset, screen: Screen) -> None:
    """Says when views that were given in Python draw from anything but their generator."""
    if not config.views.own:
        return
    import torch

    device = method.compute_for(config).device
    pixels = torch.from_numpy(dataset.train.pixels[:8].copy()).to(device).permute(0, 3, 1, 2)
    if not method.follow_the_generator(config.views.own, pixels):
        screen.line(
            f"the views {config.views.own} take random numbers from outside their generator: a "
            "resumed run will not have the same bits"
        )
