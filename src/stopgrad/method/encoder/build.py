"""An encoder by name, with initial weights from an explicit generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from stopgrad.config import EncoderConfig
from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.method.encoder.initialize import initialize
from stopgrad.method.encoder.resnet import ResNet, Shape

RESNETS = {
    "resnet10": Shape((1, 1, 1, 1), (64, 128, 256, 512), bottleneck=False),
    "resnet18": Shape((2, 2, 2, 2), (64, 128, 256, 512), bottleneck=False),
    "resnet34": Shape((3, 4, 6, 3), (64, 128, 256, 512), bottleneck=False),
    "resnet50": Shape((3, 4, 6, 3), (64, 128, 256, 512), bottleneck=True),
} | {  # He et al. 2016, Sec. 4.2: 6n+2 layers, three stages
    f"cifar_resnet{6 * n + 2}": Shape((n, n, n), (16, 32, 64), bottleneck=False)
    for n in (1, 2, 3, 5, 7, 9)
}


def encoder_names() -> list[str]:
    """The names of the ResNets, without timm's."""
    return list(RESNETS)


def build_encoder(config: EncoderConfig, generator: torch.Generator) -> nn.Module:
    """An encoder with an attribute `feature_width` F; x (B, 3, H, W) -> features (B, F).

    Raises:
        ConfigError: For a name that is neither a ResNet of ours nor one of timm's.
    """
    if config.name.startswith("timm:"):
        return _timm_encoder(config.name.removeprefix("timm:"), generator)
    if config.name not in RESNETS:
        raise ConfigError(
            f"encoder.name = {config.name!r}{did_you_mean(config.name, RESNETS, most=3)}",
            expected=f"one of {', '.join(RESNETS)} or timm:NAME",
            hint="name one of these",
        )
    with torch.device("meta"):
        encoder = ResNet(RESNETS[config.name], stem=config.stem, width=config.width)
    initialize(encoder, generator)
    if config.zero_init:
        encoder.zero_last_bn()
    return encoder


def _created(create_model: Callable[..., Any], name: str) -> Any:
    """A backbone that takes images of any size, where timm can make it so."""
    try:
        return create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return create_model(name, pretrained=False, num_classes=0)


def _timm_encoder(name: str, generator: torch.Generator) -> nn.Module:
    """Any timm backbone without its classifier; stem and width are the backbone's own."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"encoder.name = 'timm:{name}' without timm",
            expected="timm to be installed",
            hint="pip install 'stopgrad[timm]'",
        ) from error
    known = timm.list_models()
    if name not in known:
        raise ConfigError(
            f"encoder.name = 'timm:{name}'{did_you_mean(name, known, most=3)}",
            expected="a model of timm.list_models()",
            hint="see timm.list_models() for the names",
        )
    # timm draws its weights from the global generator: lend it ours and restore the state after.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        encoder = _created(timm.create_model, name)
    # Some backbones have a layer between their last features and the classifier.
    encoder.feature_width = getattr(encoder, "head_hidden_size", None) or encoder.num_features
    return cast(nn.Module, encoder)
