"""ResNets (He et al. 2016) without a classifier: x (B, C, H, W) -> features (B, F).

State-dict keys are torchvision's (`conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.downsample.0`)
without the fully connected layer `fc`, so weights can be exchanged.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.config import Stem
from stopgrad.method.layers import batch_norm_2d, bn_relu


class ResNetShape(NamedTuple):
    """A ResNet before its width factor: blocks and channels of each stage."""

    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    bottleneck: bool


RESNETS = {
    "resnet10": ResNetShape((1, 1, 1, 1), (64, 128, 256, 512), bottleneck=False),
    "resnet18": ResNetShape((2, 2, 2, 2), (64, 128, 256, 512), bottleneck=False),
    "resnet34": ResNetShape((3, 4, 6, 3), (64, 128, 256, 512), bottleneck=False),
    "resnet50": ResNetShape((3, 4, 6, 3), (64, 128, 256, 512), bottleneck=True),
} | {  # He et al. 2016, Sec. 4.2: 6n+2 layers, three stages
    f"cifar_resnet{6 * n + 2}": ResNetShape((n, n, n), (16, 32, 64), bottleneck=False)
    for n in (1, 2, 3, 5, 7, 9)
}


class Encoder(nn.Module):
    """What every encoder has: x (B, C, H, W) -> features (B, F)."""

    feature_width: int  # F
    channels: int  # C


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C_in, H, W) -> (B, C, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, *, stride: int, per_view: bool) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, channels, kernel=3, stride=stride)
        self.bn1 = batch_norm_2d(channels, per_view=per_view)
        self.conv2 = _conv(channels, channels, kernel=3)
        self.bn2 = batch_norm_2d(channels, per_view=per_view)
        self.downsample = _shortcut(inputs, channels, stride=stride, per_view=per_view)

    @property
    def last_bn(self) -> nn.BatchNorm2d:
        """The BN whose gain may start at 0."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C, H', W')
        shortcut = x if self.downsample is None else self.downsample(x)
        x = bn_relu(self.bn1, self.conv1(x))
        return bn_relu(self.bn2, self.conv2(x), shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride, as torchvision), 1x1 to four times the channels."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, *, stride: int, per_view: bool) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = _conv(inputs, channels, kernel=1)
        self.bn1 = batch_norm_2d(channels, per_view=per_view)
        self.conv2 = _conv(channels, channels, kernel=3, stride=stride)
        self.bn2 = batch_norm_2d(channels, per_view=per_view)
        self.conv3 = _conv(channels, outputs, kernel=1)
        self.bn3 = batch_norm_2d(outputs, per_view=per_view)
        self.downsample = _shortcut(inputs, outputs, stride=stride, per_view=per_view)

    @property
    def last_bn(self) -> nn.BatchNorm2d:
        """The BN whose gain may start at 0."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, 4C, H', W')
        shortcut = x if self.downsample is None else self.downsample(x)
        x = bn_relu(self.bn1, self.conv1(x))
        x = bn_relu(self.bn2, self.conv2(x))
        return bn_relu(self.bn3, self.conv3(x), shortcut)


class ResNet(Encoder):
    """A ResNet up to its average pool.

    Args:
        shape: Blocks and channels, of `RESNETS`.
        stem: The first layers: small (stride 1), half (stride 2) or large (stride 4).
        width: Factor on every number of channels.
        channels: C, of its input.
        per_view: Whether each BN normalises the two halves of a batch separately, see `layers`.
    """

    def __init__(
        self,
        shape: ResNetShape,
        *,
        stem: Stem,
        width: float,
        channels: int = 3,
        per_view: bool = False,
    ) -> None:
        super().__init__()
        block = Bottleneck if shape.bottleneck else BasicBlock
        self.channels = channels
        counts = [max(8, round(count * width)) for count in shape.channels]
        self.conv1, self.maxpool = _stem(channels, counts[0], stem)
        self.bn1 = batch_norm_2d(counts[0], per_view=per_view)
        inputs = counts[0]
        self.stages = tuple(f"layer{number}" for number, _ in enumerate(counts, start=1))
        for number, (name, count) in enumerate(zip(self.stages, shape.blocks, strict=True)):
            stage = nn.Sequential()
            for index in range(count):
                stride = 2 if number > 0 and index == 0 else 1
                stage.append(block(inputs, counts[number], stride=stride, per_view=per_view))
                inputs = counts[number] * block.expansion
            self.add_module(name, stage)
        self.feature_width = inputs

    def zero_last_bn(self) -> None:
        """Starts each residual block as the identity (Goyal et al. 2017)."""
        for layer in self.modules():
            if isinstance(layer, BasicBlock | Bottleneck):
                nn.init.zeros_(layer.last_bn.weight)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, F)
        x = self.maxpool(bn_relu(self.bn1, self.conv1(x)))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


def _stem(inputs: int, outputs: int, stem: Stem) -> tuple[nn.Conv2d, nn.Module]:
    match stem:
        case "small":  # Paper, Appendix D: 3x3 stride 1, no max-pool
            return _conv(inputs, outputs, kernel=3), nn.Identity()
        case "half":
            return _conv(inputs, outputs, kernel=3, stride=2), nn.Identity()
        case "large":
            pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            return _conv(inputs, outputs, kernel=7, stride=2), pool


class _StridedConv(nn.Conv2d):
    """Uses only the middle of its kernel on maps of one pixel, where the rest meets padding.

    There the CPU's bf16 gradient of the rest, which is 0, was read from uninitialised memory
    (torch 2.14.1 with stride 2; docs/log.md): runs differed, and stopped as not finite.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.shape[2:] != (1, 1):
            return super().forward(x)
        middle = self.kernel_size[0] // 2
        return F.conv2d(x, self.weight[:, :, middle, middle, None, None])


def _conv(inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d if stride == 1 else _StridedConv
    return conv(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


def _shortcut(inputs: int, outputs: int, *, stride: int, per_view: bool) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    bn = batch_norm_2d(outputs, per_view=per_view)
    return nn.Sequential(_conv(inputs, outputs, kernel=1, stride=stride), bn)
