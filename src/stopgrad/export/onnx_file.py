"""An encoder -> an ONNX file: x (batch, 3, height, width) float32 -> features (batch, F)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad.errors import ConfigError

OPSET = 18
LARGEST = (1 << 31) - 1  # bytes that one file may have


def encode_onnx(
    encoder: nn.Module, x: Tensor, *, sizes_vary: bool, metadata: Mapping[str, Any]
) -> bytes:
    """The bytes of an ONNX file with weights, the same for the same encoder.

    Args:
        encoder: On the CPU, in eval mode.
        x: (B, 3, H, W) with B of at least 2, what the graph is traced with.
        sizes_vary: Whether height and width are free, as the batch is.
        metadata: Texts or values for JSON, kept in the file.

    Raises:
        ConfigError: When the packages are missing, or for a network of 2 GiB.
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
            expected=f"at most {LARGEST:,} in one ONNX file",
            hint="export it as safetensors",
        )
    _strip(model)
    for key, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def run_onnx(data: bytes, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, F)
    """What ONNX Runtime makes of a file on the CPU."""
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def _packages() -> Any:
    """The package onnx, when all three are installed."""
    missing = []
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ConfigError(
            f"--format onnx without {', '.join(missing)}",
            expected="onnx, onnxscript and onnxruntime to be installed",
            hint="pip install 'stopgrad[onnx]'",
        )
    return importlib.import_module("onnx")


def _strip(model: Any) -> None:
    """Takes out what the exporter notes of the source, with paths of the machine in it."""
    del model.metadata_props[:]
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
