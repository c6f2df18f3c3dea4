"""Pretraining: two views, forward, loss, backward, step, record. Paper: Algorithm 1.

In: images and a config. Out: one `Epoch` after another, and what a run directory keeps of them.
On a GPU a step is recorded once as a CUDA graph and replayed, see `replay`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import Config, torch_generator
from stopgrad.evaluation import Balance
from stopgrad.images import Images, Normalization, Track, no_progress
from stopgrad.method import (
    Clean,
    Compute,
    FasterViews,
    Layers,
    LearningRates,
    Measures,
    Processes,
    SimSiam,
    Spectra,
    Verdict,
    Views,
    build_optimizer,
    build_simsiam,
    check_kernels,
    compute_for,
    fuse_batch_norm,
    learning_rates,
    normalize_over_processes,
    random_table,
    simsiam_loss,
    use_repeatable,
    views_of,
)
from stopgrad.runs import Checkpoint, RunWriter, TrainingImages, TrainingState
from stopgrad.training.learner import Keeper, Learner
from stopgrad.training.replay import Replay
from stopgrad.training.watch import Looks, look


class Epoch(NamedTuple):
    """The results of one epoch."""

    number: int  # epochs finished
    step: int  # steps taken
    loss: float  # mean over the epoch's steps
    rates: LearningRates  # of its last step
    layers: Layers | None  # when they were measured
    verdict: Verdict | None  # on them
    knn: float | None  # accuracy, when it was scored
    views_per_s: float  # in this process; 0 when all its steps were taken before
    model: SimSiam  # the living model, not a copy
    spectra: Spectra | None = None  # at some sixteen moments of the run
    measured: int = 0  # images whose views layers and spectra are of
    clean: Clean | None = None  # z on images without augmentation, after the last epoch
    balance: Balance = Balance()  # of kNN, where classes are uneven


def pretrain_epochs(
    images: TrainingImages,
    config: Config,
    *,
    writer: RunWriter | None = None,
    track: Track = no_progress,
    init: Mapping[str, Tensor] | None = None,
    processes: Processes | None = None,
) -> Iterator[Epoch]:
    """Trains SimSiam on the images and yields at the end of each epoch.

    Args:
        images: The images to learn from, and those that kNN is scored on; see `prepare`.
        config: Every knob of the run.
        writer: The open run directory; the run resumes from its checkpoint, with its
            normalisation. None: write nothing.
        track: Wraps the batches of an epoch, to show progress.
        init: What the encoder starts from, see `weights`; None: random weights.
        processes: Those that train together, this one included; each calls this function.

    Raises:
        ConfigError: When torch.compile fails here.
        DivergedError: When the loss is not finite; the bad step is not taken.
        CollapsedError: When the config asks to stop on collapse.
        InterruptedRunError: After a signal, when the state is saved.
        StorageError: When the disk refuses a checkpoint.
    """
    training = start_training(
        images.train, config, normalization=images.normalization, init=init, processes=processes
    )
    keeper = Keeper(training, writer)
    keeper.begin()
    keeper.stop_if_collapsed(training.collapsed)  # a signal or a kill came before it could stop
    while training.epoch < config.epochs:
        left, began = training.steps_left, time.perf_counter()
        for batch in track(training.batches(), f"epoch {training.epoch + 1}/{config.epochs}", left):
            training.advance(batch)
            keeper.after_step()
        keeper.read_losses()
        if processes is not None:  # all here, since within `look` each has other parts to do
            keeper.stop_if_asked()
        views_per_s = 2 * config.batch * left / (time.perf_counter() - began)
        looks = look(training, images, track=keeper.track)
        epoch = training.end_epoch(looks, views_per_s=views_per_s)
        keeper.after_epoch(_row(epoch), verdict=epoch.verdict)
        yield epoch
        keeper.stop_if_collapsed(training.collapsed)


@dataclass(kw_only=True)
class Pretraining(Learner[SimSiam, Views]):
    """The state of a pretraining."""

    make_views: Callable[..., Views]  # `views_of`, compiled where that pays
    forward: Callable[[Views], Tensor]  # Eq. 4 or Eq. 2 of two views, compiled where that pays
    replay: Replay | None = None  # of the whole step, on a GPU that holds all images
    collapsed: int = 0  # measurements in a row that said collapse

    def may_be_replayed(self) -> bool:
        """Whether a step can be one graph: a GPU holds all images, and layers draw nothing.

        Several processes must agree, since one's graph waits for the others' sums. Those sums have
        not been shown to have the same bits in a graph: a repeatable run does without.
        """
        on_gpu = isinstance(self.pixels, Tensor) and self.pixels.is_cuda
        able = on_gpu and not self.config.has_own_parts and not self.draws
        if self.processes is None:
            return able
        asked = self.processes.can_record and not self.config.repeatable
        return asked and self.processes.all_agree(able)

    def advance(self, indices: Tensor) -> None:  # (B,)
        """Takes the next step, on two views per image; a ConfigError if torch.compile fails."""
        step = self.algorithm_1 if self.replay is None else self.replay
        with self.compute.compiling():
            self.set_learning_rates()
            self.count(step(*self._own_part(indices, self._table(len(indices)))))

    def read_losses(self) -> list[float]:
        """As `Learner.read_losses`; a graph that waits for a lost process ends this one."""
        if self.replay is None or self.processes is None:
            return super().read_losses()
        with self.processes.watched():
            return super().read_losses()

    def _own_part(self, indices: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """This process's part of a batch (B,) and of the table of its views (2B, columns).

        Each process draws the whole of both, so that a view does not depend on how many there are.
        """
        if self.processes is None:
            return indices, table
        part = self.processes.part(len(indices))
        return indices[part], table.view(2, -1, table.shape[1])[:, part].flatten(0, 1)

    def algorithm_1(self, indices: Tensor, table: Tensor) -> Tensor:  # (B,), table -> (2,)
        """One step, from indices to new weights, at the learning rates as set.

        The views are made from a table of uniform numbers; loss and refusal are for `count`.
        """
        views = self._views_of(indices, table)  # x1, x2 = aug(x), aug(x)
        with self.drawing("own"):
            loss = self.loss(views)  # L = D(p1, z2) / 2 + D(p2, z1) / 2
        return self.update(self.backward(loss))

    def loss(self, batch: Views) -> Tensor:  # -> ()
        """The symmetrised loss of two views."""
        return self.forward(batch)

    def update(self, loss: Tensor) -> Tensor:
        result = super().update(loss)
        if self.model.target is not None:
            self.model.follow((1 - self.config.target_momentum) * (1 - self.refused))
        return result

    def views(self, indices: Tensor) -> Views:  # (B,) -> (B, C, S, S) twice
        """Two views of each image of a batch, as the seed and the step decide."""
        return self._views_of(indices, self._table(len(indices)))

    def _views_of(self, indices: Tensor, table: Tensor) -> Views:
        pixels = self.compute.fetch(self.pixels, indices)
        return self.make_views(
            pixels, table, config=self.config.views, normalization=self.normalization
        )

    def _table(self, images: int) -> Tensor:  # (2B, columns)
        """The uniform numbers of this step's views."""
        device = self.compute.device
        generator = torch_generator(self.config.seed, "views", self.step, device=device)
        return random_table(generator, views=2 * images)

    def order(self) -> Tensor:  # (N,) int64
        """All images in this epoch's own random order, or each part's images in one of its own.

        Part p of P is images p N / P to (p + 1) N / P; it gives images p B / P to (p + 1) B / P of
        each batch. Images left over after the last whole batch are not taken.
        """
        generator = torch_generator(self.config.seed, "order", self.epoch)
        count, parts = len(self.pixels), self.config.parts
        borders = [p * count // parts for p in range(parts + 1)]
        orders = [
            torch.randperm(end - start, generator=generator) + start
            for start, end in itertools.pairwise(borders)
        ]
        order = orders[0]
        if parts > 1:
            share = self.batch_size // parts
            taken = self.steps_per_epoch * share
            order = torch.stack([o[:taken].view(-1, share) for o in orders], dim=1).flatten()
        return order.to(self.pixels.device) if isinstance(self.pixels, Tensor) else order

    def learning_rates(self, step: int) -> LearningRates:
        """The learning rates of a step, counted from 1."""
        return learning_rates(self.config, step=step - 1, steps_per_epoch=self.steps_per_epoch)

    def group_rates(self, step: int) -> Mapping[str, float]:
        rates = self.learning_rates(step)
        return {"encoder": rates.lr, "predictor": rates.predictor_lr}

    def row(self, step: int, loss: float) -> dict[str, object]:
        rates = self.learning_rates(step)._asdict()
        return {"kind": "step", "step": step, "loss": loss} | rates

    def end_epoch(self, looks: Looks, *, views_per_s: float) -> Epoch:
        """Counts the epoch as finished, now that it is measured."""
        loss = sum(self.losses) / len(self.losses)
        self.epoch, self.losses = self.epoch + 1, []
        if looks.verdict is not None:
            # A run starts with few directions: a healthy one's first verdicts may say collapse.
            young = self.epoch <= self.epochs / 10
            counts = "collapse" in looks.verdict.state and not young
            self.collapsed = self.collapsed + 1 if counts else 0
        return Epoch(
            number=self.epoch,
            step=self.step,
            loss=loss,
            rates=self.learning_rates(self.step),
            views_per_s=views_per_s,
            model=self.model,
            **looks._asdict(),
        )

    def state(self) -> TrainingState:
        done, losses, collapsed = self.epoch, self.losses, self.collapsed
        return {"step": self.step, "epoch": done, "losses": losses, "collapsed": collapsed}

    def restore(self, checkpoint: Checkpoint) -> None:
        super().restore(checkpoint)
        self.collapsed = checkpoint.state.get("collapsed", 0)


def _choose_batch_norm(model: SimSiam, config: Config, processes: Processes | None) -> None:
    """Sets over which processes BN takes its statistics, and which kernels compute it."""
    if processes is not None and config.batch_norm_over == "all":
        normalize_over_processes(model, processes)
    if config.batch_norm_kernel == "fused":
        check_kernels(config)
        fuse_batch_norm(model)


def start_training(
    images: Images,
    config: Config,
    *,
    normalization: Normalization,
    init: Mapping[str, Tensor] | None = None,
    processes: Processes | None = None,
) -> Pretraining:
    """A pretraining at step 0: the model as the seed decides, images on the device if they fit.

    Args:
        images: The images to learn from.
        config: Every knob.
        normalization: Of the images.
        init: What the encoder starts from, by its own names; None: random weights.
        processes: Those that take each step together.

    Raises:
        ConfigError: For a device that is not there, or an encoder that does not exist.
    """
    compute = compute_for(config)
    use_repeatable(config.repeatable)
    model = compute.place(_first_model(config, init))
    _choose_batch_norm(model, config, processes)

    def forward(views: Views) -> Tensor:
        with compute.autocast():
            outputs = model(compute.arrange(views.x1), compute.arrange(views.x2))
        return simsiam_loss(outputs, stop_gradient=config.stop_gradient)

    training = Pretraining(
        config=config,
        compute=compute,
        normalization=normalization,
        pixels=compute.keep(images.pixels),
        model=model,
        optimizer=build_optimizer(model, config.optimizer),
        processes=processes,
        epochs=config.epochs,
        batch_size=config.batch,
        steps_per_epoch=len(images) // config.batch,
        advice="lower optimizer.base_lr or add optimizer.warmup_epochs",
        make_views=_view_maker(config, compute, images=len(images)),
        forward=compute.compile(forward),
    )
    if compute.device.type == "cuda":
        training.optimizer.keep_learning_rates_on(compute.device)
    if training.may_be_replayed():
        training.replay = Replay(training.algorithm_1, processes)
    return training


def _view_maker(config: Config, compute: Compute, *, images: int) -> Callable[..., Views]:
    if config.views.own:
        return views_of
    if compute.device.type == "cpu" and not compute.compiled:
        return FasterViews(pixels=2 * images * config.epochs * config.views.size**2)
    return compute.compile(views_of)


def _first_model(config: Config, init: Mapping[str, Tensor] | None) -> SimSiam:
    """The model at step 0, on the CPU; a target is equal to what it follows."""
    model = build_simsiam(config).train()
    if init is not None:
        model.encoder.load_state_dict(init)
        model.follow(1.0)
    return model


def _row(epoch: Epoch) -> dict[str, object]:
    """The epoch as a line of metrics; numbers that are not finite become null."""
    row: dict[str, object] = {
        "kind": "epoch",
        "epoch": epoch.number,
        "step": epoch.step,
        "loss": epoch.loss,
        **epoch.rates._asdict(),
        "knn": epoch.knn,
        **{f"knn_{k}": v for k, v in epoch.balance._asdict().items() if v is not None},
        "views_per_s": epoch.views_per_s,
    }
    if epoch.layers is None or epoch.verdict is None:
        return row
    layers = {name: _finite(layer) for name, layer in epoch.layers._asdict().items()}
    row |= {"measures": layers, "measured": epoch.measured, "verdict": epoch.verdict._asdict()}
    if epoch.clean is not None:
        row |= {"clean": _finite(epoch.clean.z), "clean_images": epoch.clean.images}
    return row if epoch.spectra is None else row | {"spectra": epoch.spectra._asdict()}


def _finite(measures: Measures) -> dict[str, float | None]:
    return {key: value if value == value else None for key, value in measures._asdict().items()}
