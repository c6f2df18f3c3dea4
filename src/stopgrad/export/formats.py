"""Encoders for other libraries: as networks of torchvision and timm, and as ONNX files.

Our ResNets have the parameter names of torchvision and timm. Neither library has a width factor or
the three-stage family, and torchvision no single input channel; a timm backbone fits timm only.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from stopgrad.config import TIMM, EncoderConfig, ExportFormat
from stopgrad.errors import ConfigError
from stopgrad.method import RESNETS

EVERY: tuple[ExportFormat, ...] = ("safetensors", "onnx", "hub")  # these hold any encoder
OPSET = 18
LARGEST = (1 << 31) - 1  # bytes of one ONNX file


class Layout(NamedTuple):
    """A network of another library with exactly the parameters of an encoder."""

    package: str
    lines: tuple[str, ...]  # Python code that builds it, without the classifier
    build: Callable[[], Any]  # does what the lines say


def layout(config: EncoderConfig, name: ExportFormat) -> Layout:
    """The network of torchvision or timm for an encoder.

    Raises:
        ConfigError: When the library has no such network; names the formats that work.
    """
    check_format(config, name)
    return _torchvision(config) if name == "torchvision" else _timm(config)


def check_format(config: EncoderConfig, name: ExportFormat) -> None:
    """Refuses a format that cannot hold an encoder, by a ConfigError that names those that can."""
    works = formats_for(config)
    if name not in works:
        raise ConfigError(
            f"--format {name} for the encoder {config.name} of width {config.width:g} and "
            f"{config.channels} channels",
            expected=f"one of {', '.join(works)} for this encoder",
            hint=f"{name} has no such network; choose one of these",
        )


def formats_for(config: EncoderConfig) -> tuple[ExportFormat, ...]:
    """The export formats that can hold an encoder."""
    if config.is_given:  # only a graph holds its computation
        return ("onnx",)
    if config.is_timm:
        return ("timm", *EVERY)
    usual = config.width == 1 and config.channels == 3
    return get_args(ExportFormat) if usual and len(RESNETS[config.name].blocks) == 4 else EVERY


def _torchvision(config: EncoderConfig) -> Layout:
    """torchvision has a function for each of our networks but resnet10."""
    blocks, small = list(RESNETS[config.name].blocks), config.name == "resnet10"
    first = f"model = torchvision.models.{config.name}()"
    if small:
        first = f"model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, {blocks})"

    def build() -> Any:
        models = importlib.import_module("torchvision.models")
        basic = models.resnet.BasicBlock
        model = models.ResNet(basic, blocks) if small else getattr(models, config.name)()
        model.fc = nn.Identity()
        return _with_stem(model, config)

    return Layout("torchvision", (first, *_stem_lines(config), "model.fc = nn.Identity()"), build)


def _timm(config: EncoderConfig) -> Layout:
    options: dict[str, Any] = {}
    name = config.name.removeprefix(TIMM)
    if name == "resnet10":
        name, options = "resnet18", {"layers": RESNETS[name].blocks}
    elif name != config.name:
        options = {} if config.channels == 3 else {"in_chans": config.channels}
        flexible = {"dynamic_img_size": True, **options}
        try:  # as `build_encoder` does: for images of any size where timm can
            importlib.import_module("timm").create_model(name, num_classes=0, **flexible)
            options = flexible
        except TypeError:
            pass

    def build() -> Any:
        timm = importlib.import_module("timm")
        return _with_stem(timm.create_model(name, num_classes=0, **options), config)

    given = "".join(f", {key}={value!r}" for key, value in options.items())
    first = f'model = timm.create_model("{name}", num_classes=0{given})'
    return Layout("timm", (first, *_stem_lines(config)), build)


def _stem_lines(config: EncoderConfig) -> tuple[str, ...]:
    """The lines that build the small and the half stem, which no library has by name."""
    if config.is_timm or config.stem == "large":
        return ()
    stride = ", stride=2" if config.stem == "half" else ""
    conv = f"nn.Conv2d(3, 64, kernel_size=3{stride}, padding=1, bias=False)"
    return (f"model.conv1 = {conv}", "model.maxpool = nn.Identity()")


def _with_stem(model: Any, config: EncoderConfig) -> Any:
    """The model, changed as `_stem_lines` would."""
    if _stem_lines(config):
        stride = 2 if config.stem == "half" else 1
        model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=stride, padding=1, bias=False)
        model.maxpool = nn.Identity()
    return model


def encode_onnx(
    encoder: nn.Module, x: Tensor, *, sizes_vary: bool, metadata: Mapping[str, Any]
) -> bytes:
    """An encoder as an ONNX file, x (batch, C, height, width) float32 -> features (batch, F).

    The same encoder gives the same bytes.

    Args:
        encoder: On the CPU, in eval mode.
        x: (B, C, H, W), B >= 2, to trace the graph with.
        sizes_vary: Whether height and width may vary, as the batch may.
        metadata: Text or JSON values to store in the file.

    Raises:
        ConfigError: When a package is missing, or the network takes 2 GiB or more.
    """
    onnx = _packages()
    axes = {0: torch.export.Dim("batch")}
    if sizes_vary:
        axes |= {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.onnx.export(
        encoder,
        (x,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["x"],
        output_names=["features"],
        dynamic_shapes=(axes,),
    )
    assert program is not None
    model = program.model_proto
    if model.ByteSize() > LARGEST:
        raise ConfigError(
            f"a network of {model.ByteSize():,} bytes",
            expected=f"at most {LARGEST:,}, the limit of an ONNX file",
            hint="use --format safetensors",
        )
    _strip(model)
    for key, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def run_onnx(data: bytes, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, F)
    """The features that ONNX Runtime computes on the CPU."""
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def _packages() -> Any:
    """The package onnx, if everything that the export needs is installed."""
    try:
        onnx, *_ = map(importlib.import_module, ("onnx", "onnxscript", "onnxruntime"))
    except ImportError as error:
        raise ConfigError(
            f"--format onnx without {error.name}",
            expected="onnx, onnxscript and onnxruntime to be installed",
            hint="pip install 'stopgrad[onnx]'",
        ) from error
    return onnx


def _strip(model: Any) -> None:
    """Removes the exporter's notes on the source code, which hold paths of this machine."""
    del model.metadata_props[:]
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
