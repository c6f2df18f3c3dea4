"""BN of images with the sum and the ReLU after it: few passes over memory, as kernels of Triton.

In: x (V * b, C, H, W), in memory (V, rows, C) with rows = b * H * W; each of the V views is
normalised alone. Out: relu(bn(x) + shortcut), sum and ReLU as asked for; statistics (2, V, C) in
fp32, means and variances; and the gradients of all that went in.

Both passes read x twice, because what is written depends on sums over all rows, and programs of one
kernel cannot wait for each other. Sums are added in a fixed order, so a step repeats in every bit.
A program takes a share of the rows of one view, in tiles of R rows and W channels.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
# Triton infers a kernel's types from its calls, and would read annotations as its own.

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, channels_last

TILE = 4096  # values that a program holds at a time
PROGRAMS = 1024  # about as many as a GPU runs at a time


@triton.jit
def _place(rows, share, W: tl.constexpr):
    """This program's channels (1, W), view, first row and the row after its last."""
    channel, view = tl.program_id(1) * W + tl.arange(0, W)[None, :], tl.program_id(2)
    begin = tl.program_id(0) * share
    return channel, view, view * rows + begin, view * rows + tl.minimum(begin + share, rows)


@triton.jit
def _tile(start, end, channel, channels, R: tl.constexpr):
    """The offsets of the values of R rows (R, W), and a mask of this program's rows (R, 1)."""
    row = start + tl.arange(0, R)[:, None]
    return row.to(tl.int64) * channels + channel, row < end


@triton.jit
def _affine(statistics, weight, bias, channel, view, channels, eps):
    """Mean, 1 / standard deviation, gain and offset, (1, W) each."""
    at = statistics + view * channels + channel
    scale = 1 / tl.sqrt(tl.load(at + tl.num_programs(2) * channels) + eps)
    return tl.load(at), scale, tl.load(weight + channel), tl.load(bias + channel)


@triton.jit
def _keep(first, second, parts, channel, view, channels):
    """Writes two results of this program, (W,) each, to parts (V, S, 2, C)."""
    at = parts + (view * tl.num_programs(0) + tl.program_id(0)) * 2 * channels + channel
    tl.store(at, first[None, :])
    tl.store(at + channels, second[None, :])


@triton.jit
def _joined(count, mean, squares):
    """Mean and sum of squared deviations of all groups together; each group is a row."""
    whole = tl.sum(count * mean, 0) / tl.sum(count, 0)
    between = mean - whole[None, :]
    return whole, tl.sum(squares + count * between * between, 0)


@triton.jit
def _moments(x, parts, rows, channels, share, R: tl.constexpr, W: tl.constexpr):
    """Mean and sum of squared deviations of each share of the rows -> parts.

    Deviations are from the first value at each position of the tile. It is one of the summed
    values, so few digits cancel however large the mean is.
    """
    channel, view, begin, end = _place(rows, share, W)
    at, inside = _tile(begin, end, channel, channels, R)
    first = tl.load(x + at, inside, 0.0)
    sums, squares = tl.zeros((R, W), tl.float32), tl.zeros((R, W), tl.float32)
    for start in range(begin + R, end, R):
        at, inside = _tile(start, end, channel, channels, R)
        deviation = tl.load(x + at, inside, first).to(tl.float32) - first.to(tl.float32)
        sums += deviation
        squares += deviation * deviation
    count = ((end - begin - tl.arange(0, R)[:, None] + R - 1) // R).to(tl.float32)
    mean = sums / tl.maximum(count, 1.0)
    mean, squares = _joined(count, first.to(tl.float32) + mean, squares - sums * mean)
    _keep(mean, squares, parts, channel, view, channels)


@triton.jit
def _statistics(parts, statistics, rows, channels, share, shares, S: tl.constexpr, W: tl.constexpr):
    """The parts of all shares together -> statistics."""
    channel, view, _, _ = _place(rows, share, W)
    split = tl.arange(0, S)[:, None]
    at = parts + (view * shares + split) * 2 * channels + channel
    mean, squares = tl.load(at, split < shares, 0.0), tl.load(at + channels, split < shares, 0.0)
    count = tl.maximum(tl.minimum(rows - split * share, share), 0).to(tl.float32)
    mean, squares = _joined(count, mean, squares)
    at = statistics + view * channels + channel
    tl.store(at, mean[None, :])
    tl.store(at + tl.num_programs(2) * channels, squares[None, :] / rows)


@triton.jit
def _forward(
    x, shortcut, statistics, weight, bias, y, eps, rows, channels, share,
    SUM: tl.constexpr, RELU: tl.constexpr, R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    channel, view, begin, end = _place(rows, share, W)
    mean, scale, gain, offset = _affine(statistics, weight, bias, channel, view, channels, eps)
    for start in range(begin, end, R):
        at, inside = _tile(start, end, channel, channels, R)
        value = (tl.load(x + at, inside, 0.0).to(tl.float32) - mean) * scale * gain + offset
        if SUM:
            value += tl.load(shortcut + at, inside, 0.0).to(tl.float32)
        if RELU:
            value = tl.where(value < 0, 0.0, value)  # NaN stays NaN
        tl.store(y + at, value, inside)


@triton.jit
def _backward(
    dy, x, y, statistics, weight, bias, parts, out, eps, rows, channels, share,
    LAST: tl.constexpr, SUM: tl.constexpr, RELU: tl.constexpr, R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """First, sums of dy and of dy * normalised x -> parts; LAST, by their sum (V, 2, C), dx -> out.

    The ReLU lets dy through where y is not 0. After a SUM the first pass writes that to out, as
    the shortcut's gradient; without one x tells as much as y, which is then not kept or read.
    """
    channel, view, begin, end = _place(rows, share, W)
    mean, scale, gain, offset = _affine(statistics, weight, bias, channel, view, channels, eps)
    if LAST:
        sum_of = parts + view * 2 * channels + channel
        of_dy, of_product = tl.load(sum_of) / rows, tl.load(sum_of + channels) / rows
    sums, products = tl.zeros((R, W), tl.float32), tl.zeros((R, W), tl.float32)
    for start in range(begin, end, R):
        at, inside = _tile(start, end, channel, channels, R)
        normal = (tl.load(x + at, inside, 0.0).to(tl.float32) - mean) * scale
        above = tl.load(dy + at, inside, 0.0).to(tl.float32)
        if RELU and SUM:
            above = tl.where(tl.load(y + at, inside, 0.0) <= 0, 0.0, above)
            tl.store(out + at, above, inside)
        elif RELU:
            above = tl.where(normal * gain + offset <= 0, 0.0, above)
        if LAST:
            dx = (above - of_dy - normal * of_product) * scale * gain
            tl.store(out + at, dx, inside)
        else:
            sums += above
            products += above * normal
    if not LAST:
        _keep(tl.sum(sums, 0), tl.sum(products, 0), parts, channel, view, channels)


def _shared(x: Tensor, views: int) -> tuple[tuple[int, int, int], list[int], dict[str, int]]:
    """The grid (S shares, blocks of channels, V), [rows, channels, rows of a share], the tile."""
    channels, rows = x.shape[1], x.numel() // x.shape[1] // views
    wide = math.gcd(channels, 64)
    high, blocks = TILE // wide, channels // wide
    share = high * math.ceil(rows / (high * max(1, PROGRAMS // (views * blocks))))
    grid = (math.ceil(rows / share), blocks, views)
    return grid, [rows, channels, share], {"R": high, "W": wide, "num_warps": 8}


def _fp32(x: Tensor, *shape: int) -> Tensor:  # (..., C)
    return x.new_empty(*shape, x.shape[1], dtype=torch.float32)


@torch.library.custom_op("stopgrad::batch_norm", mutates_args=())
def normalize(
    x: Tensor, shortcut: Tensor | None, weight: Tensor, bias: Tensor,
    views: int, eps: float, relu: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y, shaped like x, and statistics (2, V, C), means and variances; gain and offset are (C,)."""
    x = x.contiguous(memory_format=channels_last)
    added = x if shortcut is None else shortcut.contiguous(memory_format=channels_last)
    grid, sizes, tile = _shared(x, views)
    parts, statistics, y = _fp32(x, views, grid[0], 2), _fp32(x, 2, views), torch.empty_like(x)
    few = math.gcd(x.shape[1], 16)
    with torch.cuda.device_of(x):
        _moments[grid](x, parts, *sizes, **tile)
        _statistics[1, x.shape[1] // few, views](
            *(parts, statistics, *sizes, grid[0]), S=triton.next_power_of_2(grid[0]), W=few
        )
        _forward[grid](
            *(x, added, statistics, weight, bias, y, eps, *sizes),
            **{"SUM": shortcut is not None, "RELU": relu, **tile},
        )
    return y, statistics


@torch.library.custom_op("stopgrad::batch_norm_backward", mutates_args=())
def _gradients(
    dy: Tensor, x: Tensor, y: Tensor | None, statistics: Tensor, weight: Tensor, bias: Tensor,
    eps: float, relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x, of shortcut (empty without y), and of offset and gain (2, C)."""
    dy, x = (t.contiguous(memory_format=channels_last) for t in (dy, x))
    grid, sizes, tile = _shared(x, statistics.shape[1])
    dx, parts = torch.empty_like(x), _fp32(x, grid[2], grid[0], 2)
    cut = dy.new_empty(0) if y is None else torch.empty_like(dy)
    known = (statistics, weight, bias)
    with torch.cuda.device_of(x):
        how = {"SUM": y is not None, "RELU": relu, **tile}
        _backward[grid](
            dy, x, x if y is None else y, *known, parts, cut, eps, *sizes, LAST=False, **how
        )
        sums = parts.sum(1)  # (V, 2, C)
        how |= {"SUM": False, "RELU": relu and y is None}
        _backward[grid](
            dy if y is None else cut, x, x, *known, sums, dx, eps, *sizes, LAST=True, **how
        )
    return dx, cut, sums.sum(0)


@normalize.register_fake
def _(x, shortcut, weight, bias, views, eps, relu):
    return torch.empty_like(x, memory_format=channels_last), _fp32(x, 2, views)


@_gradients.register_fake
def _(dy, x, y, statistics, weight, bias, eps, relu):
    dx = torch.empty_like(x, memory_format=channels_last)
    return dx, dy.new_empty(0) if y is None else torch.empty_like(dx), _fp32(x, 2)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, shortcut, weight, bias, _, ctx.eps, ctx.relu = inputs
    y, statistics = output
    ctx.sum = shortcut is not None
    ctx.save_for_backward(x, y if ctx.sum and ctx.relu else None, statistics, weight, bias)
    ctx.mark_non_differentiable(statistics)


def _differentiate(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    dx, cut, affine = _gradients(dy, *ctx.saved_tensors, ctx.eps, ctx.relu)
    shortcut = (cut if ctx.relu else dy) if ctx.sum else None
    return dx, shortcut, affine[1], affine[0], None, None, None


normalize.register_autograd(_differentiate, setup_context=_remember)
