"""How a network is trained with labels: the recipe, the images it needs, and the protocol.

In: a config and labelled images. Out: a `Recipe`, checked against the images, and what a record
says of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stopgrad.config import Config, Task
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import Images, label_subset
from stopgrad.method import ClassifierShape, classifier_flops
from stopgrad.training.crops import CropSize


class Recipe(NamedTuple):
    """How a classifier is trained: SGD with momentum, cosine to 0 in every step."""

    task: Task
    epochs: int
    batch: int
    lr: float  # peak, of the encoder
    head_lr: float  # peak, of the linear layer
    momentum: float
    weight_decay: float
    padding: int  # px
    crop: int  # side, px; 0: that of the images
    flip: float  # probability

    def size(self, images: Images) -> CropSize:
        """What a crop of these images measures."""
        height, width = images.whole_size
        return CropSize(self.crop or height, self.crop or width)

    def room(self, images: Images) -> CropSize:
        """How far the corner of a crop may lie from the upper left one, px."""
        height, width = images.whole_size
        size = self.size(images)
        return CropSize(
            height + 2 * self.padding - size.height, width + 2 * self.padding - size.width
        )


class LabelledImages(NamedTuple):
    """The images whose labels train a classifier, and those that it is scored on.

    An epoch has as many steps as one over all `full_size` images, whatever the fraction: a subset
    is passed over full_size / len(train) times, each time in another order and with other crops.
    Report: the linear probe's rule; so 100, 10 and 1 % of the labels cost the same.
    """

    train: Images
    test: Images
    fraction: float  # of the labels
    draw: int  # seed of their draw
    full_size: int  # images that the fraction was drawn from

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C names of the classes of both sets."""
        return max(self.train.class_names, self.test.class_names, key=len)


def draw_fraction(train: Images, test: Images, *, fraction: float, seed: int) -> LabelledImages:
    """The fraction of the training labels that `label_subset` draws, as all evaluators do.

    Raises:
        ConfigError: For a fraction that is not above 0 and at most 1.
        DataError: When the images have no labels.
    """
    chosen = label_subset(train, fraction=fraction, seed=seed)
    drawn = train if fraction == 1 else train.take(chosen)
    return LabelledImages(drawn, test, fraction, seed, len(train))


def supervised_recipe(config: Config) -> Recipe:
    """The baseline from scratch, `config.supervised`: one learning rate for the whole network."""
    knobs, length = config.supervised, config.length("supervised")
    lr = knobs.base_lr * length.batch / 256
    return Recipe(
        task="supervised",
        epochs=length.epochs,
        batch=length.batch,
        lr=lr,
        head_lr=lr,
        momentum=knobs.momentum,
        weight_decay=knobs.weight_decay,
        padding=knobs.padding,
        crop=knobs.crop,
        flip=config.views.flip,
    )


def finetune_recipe(config: Config) -> Recipe:
    """Fine-tuning, `config.finetune`: encoder and new layer have learning rates of their own.

    Source: SwAV (Caron et al. 2020), with the cosine of Barlow Twins (Zbontar et al. 2021).
    """
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


def check_recipe(recipe: Recipe, images: LabelledImages) -> None:
    """Refuses what cannot be trained, before anything is made.

    Raises:
        DataError: When there are fewer images than one batch.
        ConfigError: For a crop or a padding that does not fit the images.
    """
    if images.full_size < recipe.batch:
        raise DataError(
            f"{images.full_size} images to train on with {recipe.task}.batch = {recipe.batch}",
            expected="at least one batch of images",
            hint=f"give more images or a smaller --{recipe.task}.batch",
        )
    height, width = images.train.whole_size
    if recipe.padding >= min(height, width) or min(recipe.room(images.train)) < 0:
        raise ConfigError(
            f"{recipe.task}.padding = {recipe.padding} and {recipe.task}.crop = {recipe.crop} "
            f"on images of {height} x {width} px",
            expected="a padding below the side, and a crop within the padded image",
            hint="lower the knob that is too large",
        )


def protocol(recipe: Recipe, images: LabelledImages, config: Config) -> dict[str, Any]:
    """All that defines the number and what it cost, ready for JSON."""
    size = recipe.size(images.train)
    steps = recipe.epochs * (images.full_size // recipe.batch)
    views = steps * recipe.batch
    shape = ClassifierShape(config.encoder, len(images.class_names), size)
    how = {
        "evaluator": recipe.task,
        "start": "random" if recipe.task == "supervised" else "the pretrained encoder",
        "algorithm": "sgd",
        "lr": recipe.lr,
        "head_lr": recipe.head_lr,
        "schedule": "cosine to 0, per step",
        "batch": recipe.batch,
        "epochs": recipe.epochs,
        "steps": steps,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "augmentation": f"random crop of {size.height} x {size.width} px with {recipe.padding} px "
        f"of reflect padding, flip {recipe.flip:g}",
        "train_images": len(images.train),
        "epoch_samples": images.full_size,
        "views": views,
        "flops": classifier_flops(shape) * views,
    }
    if recipe.task == "supervised":
        pretraining = 2 * config.batch * config.epochs * (images.full_size // config.batch)
        return how | {"views_of_pretraining": pretraining}
    return how
