"""One run directory per share of the labels: what it is, and whether it may go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from stopgrad.config import Config, Task
from stopgrad.images import Normalization
from stopgrad.runs import RunData, RunInfo, RunWriter, describe_environment, spec_to_keep
from stopgrad.training.supervised.recipe import LabelledShare


def describe_share(
    images: LabelledShare,
    config: Config,
    *,
    task: Task,
    normalization: Normalization,
    data: Mapping[str, Any],
) -> RunInfo:
    """The card of a training with labels.

    Args:
        images: The share and the test images.
        config: Every knob.
        task: From scratch, or from a pretrained encoder.
        normalization: Of the images that go in.
        data: spec, name and fingerprint of the whole training set, and what else decides the
            result, such as the step of the encoder that is fine-tuned.
    """
    own = {
        "spec": spec_to_keep(str(data["spec"])),
        "images": images.full_size,
        "images_labelled": len(images.train),
        "class_names": list(images.class_names),
        "task": task,
        "labels": images.share,
        "label_draw": images.draw,
    }
    card = cast(RunData, dict(data) | own)
    return RunInfo(config, card, normalization, describe_environment(config))


def share_folder(out: Path, task: Task, share: float) -> Path:
    """Where a training with a share of the labels lives, `OUT/supervised/share-0.1`."""
    return out / task / f"share-{share:g}"


def open_share(path: Path, info: RunInfo) -> RunWriter:
    """A new training in this directory, or the one that was begun there.

    Its `begin` refuses to go on with other settings, another share or other images.

    Raises:
        ConfigError: When something else is there.
    """
    if (path / "config.json").exists():
        return RunWriter.resume(path, info)
    return RunWriter.create(path, info)
