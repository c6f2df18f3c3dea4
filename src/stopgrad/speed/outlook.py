"""Findings about a data set, and a config -> whether a run would start, its cost, a suggestion."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stopgrad.config import Config
from stopgrad.errors import StopgradError
from stopgrad.images import Dataset, Findings
from stopgrad.runs import check_sizes, fit_sizes, prepare
from stopgrad.speed.cost import Cost, estimate_cost, memory_limit
from stopgrad.speed.suggest import Suggestion, suggest

PACKED_ABOVE = 0.5  # share of the memory that decoded pictures may fill without a store


class Packing(NamedTuple):
    """Advice to pack the pictures before training."""

    side: int  # px
    reason: str


class Outlook(NamedTuple):
    """What pretraining on a data set will be like."""

    refusal: StopgradError | None  # why it would not start
    cost: Cost | None  # None: no step could be taken
    suggestion: Suggestion | None  # None: there is too little to learn from
    suggested_cost: Cost | None  # `cost` where nothing else is suggested
    packing: Packing | None = None  # where the decoded pictures are large for this memory


def look_ahead(findings: Findings, config: Config) -> Outlook:
    """Takes a few steps on the pictures as the config asks, and a few as the suggestion does.

    Damaged pictures are left out of the steps, whether or not they are a refusal. The policy on
    them goes into the suggestion.
    """
    dataset = findings.dataset
    if dataset is None:
        return Outlook(findings.refusal, None, None, None)
    cost, problem = _cost(dataset, config)
    refusal = findings.refusal or problem
    if len(dataset.train) < 2:
        return Outlook(refusal, cost, None, None)
    suggestion = suggest(
        pictures=len(dataset.train),
        short_side=typical_short_side(findings),
        on_gpu=config.device != "cpu" and torch.cuda.is_available(),
    )
    if config.bad_images == "skip":
        policy = {"bad_images": config.bad_images}
        suggestion = suggestion._replace(changes=suggestion.changes | policy)
    same = suggestion.config == config
    return Outlook(
        refusal,
        cost,
        suggestion,
        cost if same else _cost(dataset, suggestion.config)[0],
        advise_packing(findings, side=suggestion.config.image_side, limit=memory_limit()),
    )


def advise_packing(findings: Findings, *, side: int, limit: int) -> Packing | None:
    """A store, where the decoded pictures would fill much of the memory.

    Args:
        findings: What is there; a store needs no other.
        side: px, that the run suggested would store.
        limit: Bytes of memory that there are.
    """
    stored = min(side, typical_short_side(findings))
    needed = sum(findings.pictures.values()) * 3 * stored**2
    if findings.packed or needed <= PACKED_ABOVE * limit:
        return None
    return Packing(
        side,
        f"decoded at {stored} px they take {needed / 2**30:.1f} GiB, more than "
        f"{100 * PACKED_ABOVE:.0f} % of {limit / 2**30:.1f} GiB of memory; a store stays on disk",
    )


def typical_short_side(findings: Findings) -> int:
    """The short side, px, that half of the readable pictures do not exceed."""
    left = sum(findings.sizes.values()) / 2
    for side, pictures in sorted((min(size), n) for size, n in findings.sizes.items()):
        left -= pictures
        if left <= 0:
            return side
    raise AssertionError("no readable pictures")


def _cost(dataset: Dataset, config: Config) -> tuple[Cost | None, StopgradError | None]:
    """The cost of a run, or why it would not start."""
    try:
        images = prepare(fit_sizes(dataset, config), config)
        check_sizes(images.train, config)
        return estimate_cost(images, config), None
    except StopgradError as error:
        return None, error
