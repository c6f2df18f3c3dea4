"""Every knob of a run on one page, its presets, and the way from text to a checked config.

In: keyword arguments, a mapping (YAML, JSON) or command-line flags. Out: a frozen `Config`.
A config is never rewritten; derived values are properties. No torch.
"""

from stopgrad.config.knobs import (
    Config,
    EncoderConfig,
    KNNConfig,
    LinearConfig,
    OptimizerConfig,
    PredictorConfig,
    ProjectorConfig,
    ViewsConfig,
)
from stopgrad.config.labelled import FinetuneConfig, SupervisedConfig
from stopgrad.config.parse import config_from_dict, config_to_dict, describe_knobs
from stopgrad.config.presets import PRESETS, preset

__all__ = [
    "PRESETS",
    "Config",
    "EncoderConfig",
    "FinetuneConfig",
    "KNNConfig",
    "LinearConfig",
    "OptimizerConfig",
    "PredictorConfig",
    "ProjectorConfig",
    "SupervisedConfig",
    "ViewsConfig",
    "config_from_dict",
    "config_to_dict",
    "describe_knobs",
    "preset",
]
