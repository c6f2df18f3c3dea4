"""Claims about `encoder`."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from stopgrad.config import EncoderConfig, preset
from stopgrad.errors import ConfigError
from stopgrad.method import build_encoder, build_simsiam, drops, size_problem
from stopgrad.method.resnet import Encoder, ResNet, ResNetShape


def _build(name: str, *, seed: int = 0, **settings: object) -> nn.Module:
    config = EncoderConfig(name=name, **settings)  # type: ignore[arg-type]
    return build_encoder(config, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_large_stem_resnets_compute_what_torchvision_computes(name: str) -> None:
    ours = _build(name, stem="large", zero_init=False)
    with torch.random.fork_rng():
        theirs = getattr(torchvision.models, name)()
    theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("stem", "side"), [("small", 4), ("half", 2), ("large", 1)])
def test_the_stem_decides_how_much_the_image_shrinks(stem: str, side: int) -> None:
    encoder = _build("resnet18", stem=stem)
    sizes = []
    encoder.get_submodule("layer4").register_forward_hook(
        lambda module, inputs, output: sizes.append(output.shape[-1])
    )
    encoder(torch.zeros(2, 3, 32, 32))
    assert sizes == [side]


def test_the_6n_plus_2_family_has_that_many_layers() -> None:
    for name in ("cifar_resnet8", "cifar_resnet20"):
        encoder = _build(name)
        layers = [
            m
            for key, m in encoder.named_modules()
            if isinstance(m, nn.Conv2d) and "down" not in key
        ]
        assert len(layers) + 1 == int(name.removeprefix("cifar_resnet"))  # + 1: the classifier


def test_the_width_factor_scales_every_channel_count() -> None:
    narrow, wide = _build("resnet10", width=0.5), _build("resnet10")
    assert isinstance(narrow, ResNet)
    assert narrow.feature_width == 256
    assert wide(torch.zeros(2, 3, 32, 32)).shape == (2, 512)
    assert narrow.conv1.out_channels == 32


def test_residual_blocks_start_as_the_identity_only_when_asked() -> None:
    zero, one = _build("resnet18"), _build("resnet18", zero_init=False)
    assert zero.state_dict()["layer1.0.bn2.weight"].abs().max() == 0
    assert one.state_dict()["layer1.0.bn2.weight"].min() == 1
    assert zero.state_dict()["layer1.0.bn1.weight"].min() == 1


def test_initial_weights_depend_on_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = _build("resnet18").state_dict()
    torch.manual_seed(2)
    same, other = _build("resnet18").state_dict(), _build("resnet18", seed=1).state_dict()
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_convolutions_start_with_he_variance() -> None:
    weight = _build("resnet18").state_dict()["layer4.1.conv2.weight"]  # fan out 512 x 9
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_models_that_drop_values_or_paths_are_known() -> None:
    assert not drops(build_simsiam(preset("tiny")))
    assert not drops(timm.create_model("resnet18"))
    assert drops(timm.create_model("ghostnet_050"))  # a rate of the model
    assert drops(timm.create_model("resnet10t", drop_path_rate=0.1))  # of its blocks
    assert drops(nn.Sequential(nn.Dropout(0.1)))


def test_timm_backbones_come_by_name_without_touching_the_global_generator() -> None:
    state = torch.get_rng_state()
    first, same = _build("timm:resnet10t"), _build("timm:resnet10t")
    assert torch.equal(state, torch.get_rng_state())
    assert first(torch.zeros(2, 3, 32, 32)).shape == (2, first.feature_width)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_timm_backbones_say_how_wide_their_features_are(name: str) -> None:
    encoder = _build(f"timm:{name}").eval()
    assert encoder(torch.zeros(2, 3, 64, 64)).shape == (2, encoder.feature_width)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean resnet18"):
        _build("resnet-18")
    with pytest.raises(ConfigError, match="vit_tiny"):
        _build("timm:vit_tinny_patch16_224")


def test_an_encoder_says_why_it_does_not_take_a_size_and_ours_take_every_one() -> None:
    vit = _build("timm:test_vit").eval()  # patches of 16 px
    assert size_problem(vit, (32, 48)) == ""
    assert size_problem(vit, (32, 37)) == "Input width (37) should be divisible by patch size (16)"
    assert size_problem(_build("resnet18").eval(), (7, 37)) == ""


def test_memory_that_runs_out_is_no_size_that_an_encoder_refuses() -> None:
    class Greedy(Encoder):
        channels = 3

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 bytes")

    with pytest.raises(RuntimeError, match="allocate"):
        size_problem(Greedy(), (8, 8))


def test_a_map_of_one_pixel_has_the_gradient_of_fp32_in_bf16_too() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = ResNetShape(bottleneck=False, blocks=(1, 1), channels=(128, 256))
    net = ResNet(shape, stem="small", width=1.0).to(memory_format=torch.channels_last)
    conv = net.get_submodule("layer2")[0].conv1  # 3x3, stride 2
    x = torch.randn(16, 128, 1, 1, generator=generator).to(memory_format=torch.channels_last)

    def gradient(*, half: bool) -> Tensor:
        conv.weight.grad = None
        junk = torch.full((3_000_000,), float("nan"))
        del junk  # what nobody writes is not a number now
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            conv(x).float().square().sum().backward()
        assert conv.weight.grad is not None
        return conv.weight.grad.clone()

    exact, rounded = gradient(half=False), [gradient(half=True) for _ in range(5)]
    assert all(torch.equal(rounded[0], other) for other in rounded[1:])
    assert (rounded[0] - exact).abs().max() < 0.02 * exact.abs().max()
    exact[:, :, 1, 1] = 0  # the only tap that meets anything but padding
    assert not exact.any()
