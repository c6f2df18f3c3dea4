"""Encoders of one channel: views in gray, and three channels as they ever were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference

from stopgrad.config import Config, EncoderConfig, ViewsConfig, preset, torch_generator
from stopgrad.images import Images, Normalization, images_from_arrays, normalization
from stopgrad.method import build_encoder, build_simsiam, normalize, random_table, views_of
from stopgrad.method.views.draw import draw_parameters
from tests.method.single_steps import adjust_brightness, adjust_contrast, colour_jitter

GRAY, COLOUR = Normalization((0.4,), (0.2,)), Normalization((0.4,) * 3, (0.2,) * 3)


def noise(*shape: int) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(pixels)


def both_views(pixels: torch.Tensor, to: Normalization, **knobs: object) -> torch.Tensor:
    config = ViewsConfig(size=8, **knobs)  # type: ignore[arg-type]
    table = random_table(torch_generator(0, "views"), views=2 * len(pixels))
    return torch.cat(views_of(pixels, table, config=config, normalization=to))


@pytest.mark.input("command", what="--encoder.channels 1", happens="views and images are gray")
def test_views_of_one_channel_are_the_gray_of_those_of_three() -> None:
    pixels = noise(4, 3, 12, 12)
    gray = both_views(pixels, GRAY, jitter=0, grayscale=0)
    colour = both_views(pixels, COLOUR, jitter=0, grayscale=0)
    assert gray.shape == (8, 1, 8, 8)
    # Cropping is linear; torchvision's weights sum to 0.9999 and not to 1.
    expected = reference.rgb_to_grayscale(colour * 0.2 + 0.4) / 0.9999
    assert torch.allclose(gray, (expected - 0.4) / 0.2, atol=1e-5)


def test_gray_images_have_the_same_views_in_one_channel_as_in_three() -> None:
    pixels = noise(16, 1, 12, 12).expand(-1, 3, -1, -1)
    gray = both_views(pixels, GRAY, hue=0.5, saturation=0.9, grayscale=1.0, blur=0.5)
    colour = both_views(pixels, COLOUR, hue=0.5, saturation=0.9, grayscale=1.0, blur=0.5)
    # Colour steps leave gray as it is, but for weights that sum to 0.9999.
    assert torch.allclose(gray.expand(-1, 3, -1, -1), colour, atol=3e-3)
    assert (gray - both_views(pixels, GRAY, jitter=0)).abs().max() > 0.1  # brightness, contrast


def test_brightness_and_contrast_of_gray_are_those_of_torchvision() -> None:
    x = noise(3, 1, 6, 6) / 255
    factor = torch.tensor([0.5, 1.0, 1.7])
    for ours, theirs in (
        (adjust_brightness, reference.adjust_brightness),
        (adjust_contrast, reference.adjust_contrast),
    ):
        expected = torch.stack(
            [theirs(image, float(f)) for image, f in zip(x, factor, strict=True)]
        )
        assert torch.allclose(ours(x, factor), expected, atol=1e-6)


def test_hue_and_saturation_leave_gray_as_it_is() -> None:
    x = noise(3, 1, 6, 6) / 255
    table = random_table(torch_generator(1, "views"), views=3)
    drawn = draw_parameters(table, height=6, width=6, config=ViewsConfig(jitter=1.0))
    factors = drawn.factors.clone()
    factors[:, :2] = 1.0  # brightness and contrast change nothing
    assert torch.allclose(colour_jitter(x, factors, drawn.order), x, atol=1e-6)


def test_whole_images_become_gray_before_they_are_normalised() -> None:
    pixels = torch.tensor([255, 0, 0, 0, 255, 0, 0, 0, 255], dtype=torch.uint8).view(1, 3, 1, 3)
    found = normalize(pixels.flip(1), Normalization((0.0,), (1.0,)))  # blue, green, red
    assert torch.allclose(found.flatten(), torch.tensor([0.114, 0.587, 0.2989]) / 0.9999)
    mid = normalize(torch.full((1, 3, 2, 2), 51, dtype=torch.uint8), Normalization((0.1,), (0.5,)))
    assert torch.allclose(mid, torch.full((1, 1, 2, 2), 0.2))  # (51 / 255 - 0.1) / 0.5


def gray_images() -> Images:
    gray = np.random.default_rng(1).integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    return images_from_arrays(np.repeat(gray, 3, axis=3))


def test_the_normalisation_of_gray_is_that_of_gray_images() -> None:
    images = gray_images()
    values = images.pixels[..., 0] / 255
    found = normalization(images, channels=1)
    assert found.mean == pytest.approx((values.mean(),))
    assert found.std == pytest.approx((values.std(),))
    known = Normalization((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert normalization(replace(images, known=known)) is known
    found = normalization(replace(images, known=known), channels=1)
    # 0.2989 x 0.1 + 0.587 x 0.2 + 0.114 x 0.3 = 0.18149
    assert found.mean == pytest.approx((0.18149 / 0.9999,))


@pytest.mark.parametrize("channels", [1, 2, 13])
@pytest.mark.parametrize("name", ["resnet18", "cifar_resnet8", "timm:resnet10t"])
def test_an_encoder_takes_its_channels_and_no_others(name: str, channels: int) -> None:
    config = EncoderConfig(name=name, channels=channels)
    encoder = build_encoder(config, torch_generator(0, "encoder"))
    assert encoder.channels == channels
    assert encoder.eval()(torch.zeros(2, channels, 32, 32)).shape == (2, encoder.feature_width)
    with pytest.raises(RuntimeError, match="channels"):
        encoder(torch.zeros(2, 3, 32, 32))


def test_three_channels_are_the_default() -> None:
    assert Config().encoder.channels == 3
    assert build_simsiam(preset("tiny")).encoder.channels == 3
