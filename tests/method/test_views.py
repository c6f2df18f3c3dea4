"""Claims about two views of a batch: randomness, memory, knobs, normalisation."""

import dataclasses

import pytest
import torch
import torchvision.transforms.v2.functional as oracle
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from stopgrad.config import ViewsConfig
from stopgrad.images import Normalization
from stopgrad.method import Views, normalize, random_table, two_views, views_of
from stopgrad.method.views import make
from stopgrad.method.views.draw import COLUMNS, draw_parameters

PAPER = ViewsConfig()
OFF = ViewsConfig(crop_min=1.0, flip=0.0, jitter=0.0, grayscale=0.0)
NORMALIZATION = Normalization(mean=(0.5, 0.45, 0.4), std=(0.25, 0.2, 0.3))
UNCHANGED = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def _pictures(count: int = 16, side: int = 32) -> Tensor:
    """Patches of a photograph, as a data set stores them: (count, 3, S, S), a permuted NHWC."""
    photo = torch.from_numpy(load_sample_image("flower.jpg").copy())
    generator = torch.Generator().manual_seed(3)
    corners = torch.randint(0, photo.shape[0] - side, (count, 2), generator=generator)
    patches = [photo[i : i + side, j : j + side] for i, j in corners.tolist()]
    return torch.stack(patches).permute(0, 3, 1, 2)


def _views(
    pixels: Tensor,
    config: ViewsConfig = PAPER,
    *,
    seed: int = 0,
    normalization: Normalization = NORMALIZATION,
) -> Views:
    generator = torch.Generator().manual_seed(seed)
    return two_views(pixels, generator, config=config, normalization=normalization)


def _same(first: Views, second: Views) -> bool:
    return torch.equal(first.x1, second.x1) and torch.equal(first.x2, second.x2)


def test_the_same_seed_gives_the_same_views_and_another_seed_gives_others() -> None:
    pixels = _pictures()
    assert _same(_views(pixels, seed=4), _views(pixels, seed=4))
    other = _views(pixels, seed=5)
    for first, second in zip(_views(pixels, seed=4), other, strict=True):
        assert float((first - second).abs().amax((1, 2, 3)).min()) > 0.02


def test_the_two_views_of_an_image_differ() -> None:
    x1, x2 = _views(_pictures())
    assert float((x1 - x2).abs().amax((1, 2, 3)).min()) > 0.02


def test_every_image_has_parameters_of_its_own() -> None:
    x1, x2 = _views(_pictures(1).expand(16, -1, -1, -1))
    made = torch.cat([x1, x2]).flatten(1)
    distances = torch.cdist(made, made, p=torch.inf)
    assert float((distances + torch.eye(32)).min()) > 0.02


def test_a_generator_that_goes_on_gives_new_views() -> None:
    generator, pixels = torch.Generator().manual_seed(0), _pictures()
    made = [
        two_views(pixels, generator, config=PAPER, normalization=NORMALIZATION) for _ in range(2)
    ]
    assert not torch.equal(made[0].x1, made[1].x1)
    assert not torch.equal(made[0].x2, made[1].x1)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    pixels = _pictures()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = _views(pixels)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert _same(_views(pixels), first)


def test_the_memory_format_of_the_pixels_does_not_matter() -> None:
    pixels = _pictures()
    assert not pixels.is_contiguous()
    blurred = dataclasses.replace(PAPER, blur=0.5)
    assert _same(_views(pixels, blurred), _views(pixels.contiguous(), blurred))


def test_views_are_float32_channels_last_of_the_wanted_size() -> None:
    for view in _views(_pictures(side=40), ViewsConfig(size=24)):
        assert view.shape == (16, 3, 24, 24)
        assert view.dtype == torch.float32
        assert view.is_contiguous(memory_format=torch.channels_last)


def test_pixels_are_left_as_they_are() -> None:
    pixels = _pictures()
    before = pixels.clone()
    _views(pixels, dataclasses.replace(PAPER, blur=1.0))
    assert torch.equal(pixels, before)


def test_with_everything_off_a_view_is_the_normalised_image() -> None:
    pixels = _pictures()
    expected = oracle.normalize(pixels / 255, *map(list, NORMALIZATION))
    for view in _views(pixels, OFF):
        assert torch.allclose(view, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [24, 48])
def test_with_everything_off_a_view_of_another_size_is_the_resized_image(size: int) -> None:
    pixels = _pictures()
    expected = oracle.resize(pixels / 255, [size, size], antialias=True)
    for view in _views(pixels, dataclasses.replace(OFF, size=size), normalization=UNCHANGED):
        assert torch.allclose(view, expected, rtol=0, atol=1e-5)


def test_views_follow_the_drawn_parameters_step_by_step() -> None:
    """The whole pipeline against torchvision, image by image, in the paper's order."""
    config = ViewsConfig(size=32, grayscale=0.3, blur=0.5)
    pixels = _pictures(16, side=48)
    views = torch.cat(_views(pixels, config, seed=9))
    drawn = draw_parameters(
        random_table(torch.Generator().manual_seed(9), views=32),
        height=48,
        width=48,
        config=config,
    )
    for row, view in enumerate(views):
        expected = _by_torchvision(pixels[row % 16] / 255, [field[row] for field in drawn])
        assert torch.allclose(view, expected, rtol=0, atol=1e-4)


def _by_torchvision(image: Tensor, parameters: list[Tensor]) -> Tensor:
    box, flip, factors, order, gray, sigma = parameters
    steps = (
        *(oracle.adjust_brightness, oracle.adjust_contrast),
        *(oracle.adjust_saturation, oracle.adjust_hue),
    )
    image = oracle.resized_crop(image, *box.tolist(), [32, 32], antialias=True)
    image = oracle.hflip(image) if flip else image
    for step in order.tolist():
        image = steps[step](image, float(factors[step]))
    image = oracle.rgb_to_grayscale(image, num_output_channels=3) if gray else image
    image = oracle.gaussian_blur(image, [5, 5], [float(sigma)] * 2) if sigma > 0 else image
    return oracle.normalize(image, *map(list, NORMALIZATION))


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        *(("crop_min", 0.2), ("flip", 1.0), ("grayscale", 1.0), ("blur", 1.0)),
        *(("brightness", 0.8), ("contrast", 0.8), ("saturation", 0.8), ("hue", 0.5)),
    ],
)
def test_each_knob_alone_changes_the_views(knob: str, value: float) -> None:
    still = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    quiet = dataclasses.replace(OFF, jitter=1.0, **still)
    pixels = _pictures()
    before, after = (
        _views(pixels, quiet),
        _views(pixels, dataclasses.replace(quiet, **{knob: value})),
    )
    assert torch.allclose(before.x1, _views(pixels, OFF).x1, rtol=0, atol=1e-5)
    assert float((before.x1 - after.x1).abs().max()) > 0.1
    assert float((before.x2 - after.x2).abs().max()) > 0.1


@pytest.mark.parametrize("images", [5, 1])
def test_a_batch_made_in_pieces_is_the_batch_made_at_once(
    images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a piece is spared the steps that are for none of its images."""
    pixels, config = _pictures(23, side=48), dataclasses.replace(PAPER, blur=0.5)
    pixels[:8] = 255  # of which a crop that shrinks could make more than white
    whole = _views(pixels, config)
    monkeypatch.setattr(make, "CPU_PIECE", 3 * 48 * 48 * images // torch.get_num_threads())
    assert _same(_views(pixels, config), whole)


def test_large_pictures_become_float_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    to_float = make.to_float

    def recorded(pixels: Tensor) -> Tensor:
        sizes.append(pixels.numel())
        return to_float(pixels)

    monkeypatch.setattr(make, "to_float", recorded)
    x1, _ = _views(_pictures(9, side=256), ViewsConfig(size=224))
    assert x1.shape == (9, 3, 224, 224)
    assert sum(sizes) == 9 * 3 * 256 * 256
    assert max(sizes) <= max(make.CPU_PIECE * torch.get_num_threads(), 3 * 256 * 256)


def test_nothing_depends_on_data_so_a_gpu_never_waits() -> None:
    """Fake tensors have no values: `.item()`, boolean masks and nonzero raise."""
    config = dataclasses.replace(PAPER, blur=0.5)
    with FakeTensorMode():
        pixels = torch.empty((2, 3, 40, 40), dtype=torch.uint8, device="cuda")
        table = torch.empty((4, sum(COLUMNS.values())), device="cuda")
        x1, x2 = views_of(pixels, table, config=config, normalization=NORMALIZATION)
        with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
            x1.sum().item()
    assert x1.shape == x2.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_normalize_agrees_with_torchvision_and_keeps_the_memory_format(
    layout: torch.memory_format,
) -> None:
    pixels = _pictures().contiguous(memory_format=layout)
    made = normalize(pixels, NORMALIZATION)
    expected = oracle.normalize(pixels / 255, *map(list, NORMALIZATION))
    assert torch.allclose(made, expected, rtol=0, atol=1e-5)
    assert made.is_contiguous(memory_format=layout)
    assert made.dtype == torch.float32
