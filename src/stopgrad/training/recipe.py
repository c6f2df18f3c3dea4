"""How a network is trained with labels: recipe, images, random crops, and the protocol.

In: a config and labelled images. Out: a `Recipe`, checked against the images, what a record says
of it, and crops (B, 3, h, w) of a batch (B, 3, H, W). Report: supervised baseline, 4 px and 32 px.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import (
    Config,
    FinetuneConfig,
    SupervisedConfig,
    Task,
    config_from_dict,
    key_paths,
    knob_values,
)
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import Images, label_subset
from stopgrad.method import ClassifierShape, classifier_flops

ALSO_FREE = ("checkpoint_every", "device", "threads")  # in fine-tuning, besides its own knobs


class Recipe(NamedTuple):
    """How a classifier is trained: SGD with momentum, cosine to 0 step by step."""

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
        """The size of a crop of these images."""
        height, width = images.whole_size
        return CropSize(self.crop or height, self.crop or width)

    def room(self, images: Images) -> CropSize:
        """How far the corner of a crop may lie from the upper left one, px."""
        sides = zip(images.whole_size, self.size(images), strict=True)
        return CropSize(*(whole + 2 * self.padding - crop for whole, crop in sides))


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
    """The fraction of the training labels that `label_subset` draws, as for all evaluators."""
    chosen = label_subset(train, fraction=fraction, seed=seed)
    drawn = train if fraction == 1 else train.take(chosen)
    return LabelledImages(drawn, test, fraction, seed, len(train))


def recipe_of(config: Config, task: Task) -> Recipe:
    """How the baseline from scratch or fine-tuning is trained, as `config` says.

    From scratch one learning rate holds for the whole network; in fine-tuning encoder and new
    layer have their own. Source of the latter: SwAV (Caron et al. 2020), with the cosine of Barlow
    Twins (Zbontar et al. 2021).
    """
    knobs: SupervisedConfig | FinetuneConfig = config.supervised
    head_base_lr = config.supervised.base_lr
    if task == "finetune":
        knobs, head_base_lr = config.finetune, config.finetune.head_base_lr
    epochs, batch = config.length(task)
    return Recipe(
        task=task,
        epochs=epochs,
        batch=batch,
        lr=knobs.base_lr * batch / 256,
        head_lr=head_base_lr * batch / 256,
        momentum=knobs.momentum,
        weight_decay=knobs.weight_decay,
        padding=knobs.padding,
        crop=knobs.crop,
        flip=config.views.flip,
    )


def finetuning_config(config: Config, changes: Mapping[str, object]) -> Config:
    """The config of a run with other knobs of fine-tuning; a ConfigError for any other knob."""
    wrong = [key for key in changes if key.partition(".")[0] != "finetune" and key not in ALSO_FREE]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} for an encoder that is already trained",
            expected=f"finetune.KNOB, {', '.join(ALSO_FREE)}",
            hint="see the knobs of finetune in: stopgrad pretrain --help-all",
        )
    return config_from_dict(knob_values(config) | key_paths(changes))


def check_recipe(recipe: Recipe, images: LabelledImages) -> None:
    """Refuses what cannot be trained, before anything is built.

    A DataError for fewer images than one batch, a ConfigError for a crop that does not fit.
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


def protocol(recipe: Recipe, images: LabelledImages, config: Config) -> dict[str, object]:
    """All that defines the number and what it cost, ready for JSON."""
    size = recipe.size(images.train)
    steps = recipe.epochs * (images.full_size // recipe.batch)
    views = steps * recipe.batch
    shape = ClassifierShape(config.encoder, len(images.class_names), size)
    how: dict[str, object] = {
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


class CropSize(NamedTuple):
    """Height and width of an image, px."""

    height: int
    width: int


class Crops(NamedTuple):
    """The crop of each image; row b belongs to image b."""

    top: Tensor  # (B,) int64, px from the upper edge of the padded image
    left: Tensor  # (B,) int64, px from its left edge
    flip: Tensor  # (B,) bool, true mirrors left and right


def draw_crops(generator: torch.Generator, *, images: int, room: CropSize, flip: float) -> Crops:
    """Corners, each as likely as any other, and flips of B images.

    The generator is the only source of randomness; its device is that of the result. `room` says
    how far a corner may lie from the upper left one, px.
    """
    u = torch.rand((images, 3), generator=generator, device=generator.device)
    # The maximum guards against rounding up.
    top, left = ((u[:, i] * (most + 1)).long().clamp_max_(most) for i, most in enumerate(room))
    return Crops(top, left, flip=u[:, 2] < flip)


def padded_crop(pixels: Tensor, crops: Crops, *, padding: int, size: CropSize) -> Tensor:
    """Pads by reflection, cuts a box out of each image and mirrors it where asked.

    Equal to `torch.nn.functional.pad(mode="reflect")`, a slice and `flip` for each image. Nothing
    is padded: each pixel is looked up where the reflection would have taken it from.

    Args:
        pixels: (B, 3, H, W) of any type, on any device.
        crops: Corners and flips, on the same device.
        padding: px on each side, less than H and W.
        size: h and w, px; the boxes lie inside the padded image.

    Returns:
        (B, 3, h, w) of the same type, channels_last.
    """
    height, width = pixels.shape[2:]
    rows = torch.arange(size.height, device=pixels.device)  # (h,)
    columns = torch.arange(size.width, device=pixels.device)  # (w,)
    mirrored = torch.where(crops.flip[:, None], columns.flip(0), columns)  # (B, w)
    y = _reflected(crops.top[:, None] + rows - padding, limit=height)  # (B, h)
    x = _reflected(crops.left[:, None] + mirrored - padding, limit=width)  # (B, w)
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    cut = pixels.permute(0, 2, 3, 1)[image, y[:, :, None], x[:, None, :]]  # (B, h, w, 3)
    return cut.permute(0, 3, 1, 2)


def _reflected(index: Tensor, *, limit: int) -> Tensor:
    """Positions before 0 and after limit - 1, mirrored back inside; the edge is not repeated."""
    return limit - 1 - (limit - 1 - index.abs()).abs()
