"""Features (N, F) -> places in the plane (N, 2): principal components, or PaCMAP.

Features are scaled to unit length first, because kNN compares directions: then near on the map
and near by cosine similarity mean the same.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Literal, NamedTuple, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST = 50  # images below which PaCMAP has too few neighbours to work with


Layout = Literal["auto", "principal", "pacmap"]


class Plane(NamedTuple):
    """Places, and by which method."""

    points: Tensor  # (N, 2) float32
    method: str
    variance: tuple[float, ...]  # share of the variance on each axis; () where axes mean nothing


def principal_plane(values: Tensor, shown: Tensor) -> Plane:  # (N, F), (M,) -> (M, 2)
    """The two directions of the largest variance of all features, exactly, in float64.

    By the eigenvectors of their covariance and not by `torch.pca_lowrank`, which draws from the
    global generator. The largest entry of each direction is positive, so the map is never flipped.
    """
    unit = F.normalize(values.double(), dim=1)
    centred = unit - unit.mean(dim=0)
    eigenvalues, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
    axes = vectors[:, -2:].flip(1)  # (F, 2)
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    shares = eigenvalues.flip(0)[:2] / eigenvalues.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return Plane((centred[shown] @ axes).float(), "PCA", tuple(shares.clamp_min(0).tolist()))


def pacmap_plane(values: Tensor, *, seed: int) -> Plane:  # (M, F) -> (M, 2)
    """PaCMAP (Wang et al. 2021) with its own defaults; needs the extra `map`."""
    import pacmap

    logging.getLogger("pacmap").setLevel(logging.ERROR)  # it warns of every seed
    method = pacmap.PaCMAP(n_components=2, random_state=seed % (1 << 31))
    unit = F.normalize(values, dim=1)
    return Plane(torch.from_numpy(method.fit_transform(unit.numpy(), init="pca")), "PaCMAP", ())


def plane(values: Tensor, shown: Tensor, *, seed: int, layout: Layout = "auto") -> Plane:
    """The places (M, 2) of the shown of all features (N, F).

    Args:
        values: (N, F) float32.
        shown: (M,) int64, rows of them.
        seed: Of PaCMAP; the principal plane draws nothing.
        layout: auto: PaCMAP where it is installed and the images are enough, else principal.
    """
    found = find_spec("pacmap") is not None and len(shown) >= FEWEST
    match layout:
        case "pacmap":
            return pacmap_plane(values[shown], seed=seed)
        case "principal":
            return principal_plane(values, shown)
        case "auto":
            return plane(values, shown, seed=seed, layout="pacmap" if found else "principal")
    assert_never(layout)
