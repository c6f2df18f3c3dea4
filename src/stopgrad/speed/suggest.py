"""How many pictures of which size, and which device -> a preset with changes, and the reason.

The rules are few and stated: a preset by device and size; views no larger than the pictures; whole
batches enough for an epoch; as many image pairs as the preset shows of the data it was made for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stopgrad.config import Config, PresetName, preset

CIFAR, IMAGENET = 50_000, 1_281_167  # pictures of the data that the presets were made for
FEWEST_STEPS, SMALLEST_BATCH = 16, 16  # of an epoch; below, BN and the order of images suffer
FEW = 500  # pictures, from which little is learned
MOST_EPOCHS = {"cpu": 400, "cifar": 800, "imagenet": 800}
# Sizes of a view and the least short side of the pictures for each, px. No picture is enlarged;
# the cost grows by the square, so a CPU gets small views (24 px of CIFAR's 32 in the preset).
VIEW_SIZES: dict[str, dict[int, int]] = {
    "cpu": {24: 0, 32: 43},
    "cifar": {32: 0, 64: 64},
    "imagenet": {96: 0, 128: 128, 160: 160, 224: 224},
}


class Suggestion(NamedTuple):
    """A preset, the knobs to change, and why."""

    preset: PresetName
    changes: dict[str, Any]  # by key path
    reason: str

    @property
    def config(self) -> Config:
        """The config of the suggested run."""
        return preset(self.preset, **self.changes)

    @property
    def flags(self) -> str:
        """The suggestion as words of `stopgrad pretrain`."""
        knobs = "".join(f" --{key} {value}" for key, value in self.changes.items())
        return f"--preset {self.preset}{knobs}"


def suggest(*, pictures: int, short_side: int, on_gpu: bool) -> Suggestion:
    """A setting to begin with.

    Args:
        pictures: Those to train on.
        short_side: px; half of the pictures are at most as long on their short side.
        on_gpu: Whether there is a GPU to train on.
    """
    name = _preset_name(short_side, on_gpu=on_gpu)
    base = preset(name)
    size = _view_size(short_side, name=name)
    batch = _batch(pictures, most=base.batch)
    pairs = base.epochs * (IMAGENET if name == "imagenet" else CIFAR)
    epochs = max(1, min(MOST_EPOCHS[name], round(pairs / pictures)))
    wanted = {"views.size": size, "batch": batch, "epochs": epochs}
    usual = {"views.size": base.views.size, "batch": base.batch, "epochs": base.epochs}
    changes = {key: value for key, value in wanted.items() if value != usual[key]}
    machine = "a GPU" if on_gpu else "no GPU"
    reason = (
        f"{machine} and pictures of about {short_side} px: preset {name} with views of {size} px; "
        f"{pictures:,} pictures: {epochs} epochs show {epochs * pictures:,} pairs of views (the "
        f"preset's own data: {pairs:,}), and a batch of {batch} leaves "
        f"{pictures // batch} steps in an epoch"
    )
    few = f"; so few pictures (below {FEW}) teach little" if pictures < FEW else ""
    return Suggestion(name, changes, reason + few)


def _preset_name(short_side: int, *, on_gpu: bool) -> PresetName:
    if not on_gpu:
        return "cpu"
    return "cifar" if short_side < 96 else "imagenet"


def _view_size(short_side: int, *, name: PresetName) -> int:
    """The largest size that these pictures have enough pixels for."""
    enough = [size for size, least in VIEW_SIZES[name].items() if least <= short_side]
    return max(enough)


def _batch(pictures: int, *, most: int) -> int:
    """The preset's batch, halved until an epoch has enough steps."""
    batch = most
    while batch > SMALLEST_BATCH and pictures // batch < FEWEST_STEPS:
        batch //= 2
    return max(2, min(batch, pictures))
