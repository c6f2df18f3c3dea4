"""Claims about crop, flip and resize; torchvision is the oracle, on real photographs."""

import pytest
import torch
import torchvision.transforms.functional as pillow_functional
import torchvision.transforms.v2.functional as oracle
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from stopgrad.config import ViewsConfig
from stopgrad.method import random_table
from stopgrad.method.views.draw import draw_parameters
from stopgrad.method.views.make import to_float
from tests.method.single_steps import resized_crop

SIZES = [
    (32, 32, 32),
    (48, 40, 32),
    (28, 28, 32),
    (96, 96, 64),
    (20, 150, 32),
    (150, 20, 16),
    (256, 256, 224),
]


def _pictures(height: int, width: int, *, count: int = 12) -> Tensor:
    """Patches of a photograph of a temple: (count, 3, H, W) uint8."""
    photo = torch.from_numpy(load_sample_image("china.jpg").copy())
    corners = torch.randint(0, 150, (count, 2), generator=torch.Generator().manual_seed(7))
    patches = [photo[i : i + height, j : j + width] for i, j in corners.tolist()]
    return torch.stack(patches).permute(0, 3, 1, 2)


def _drawn(height: int, width: int, size: int, count: int = 12) -> tuple[Tensor, Tensor]:
    drawn = draw_parameters(
        random_table(torch.Generator().manual_seed(height), views=count),
        height=height,
        width=width,
        config=ViewsConfig(size=size, crop_min=0.05),
    )
    return drawn.boxes, drawn.flip


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_crops_agree_with_torchvision_on_floats(height: int, width: int, size: int) -> None:
    x = to_float(_pictures(height, width))
    boxes, flip = _drawn(height, width, size)
    made = resized_crop(x, boxes, flip, size=size)
    for image, box, flipped, ours in zip(x, boxes, flip, made, strict=True):
        theirs = oracle.resized_crop(image, *box.tolist(), [size, size], antialias=True)
        theirs = oracle.hflip(theirs) if flipped else theirs
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_crops_agree_with_pillow_to_its_8_bits(height: int, width: int, size: int) -> None:
    pixels = _pictures(height, width, count=4)
    boxes, flip = _drawn(height, width, size, count=4)
    made = resized_crop(to_float(pixels), boxes, flip, size=size)
    for image, box, flipped, ours in zip(pixels, boxes, flip, made, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        theirs = pillow_functional.resized_crop(picture, *box.tolist(), [size, size])
        theirs = oracle.to_image(theirs).float() / 255
        theirs = oracle.hflip(theirs) if flipped else theirs
        assert float((ours - theirs).abs().max()) <= 2 / 255


def test_the_drawn_crops_shrink_and_enlarge_and_flip_and_do_not() -> None:
    """So the two tests above see every case."""
    boxes, flip = _drawn(48, 40, 32)
    assert boxes[:, 2].min() < 32 < boxes[:, 2].max()
    assert flip.any()
    assert not flip.all()


def test_pixels_outside_the_box_have_no_influence() -> None:
    x = to_float(_pictures(40, 40, count=2))
    boxes = torch.tensor([[5, 7, 20, 11], [0, 20, 33, 20]])
    masked = torch.full_like(x, 9.0)
    for row, (top, left, height, width) in enumerate(boxes.tolist()):
        inside = (row, slice(None), slice(top, top + height), slice(left, left + width))
        masked[inside] = x[inside]
    flip = torch.tensor([False, True])
    ours = resized_crop(x, boxes, flip, size=16)
    assert torch.equal(ours, resized_crop(masked, boxes, flip, size=16))


def test_the_whole_image_at_its_own_size_is_the_image_itself() -> None:
    x = to_float(_pictures(32, 32, count=3))
    boxes = torch.tensor([[0, 0, 32, 32]]).expand(3, 4)
    flip = torch.tensor([False, True, False])
    made = resized_crop(x, boxes, flip, size=32)
    assert torch.allclose(made[::2], x[::2], rtol=0, atol=1e-6)
    assert torch.allclose(made[1], x[1].flip(2), rtol=0, atol=1e-6)
