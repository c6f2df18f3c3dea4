"""A pretraining in a run directory: begun, resumed or extended, with its costs.

In: a data set and a config, or the path of a run. Out: one `Epoch` after another, each on disk
when it is yielded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.config import Config, config_from_dict, key_paths, knob_values
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluation import also_when_stopped, append_cost, start_meter
from stopgrad.images import Dataset, Track, no_progress
from stopgrad.method import Processes, by_one, compute_for, use_threads
from stopgrad.runs import (
    RunInfo,
    RunWriter,
    SharedWriter,
    TrainingImages,
    code_version,
    describe_environment,
    describe_run,
    extended,
    has_begun,
    load_checkpoint,
    prepare,
    read_run,
    read_status,
    versions,
)
from stopgrad.training.pretrain import Epoch, pretrain_epochs

if TYPE_CHECKING:
    from stopgrad.training.weights import Weights


def pretrain_run(
    dataset: Dataset,
    config: Config,
    out: Path,
    *,
    spec: str,
    init: Weights | None = None,
    processes: Processes | None = None,
    track: Track = no_progress,
) -> Generator[Epoch]:
    """Pretrains an encoder in a new run directory; trains when the caller asks for an epoch.

    Args:
        dataset: The images, from `load_images`.
        config: Every knob.
        out: The run directory, absent or empty.
        spec: Where the images came from, which the run notes.
        init: What the encoder starts from; None: random weights.
        processes: Those that train together, this one included.
        track: Shows the progress of each epoch.

    Raises:
        ConfigError, DataError: As `describe_run` and `prepare`, and when `out` is not empty.
        StopgradError: While it trains, as `pretrain_epochs`.
    """
    use_threads(config.threads)
    images = prepare(dataset, config)
    info = describe_run(dataset, config, spec=spec, init=init and init.card(), images=images)
    writer = _writer(lambda: RunWriter.create(out, info), images, processes)
    return _train(writer, images, init=init, processes=processes, track=track)


class Continuation(NamedTuple):
    """How a run would continue."""

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


def resumed_info(path: Path, *, changes: Mapping[str, str]) -> RunInfo:
    """A run as it would continue on this machine, with other settings.

    Sets the number of threads to that with which the run was begun. `changes` are knobs by their
    key path, of which only some are free to change; `check_resume` checks that.

    Raises:
        ConfigError: For a run of another kind, or a value no run could use.
        CheckpointError: When the directory is not a run.
    """
    info = read_run(path)
    if info.task != "pretrain":
        raise ConfigError(
            f"{path} is a {info.task} run",
            expected="a pretraining",
            hint="continue with the command that began it",
        )
    config = config_from_dict(knob_values(info.config) | key_paths(changes))
    use_threads(config.threads or info.environment["threads"])
    environment = info.environment | describe_environment(config)
    return info._replace(config=config, environment=environment)


def check_resume(
    path: Path, info: RunInfo, *, extend: int | None = None, processes: Processes | None = None
) -> Continuation:
    """How a run continues, checked before its images are touched; the first process reads it.

    Args:
        path: The run.
        info: From `resumed_info`.
        extend: Epochs in all, more than it has.
        processes: Those that train together, this one included.

    Raises:
        ConfigError: For a change that is not allowed.
        CheckpointError: When the run is damaged or not to be trusted.
    """
    if processes is None:
        step, state = _standing(path, info)
    else:
        step, state = processes.tell(processes.first_does(lambda: _standing(path, info)))
    if extend not in (None, info.config.epochs):
        return Continuation(path, extended(info, epochs=extend, step=step), step, finished=False)
    return Continuation(path, info, step, finished=state == "finished" and step == info.steps)


def _standing(path: Path, info: RunInfo) -> tuple[int, str | None]:
    """The step of the newest good checkpoint, 0 before the first, and the state in the status."""
    step = load_checkpoint(path, now=info).step if has_begun(path) else 0
    return step, read_status(path).get("state")


def continue_run(
    found: Continuation,
    dataset: Dataset,
    *,
    spec: str,
    processes: Processes | None = None,
    track: Track = no_progress,
) -> Generator[Epoch]:
    """Continues a run from its newest checkpoint, bit for bit on the same kind of machine.

    Args:
        found: The run, from `check_resume`.
        dataset: Its images, from `load_images`.
        spec: Where they are now.
        processes: Those that train together, this one included.
        track: Shows the progress of each epoch.

    Raises:
        ConfigError: For starting weights other than the run's.
        StopgradError: For other images, and while it trains, as `pretrain_epochs`.
    """
    config, card = found.info.config, found.info.data.get("init")
    images = replace(prepare(dataset, config), known=found.info.normalization)
    now = describe_run(dataset, config, spec=spec, init=card, images=images)
    now = now._replace(changes=found.info.changes)
    writer = _writer(lambda: RunWriter.resume(found.path, now), images, processes)
    return _train(writer, images, init=_init_anew(found), processes=processes, track=track)


def _writer(
    make: Callable[[], RunWriter], images: TrainingImages, processes: Processes | None
) -> RunWriter:
    """The run's writer, in each of several processes; they must have the same images."""
    if processes is None:
        return make()
    check_agreement(processes, images)
    return SharedWriter.of(make, processes)


def _train(
    writer: RunWriter,
    images: TrainingImages,
    *,
    init: Weights | None,
    processes: Processes | None,
    track: Track,
) -> Generator[Epoch]:
    """Trains the epochs that are left, and records what each of them cost."""
    config = writer.info.config
    meter = start_meter(
        device=str(compute_for(config).device),
        threads=use_threads(0),
        processes=processes.count if processes else 1,
    )
    start = init and init.tensors

    def keep_cost() -> None:
        by_one(processes, lambda: append_cost(writer.path, meter.spent()))

    with writer, also_when_stopped(keep_cost):
        for epoch in pretrain_epochs(
            images, config, writer=writer, track=track, init=start, processes=processes
        ):
            keep_cost()
            yield epoch


def check_agreement(processes: Processes, images: TrainingImages) -> None:
    """Refuses processes with different images, or different versions of stopgrad or torch.

    Raises:
        DataError: When the images differ.
        ConfigError: When the programs differ.
    """
    own = (images.train.fingerprint, code_version(), versions()["torch"])
    said = processes.everyone(own)
    for kind, what, found in zip(
        (DataError, ConfigError, ConfigError),
        ("images", "stopgrad", "torch"),
        zip(*said, strict=True),
        strict=True,
    ):
        other = next((rank for rank, value in enumerate(found) if value != found[0]), None)
        if other is not None:
            raise kind(
                f"process {other} has other {what} than process 0: "
                f"{found[other][:12]}, not {found[0][:12]}",
                expected="the same images and the same program on all machines",
                hint="copy the store, or install the same versions",
            )


def _init_anew(found: Continuation) -> Weights | None:
    """The weights that a run without a checkpoint starts from; ConfigError if they changed."""
    card = found.info.data.get("init")
    if card is None or has_begun(found.path):
        return None
    from stopgrad.training.weights import read_weights

    init = read_weights(card["from"], found.info.config.encoder)
    if init.sha256 != card["sha256"]:
        raise ConfigError(
            f"{card['from']} has changed, sha256 {card['sha256'][:12]} -> {init.sha256[:12]}",
            expected="the weights that the run was to start from",
            hint="begin a new run",
        )
    return init
