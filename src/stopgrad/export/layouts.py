"""How torchvision and timm build the network that an encoder's weights fit, in code and in words.

Our ResNets have the names of torchvision's and timm's. What neither builds is a width factor and
the three-stage family; what timm built is timm's alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import nn

from stopgrad.config import EncoderConfig
from stopgrad.errors import ConfigError
from stopgrad.method import RESNETS

Format = Literal["torchvision", "timm", "safetensors", "onnx", "hub"]
FORMATS: tuple[Format, ...] = ("torchvision", "timm", "safetensors", "onnx", "hub")
EVERY: tuple[Format, ...] = ("safetensors", "onnx", "hub")  # these take any encoder


class Layout(NamedTuple):
    """A network of another library that an encoder's weights fit strictly."""

    library: str
    lines: tuple[str, ...]  # Python that builds it; the last one takes the classifier off
    build: Callable[[], Any]  # the same


def layout(config: EncoderConfig, name: Format) -> Layout:
    """The network of torchvision or timm for an encoder.

    Raises:
        ConfigError: For an encoder that the library does not build, with the formats that work.
    """
    works = formats_for(config)
    if name not in works:
        raise ConfigError(
            f"--format {name} for the encoder {config.name} of width {config.width:g}",
            expected=f"for this encoder: {', '.join(works)}",
            hint=f"{name} builds no such network; choose one of these",
        )
    match name:
        case "torchvision":
            return _torchvision(config)
        case "timm":
            return _timm(config)
    raise AssertionError(name)


def formats_for(config: EncoderConfig) -> tuple[Format, ...]:
    """The formats that an encoder can be exported in."""
    if config.name.startswith("timm:"):
        return ("timm", *EVERY)
    four_stages = len(RESNETS[config.name].blocks) == 4
    return FORMATS if four_stages and config.width == 1 else EVERY


def _torchvision(config: EncoderConfig) -> Layout:
    shape = RESNETS[config.name]
    known = config.name != "resnet10"  # the others by their names
    block = "Bottleneck" if shape.bottleneck else "BasicBlock"
    first = f"model = torchvision.models.{config.name}()"
    if not known:
        first = (
            "model = torchvision.models.ResNet("
            f"torchvision.models.resnet.{block}, {list(shape.blocks)})"
        )

    def build() -> Any:
        models = importlib.import_module("torchvision.models")
        if known:
            model = getattr(models, config.name)()
        else:
            model = models.ResNet(getattr(models.resnet, block), list(shape.blocks))
        model.fc = nn.Identity()
        return _with_stem(model, config)

    return Layout("torchvision", (first, *_stem_lines(config), "model.fc = nn.Identity()"), build)


def _timm(config: EncoderConfig) -> Layout:
    name, options = _timm_words(config)

    def build() -> Any:
        timm = importlib.import_module("timm")
        return _with_stem(timm.create_model(name, num_classes=0, **options), config)

    words = "".join(f", {key}={value!r}" for key, value in options.items())
    first = f'model = timm.create_model("{name}", num_classes=0{words})'
    return Layout("timm", (first, *_stem_lines(config)), build)


def _timm_words(config: EncoderConfig) -> tuple[str, dict[str, Any]]:
    """The name and the options that make timm's network that of the encoder."""
    if not config.name.startswith("timm:"):
        shape = RESNETS[config.name]
        options = {"layers": shape.blocks} if config.name == "resnet10" else {}
        return ("resnet18" if options else config.name), options
    name, timm = config.name.removeprefix("timm:"), importlib.import_module("timm")
    try:  # as `encoder.build` makes it: for pictures of any size where timm can
        timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return name, {}
    return name, {"dynamic_img_size": True}


def _stem_lines(config: EncoderConfig) -> tuple[str, ...]:
    if config.name.startswith("timm:") or config.stem == "large":
        return ()
    stride = ", stride=2" if config.stem == "half" else ""
    conv = f"nn.Conv2d(3, 64, kernel_size=3{stride}, padding=1, bias=False)"
    return (f"model.conv1 = {conv}", "model.maxpool = nn.Identity()")


def _with_stem(model: Any, config: EncoderConfig) -> Any:
    """The model with the first layer of the encoder; no library has the small one by a name."""
    if _stem_lines(config):
        stride = 2 if config.stem == "half" else 1
        model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=stride, padding=1, bias=False)
        model.maxpool = nn.Identity()
    return model
