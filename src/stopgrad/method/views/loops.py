"""Views of colours on a CPU, as loops that numba compiles: one image stays in the cache throughout.

In: pixels (B, 3, H, W) uint8 and the batch's `ViewRecipe`. Out: `Views`, equal in every bit to
those of `make_view`. Each sum is added in the order of torch's kernels, with one rounding where
they fuse a product and a sum; the mean that contrast needs is torch's own.

An image is worked on column by column, as `make_view` stores it: x (S, 3, S), its columns, and in
each the S values of red, of green and of blue.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
# numba infers a loop's types from its calls, and would read annotations as its own.

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from stopgrad.config import ViewsConfig
from stopgrad.images import Normalization
from stopgrad.method.views.colour import LUMA, NO_CHROMA
from stopgrad.method.views.draw import draw_parameters
from stopgrad.method.views.filters import gaussians, kernel_size
from stopgrad.method.views.make import ViewRecipe, Views, compile_recipe, images_in_piece

ZERO, ONE = np.float32(0), np.float32(1)
RED, GREEN, BLUE = (np.float32(weight) for weight in LUMA)
ROWS = 32
"""Rows that are transposed at a time, so that what is read and written stays in the cache."""

TURN, STEPS = 3, 7
"""The steps of jitter: three blends, the turn of the hue, three blends."""


class BatchOfViews(NamedTuple):
    """Everything that the loops know about a batch."""

    images: np.ndarray  # (B, H, 3 W) uint8
    recipe: ViewRecipe  # of arrays
    weight: np.ndarray  # (2 B, 2 R + 1) float32, of the blur
    mean: np.ndarray  # (3,) float32
    std: np.ndarray  # (3,)
    jitter: bool
    out: np.ndarray  # (2 B, S, 3 S) float32


class Scratch(NamedTuple):
    """Memory that one thread works in."""

    box: np.ndarray  # (H, 3 W) float32, the image
    rows: np.ndarray  # (ROWS, 3 W) float32, some of its rows at their new height
    columns: np.ndarray  # (max(W, S), 3 S) float32, its columns at their new height


compiled = njit(nogil=True, cache=True, error_model="numpy")


@intrinsic
def _fma(_context, a, b, c):
    """A product and a sum, rounded once: a b + c."""
    code = types.float32(types.float32, types.float32, types.float32)
    return code, lambda _context, builder, _signature, values: builder.fma(*values)


@compiled
def _clamp(value):
    return min(max(value, ZERO), ONE)


@compiled
def _times(line, w, out):
    for i in range(out.size):
        out[i] = line[i] * w


@compiled
def _add(line, w, out):
    for i in range(out.size):
        out[i] = _fma(line[i], w, out[i])


@compiled
def _add_two(line, w, other, v, out):
    """Two sums in one pass, to read and write `out` half as often."""
    for i in range(out.size):
        out[i] = _fma(other[i], v, _fma(line[i], w, out[i]))


@compiled
def _weighted(lines, source, weight, begin, end, out):
    """Sum of weight[k] times the line source[k], of its values from `begin` to `end`."""
    count = len(weight)
    _times(lines[source[0]][begin:end], weight[0], out)
    for k in range(1, count - 1, 2):
        line, other = lines[source[k]][begin:end], lines[source[k + 1]][begin:end]
        _add_two(line, weight[k], other, weight[k + 1], out)
    if count % 2 == 0:
        _add(lines[source[-1]][begin:end], weight[-1], out)


@compiled
def _at_most_one(line):
    for i in range(line.size):
        line[i] = min(line[i], ONE)


@compiled
def _crop(pixels, row_source, row_weight, column_source, column_weight, x, work):
    """Image (H, 3 W) -> x (S, 3, S); as `resample`, rows first."""
    side, unit = len(x), np.float32(1 / 255)
    lines = x.reshape((side, -1))
    top, bottom = row_source.min(), row_source.max() + 1
    left, right = 3 * column_source.min(), 3 * (column_source.max() + 1)
    for row in range(top, bottom):
        _times(pixels[row][left:right], unit, work.box[row][left:right])
    for start in range(0, side, ROWS):
        stop = min(start + ROWS, side)
        for row in range(start, stop):
            out = work.rows[row - start][left:right]
            _weighted(work.box, row_source[row], row_weight[row], left, right, out)
        for i in range(left, right):
            place = i % 3 * side
            for row in range(start, stop):
                work.columns[i // 3, place + row] = work.rows[row - start, i]
    for column in range(side):
        _weighted(
            work.columns, column_source[column], column_weight[column], 0, 3 * side, lines[column]
        )
        _at_most_one(lines[column])


@compiled
def _luma(x, luma):
    """As `colour._luma`: x (3, S) -> luma (S,)."""
    r, g, b = x[0], x[1], x[2]
    for i in range(luma.size):
        luma[i] = _fma(b[i], BLUE, _fma(g[i], GREEN, r[i] * RED))


@compiled
def _blend(x, keep, gray, average):
    """As `colour._blend`: x (3, S), in place."""
    r, g, b = x[0], x[1], x[2]
    for i in range(x.shape[1]):
        luma = _fma(b[i], BLUE, _fma(g[i], GREEN, r[i] * RED))
        base = luma * gray + average
        red, green, blue = _fma(r[i], keep, base), _fma(g[i], keep, base), _fma(b[i], keep, base)
        r[i], g[i], b[i] = _clamp(red), _clamp(green), _clamp(blue)


@compiled
def _turn_hue(x, turn):
    """As `colour._turn_hue`, by this many sixths of the circle: x (3, S), in place."""
    r, g, b = x[0], x[1], x[2]
    two, three, six = np.float32(2), np.float32(3), np.float32(6)
    for i in range(x.shape[1]):
        red, green, blue = r[i], g[i], b[i]
        low = min(min(red, green), blue)
        chroma = max(max(red, green), blue) - low
        hue = (green + blue - red - low) / max(chroma, np.float32(NO_CHROMA)) + ONE
        hue = np.copysign(hue, green - blue) + turn
        hue = _fma(np.rint(hue / six), -six, hue)
        r[i] = _clamp(abs(abs(hue) - three) - ONE) * chroma + low
        g[i] = _clamp(abs(abs(hue - two) - three) - ONE) * chroma + low
        b[i] = _clamp(abs(abs(hue + two) - three) - ONE) * chroma + low


@compiled
def _jitter(x, luma, keep, gray, mean, hue, step, average):
    """The steps of `apply_jitter` from `step` on, in place.

    Returns where it stopped: before the step that needs the average of `luma`, unless `average`
    holds it (0 or more), or at the end.
    """
    for now in range(step, STEPS):
        place = now if now < TURN else now - 1
        needs_average = now != TURN and mean[place] != ZERO
        if needs_average and average < ZERO:
            for column in range(len(x)):
                _luma(x[column], luma[column])
            return now
        offset = average * mean[place] if needs_average else ZERO
        for column in range(len(x)):
            if now == TURN:
                _turn_hue(x[column], np.float32(6) * hue)
            elif keep[place] != ONE:
                _blend(x[column], keep[place], gray[place], offset)
    return STEPS


@compiled
def _blur(x, weight, work):
    """As `filters.blur`, in place: along rows, then along columns. weight (2 R + 1,)."""
    side, reach = len(x), len(weight) // 2
    source = np.empty(len(weight), np.int64)
    line, padded = np.empty(3 * side, np.float32), np.empty(side + 2 * reach, np.float32)
    work.columns[:side] = x.reshape((side, -1))
    for column in range(side):
        for k in range(len(weight)):
            place = abs(column + k - reach)
            source[k] = min(place, 2 * (side - 1) - place)
        _weighted(work.columns, source, weight, 0, 3 * side, line)
        for channel in range(3):
            start = channel * side
            padded[reach : reach + side] = line[start : start + side]
            for k in range(1, reach + 1):
                padded[reach - k] = line[start + k]
                padded[reach + side - 1 + k] = line[start + side - 1 - k]
            _convolve(padded, weight, x[column, channel])


@compiled
def _convolve(line, weight, out):
    """The sum of weight[k] line[i + k]; an odd number of weights."""
    size = out.size
    _times(line[:size], weight[0], out)
    for k in range(1, len(weight), 2):
        one, other = line[k : k + size], line[k + 1 : k + 1 + size]
        _add_two(one, weight[k], other, weight[k + 1], out)


@compiled
def _standardize(line, mean, std):
    for i in range(line.size):
        line[i] = (line[i] - mean) / std


@compiled
def _write(x, mean, std, view):
    """x (S, 3, S) by columns -> view (S, 3 S) by rows, normalised."""
    side = len(x)
    for column in range(side):
        for channel in range(3):
            _standardize(x[column, channel], mean[channel], std[channel])
    for start in range(0, side, ROWS):
        for column in range(side):
            for row in range(start, min(start + ROWS, side)):
                for channel in range(3):
                    view[row, 3 * column + channel] = x[column, channel, row]


@compiled
def _begin(batch, views, x, luma, stopped, work):
    """Crops these views, and jitters each up to the step that needs the average of its luma."""
    recipe = batch.recipe
    for i, view in enumerate(views):
        rows = recipe.row_source[view], recipe.row_weight[view]
        columns = recipe.column_source[view], recipe.column_weight[view]
        _crop(batch.images[view % len(batch.images)], *rows, *columns, x[i], work)
        stopped[i] = STEPS
        if batch.jitter:
            stopped[i] = _go_on(recipe, view, x[i], luma[i], 0, -ONE)


@compiled
def _go_on(recipe, view, x, luma, step, average):
    keep, gray, mean = recipe.keep[view], recipe.gray[view], recipe.mean[view]
    return _jitter(x, luma, keep, gray, mean, recipe.hue[view], step, average)


@compiled
def _end(batch, views, x, luma, stopped, average, work):
    """The rest of the jitter, gray, blur, and the encoder's input."""
    count = batch.weight.shape[1]
    for i, view in enumerate(views):
        if stopped[i] < STEPS:
            _go_on(batch.recipe, view, x[i], luma[i], stopped[i], average[i])
        if batch.recipe.grayscale[view]:
            for column in range(len(x[i])):
                _blend(x[i, column], ZERO, ONE, ZERO)
        first = np.argmax(batch.weight[view] > ZERO)  # weights further out are 0
        if first < count // 2:
            _blur(x[i], batch.weight[view, first : count - first], work)
        _write(x[i], batch.mean, batch.std, batch.out[view])


def views_by_loops(
    pixels: Tensor, table: Tensor, *, config: ViewsConfig, normalization: Normalization
) -> Views:
    """As `views_of`, of colours (B, 3, H, W) on the CPU, by as many threads as torch has."""
    images, height, width = len(pixels), *pixels.shape[2:]
    out = torch.empty((2 * images, config.size, config.size, 3))
    batch = _batch(pixels, table, out, config, normalization)
    some = images_in_piece(pixels, size=config.size)
    works = [_work(height, width, config.size) for _ in range(torch.get_num_threads())]
    with ThreadPoolExecutor(max(1, len(works) - 1)) as others:
        for start in range(0, images, some):
            numbers = np.arange(start, min(start + some, images))
            _make(batch, np.concatenate([numbers, numbers + images]), works, others)
    return Views(*out.permute(0, 3, 1, 2).chunk(2))


def _make(
    batch: BatchOfViews, views: np.ndarray, works: list[Scratch], others: ThreadPoolExecutor
) -> None:
    """Both views of some images; torch's mean has the bits that it has in `make_view`."""
    side = batch.out.shape[1]
    luma = torch.zeros((len(views), side, side))
    memory = np.empty((len(views), side, 3, side), np.float32), luma.numpy()
    stopped = np.empty(len(views), np.int64)
    bounds = np.linspace(0, len(views), len(works) + 1).astype(int)
    shares = [slice(*pair) for pair in itertools.pairwise(bounds)]
    taken = [tuple(part[share] for part in (views, *memory, stopped)) for share in shares]
    begin = [(batch, *of, work) for of, work in zip(taken, works, strict=True)]
    _at_once(others, _begin, begin)
    average = torch.cat([half.mean((1, 2)) for half in luma.chunk(2)]).numpy()
    end = [(*of[:-1], average[share], of[-1]) for of, share in zip(begin, shares, strict=True)]
    _at_once(others, _end, end)


def _at_once(
    others: ThreadPoolExecutor, do: Callable[..., None], calls: list[tuple[Any, ...]]
) -> None:
    """Calls `do` with each of the arguments: the first here, the rest in other threads."""
    running = [others.submit(do, *call) for call in calls[1:]]
    do(*calls[0])
    for each in running:
        each.result()


def _batch(
    pixels: Tensor,
    table: Tensor,
    out: Tensor,
    config: ViewsConfig,
    normalization: Normalization,
) -> BatchOfViews:
    height, width = pixels.shape[2:]
    drawn = draw_parameters(table, height=height, width=width, config=config)
    recipe = compile_recipe(drawn, height=height, width=width, size=config.size)
    rows = pixels.permute(0, 2, 3, 1).contiguous().flatten(2)
    return BatchOfViews(
        images=rows.numpy(),
        recipe=ViewRecipe._make(part.contiguous().numpy() for part in recipe),
        weight=gaussians(drawn.sigma, radius=kernel_size(config.size) // 2).numpy(),
        mean=np.array(normalization.mean, np.float32),
        std=np.array(normalization.std, np.float32),
        jitter=config.jitter > 0,
        out=out.flatten(2).numpy(),
    )


def _work(height: int, width: int, side: int) -> Scratch:
    shapes = (height, 3 * width), (ROWS, 3 * width), (max(width, side), 3 * side)
    return Scratch(*(np.empty(shape, np.float32) for shape in shapes))
