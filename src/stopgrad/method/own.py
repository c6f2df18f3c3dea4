"""Parts that a Python caller gives instead of a name: an encoder and views.

In: any module x (B, C, H, W) -> (B, F), any function (pixels, generator) -> two views. Out: a name
`own:...` for each, which a config holds in place of a name of ours. A name leads to its part only
in the process that was given it, so a part is kept here as long as the process lives; in another
process it must be given again, and until then every use of its name is the same `ConfigError`.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn

from stopgrad.config import OWN
from stopgrad.errors import ConfigError, no_memory
from stopgrad.method.layers import split_views_in
from stopgrad.method.resnet import Encoder

OwnViews: TypeAlias = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Pixels (B, 3, H, W) uint8 and a generator on their device -> two views (B, C, S, S) each, in
[0, 1] or uint8, not normalised."""


class _Given(NamedTuple):
    module: nn.Module
    width: int  # F


_encoders: dict[str, _Given] = {}
_views: dict[str, OwnViews] = {}


def name_encoder(module: nn.Module, *, channels: int, size: int) -> str:
    """The name of an encoder: its class, and a mark of its layers and the shapes of its tensors.

    An encoder of the same name, perhaps with other weights, replaces the one before.

    Args:
        module: x (B, C, H, W) -> (B, F). It is copied when a model is built, never trained itself.
        channels: C.
        size: px, of the views with which it is tried.

    Raises:
        ConfigError: When its output is not (B, F), or not as wide as its `feature_width` says.
    """
    width = _width(module, channels=channels, size=size)
    tensors = [(key, value.dtype, *value.shape) for key, value in module.state_dict().items()]
    layers = re.sub(" at 0x[0-9a-f]+", "", repr(module))  # without addresses in memory
    mark = hashlib.sha256(repr((width, tensors, layers)).encode()).hexdigest()[:8]
    name = f"{OWN}{type(module).__qualname__}:{mark}"
    _encoders[name] = _Given(module, width)
    return name


SLACK = 0.05  # outside of [0, 1], of interpolation


def name_views(views: OwnViews) -> str:
    """The name of views: that of their function or class; others of that name replace them.

    Raises:
        ConfigError: For a lambda, which has no name.
    """
    name = getattr(views, "__qualname__", type(views).__qualname__)
    if name.endswith("<lambda>"):
        raise ConfigError("views = a lambda", expected="a function with a name", hint="use def")
    _views[f"{OWN}{name}"] = views
    return f"{OWN}{name}"


def build_own_encoder(name: str, *, channels: int, per_view: bool) -> Encoder:
    """A copy of the encoder of this name, with the weights that it has now.

    Raises:
        ConfigError: When this process was not given it.
    """
    given = _found(_encoders, name, "encoder")
    encoder: Any = copy.deepcopy(given.module).requires_grad_(True)
    if getattr(encoder, "feature_width", None) != given.width:
        encoder.feature_width = given.width
    encoder.channels = channels
    if per_view:
        split_views_in(encoder)
    return cast("Encoder", encoder)


def make_own_views(name: str, pixels: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Two views of each image in [0, 1], float32; a pure function of pixels and table.

    Args:
        name: Of the views.
        pixels: (B, 3, H, W) uint8.
        table: Uniform numbers, the first two of which seed the generator.

    Raises:
        ConfigError: When this process was not given them, or they do not return two views.
    """
    views = _found(_views, name, "views")
    high, low = (int(part * 2**24) for part in table.flatten()[:2].tolist())
    seed = high << 24 | low
    with seeded(seed, pixels.device):
        made = views(pixels, torch.Generator(pixels.device).manual_seed(seed))
    wrong = _not_two_views(made, len(pixels))
    if wrong:
        raise ConfigError(
            f"views that return {wrong}",
            expected="two tensors (B, 3, S, S), in [0, 1] or uint8, of one shape",
            hint="return x1, x2",
        )
    x1, x2 = (x / 255 if x.dtype == torch.uint8 else x.float() for x in made)
    return x1, x2


def follow_the_generator(name: str, pixels: Tensor) -> bool:  # (B, 3, H, W) uint8
    """Whether own views are the same for the same random numbers, as resuming a run needs."""
    table = torch.tensor([0.25, 0.75], device=pixels.device)
    first, again = (torch.cat(make_own_views(name, pixels.clone(), table)) for _ in range(2))
    low, high = float(first.min()), float(first.max())
    if low < -SLACK or high > 1 + SLACK:
        raise ConfigError(
            f"views that return values from {low:.3g} to {high:.3g}",
            expected="values in [0, 1], or uint8",
            hint="leave out the normalization, which is done for you",
        )
    return torch.equal(first, again)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds PyTorch's global generators of the CPU and of a device, and restores them afterwards.

    What a part draws from them (such as dropout) is then decided by the step, like all else.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    elif device.type == "mps":
        generators.append(torch.mps._get_default_mps_generator())
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _found(parts: dict[str, Any], name: str, what: str) -> Any:
    if name not in parts:
        raise ConfigError(
            f"{what} {name!r} was given in Python",
            expected=f"the same {what} given again",
            hint=f"use Python: stopgrad.Run(path, {what}=...)",
        )
    return parts[name]


def _width(module: nn.Module, *, channels: int, size: int) -> int:
    """The feature width, found by trying two black images in eval mode."""
    trial, said = copy.deepcopy(module).eval(), getattr(module, "feature_width", None)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    x = torch.zeros(2, channels, size, size, device=device)
    try:
        with torch.inference_mode(), seeded(0, device):
            found = trial(x)
    except Exception as error:
        if no_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise _no_encoder(f"fails on images {tuple(x.shape)} ({reason})") from error
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if len(shape) != 2 or shape[0] != 2:
        raise _no_encoder(f"makes {shape} of images {tuple(x.shape)}")
    if said not in (None, shape[1]):
        raise _no_encoder(f"says feature_width = {said} and makes {shape[1]}")
    return int(shape[1])


def _no_encoder(what: str) -> ConfigError:
    return ConfigError(
        f"an encoder that {what}",
        expected="features (B, F) of images (B, C, S, S)",
        hint="end it with pooling and nn.Flatten(), without a classifier",
    )


def _not_two_views(made: Any, images: int) -> str:
    """What was returned instead of two views; empty if it is two views."""
    if not isinstance(made, tuple | list) or len(made) != 2:
        return f"a {type(made).__name__}"
    if not all(isinstance(x, Tensor) for x in made):
        return " and ".join(type(x).__name__ for x in made)
    shapes = {tuple(x.shape) for x in made}
    kinds = all(x.dtype == torch.uint8 or x.is_floating_point() for x in made)
    fits = len(shapes) == 1 and made[0].ndim == 4 and made[0].shape[:2] == (images, 3)
    return "" if kinds and fits else " and ".join(f"{tuple(x.shape)} {x.dtype}" for x in made)
