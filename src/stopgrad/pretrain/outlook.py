"""Findings about a data set, and a config -> whether a run would start, its cost, a suggestion."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stopgrad.config import Config
from stopgrad.errors import StopgradError
from stopgrad.images import Dataset, Findings
from stopgrad.pretrain.cost import Cost, estimate_cost
from stopgrad.pretrain.setup import check_sizes, prepare
from stopgrad.pretrain.suggest import Suggestion, suggest


class Outlook(NamedTuple):
    """What pretraining on a data set will be like."""

    refusal: StopgradError | None  # why it would not start
    cost: Cost | None  # None: no step could be taken
    suggestion: Suggestion | None  # None: there is too little to learn from
    suggested_cost: Cost | None  # `cost` where nothing else is suggested


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
    same = suggestion.config == config
    return Outlook(
        refusal, cost, suggestion, cost if same else _cost(dataset, suggestion.config)[0]
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
        images = prepare(dataset, config)
        check_sizes(images.train, config)
        return estimate_cost(images, config), None
    except StopgradError as error:
        return None, error
