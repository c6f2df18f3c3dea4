"""Claims about colour and blur; torchvision is the oracle, on real photographs."""

import itertools

import pytest
import torch
import torchvision.transforms.v2.functional as oracle
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from stopgrad.method.views.colour import grayscale
from stopgrad.method.views.filters import blur, kernel_size
from tests.method.single_steps import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    colour_jitter,
)

STEPS = {
    "brightness": (adjust_brightness, oracle.adjust_brightness),
    "contrast": (adjust_contrast, oracle.adjust_contrast),
    "saturation": (adjust_saturation, oracle.adjust_saturation),
    "hue": (adjust_hue, oracle.adjust_hue),
}
ORACLES = [theirs for _, theirs in STEPS.values()]


def _pictures(count: int, side: int = 32) -> Tensor:
    """Patches of a photograph of a flower, strong colours and clipped lights: (count, 3, S, S)."""
    photo = torch.from_numpy(load_sample_image("flower.jpg").copy())
    generator = torch.Generator().manual_seed(3)
    corners = torch.randint(0, photo.shape[0] - side, (count, 2), generator=generator)
    patches = [photo[i : i + side, j : j + side] for i, j in corners.tolist()]
    x = torch.stack(patches).permute(0, 3, 1, 2).float() / 255
    x[0, :, :2] = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1)
    x[0, :, 2:4], x[0, :, 4:6], x[0, :, 6:8] = 0.0, 1.0, 0.3
    x[0, :, 8:10] = torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1)  # cyan, opposite of hue's origin
    return x


def _factors(step: str, count: int) -> Tensor:
    low, high = (-0.5, 0.5) if step == "hue" else (0.0, 2.5)
    return torch.linspace(low, high, count)


@pytest.mark.parametrize("step", STEPS)
def test_each_step_agrees_with_torchvision_image_by_image(step: str) -> None:
    ours, theirs = STEPS[step]
    x, factors = _pictures(21), _factors(step, 21)
    made = ours(x, factors)
    for image, factor, view in zip(x, factors, made, strict=True):
        assert torch.allclose(view, theirs(image, float(factor)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", ["brightness", "contrast", "saturation"])
def test_each_blend_agrees_with_pillow_to_its_8_bits(step: str) -> None:
    """Pillow rounds gray and then cuts the blend off to 8 bits: one step and a half."""
    ours, theirs = STEPS[step]
    x, factors = _pictures(9), torch.linspace(0.6, 1.4, 9)
    made = ours(x, factors)
    for image, factor, view in zip(x, factors, made, strict=True):
        picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        expected = oracle.to_image(theirs(picture, float(factor))).float() / 255
        assert float((view - expected).abs().max()) <= 1.5 / 255 + 1e-6


def test_colour_jitter_in_each_of_the_24_orders_agrees_with_torchvision() -> None:
    order = torch.tensor(list(itertools.permutations(range(4))))
    x = _pictures(24)
    generator = torch.Generator().manual_seed(5)
    factors = torch.rand((24, 4), generator=generator) * 1.2 + 0.4
    factors[:, 3] = torch.rand(24, generator=generator) - 0.5
    made = colour_jitter(x, factors, order)
    for image, values, steps, view in zip(x, factors, order.tolist(), made, strict=True):
        for step in steps:
            image = ORACLES[step](image, float(values[step]))
        assert torch.allclose(view, image, rtol=0, atol=2e-5)


def test_the_order_of_the_steps_matters_on_these_pictures() -> None:
    """Otherwise the test above could not tell the orders apart."""
    x, factors = _pictures(8), torch.tensor([[2.0, 0.5, 1.6, 0.3]]).expand(8, 4)
    orders = [torch.tensor(steps) for steps in itertools.permutations(range(4))]
    made = torch.stack([colour_jitter(x, factors, order.expand(8, 4)) for order in orders])
    distances = torch.cdist(made.flatten(1), made.flatten(1), p=torch.inf)
    assert float((distances + torch.eye(24)).min()) > 1 / 255


def test_jitter_leaves_its_input_and_identity_factors_leave_the_image() -> None:
    x = _pictures(24)
    before = x.clone()
    order = torch.tensor(list(itertools.permutations(range(4))))
    identity = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).expand(24, 4)
    assert torch.allclose(colour_jitter(x, identity, order), before, rtol=0, atol=2e-6)
    colour_jitter(x, torch.full((24, 4), 0.4), order)
    assert torch.equal(x, before)


def test_the_hue_of_gray_pixels_is_unaffected() -> None:
    gray = torch.rand((5, 1, 8, 8), generator=torch.Generator().manual_seed(0)).expand(5, 3, 8, 8)
    assert torch.equal(adjust_hue(gray, torch.linspace(-0.5, 0.5, 5)), gray)


def test_a_third_of_the_circle_turns_red_into_green_and_green_into_blue() -> None:
    primaries = torch.eye(3).view(3, 3, 1, 1)
    turned = adjust_hue(primaries, torch.full((3,), 1 / 3))
    assert torch.allclose(turned, primaries[[1, 2, 0]], rtol=0, atol=1e-6)


def test_grayscale_agrees_with_torchvision_where_asked_and_nowhere_else() -> None:
    x = _pictures(4)
    made = grayscale(x, torch.tensor([True, False, True, False]))
    expected = oracle.rgb_to_grayscale(x, num_output_channels=3)
    assert torch.allclose(made[::2], expected[::2], rtol=0, atol=1e-6)
    assert torch.equal(made[1::2], x[1::2])


@pytest.mark.parametrize("side", [32, 64, 224])
def test_blur_agrees_with_torchvision_image_by_image(side: int) -> None:
    x, sigma = _pictures(4, side), torch.tensor([0.1, 0.7, 1.3, 2.0])
    made = blur(x, sigma)
    for image, width, view in zip(x, sigma, made, strict=True):
        kernel = [kernel_size(side)] * 2
        expected = oracle.gaussian_blur(image, kernel, [float(width)] * 2)
        assert torch.allclose(view, expected, rtol=0, atol=1e-5)


def test_blur_knows_height_from_width() -> None:
    x = _pictures(2, 40)[:, :, :24]
    kernel = [kernel_size(24)] * 2
    expected = oracle.gaussian_blur(x, kernel, [1.5, 1.5])
    assert torch.allclose(blur(x, torch.full((2,), 1.5)), expected, rtol=0, atol=1e-5)


def test_sigma_zero_is_no_blur() -> None:
    x = _pictures(2)
    made = blur(x, torch.tensor([1.0, 0.0]))
    assert torch.equal(made[1], x[1])
    assert float((made[0] - x[0]).abs().max()) > 0.1


def test_the_kernel_is_a_tenth_of_the_side_and_odd() -> None:
    assert [kernel_size(side) for side in (8, 32, 64, 96, 224)] == [3, 5, 7, 11, 23]
