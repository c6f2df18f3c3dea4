"""Claims about views by compiled loops: the same bits as torch's, and when they are used."""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from stopgrad.config import ViewsConfig, preset
from stopgrad.images import Normalization
from stopgrad.method import FasterViews, Views, random_table, views_of
from stopgrad.method.views import faster, loops

COLOURS = Normalization(mean=(0.49, 0.48, 0.44), std=(0.25, 0.24, 0.26))
EVERY = ViewsConfig(size=24, blur=0.5)
CASES = {
    "cpu": preset("cpu").views,
    "every": EVERY,
    "larger": dataclasses.replace(EVERY, size=61),
    "wide blur": dataclasses.replace(EVERY, size=96, blur=1.0),
    "small crops": dataclasses.replace(EVERY, crop_min=0.01, crop_max=0.02),
    "no jitter": dataclasses.replace(EVERY, jitter=0.0),
    "no hue": dataclasses.replace(EVERY, hue=0.0, jitter=1.0),
    "strong jitter": dataclasses.replace(
        EVERY, jitter=1.0, brightness=3.0, contrast=3.0, saturation=3.0, hue=0.5
    ),
    "gray": dataclasses.replace(EVERY, grayscale=1.0),
}


def _pixels(images: int, height: int, width: int) -> Tensor:
    """Soft spots with black and white areas: (B, 3, H, W) uint8, in memory (B, H, W, 3)."""
    generator = torch.Generator().manual_seed(height)
    coarse = 500 * torch.rand((images, 3, 5, 6), generator=generator) - 120
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return fine.clamp(0, 255).byte().contiguous(memory_format=torch.channels_last)


def _table(images: int) -> Tensor:
    return random_table(torch.Generator().manual_seed(5), views=2 * images)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_loops_make_the_views_of_torch_to_the_last_bit(case: str, threads: int) -> None:
    config, images = CASES[case], 37
    pixels, table = _pixels(images, 47, 40), _table(images)
    with _threads(threads):
        wanted = views_of(pixels, table, config=config, normalization=COLOURS)
        made = loops.views_by_loops(pixels, table, config=config, normalization=COLOURS)
    for one, other in zip(made, wanted, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def test_a_piece_of_one_large_image_has_the_bits_of_torch_too() -> None:
    """torch shares one long sum out among threads, and rounds otherwise than with one."""
    config = dataclasses.replace(EVERY, size=224, jitter=1.0)
    pixels, table = _pixels(3, 300, 400), _table(3)
    with _threads(2):
        wanted = views_of(pixels, table, config=config, normalization=COLOURS)
        made = loops.views_by_loops(pixels, table, config=config, normalization=COLOURS)
    assert torch.equal(torch.cat(made), torch.cat(wanted))


def test_pixels_in_another_order_of_memory_give_the_same_views() -> None:
    pixels, table = _pixels(9, 32, 32), _table(9)
    made = [
        torch.cat(loops.views_by_loops(some, table, config=EVERY, normalization=COLOURS))
        for some in (pixels, pixels.contiguous())
    ]
    assert torch.equal(*made)


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the loops are given, call by call."""
    calls: list[int] = []

    def counting(pixels: Tensor, *rest: Tensor, **how: object) -> Views:
        calls.append(len(pixels))
        return by_loops(pixels, *rest, **how)

    by_loops = loops.views_by_loops
    monkeypatch.setattr(loops, "views_by_loops", counting)
    return calls


def _makes_those_of_torch(run_pixels: int, *, normalization: Normalization = COLOURS) -> None:
    """Three batches of a run have the views that torch makes, whichever way makes them."""
    make, pixels, table = FasterViews(pixels=run_pixels), _pixels(9, 32, 32), _table(9)
    wanted = torch.cat(views_of(pixels, table, config=EVERY, normalization=normalization))
    for _ in range(3):
        made = torch.cat(make(pixels, table, config=EVERY, normalization=normalization))
        assert torch.equal(made, wanted)


def test_loops_take_over_in_a_run_of_so_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _counted(monkeypatch)
    _makes_those_of_torch(faster.LONG - 1)
    assert calls == []
    _makes_those_of_torch(faster.LONG)  # the first batch is made twice, to compare
    assert calls == [9, 9, 9]


def test_loops_with_another_last_bit_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(pixels: Tensor, table: Tensor, **how: object) -> Views:
        x1, x2 = views_of(pixels, table, config=EVERY, normalization=COLOURS)
        x2[-1, -1, -1, -1].nextafter_(torch.tensor(9.0))
        return Views(x1, x2)

    monkeypatch.setattr(loops, "views_by_loops", off)
    _makes_those_of_torch(faster.LONG)


def test_without_numba_or_colours_torch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _counted(monkeypatch)
    _makes_those_of_torch(faster.LONG, normalization=Normalization((0.5,), (0.25,)))
    monkeypatch.setitem(sys.modules, "stopgrad.method.views.loops", None)
    _makes_those_of_torch(faster.LONG)
    assert not calls


def test_a_numba_that_fails_is_named_once_and_torch_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_pixels: Tensor, **_how: object) -> Views:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loops, "views_by_loops", fails)
    _makes_those_of_torch(faster.LONG)
    [said] = [record.getMessage() for record in caplog.records]
    assert "No space left on device" in said
