"""Measures of collapse on the representations of two views, and the verdict.

In: z1, z2 (N, D), the outputs of one layer for two views of the same N images (features, the
projector's output before and after its BN). Out: `Measures`, and from those a `Verdict`.
All measures are pure functions; their sources are in docs/reference.md, section 5.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.method.simsiam import in_fp64

State = Literal["healthy", "dimensional collapse", "complete collapse", "diverged"]

# The thresholds of the verdict; docs/log.md shows the runs behind them.
COMPLETE_COSINE = 0.05  # two views of one image are no more alike than two images
COMPLETE_RANK = 1.3  # all outputs lie on one line
YOUNG_STEPS = 1000  # z gains its directions one by one, so few are normal before that
DIMENSIONAL_RANK = 4.0  # a handful of directions carry everything
DIMENSIONAL_CORRELATION = 0.7

LIDAR_DELTA = 1e-6  # added to S_w, relative to the mean variance
NEGLIGIBLE = 1e-6  # eigenvalue relative to the largest; z does not use directions below it


class Measures(NamedTuple):
    """The measures of one layer; plain numbers, NaN where the outputs are not finite."""

    participation_ratio: float
    effective_rank: float
    top_share: float
    correlation_strength: float
    output_std: float
    positive_minus_random: float
    centre_norm: float


class Layers(NamedTuple):
    """The measures of three layers."""

    features: Measures
    before_bn: Measures
    z: Measures


class Clean(NamedTuple):
    """The measures of z on many images without augmentation; one view has no second to match."""

    images: int
    z: Measures


class Spectra(NamedTuple):
    """How z spreads over its main directions, and what the predictor does along each of them."""

    ranks: tuple[int, ...]  # 1 is the direction with the largest eigenvalue
    representation: tuple[float, ...]  # eigenvalues of E[z z^T]
    predictor: tuple[float, ...]  # p_j = u_j^T A u_j with A = E[p z^T] (E[z z^T])^-1
    between: tuple[float, ...]  # ICC_j, the share of z's variance that two views have in common


class Verdict(NamedTuple):
    """What the measures say, why, and what to try next."""

    state: State
    reason: str
    advice: str


def measure(z1: Tensor, z2: Tensor | None = None) -> Measures:  # (N, D), (N, D)
    """All measures of one layer, in fp32, N >= 2. Spectra and correlations are those of z1.

    Counts of dimensions cannot exceed N - 1, so N should be several times larger; docs/method.md
    has their bias. Without second views `positive_minus_random` is NaN.
    """
    z1, z2 = z1.float(), None if z2 is None else z2.float()
    if not all(bool(torch.isfinite(z).all()) for z in (z1, z2) if z is not None):
        return Measures(*[math.nan] * len(Measures._fields))
    spectrum = covariance_spectrum(z1)
    return Measures(
        participation_ratio=float(participation_ratio(spectrum)),
        effective_rank=float(effective_rank(spectrum)),
        top_share=float(spectrum.max() / _positive(spectrum.sum())),
        correlation_strength=float(correlation_strength(z1)),
        output_std=float(output_std(z1)),
        positive_minus_random=math.nan if z2 is None else float(positive_minus_random(z1, z2)),
        centre_norm=float(centre_norm(z1)),
    )


def covariance_spectrum(z: Tensor) -> Tensor:  # (N, D) -> (min(N, D),)
    """Eigenvalues of the covariance of z, in rising order, none below 0.

    In fp64, from the smaller of the covariance (D, D) and the Gram matrix (N, N), whose non-zero
    eigenvalues are the same.
    """
    centred = in_fp64(z - z.mean(dim=0))
    product = centred.T @ centred if z.shape[0] > z.shape[1] else centred @ centred.T
    spectrum: Tensor = torch.linalg.eigvalsh(product / (z.shape[0] - 1))
    return spectrum.clamp_min(0)


def spectra(z: Tensor, p: Tensor, z2: Tensor) -> Spectra:  # (N, D) each
    """Spectra of z and of the predictor along the eigenvectors of E[z z^T], in fp64.

    About 30 ranks, evenly spaced on a log scale. Directions that z does not use are left out,
    because they say nothing about the predictor. ICC_j = E[z_j z2_j] / E[z_j^2] along direction j.

    Source: Tian, Chen & Ganguli 2021, who find p_j proportional to the root of the eigenvalue;
    for the cosine loss it is proportional to ICC_j (docs/method.md).

    Args:
        z: Of one view of N images.
        p: The predictor's outputs for z.
        z2: Of another view of the same images.
    """
    z, p, z2 = in_fp64(z), in_fp64(p), in_fp64(z2)
    values, directions = _moments(z)
    largest = int((values > NEGLIGIBLE * values[0]).sum()) if len(values) else 0
    ranks = sorted({round(largest ** (step / 29)) for step in range(30)}) if largest else []
    chosen = torch.tensor([rank - 1 for rank in ranks], dtype=torch.int64, device=z.device)
    weights, along = values[chosen], directions[:, chosen]  # (R,), (D, R)
    predicted, between = (
        tuple((((of @ along) * (z @ along)).mean(dim=0) / weights).tolist()) for of in (p, z2)
    )
    return Spectra(tuple(ranks), tuple(weights.tolist()), predicted, between)


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:  # (N, D) -> (R,), (D, R)
    """Eigenvalues of E[z z^T], largest first, and their eigenvectors; R = min(N, D)."""
    count, width = z.shape
    if count > width:
        values, directions = torch.linalg.eigh(z.T @ z / count)
    else:
        values, mixtures = torch.linalg.eigh(z @ z.T / count)
        directions = F.normalize(z.T @ mixtures, dim=0)
    return values.flip(0).clamp_min(0), directions.flip(1)


def participation_ratio(spectrum: Tensor) -> Tensor:  # (R,) -> ()
    """(sum lambda)^2 / sum lambda^2: near D when healthy, 1 on a line, 0 for a single point."""
    return spectrum.sum().square() / _positive(spectrum.square().sum())


def effective_rank(spectrum: Tensor) -> Tensor:  # (R,) -> ()
    """exp(- sum p ln p) with p = lambda / sum lambda (Roy & Vetterli 2007)."""
    p = spectrum / _positive(spectrum.sum())
    entropy: Tensor = -torch.xlogy(p, p).sum()
    return torch.exp(entropy)


def rankme(z: Tensor) -> Tensor:  # (N, D) -> ()
    """exp(- sum p ln p) of the singular values of z, uncentred, with p = s / sum s + 1e-7.

    Source: Garrido et al. 2023. In fp64.
    """
    values = torch.linalg.svdvals(in_fp64(z))
    p = values / _positive(values.sum()) + 1e-7
    return torch.exp(-(p * p.log()).sum())


def lidar(views: Tensor) -> Tensor:  # (N, Q, D) -> ()
    """The effective rank of the differences between images, relative to those between views.

    exp-entropy of the eigenvalues of S_w^-1/2 S_b S_w^-1/2: the images are the classes of a
    linear discriminant analysis, their views the samples (Thilak et al. 2023). In fp64, at most
    min(N - 1, D).
    Paper: S_w + delta I; here: delta is relative to the mean variance, because the measure should
    not depend on the scale of the outputs.

    Args:
        views: Outputs for Q >= 2 views of each of N >= 2 images.
    """
    x = in_fp64(views)
    means = x.mean(dim=1)  # (N, D)
    within = (x - means[:, None]).flatten(0, 1)  # (N * Q, D)
    between = means - means.mean(dim=0)  # (N, D)
    s_w, s_b = within.T @ within / len(within), between.T @ between / len(between)  # (D, D)
    variance = _positive((s_w.trace() + s_b.trace()) / len(s_w))
    values, vectors = torch.linalg.eigh(s_w)
    whiten = vectors / (values.clamp_min(0) + LIDAR_DELTA * variance).sqrt()  # (D, D), by column
    return effective_rank(torch.linalg.eigvalsh(whiten.T @ s_b @ whiten).clamp_min(0))


def correlation_strength(z: Tensor) -> Tensor:  # (N, D) -> ()
    """Mean |off-diagonal correlation| of the channels; a constant channel correlates with none."""
    centred = z - z.mean(dim=0)
    unit = F.normalize(centred, dim=0)  # (N, D), columns of length 1
    correlation = (unit.T @ unit).abs()  # (D, D)
    width = z.shape[1]
    off_diagonal: Tensor = correlation.sum() - correlation.diagonal().sum()
    return off_diagonal / (width * (width - 1))


def output_std(z: Tensor) -> Tensor:  # (N, D) -> ()
    """Mean over the channels of std(z / |z|), times sqrt(D): 1 when healthy. Paper: Sec. 4.1."""
    mean_std: Tensor = F.normalize(z, dim=1).std(dim=0, correction=0).mean()
    return mean_std * math.sqrt(z.shape[1])


def positive_minus_random(z1: Tensor, z2: Tensor) -> Tensor:  # (N, D), (N, D) -> ()
    """Mean cosine of two views of one image minus that of views of two different images."""
    u1, u2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    count = z1.shape[0]
    positive = (u1 * u2).sum() / count
    every_pair = (u1.sum(dim=0) * u2.sum(dim=0)).sum()
    random = (every_pair - positive * count) / (count * (count - 1))
    return positive - random


def retrieval(z1: Tensor, z2: Tensor) -> Tensor:  # (N, D), (N, D) -> ()
    """The share of images whose second view is nearer to the first than any other image's.

    By cosine; a tie with another image is a miss, so that equal outputs find nothing.
    """
    similar = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T  # (N, N)
    own = similar.diagonal()
    others = similar - torch.diag(torch.full_like(own, math.inf))
    return (own > others.amax(dim=1)).float().mean()


def centre_norm(z: Tensor) -> Tensor:  # (N, D) -> ()
    """|mean of z / |z||^2: 0 when directions are spread, 1 when they are equal (Zhang 2022)."""
    centre: Tensor = F.normalize(z, dim=1).mean(dim=0)
    return centre.square().sum()


def judge(layers: Layers, *, steps: int, images: int) -> Verdict:
    """The verdict on a run from its layers' measures on this many images, after this many steps.

    It ignores the output std, which stays near 1 behind an output BN in every kind of collapse.
    The spectrum of z starts with one direction and gains the others one by one, and an encoder that
    has learned nothing tells no images apart. So few directions and equal cosines count as a
    collapse only after `YOUNG_STEPS` steps, a single direction at any time.
    """
    if not all(math.isfinite(value) for layer in layers for value in layer):
        return Verdict(
            "diverged", "outputs are not finite", "lower optimizer.base_lr, or add a warm-up"
        )
    young = steps < YOUNG_STEPS
    complete, few = _complete(layers, young=young), "" if young else _few(layers)
    measured = f", n = {images:,})"
    if complete:
        return Verdict("complete collapse", complete + measured, ADVICE_COMPLETE)
    if few:
        return Verdict("dimensional collapse", few + measured, ADVICE_DIMENSIONAL)
    return Verdict("healthy", _health(layers) + measured, "")


ADVICE_COMPLETE = (
    "keep the stop-gradient and the predictor, lower optimizer.weight_decay, "
    "raise optimizer.alpha_h"
)
ADVICE_DIMENSIONAL = (
    "lower optimizer.weight_decay, raise optimizer.alpha_h, train longer or raise optimizer.base_lr"
)


def _complete(layers: Layers, *, young: bool) -> str:
    z = layers.z
    if z.effective_rank < COMPLETE_RANK:
        return f"z lies on one line (effective rank {z.effective_rank:.2f}"
    if z.positive_minus_random < COMPLETE_COSINE and not young:
        return (
            "two views of an image are no more alike than two images "
            f"(difference of cosines {z.positive_minus_random:.3f}"
        )
    return ""


def _few(layers: Layers) -> str:
    z = layers.z
    if z.effective_rank < DIMENSIONAL_RANK:
        return f"z spans few directions (effective rank {z.effective_rank:.1f}"
    if z.correlation_strength > DIMENSIONAL_CORRELATION:
        return f"the channels of z repeat each other (correlation {z.correlation_strength:.2f}"
    return ""


def _health(layers: Layers) -> str:
    z = layers.z
    tells = "and tells images apart"
    if z.positive_minus_random < COMPLETE_COSINE:
        tells = "but does not tell images apart yet"
    return (
        f"z spans {z.effective_rank:.1f} directions {tells} "
        f"(difference of cosines {z.positive_minus_random:.2f}"
    )


def _positive(x: Tensor) -> Tensor:
    """The value, or the smallest positive number instead of 0, for use as a denominator."""
    return x.clamp_min(torch.finfo(x.dtype).tiny)
