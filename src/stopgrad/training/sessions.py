"""A pretraining in a run directory: begun, gone on with or made longer, with what it costs.

In: a data set and a config, or the path of a run. Out: one `Epoch` after another, each on disk
when it is yielded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stopgrad.config import Config, config_from_dict, config_to_dict
from stopgrad.errors import ConfigError
from stopgrad.evaluation import append_cost, start_meter
from stopgrad.images import Dataset, Track, no_progress
from stopgrad.method import compute_for, use_threads
from stopgrad.runs import (
    RunInfo,
    RunWriter,
    TrainingImages,
    describe_environment,
    describe_run,
    extended,
    has_begun,
    load_checkpoint,
    prepare,
    read_run,
    read_status,
)
from stopgrad.training.pretrain import Epoch, pretrain_epochs
from stopgrad.training.weights import Weights, read_weights


def pretrain_run(
    dataset: Dataset,
    config: Config,
    out: Path,
    *,
    spec: str,
    init: Weights | None = None,
    track: Track = no_progress,
) -> Iterator[Epoch]:
    """Pretrains an encoder in a new run directory; the first epoch is asked for by the caller.

    Args:
        dataset: The images, from `load_images`.
        config: Every knob.
        out: The run directory, absent or empty.
        spec: Where the images came from, which the run notes.
        init: What the encoder starts from; None: random weights.
        track: Shows the progress of each epoch.

    Raises:
        ConfigError: When something is in `out`, or for an encoder that does not take the images.
        DataError: When there are fewer images than one batch.
        StopgradError: While it trains, as `pretrain_epochs`.
    """
    use_threads(config.threads)
    images = prepare(dataset, config)
    info = describe_run(dataset, config, spec=spec, init=init and init.card(), images=images)
    return _train(RunWriter.create(out, info), images, init=init, track=track)


class Continuation(NamedTuple):
    """How a run would go on."""

    path: Path
    info: RunInfo  # with the settings asked for, on this machine
    step: int  # of its newest checkpoint; 0 before the first
    finished: bool  # nothing is left to do

    @property
    def extension_text(self) -> str:
        """What the newest extension of the run does, and what it does not."""
        change = self.info.extensions[-1]
        return (
            f"extended at step {change.step} from {change.old} to {change.new} epochs: the "
            f"learning rates follow the new length from here on, so the result is not that of a "
            f"run of {change.new} epochs from the start"
        )


def check_resume(
    path: Path, *, changes: Mapping[str, str], extend: int | None = None
) -> Continuation:
    """How a run goes on with other settings, checked before any of its images is touched.

    Sets the number of threads to that which the run was begun with.

    Args:
        path: The run directory.
        changes: Knobs by their key path; only some are free to change.
        extend: Epochs in all, more than the run has; None: as many as it has.

    Raises:
        ConfigError: For a run of another kind, or a change that is not allowed.
        CheckpointError: When the run is damaged or not to be trusted.
    """
    info = read_run(path)
    if info.task != "pretrain":
        raise ConfigError(
            f"{path} is a run of the kind {info.task}",
            expected="a pretraining",
            hint="go on with the command that began it",
        )
    config = config_from_dict(config_to_dict(info.config) | dict(changes))
    use_threads(config.threads or info.environment["threads"])
    environment = info.environment | describe_environment(config)
    info = info._replace(config=config, environment=environment)
    step = load_checkpoint(path, now=info).step if has_begun(path) else 0
    if extend not in (None, info.config.epochs):
        return Continuation(path, extended(info, epochs=extend, step=step), step, finished=False)
    finished = read_status(path).get("state") == "finished" and step == info.steps
    return Continuation(path, info, step, finished)


def continue_run(
    found: Continuation, dataset: Dataset, *, spec: str, track: Track = no_progress
) -> Iterator[Epoch]:
    """Goes on with a run from its newest checkpoint, bit for bit on the same kind of machine.

    Args:
        found: The run, from `check_resume`.
        dataset: Its images, from `load_images`.
        spec: Where they are now.
        track: Shows the progress of each epoch.

    Raises:
        ConfigError: For other weights to start from than the run's.
        DataError: When the images are not those of the run.
        StopgradError: While it trains, as `pretrain_epochs`.
    """
    config, card = found.info.config, found.info.data.get("init")
    images = prepare(dataset, config)
    now = describe_run(dataset, config, spec=spec, init=card, images=images)
    writer = RunWriter.resume(found.path, now._replace(changes=found.info.changes))
    return _train(writer, images, init=_init_anew(found), track=track)


def _train(
    writer: RunWriter, images: TrainingImages, *, init: Weights | None, track: Track
) -> Iterator[Epoch]:
    """Takes the epochs that are left, and notes what each of them cost."""
    config = writer.info.config
    meter = start_meter(device=str(compute_for(config).device), threads=use_threads(0))
    start = init and init.tensors
    with writer:
        for epoch in pretrain_epochs(images, config, writer=writer, track=track, init=start):
            append_cost(writer.path, meter.spent())
            yield epoch


def _init_anew(found: Continuation) -> Weights | None:
    """The weights that a run was to start from, when it has no checkpoint that holds them yet.

    Raises:
        ConfigError: When they are others now.
    """
    card = found.info.data.get("init")
    if card is None or has_begun(found.path):
        return None
    init = read_weights(card["from"], found.info.config.encoder)
    if init.sha256 != card["sha256"]:
        raise ConfigError(
            f"{card['from']} has changed, sha256 {card['sha256'][:12]} -> {init.sha256[:12]}",
            expected="the weights that the run was to start from",
            hint="begin a new run",
        )
    return init
