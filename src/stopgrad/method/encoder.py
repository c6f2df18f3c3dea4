"""Encoders f by name, with initial weights from an explicit generator: x (B, C, H, W) -> (B, F).

ResNets of ours (`resnet`), any timm backbone as `timm:NAME`, and what a caller gives (`own`).
Paper: Sec. 3, Appendix D.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch

from stopgrad.config import OWN, TIMM, EncoderConfig, torch_generator
from stopgrad.errors import ConfigError, did_you_mean, no_memory
from stopgrad.method.layers import initialize, split_views_in
from stopgrad.method.own import build_own_encoder, seeded
from stopgrad.method.resnet import RESNETS, Encoder, ResNet


def build_encoder(
    config: EncoderConfig, generator: torch.Generator, *, per_view: bool = False
) -> Encoder:
    """An encoder, x (B, C, H, W) -> features (B, F); C = 3, 1 for gray, or any number.

    Args:
        config: Its name, stem, width and channels C; whether residual blocks start as the identity.
        generator: Draws all weights.
        per_view: Whether each BN normalises the two halves of a batch separately, see `layers`.

    Raises:
        ConfigError: For a name that is neither one of `RESNETS`, nor a timm model, nor an encoder
            given to this process.
    """
    check_encoder_name(config.name)
    if config.is_given:
        return build_own_encoder(config.name, channels=config.channels, per_view=per_view)
    if config.is_timm:
        return _timm_encoder(config, generator, per_view=per_view)
    with torch.device("meta"):
        encoder = ResNet(
            RESNETS[config.name],
            stem=config.stem,
            width=config.width,
            channels=config.channels,
            per_view=per_view,
        )
    initialize(encoder, generator)
    if config.zero_init:
        encoder.zero_last_bn()
    return encoder


def check_encoder_name(name: str) -> None:
    """Refuses an unknown encoder, without building it.

    Raises:
        ConfigError: For a name that is neither one of `RESNETS` nor a timm model.
    """
    if name.startswith(TIMM):
        _check_timm_name(name.removeprefix(TIMM))
    elif name not in RESNETS and not name.startswith(OWN):
        raise ConfigError(
            f"encoder.name = {name!r}{did_you_mean(name, RESNETS, most=3)}",
            expected=f"one of {', '.join(RESNETS)} or timm:NAME",
        )


def size_problem(encoder: Encoder, size: tuple[int, int]) -> str:
    """Why an encoder refuses images of this size, as its own error says; empty if it takes them.

    A ViT takes multiples of its patch size, a mixer a single size, our ResNets any size.

    Args:
        encoder: In eval mode, x (B, C, H, W) -> (B, F).
        size: Height and width, px.

    Raises:
        RuntimeError: When memory runs out.
    """
    if isinstance(encoder, ResNet):
        return ""
    try:
        with torch.inference_mode():
            device = next(encoder.parameters()).device
            encoder(torch.zeros(1, encoder.channels, *size, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        if no_memory(error):
            raise
        return " ".join(str(error).split()).rstrip(".")
    return ""


@functools.lru_cache(maxsize=64)
def size_problems(config: EncoderConfig, sizes: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    """`size_problem` of each size for an encoder that is not built yet.

    Builds only timm's backbones and own ones, and each once.

    Args:
        config: As for `build_encoder`.
        sizes: Heights and widths, px.

    Raises:
        ConfigError: For an encoder that does not exist.
    """
    check_encoder_name(config.name)
    if not (config.is_timm or config.is_given):
        return ("",) * len(sizes)
    encoder = build_encoder(config, torch_generator(0, "encoder")).eval()
    return tuple(size_problem(encoder, size) for size in sizes)


def _check_timm_name(name: str) -> None:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"encoder.name = 'timm:{name}' needs timm", hint="pip install 'stopgrad[timm]'"
        ) from error
    known = timm.list_models()
    if name not in known:
        raise ConfigError(
            f"encoder.name = 'timm:{name}'{did_you_mean(name, known, most=3)}",
            expected="a name from timm.list_models()",
        )


def _timm_encoder(config: EncoderConfig, generator: torch.Generator, *, per_view: bool) -> Encoder:
    """A timm backbone without its classifier; stem and width are the backbone's own."""
    import timm

    with seeded(generator.initial_seed(), torch.device("cpu")):  # timm draws from the global one
        backbone = _created(timm.create_model, config)
    # Some backbones have a layer between their last features and the classifier.
    backbone.feature_width = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    backbone.channels = config.channels
    if per_view:
        split_views_in(backbone)
    return cast("Encoder", backbone)


def _created(create_model: Callable[..., Any], config: EncoderConfig) -> Any:
    """A backbone that takes images of any size if timm can build it so."""
    name = config.name.removeprefix(TIMM)
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0}
    if config.channels != 3:
        options["in_chans"] = config.channels
    try:
        return create_model(name, dynamic_img_size=True, **options)
    except TypeError:
        return create_model(name, **options)
