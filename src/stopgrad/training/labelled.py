"""Training with labels: the baseline from scratch, and fine-tuning of a pretrained encoder.

In: a fraction of the labels and the test images (`recipe`). Out: a `LabelledEpoch` at a time; the
last one has the score on the whole test set. A step is crops, forward, cross-entropy, backward,
new weights; all randomness is a function of (seed, step). Report: the supervised network of its
label study. The recipe of fine-tuning is SwAV's, see `recipe_of`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.config import Config, torch_generator
from stopgrad.errors import ConfigError
from stopgrad.evaluation import Score, embed, labelled, score
from stopgrad.images import Normalization, Track, no_progress, normalization
from stopgrad.method import (
    SGD,
    Classifier,
    ParameterGroup,
    build_classifier,
    compute_for,
    cosine_with_warmup,
    downscale,
    normalize,
    size_problem,
    use_repeatable,
)
from stopgrad.runs import RunWriter, read_metrics
from stopgrad.training.learner import Keeper, Learner
from stopgrad.training.recipe import (
    LabelledImages,
    Recipe,
    check_recipe,
    draw_crops,
    padded_crop,
    protocol,
    recipe_of,
)

T = TypeVar("T")


class LabelledEpoch(NamedTuple):
    """The results of one epoch."""

    number: int  # epochs finished
    step: int  # steps taken
    loss: float  # mean over the epoch's steps
    lr: float  # of the encoder, at its last step
    images_per_s: float  # over all steps so far
    seconds: float  # of all steps so far; with the scoring at the last epoch
    score: Score | None  # on the whole test set, at the last epoch alone
    model: Classifier  # the living model, not a copy


class Start(NamedTuple):
    """What fine-tuning starts from."""

    encoder: nn.Module  # of the config; its weights are copied into a plain one
    normalization: Normalization  # that it was pretrained with


def labelled_epochs(
    images: LabelledImages,
    config: Config,
    *,
    start: Start | None = None,
    writer: RunWriter | None = None,
    track: Track = no_progress,
) -> Iterator[LabelledEpoch]:
    """Trains an encoder and a new linear layer; yields at the end of each epoch.

    The last epoch has the score on the whole test set.

    Args:
        images: The images to learn from and their labels, see `draw_fraction`; the test images.
        config: Its `supervised` or `finetune`, `encoder` and `seed` decide the result.
        start: What fine-tuning starts from. None: the baseline from scratch, with the mean and std
            of the fraction itself, so nothing of the other images enters.
        writer: The open run directory; the training resumes from its checkpoint, with its
            normalisation, and yields its last epoch again if that was reached. None: write nothing.
        track: Wraps the batches of an epoch, to show progress.

    Raises:
        ConfigError, DataError: As `start_labelled_training`.
        StopgradError: As `Keeper`: a loss that is not finite, a signal, a disk that refuses.
    """
    model = build_classifier(config.encoder, classes=len(images.class_names), seed=config.seed)
    if start is not None:
        # Not the encoder itself: pretraining taught its BN that a batch is two views.
        model.encoder.load_state_dict(start.encoder.state_dict())
        recipe, mean_std = recipe_of(config, "finetune"), start.normalization
    else:
        recipe = recipe_of(config, "supervised")
        channels = config.encoder.channels
        known = writer.info.normalization if writer else None
        mean_std = known or normalization(images.train, channels=channels)
    training = start_labelled_training(
        model, images, recipe=recipe, config=config, normalization=mean_std
    )
    yield from _epochs(training, writer=writer, track=track)


def _epochs(
    training: LabelledTraining, *, writer: RunWriter | None, track: Track
) -> Iterator[LabelledEpoch]:
    """Takes the steps that are left and yields at the end of each epoch.

    The run is finished only when the caller, given the last epoch, asks for the next one, so that
    a result is never lost between the training and its record.
    """
    keeper = Keeper(training, writer, hint="continue with the same command")
    keeper.begin()
    if writer is not None:
        steps = (row for row in read_metrics(writer.path) if row["kind"] == "step")
        training.seconds = sum(row["seconds"] for row in steps)
    while training.epoch < training.epochs:
        left, description = training.steps_left, f"epoch {training.epoch + 1}/{training.epochs}"
        if left == training.steps_per_epoch:
            training.losses = []
        for batch in track(training.batches(), description, left):
            training.advance(batch)
            keeper.read_losses()  # of every step, whose row has its own seconds
            keeper.after_step()
        training.epoch += 1
        epoch = training.end_of_epoch()
        names = ("step", "loss", "lr", "images_per_s", "seconds")
        row = {name: getattr(epoch, name) for name in names}
        keeper.after_epoch({"kind": "epoch", "epoch": epoch.number} | row)
        if training.epoch < training.epochs:
            yield epoch
    began = time.perf_counter()

    def stopping(items: Iterable[T], description: str, total: int, /) -> Iterator[T]:
        return keeper.track(track(items, description, total), description, total)

    last = training.end_of_epoch(_score(training, track=stopping))
    yield last._replace(seconds=last.seconds + time.perf_counter() - began)
    training.is_scored = True
    keeper.report()


class LabelledBatch(NamedTuple):
    """The images and labels of one step."""

    x: Tensor  # (B, 3, h, w) float32, normalised
    labels: Tensor  # (B,) int64


@dataclass(kw_only=True)
class LabelledTraining(Learner[Classifier, LabelledBatch]):
    """The state of a training with labels."""

    recipe: Recipe
    images: LabelledImages
    seconds: float = 0.0  # that all steps took, s
    step_seconds: float = 0.0  # that the newest step took, s
    is_scored: bool = False  # the caller has taken the score

    def advance(self, indices: Tensor) -> None:  # (B,)
        """Takes the next step, on crops of the images of a batch; waits for the device."""
        began = time.perf_counter()
        with self.drawing(self.recipe.task, "own"):
            self.take_step(self.augmented(indices)).item()
        self.step_seconds = time.perf_counter() - began
        self.seconds += self.step_seconds

    def augmented(self, indices: Tensor) -> LabelledBatch:  # (B,)
        """The images of a batch, cropped and flipped as the seed and the step decide."""
        train, device, recipe = self.images.train, self.compute.device, self.recipe
        assert train.labels is not None
        labels = torch.from_numpy(train.labels[indices.numpy()]).to(device)
        pixels = downscale(self.compute.fetch(self.pixels, indices), train.whole_size)
        position = (self.config.seed, recipe.task, "crops", self.step)
        crops = draw_crops(
            torch_generator(*position, device=device),
            images=len(indices),
            room=recipe.room(train),
            flip=recipe.flip,
        )
        cut = padded_crop(pixels, crops, padding=recipe.padding, size=recipe.size(train))
        return LabelledBatch(normalize(cut, self.normalization), labels)

    def loss(self, batch: LabelledBatch) -> Tensor:  # -> ()
        """The mean cross-entropy."""
        with self.compute.autocast():
            logits = self.model(self.compute.arrange(batch.x))  # (B, C)
        return F.cross_entropy(logits, batch.labels)

    def order(self) -> Tensor:  # (>= full size,) int64
        """The images of the fraction, repeated in new orders to the length of an epoch."""
        generator = torch_generator(self.config.seed, self.recipe.task, "order", self.epoch)
        size = len(self.images.train)
        passes = math.ceil(self.images.full_size / size)
        return torch.cat([torch.randperm(size, generator=generator) for _ in range(passes)])

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are finished, and the caller has taken the score."""
        return self.is_scored

    def group_rates(self, step: int) -> Mapping[str, float]:
        """The learning rates of encoder and linear layer at a step, counted from 1."""
        total = self.epochs * self.steps_per_epoch
        curve = cosine_with_warmup(step - 1, total=total)
        return {"encoder": self.recipe.lr * curve, "head": self.recipe.head_lr * curve}

    def row(self, step: int, loss: float) -> dict[str, object]:
        """The newest step, counted from 1, as a line of metrics."""
        lr = self.group_rates(step)["encoder"]
        return {"kind": "step", "step": step, "loss": loss, "lr": lr, "seconds": self.step_seconds}

    def end_of_epoch(self, result: Score | None = None) -> LabelledEpoch:
        """The epoch that has just ended, from the state alone."""
        return LabelledEpoch(
            number=self.epoch,
            step=self.step,
            loss=sum(self.losses) / len(self.losses),
            lr=self.group_rates(self.step)["encoder"],
            images_per_s=self.recipe.batch * self.step / self.seconds,
            seconds=self.seconds,
            score=result,
            model=self.model,
        )


def start_labelled_training(
    model: Classifier,
    images: LabelledImages,
    *,
    recipe: Recipe,
    config: Config,
    normalization: Normalization,
) -> LabelledTraining:
    """A training of this classifier at step 0; the config gives the device and the seed.

    Weight decay is on every parameter; encoder and linear layer have a learning rate each.

    Raises:
        ConfigError, DataError: As `check_recipe`, and for a crop that the backbone does not take.
    """
    check_recipe(recipe, images)
    use_repeatable(config.repeatable)
    compute = compute_for(config)
    compute.place(model).eval()
    size = recipe.size(images.train)
    if reason := size_problem(model.encoder, size):
        raise ConfigError(
            f"{config.encoder.name} and crops of {size.width} x {size.height} px ({reason})",
            expected="crops of a size that the backbone takes",
            hint=f"set {recipe.task}.crop",
        )
    parts: tuple[tuple[str, nn.Module], ...] = (("encoder", model.encoder), ("head", model.head))
    groups = [ParameterGroup(n, list(m.parameters()), recipe.weight_decay) for n, m in parts]
    return LabelledTraining(
        config=config,
        compute=compute,
        normalization=normalization,
        pixels=compute.keep(images.train.pixels),
        model=model.train(),
        optimizer=SGD(groups, momentum=recipe.momentum, fused=False),
        epochs=recipe.epochs,
        batch_size=recipe.batch,
        steps_per_epoch=images.full_size // recipe.batch,  # the same for every fraction
        advice=f"lower {recipe.task}.base_lr",
        recipe=recipe,
        images=images,
    )


def _score(training: LabelledTraining, *, track: Track) -> Score:
    """The network's accuracy on every test image; images are normalised, not augmented."""
    test, how = training.images.test, training.normalization
    logits = embed(training.model, test, normalization=how, compute=training.compute, track=track)
    said = protocol(training.recipe, training.images, training.config)
    return score(*labelled(logits, role="test"), protocol=said)
