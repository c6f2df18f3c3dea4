"""Two views of each image on a CPU: by torch, and in a long run by loops that are compiled.

In and out: as `views_of`, the same bits either way. Loading the loops takes half a second, and
compiling them ten, once on a machine, so a short run does without.
"""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor

from stopgrad.config import ViewsConfig
from stopgrad.images import Normalization
from stopgrad.method.views.make import Views, views_of
from stopgrad.storage import in_short

log = logging.getLogger(__name__)

LONG = 2**29
"""Pixels of views from which on a run loads the loops; they then save about ten seconds."""


class _MakeViews(Protocol):
    def __call__(
        self, pixels: Tensor, table: Tensor, *, config: ViewsConfig, normalization: Normalization
    ) -> Views: ...


class FasterViews:
    """`views_of` for a run on a CPU, by the faster of two ways.

    Args:
        pixels: The number of pixels of all views of the run.
    """

    def __init__(self, *, pixels: int) -> None:
        self._make: _MakeViews | None = None if pixels >= LONG else views_of

    def __call__(
        self, pixels: Tensor, table: Tensor, *, config: ViewsConfig, normalization: Normalization
    ) -> Views:
        if self._make is not None:
            return self._make(pixels, table, config=config, normalization=normalization)
        views = views_of(pixels, table, config=config, normalization=normalization)
        colours = pixels.shape[1] == 3 == len(normalization.mean)
        loops = _loops(views, pixels, table, config, normalization) if colours else None
        self._make = loops or views_of
        return views


def _loops(
    views: Views,
    pixels: Tensor,
    table: Tensor,
    config: ViewsConfig,
    normalization: Normalization,
) -> _MakeViews | None:
    """The loops, if this machine can compile them and they make these views to the last bit."""
    try:
        from stopgrad.method.views.loops import views_by_loops

        made = views_by_loops(pixels, table, config=config, normalization=normalization)
    except ImportError:
        return None
    except Exception as error:  # numba does not work here: a run goes on without it
        log.warning(
            "views are made by torch, which gives the same views more slowly: %s", in_short(error)
        )
        return None
    same = all(torch.equal(one, other) for one, other in zip(made, views, strict=True))
    return views_by_loops if same else None
