"""What a user chooses by name besides the knobs; here, so that help lists it without torch."""

from __future__ import annotations

from typing import Literal

SplitName = Literal["auto", "test", "validation"]  # images to score

Layer = Literal["features", "z"]  # the encoder's output, or the projector's

ExportFormat = Literal["torchvision", "timm", "safetensors", "onnx", "hub"]

LabelFreeName = Literal[
    "lidar", "rankme", "effective_rank", "participation_ratio", "positive_minus_random"
]
"""A measure by which runs are ranked; the fields of `evaluation.compare.measure.LabelFree`."""
