"""Whether a resumed run is the run that was begun.

A run resumes with its own config, images, kind of device and number of threads; every difference
is named at once, `key: old -> new`. What affects no bit of training may change (`FREE`). Another
machine or another version takes the same steps with other rounding: the run may resume, and says so
(`ROUNDING`). More epochs need an extension. All changes are kept in config.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stopgrad.config import config_to_dict, key_paths
from stopgrad.errors import ConfigError, DataError
from stopgrad.runs.info import RunInfo
from stopgrad.storage import as_text

FREE = {
    "checkpoint_every": "saving changes nothing",
    "knn_every": "measuring changes nothing",
    "measure_every": "measuring changes nothing",
    "stop_on_collapse": "it changes no step, only where the run ends",
    "knn.k": "measuring changes nothing",
    "knn.temperature": "measuring changes nothing",
    "device": "any of the same kind, which is compared as environment.device",
    "process_timeout": "waiting changes nothing",
}

ELSEWHERE = (
    *("threads", "precision", "bad_images", "image_column", "label_column", "white_level", "bands"),
)
"""Knobs compared by their effect: environment.threads, environment.precision and
data.fingerprint."""

DATA = ("fingerprint", "images", "task", "labels", "label_draw", "from_step")
"""What decides a run besides its config; the last four only if it learns from labels. The weights
that its encoder started from are `data.init`."""

MACHINE = ("machine", "cpu", "cpu_capability", "gpu", "processes")
ROUNDING = ("torch", "numpy", "timm", "stopgrad", *MACHINE)
"""If one of these differs, the steps stay the same, but the last bits of their numbers may not."""


class Difference(NamedTuple):
    """A value that has changed."""

    key: str
    old: object
    new: object


def check_changes(begun: RunInfo, *others: RunInfo) -> list[Difference]:
    """The differences between a run and its resumption, if all of them are allowed.

    Args:
        begun: The run, as it was saved with a checkpoint.
        others: The present: the run's config.json, and what a resumed run would do.

    Raises:
        ConfigError: With every difference that is not allowed.
        DataError: When only differences of the images are not allowed.
    """
    found = {new.key: new for other in others for new in _differences(begun, other)}
    refused = [new for key, new in found.items() if not _may_change(key)]
    if not refused:
        return list(found.values())
    of_data = all(new.key.startswith(("data.", "normalization.")) for new in refused)
    hint = "begin a new run for another setting"
    if any(new.key == "epochs" for new in refused):
        hint = "train longer with: stopgrad resume RUN --extend EPOCHS"
    elif [new.key for new in refused] == ["environment.precision"]:
        hint = f"add --precision {refused[0].old}, which the run was begun with"
    elif of_data:
        hint = "name the run's own images with --data, or begin a new run"
    raise (DataError if of_data else ConfigError)(
        differences_text(refused),
        expected=f"the run as it was begun; only these may change: {', '.join(FREE)}",
        hint=hint,
    )


def cannot_promise(found: Iterable[Difference], info: RunInfo) -> str:
    """Why a resumed run may not have the bits of one that never stopped; "" when it has."""
    reasons = [differences_text([new]) for new in found if _is_rounding(new.key)]
    if info.environment["device"].startswith("cuda") and not info.config.repeatable:
        reasons.append("a GPU with repeatable = false")
    return ", ".join(reasons)


def differences_text(differences: Iterable[Difference]) -> str:
    """`key: old -> new` for each."""
    return ", ".join(f"{d.key}: {_value(d.old)} -> {_value(d.new)}" for d in differences)


def _may_change(key: str) -> bool:
    return key in FREE or key in ELSEWHERE or _is_rounding(key)


def _is_rounding(key: str) -> bool:
    return key.startswith("environment.") and key.removeprefix("environment.") in ROUNDING


def _differences(begun: RunInfo, other: RunInfo) -> Iterator[Difference]:
    """Differences that are not explained by a change that the other has noted since."""
    known = len(begun.changes)
    if other.changes[:known] != begun.changes:
        yield Difference("changes", len(begun.changes), len(other.changes))
    noted = {c.key: c.new for c in other.changes[known:] if c.key == "epochs" or _may_change(c.key)}
    old, new = _facts(begun) | noted, _facts(other)
    for key in new:
        if key in old and old[key] != new[key]:
            yield Difference(key, old[key], new[key])


def _facts(info: RunInfo) -> dict[str, object]:
    """All that decides a run, by key path."""
    environment = dict(info.environment)
    if "device" in environment:
        environment["device"] = str(environment["device"]).partition(":")[0]  # cuda:1 is cuda:0
    environment.pop("python", None)  # takes no part in the arithmetic
    environment.setdefault("processes", 1)
    sections = {
        "data": {key: value for key, value in info.data.items() if key in DATA}
        | {"init": info.data.get("init", {}).get("sha256")},
        "normalization": {k: list(v) for k, v in info.normalization._asdict().items()},
        "environment": environment,
    }
    config = config_to_dict(info.config)
    if info.task == "pretrain":
        del config["supervised"], config["finetune"]  # other trainings
    return key_paths(config | sections)


def _value(value: object) -> str:
    """A value as text; of a fingerprint its first 12 characters."""
    text = str(value).lower() if isinstance(value, bool) else as_text(value)
    return text[:12] if len(text) == 64 else text
