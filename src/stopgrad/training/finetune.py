"""Fine-tuning: a pretrained encoder and labelled images -> the whole network trained, its score.

In: a share of the labels and the test images, an encoder x (B, 3, H, W) -> features (B, F). Out:
an `Epoch` at a time, by the loop of `supervised`. Recipe: SwAV (Caron et al. 2020), whose encoder
and new layer have learning rates of their own, with the cosine of Barlow Twins (Zbontar et al.
2021); steps and augmentation as in the baseline from scratch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from stopgrad.config import Config
from stopgrad.images import Normalization, Track, no_progress
from stopgrad.method import build_classifier
from stopgrad.runs import RunWriter
from stopgrad.training.supervised.loop import LabelledEpoch, labelled_epochs
from stopgrad.training.supervised.recipe import LabelledShare, Recipe
from stopgrad.training.supervised.training import start_labelled_training


class Start(NamedTuple):
    """What fine-tuning starts from."""

    encoder: nn.Module  # of the config; its weights are copied into a plain one
    normalization: Normalization  # that it was pretrained with


def finetune_epochs(
    images: LabelledShare,
    config: Config,
    *,
    start: Start,
    writer: RunWriter | None = None,
    track: Track = no_progress,
) -> Iterator[LabelledEpoch]:
    """Trains a pretrained encoder and a new linear layer; yields at the end of each epoch.

    The last epoch brings the score on the whole test set.

    Args:
        images: The share of labels to learn from, see `draw_share`, and the test images.
        config: That of the pretraining; its `finetune` and `seed` decide the rest.
        start: The pretrained encoder and the normalisation that it knows.
        writer: As for `supervised`.
        track: As for `supervised`.

    Raises:
        DataError: When there are fewer images than one batch.
        ConfigError: For a crop that does not fit the pictures.
        DivergedError: When the loss is not finite; the bad step is not taken.
        InterruptedRunError: After a signal, when the state is saved.
        StorageError: When the disk refuses a checkpoint.
    """
    model = build_classifier(config.encoder, classes=len(images.class_names), seed=config.seed)
    # Not the encoder itself: pretraining taught its BN that a batch is two views.
    model.encoder.load_state_dict(start.encoder.state_dict())
    training = start_labelled_training(
        model,
        images,
        recipe=finetune_recipe(config),
        config=config,
        normalization=start.normalization,
    )
    yield from labelled_epochs(training, writer=writer, track=track)


def finetune_recipe(config: Config) -> Recipe:
    """The recipe of `config.finetune`."""
    knobs = config.finetune
    return Recipe(
        task="finetune",
        epochs=knobs.epochs,
        batch=knobs.batch,
        lr=knobs.base_lr * knobs.batch / 256,
        head_lr=knobs.head_base_lr * knobs.batch / 256,
        momentum=knobs.momentum,
        weight_decay=knobs.weight_decay,
        padding=knobs.padding,
        crop=knobs.crop,
        flip=config.views.flip,
    )
