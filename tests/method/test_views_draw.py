"""Claims about the distributions of the drawn parameters; fixed seeds, torchvision as oracle."""

import dataclasses
import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from stopgrad.config import ViewsConfig
from stopgrad.method import random_table
from stopgrad.method.views.draw import ViewParameters, _order, draw_parameters

PAPER = ViewsConfig()
VIEWS = 20_000
SHAPES = [(32, 32), (48, 40), (96, 64), (30, 60), (20, 200), (200, 20)]


def _draw(
    config: ViewsConfig = PAPER, *, height: int = 32, width: int = 32, seed: int = 11
) -> ViewParameters:
    table = random_table(torch.Generator().manual_seed(seed), views=VIEWS)
    return draw_parameters(table, height=height, width=width, config=config)


def _their_boxes(height: int, width: int, config: ViewsConfig, *, count: int) -> Tensor:
    image = torch.empty(3, height, width)
    scale, ratio = [config.crop_min, config.crop_max], [3 / 4, 4 / 3]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        draws = [RandomResizedCrop.get_params(image, scale, ratio) for _ in range(count)]
    return torch.tensor(draws)


def _alike(first: Tensor, second: Tensor) -> bool:
    if first.unique().numel() == second.unique().numel() == 1:
        return bool(first[0] == second[0])
    return float(stats.ks_2samp(first.numpy(), second.numpy()).pvalue) > 1e-3


def _measures(boxes: Tensor, height: int, width: int) -> dict[str, Tensor]:
    top, left, box_height, box_width = boxes.double().unbind(1)
    return {
        "top": top,
        "left": left,
        "height": box_height,
        "width": box_width,
        "area": box_height * box_width,
        "aspect": box_width / box_height,
        "place in height": (top + 0.5) / (height - box_height + 1),
        "place in width": (left + 0.5) / (width - box_width + 1),
    }


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_crop_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    ours = _measures(_draw(height=height, width=width).boxes, height, width)
    theirs = _measures(_their_boxes(height, width, PAPER, count=8_000), height, width)
    wrong = [name for name in ours if not _alike(ours[name], theirs[name])]
    assert not wrong


@pytest.mark.parametrize(("height", "width"), [(20, 200), (200, 20), (30, 60), (32, 45)])
def test_the_fallback_happens_as_often_as_in_torchvision(height: int, width: int) -> None:
    config = ViewsConfig(crop_min=0.5)
    ours = _draw(config, height=height, width=width).boxes
    theirs = _their_boxes(height, width, config, count=5_000)
    image = torch.empty(3, height, width)
    fallback = torch.tensor(RandomResizedCrop.get_params(image, [2.0, 2.0], [3 / 4, 4 / 3]))
    counts = [[int((b == fallback).all(1).sum()), len(b)] for b in (ours, theirs)]
    hits = [[hit, total - hit] for hit, total in counts]
    if hits[0][1] == hits[1][1] == 0:
        return
    assert counts[0][0] > 0
    assert stats.fisher_exact(hits).pvalue > 1e-3


def test_boxes_lie_inside_the_image_and_reach_its_borders() -> None:
    boxes = _draw(height=48, width=40).boxes
    bottom, right = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    assert (int(boxes[:, :2].min()), int(boxes[:, 2:].min())) >= (0, 1)
    assert (int(bottom.max()), int(right.max())) == (48, 40)
    assert boxes.dtype == torch.int64


def test_crop_min_and_crop_max_bound_the_area() -> None:
    boxes = _draw(ViewsConfig(crop_min=0.3, crop_max=0.5), height=100, width=100).boxes
    share = boxes[:, 2] * boxes[:, 3] / 100**2
    assert 0.29 < float(share.min()) < 0.31
    assert 0.49 < float(share.max()) < 0.51


@pytest.mark.parametrize("knob", ["flip", "grayscale", "jitter", "blur"])
@pytest.mark.parametrize("probability", [0.0, 0.2, 0.8, 1.0])
def test_probabilities_are_those_of_the_config(knob: str, probability: float) -> None:
    drawn = _draw(dataclasses.replace(PAPER, **{knob: probability}))
    happened = {
        "flip": drawn.flip,
        "grayscale": drawn.grayscale,
        "jitter": (drawn.factors != torch.tensor([1.0, 1.0, 1.0, 0.0])).any(1),
        "blur": drawn.sigma > 0,
    }[knob]
    assert stats.binomtest(int(happened.sum()), VIEWS, probability).pvalue > 1e-3


@pytest.mark.parametrize(
    ("place", "knob", "low", "high"),
    [
        (0, "brightness", 0.6, 1.4),
        (1, "contrast", 0.6, 1.4),
        (2, "saturation", 0.6, 1.4),
        (3, "hue", -0.1, 0.1),
    ],
)
def test_factors_are_uniform_in_their_ranges(
    place: int, knob: str, low: float, high: float
) -> None:
    factors = _draw(ViewsConfig(jitter=1.0)).factors[:, place].double().numpy()
    assert stats.kstest(factors, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    off = _draw(ViewsConfig(jitter=1.0, **{knob: 0.0})).factors[:, place]
    assert torch.equal(off, torch.full_like(off, 0.0 if knob == "hue" else 1.0))


def test_a_strength_above_one_never_gives_a_negative_factor() -> None:
    factors = _draw(ViewsConfig(jitter=1.0, brightness=1.5)).factors[:, 0].double().numpy()
    assert stats.kstest(factors, stats.uniform(0, 2.5).cdf).pvalue > 1e-3


def test_sigma_is_uniform_in_its_range() -> None:
    config = ViewsConfig(blur=1.0, blur_sigma_min=0.3, blur_sigma_max=1.7)
    sigma = _draw(config).sigma.double().numpy()
    assert stats.kstest(sigma, stats.uniform(0.3, 1.4).cdf).pvalue > 1e-3


def test_the_order_is_that_of_a_stable_sort_also_of_equal_numbers() -> None:
    numbers = torch.randint(0, 3, (200, 4), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(_order(numbers), numbers.argsort(dim=1, stable=True))


def test_the_24_orders_are_equally_likely() -> None:
    order = _draw().order
    counts = [
        int((order == torch.tensor(steps)).all(1).sum())
        for steps in itertools.permutations(range(4))
    ]
    assert sum(counts) == VIEWS
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_parameters_of_a_view_are_independent_of_each_other() -> None:
    drawn = _draw(ViewsConfig(jitter=1.0, blur=1.0))
    boxes = drawn.boxes.double()
    columns = [
        *(boxes[:, 2] * boxes[:, 3], boxes[:, 2] / boxes[:, 3], drawn.flip, drawn.grayscale),
        *(*drawn.factors.unbind(1), *drawn.order.unbind(1)[:3], drawn.sigma),
    ]
    correlation = torch.corrcoef(torch.stack([column.double() for column in columns]))
    of_order = correlation[8:11, 8:11].clone()  # places of one permutation exclude each other
    correlation[8:11, 8:11] = 0
    assert float((correlation - torch.diag(correlation.diag())).abs().max()) < 0.03
    assert torch.allclose(of_order, torch.eye(3).double() * 4 / 3 - 1 / 3, atol=0.03)


def test_what_happens_to_a_view_is_independent_of_what_else_happens() -> None:
    drawn = _draw(ViewsConfig(flip=0.5, jitter=0.5, grayscale=0.5, blur=0.5))
    jittered = drawn.factors[:, 0] != 1
    happened = torch.stack([drawn.flip, jittered, drawn.grayscale, drawn.sigma > 0]).double()
    assert torch.allclose(torch.corrcoef(happened), torch.eye(4).double(), atol=0.03)


@pytest.mark.parametrize(
    ("knob", "value", "touched"),
    [
        ("crop_min", 0.5, {"boxes"}),
        ("flip", 0.1, {"flip"}),
        ("jitter", 0.3, {"factors"}),
        ("hue", 0.4, {"factors"}),
        ("grayscale", 0.6, {"grayscale"}),
        ("blur", 0.5, {"sigma"}),
        ("size", 64, set()),
    ],
)
def test_changing_one_knob_leaves_the_draws_of_the_others(
    knob: str, value: float, touched: set[str]
) -> None:
    before, after = _draw(), _draw(dataclasses.replace(PAPER, **{knob: value}))
    changed = {
        name
        for name in ViewParameters._fields
        if not torch.equal(getattr(before, name), getattr(after, name))
    }
    assert changed == touched
