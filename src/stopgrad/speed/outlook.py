"""Findings about a data set, and a config -> whether a run would start, its cost, a suggestion.

The suggestion follows a few rules: a preset by device and image size, views no larger than the
images, enough batches in an epoch, and as many pairs of views as the preset takes from its data.
"""

from __future__ import annotations

from shlex import quote
from typing import Any, NamedTuple

import torch

from stopgrad.config import Config, PresetName, knob_values, preset
from stopgrad.errors import StopgradError
from stopgrad.images import Dataset, Findings
from stopgrad.method import Extent, extent
from stopgrad.runs import check_sizes, fit_sizes, prepare
from stopgrad.speed.cost import Cost, estimate_cost, memory_limit

READING = (
    "bad_images",
    "image_column",
    "label_column",
    "white_level",
    "bands",
    "encoder.channels",
)
"""The knobs that decide how images are read, and as how many channels."""

PACKED_ABOVE = 0.5  # fraction of the memory that decoded images may fill without a store

CIFAR, IMAGENET = 50_000, 1_281_167  # images of the data that the presets were made for
FEWEST_STEPS, SMALLEST_BATCH = 16, 16  # of an epoch; with fewer, BN suffers
FEW = 500  # images; a run on fewer learns little
MOST_EPOCHS = {"cpu": 400, "cifar": 800, "imagenet": 800}
# For each view size the least short side of the images, px. No image is enlarged. The cost grows
# with the square of the size, so a CPU gets small views (24 px of CIFAR's 32 in the preset).
VIEW_SIZES: dict[str, dict[int, int]] = {
    "cpu": {24: 0, 32: 43},
    "cifar": {32: 0, 64: 64},
    "imagenet": {96: 0, 128: 128, 160: 160, 224: 224},
}


class Suggestion(NamedTuple):
    """A preset and changes to its knobs."""

    preset: PresetName
    changes: dict[str, Any]  # by key path
    reason: str

    @property
    def config(self) -> Config:
        """The config of the suggested run."""
        return preset(self.preset, **self.changes)

    @property
    def flags(self) -> str:
        """The suggestion as flags of `stopgrad pretrain`."""
        knobs = "".join(f" --{key} {quote(str(value))}" for key, value in self.changes.items())
        return f"--preset {self.preset}{knobs}"


class StoreAdvice(NamedTuple):
    """Advice to pack the images into a store before training."""

    side: int  # px
    reason: str


class Outlook(NamedTuple):
    """Whether pretraining on a data set would start, what it costs, and what to do instead."""

    refusal: StopgradError | None  # why it would not start
    cost: Cost | None  # None: no step could be taken
    suggestion: Suggestion | None  # None: there are too few images
    suggested_cost: Cost | None  # equals `cost` if the suggestion is the same config
    packing: StoreAdvice | None = None  # if the decoded images would fill the memory
    extent: Extent | None = None  # of the run; None: it would not start
    suggested_extent: Extent | None = None  # of the suggested one


def look_ahead(findings: Findings, config: Config) -> Outlook:
    """Takes a few steps on the readable images with the config, and a few with a suggestion.

    The suggestion keeps the config's knobs for reading images.
    """
    dataset = findings.dataset
    if dataset is None:
        return Outlook(findings.refusal, None, None, None)
    cost, reach, problem = _cost(dataset, config)
    refusal = findings.refusal or problem
    if len(dataset.train) < 2:
        return Outlook(refusal, cost, None, None)
    suggestion = suggest(
        images=len(dataset.train),
        short_side=typical_short_side(findings),
        on_gpu=config.device != "cpu" and torch.cuda.is_available(),
    )
    now, usual = knob_values(config), knob_values(Config())
    kept = {key: now[key] for key in READING if now[key] != usual[key]}
    suggestion = suggestion._replace(changes=suggestion.changes | kept)
    suggested, own = suggestion.config, (cost, reach)
    its_cost, its_reach = own if suggested == config else _cost(dataset, suggested)[:2]
    packing = advise_packing(findings, side=suggested.image_side, limit=memory_limit())
    return Outlook(refusal, cost, suggestion, its_cost, packing, reach, its_reach)


def suggest(*, images: int, short_side: int, on_gpu: bool) -> Suggestion:
    """A config to begin with.

    Args:
        images: Number of training images.
        short_side: Median short side of the images, px.
        on_gpu: Whether a GPU will train.
    """
    of_gpu: PresetName = "cifar" if short_side < 96 else "imagenet"
    name: PresetName = of_gpu if on_gpu else "cpu"
    base = preset(name)
    size = max(size for size, least in VIEW_SIZES[name].items() if least <= short_side)
    batch = _batch(images, most=base.batch)
    pairs = base.epochs * (IMAGENET if name == "imagenet" else CIFAR)
    epochs = max(1, min(MOST_EPOCHS[name], round(pairs / images)))
    wanted = {"views.size": size, "batch": batch, "epochs": epochs}
    usual = {"views.size": base.views.size, "batch": base.batch, "epochs": base.epochs}
    changes = {key: value for key, value in wanted.items() if value != usual[key]}
    machine = "a GPU" if on_gpu else "no GPU"
    reason = (
        f"{machine}, images of about {short_side} px: preset {name} with views of {size} px; "
        f"{images:,} images: {epochs} epochs take {epochs * images:,} pairs of views (the preset "
        f"on its own data: {pairs:,}); a batch of {batch} gives {images // batch} steps an epoch"
    )
    few = f"; a run on fewer than {FEW} images learns little" if images < FEW else ""
    return Suggestion(name, changes, reason + few)


def _batch(images: int, *, most: int) -> int:
    """The preset's batch, halved until an epoch has enough steps."""
    batch = most
    while batch > SMALLEST_BATCH and images // batch < FEWEST_STEPS:
        batch //= 2
    return max(2, min(batch, images))


def advise_packing(findings: Findings, *, side: int, limit: int) -> StoreAdvice | None:
    """Advises a store, of images of `side` px, if the decoded ones would fill much of the memory.

    The `limit` is in bytes.
    """
    stored = min(side, typical_short_side(findings))
    channels = findings.dataset.train.channels if findings.dataset else 3
    needed = sum(findings.pictures.values()) * channels * stored**2
    if findings.packed or needed <= PACKED_ABOVE * limit:
        return None
    return StoreAdvice(
        side,
        f"decoded at {stored} px the images take {needed / 2**30:.1f} GiB, more than "
        f"{100 * PACKED_ABOVE:.0f} % of {limit / 2**30:.1f} GiB of memory; a store stays on disk",
    )


def typical_short_side(findings: Findings) -> int:
    """The median short side of the readable images, px."""
    left = sum(findings.sizes.values()) / 2
    for side, images in sorted((min(size), n) for size, n in findings.sizes.items()):
        left -= images
        if left <= 0:
            return side
    raise AssertionError("no readable images")


def _cost(
    dataset: Dataset, config: Config
) -> tuple[Cost | None, Extent | None, StopgradError | None]:
    """The cost of a run and how far it goes, or why it would not start."""
    try:
        images = prepare(fit_sizes(dataset, config), config)
        check_sizes(images.train, config)
        cost = estimate_cost(images, config)
        return cost, extent(config, images=len(images.train)), None
    except StopgradError as error:
        return None, None, error
