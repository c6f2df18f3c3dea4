"""Claims about `features`."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stopgrad.errors import DataError, DivergedError
from stopgrad.evaluation import Features, embed, labelled, score
from stopgrad.evaluation.features import pixel_features
from stopgrad.images import Images, Normalization
from stopgrad.method import Compute

CPU = Compute(torch.device("cpu"), "fp32", channels_last=True)
NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def _images(count: int, *, labelled: bool = True) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    pixels.flags.writeable = False  # as a read-only memory map
    labels = np.arange(count) % 3 if labelled else None
    return Images(pixels, labels, ("a", "b", "c") if labelled else (), "f")


class Network(nn.Module):
    """A convolution, a BN and a dropout, each of which tells evaluation from training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        out: Tensor = self.layers(x).mean(dim=(2, 3))
        return out


def test_embedding_does_not_depend_on_the_batch_and_keeps_the_order() -> None:
    network, images = Network(), _images(7)
    whole = embed(network, images, normalization=NORMALIZATION, compute=CPU)
    parts = embed(network, images, normalization=NORMALIZATION, compute=CPU, batch=3)
    one = embed(network, images.take([5]), normalization=NORMALIZATION, compute=CPU)
    torch.testing.assert_close(parts.values, whole.values)
    torch.testing.assert_close(one.values[0], whole.values[5])
    assert whole.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_the_encoder_sees_normalised_images() -> None:
    network, images = Network(), _images(2)
    embed(network, images, normalization=NORMALIZATION, compute=CPU)
    expected = (images.pixels[1, 2, 3] / 255 - NORMALIZATION.mean) / NORMALIZATION.std
    np.testing.assert_allclose(network.seen[0][1, :, 2, 3].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_encoder_sees_the_memory_format_asked_for(channels_last: bool) -> None:
    network = Network()
    compute = CPU._replace(channels_last=channels_last)
    embed(network, _images(2), normalization=NORMALIZATION, compute=compute)
    assert network.seen[0].is_contiguous() is not channels_last
    assert network.seen[0].is_contiguous(memory_format=torch.channels_last) is channels_last


def test_embedding_leaves_the_encoder_as_it_was() -> None:
    network = Network().train()
    network.layers[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    embed(network, _images(4), normalization=NORMALIZATION, compute=CPU)
    assert [module.training for module in network.modules()] == [True, True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_training_flags_come_back_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(1, 1)).train()
    with pytest.raises(RuntimeError):
        embed(network, _images(2), normalization=NORMALIZATION, compute=CPU)
    assert all(module.training for module in network.modules())


def test_embedding_draws_no_random_number() -> None:
    network = Network()
    before = torch.get_rng_state()
    embed(network, _images(4), normalization=NORMALIZATION, compute=CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_bf16_is_used_when_asked_for_and_features_are_float32() -> None:
    network, images = Network(), _images(4)
    full = embed(network, images, normalization=NORMALIZATION, compute=CPU).values
    compute = CPU._replace(precision="bf16")
    half = embed(network, images, normalization=NORMALIZATION, compute=compute).values
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.02)


def test_features_may_be_used_in_a_backward_pass() -> None:
    features = embed(Network(), _images(4), normalization=NORMALIZATION, compute=CPU)
    weight = torch.ones(6, requires_grad=True)
    (features.values * weight).sum().backward()
    torch.testing.assert_close(weight.grad, features.values.sum(dim=0))


def test_images_without_labels_give_features_without_labels() -> None:
    images = _images(3, labelled=False)
    assert embed(Network(), images, normalization=NORMALIZATION, compute=CPU).labels is None


def test_pixel_features_are_the_normalised_pixels_by_channel() -> None:
    images = _images(3)
    values = pixel_features(images, normalization=NORMALIZATION).values
    expected = (images.pixels / 255 - NORMALIZATION.mean) / NORMALIZATION.std  # (N, H, W, 3)
    flat = expected.transpose(0, 3, 1, 2).reshape(3, -1)
    np.testing.assert_allclose(values.numpy(), flat, rtol=1e-4, atol=1e-6)


def test_score_by_hand() -> None:
    class_scores = torch.tensor(
        [
            [9.0, 1, 2, 3, 4, 5, 6],  # ranks 0 6 5 4 3: label 0, top-1
            [9.0, 1, 2, 3, 4, 5, 6],  # label 3 is fifth: top-5
            [9.0, 1, 2, 3, 4, 5, 6],  # label 2 is sixth: neither
            [0.0, 0, 0, 0, 0, 0, 0],  # all equal, so 0 1 2 3 4: label 4 is fifth
        ]
    )
    result = score(class_scores, torch.tensor([0, 3, 2, 4]), protocol={"k": 1})
    assert (result.accuracy, result.top5, result.images_scored) == (0.25, 0.75, 4)
    assert result.predicted.tolist() == [0, 0, 0, 0]
    assert result.per_class[[0, 2, 3, 4]].tolist() == [1, 0, 0, 0]
    assert all(math.isnan(x) for x in result.per_class[[1, 5, 6]].tolist())


def test_equal_scores_go_to_the_lowest_classes() -> None:
    result = score(torch.zeros(3, 1000), torch.tensor([0, 4, 5]), protocol={})
    assert (result.accuracy, result.top5) == (1 / 3, 2 / 3)


def test_top5_of_five_classes_is_one() -> None:
    class_scores = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    assert score(class_scores, torch.arange(20) % 5, protocol={}).top5 == 1


def test_features_without_labels_are_refused() -> None:
    with pytest.raises(DataError, match="test images without labels"):
        labelled(Features(torch.ones(2, 3), None), role="test")


def test_no_features_are_refused() -> None:
    empty = Features(torch.ones(0, 3), torch.ones(0, dtype=torch.int64))
    with pytest.raises(DataError, match="no training images"):
        labelled(empty, role="training")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_refused_and_counted(bad: float) -> None:
    values = torch.ones(4, 3)
    values[1, 2] = values[3, 0] = bad
    with pytest.raises(DivergedError, match="of 2 of 4 test images"):
        labelled(Features(values, torch.zeros(4, dtype=torch.int64)), role="test")


def test_large_finite_features_are_accepted() -> None:
    values = torch.full((4, 3), 3e38)
    assert labelled(Features(values, torch.zeros(4, dtype=torch.int64)), role="test")
