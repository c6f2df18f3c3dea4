"""Two normalised views of a batch, computed in pieces that fit the processor's cache.

In: pixels (B, C, H, W) uint8, a generator. Out: `Views`, channels_last float32; for evaluation,
whole images without augmentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.config import ViewsConfig
from stopgrad.images import GRAY
from stopgrad.method.own import make_own_views
from stopgrad.method.views.colour import Jitter, apply_jitter, grayscale, jitter_blends
from stopgrad.method.views.draw import ViewParameters, draw_parameters, random_table
from stopgrad.method.views.filters import Taps, blur, crop_taps, resample
from stopgrad.method.views.shortcuts import may_look

if TYPE_CHECKING:
    from stopgrad.images import Normalization

CPU_PIECE = 3 * 32 * 32 * 64
"""Values of one image tensor that one CPU thread handles at a time (0.8 MB). With fewer, calling
torch costs too much; with more, the cache is too small."""

GPU_PIECE = 3 * 224 * 224 * 512
"""Values of one image tensor that a GPU handles at a time, to bound its memory."""


class Views(NamedTuple):
    """Two views of each image; C = 3, 1 for gray, or as many as there are bands."""

    x1: Tensor  # (B, C, S, S) float32, normalised, channels_last
    x2: Tensor  # (B, C, S, S) float32, normalised, channels_last


class ViewRecipe(NamedTuple):
    """`ViewParameters` in the form that the augmentations take, for the whole batch."""

    row_source: Tensor  # (V, S, K) int64, as `Taps`
    row_weight: Tensor  # (V, S, K)
    column_source: Tensor  # (V, S, K') int64
    column_weight: Tensor  # (V, S, K')
    keep: Tensor  # (V, 6), as `Jitter`
    gray: Tensor  # (V, 6)
    mean: Tensor  # (V, 6)
    hue: Tensor  # (V,)
    grayscale: Tensor  # (V,) bool
    sigma: Tensor  # (V,) px

    def split(self, views: int) -> list[ViewRecipe]:
        """Recipes of this many views each; the last may have fewer."""
        return [ViewRecipe(*p) for p in zip(*(torch.split(f, views) for f in self), strict=True)]


def two_views(
    pixels: Tensor,
    generator: torch.Generator,
    *,
    config: ViewsConfig,
    normalization: Normalization,
) -> Views:
    """Two random views of each image (t1, t2 ~ T of the paper, Sec. 3).

    A pure function of its arguments and the generator's state, which advances by one table of
    uniform numbers. The host never waits for the device.

    Args:
        pixels: (B, C', H, W) uint8 on any device, in any memory format; C' = C, or 3.
        generator: The only source of randomness, on the device of the pixels.
        config: The augmentations.
        normalization: Mean and standard deviation of each channel of pixels / 255; of one channel:
            the views are gray.
    """
    table = random_table(generator, views=2 * len(pixels))
    return views_of(pixels, table, config=config, normalization=normalization)


def views_of(
    pixels: Tensor, table: Tensor, *, config: ViewsConfig, normalization: Normalization
) -> Views:
    """The two views of a table of uniform numbers; not random, so it can be compiled.

    Args:
        pixels: (B, C', H, W) uint8 on any device, in any memory format; C' = C, or 3.
        table: The `random_table` of 2 B views, on the device of the pixels.
        config: The augmentations.
        normalization: Mean and standard deviation of each channel of pixels / 255; of one channel:
            the views are gray.
    """
    if config.own:
        made = make_own_views(config.own, pixels, table)
        gray = (to_channels(x, len(normalization.mean)).clone() for x in made)
        return Views(*(_normalize_in_place(x, normalization) for x in gray))
    batch, _, height, width = pixels.shape
    drawn = draw_parameters(table, height=height, width=width, config=config)
    recipe = compile_recipe(drawn, height=height, width=width, size=config.size)
    channels = len(normalization.mean)
    shape = (batch, channels, config.size, config.size)
    views = Views(*(_empty_view(shape, device=pixels.device) for _ in range(2)))
    step = images_in_piece(pixels, size=config.size)
    recipes = [half.split(step) for half in recipe.split(batch)]
    places = [torch.split(view, step) for view in views]
    for number, piece in enumerate(torch.split(pixels, step)):
        x = to_channels(to_float(piece), channels)
        for place, ingredients in zip(places, recipes, strict=True):
            view = make_view(x, ingredients[number], config=config)
            place[number].copy_(_normalize_in_place(view, normalization))
    return views


def compile_recipe(parameters: ViewParameters, *, height: int, width: int, size: int) -> ViewRecipe:
    """The recipe of V views of S x S px from images of H x W px."""
    boxes, flip = parameters.boxes, parameters.flip
    taps = crop_taps(boxes, flip, size=size, height=height, width=width)
    jitter = jitter_blends(parameters.factors, parameters.order)
    return ViewRecipe(*taps.rows, *taps.columns, *jitter, parameters.grayscale, parameters.sigma)


def make_view(x: Tensor, recipe: ViewRecipe, *, config: ViewsConfig) -> Tensor:
    """One view of each image before normalisation: crop and flip, jitter, grayscale, blur.

    Skips the steps that the config switches off; for gray images those that change only colours;
    for bands that are not colours jitter and grayscale.

    Args:
        x: (B, C, H, W) float32 in [0, 1].
        recipe: One row per image.
        config: Which steps can happen.

    Returns:
        (B, C, S, S) float32 in [0, 1], new memory.
    """
    rows = Taps(recipe.row_source, recipe.row_weight)
    view = resample(x, rows=rows, columns=Taps(recipe.column_source, recipe.column_weight))
    view.clamp_max_(1.0)  # weights sum to 1 up to rounding
    if config.jitter > 0 and view.shape[1] in (1, 3):
        view = apply_jitter(view, Jitter(recipe.keep, recipe.gray, recipe.mean, recipe.hue))
    if config.grayscale > 0 and view.shape[1] == 3:
        view = grayscale(view, recipe.grayscale)
    if config.blur > 0:
        view = blur(view, recipe.sigma)
    return view


def to_float(pixels: Tensor) -> Tensor:
    """Pixels (B, C, H, W) uint8 -> the same in [0, 1], float32, contiguous."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)


def to_channels(x: Tensor, channels: int) -> Tensor:
    """(B, C', H, W) -> (B, C, H, W): unchanged, or colours turned to gray."""
    if channels == x.shape[1]:
        return x
    red, green, blue = x.unbind(1)
    gray = (red * GRAY[0]).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2])
    return gray.clamp_max_(1.0).unsqueeze(1)  # the weights sum to 1 up to rounding


def normalize(pixels: Tensor, normalization: Normalization) -> Tensor:
    """The encoder's input in evaluation: pixels normalised, not augmented.

    Args:
        pixels: (B, C', H, W) uint8.
        normalization: Mean and standard deviation of each of C channels of pixels / 255.

    Returns:
        (B, C, H, W) float32, in the memory format of the pixels.
    """
    assert pixels.dtype == torch.uint8, pixels.dtype  # others would be overwritten
    x = to_channels(pixels.to(torch.float32).mul_(1 / 255), len(normalization.mean))
    return _normalize_in_place(x, normalization)


def downscale(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Whole images at a smaller size, antialiased; unchanged if they have that size.

    For images stored larger than a run would store them: evaluation sees their objects as large as
    training does.

    Args:
        pixels: (B, C, H, W) uint8 on any device, in any memory format.
        size: Height h and width w, px.

    Returns:
        (B, C, h, w) uint8.
    """
    if tuple(pixels.shape[2:]) == size:
        return pixels
    small = F.interpolate(pixels.float(), size, mode="bicubic", antialias=True)
    return small.round_().clamp_(0, 255).to(torch.uint8)


def _normalize_in_place(x: Tensor, normalization: Normalization) -> Tensor:
    """(x - mean) / std, by channel, so that no constants are copied to the device."""
    for channel, mean, std in zip(x.unbind(1), *normalization, strict=True):
        channel.sub_(mean).div_(std)
    return x


def _empty_view(shape: tuple[int, ...], *, device: torch.device) -> Tensor:
    return torch.empty(shape, device=device, memory_format=torch.channels_last)


def images_in_piece(pixels: Tensor, *, size: int) -> int:
    """How many images fit the budget of a piece, before and after the crop."""
    budget = CPU_PIECE * torch.get_num_threads() if may_look(pixels) else GPU_PIECE
    return max(
        1, budget // (max(3, pixels.shape[1]) * max(pixels.shape[2] * pixels.shape[3], size**2))
    )
