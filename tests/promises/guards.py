"""R14: a run goes on only as it was begun; every change is refused with its old and new value."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.promises import state
from tests.promises.lab import Lab, draw_picture
from tests.promises.outcome import Outcome, control

CONFIG, DATA = 2, 3


class Change(NamedTuple):
    """Knobs that somebody changes, each with its old and new value."""

    knobs: dict[str, tuple[str, str]]


REFUSED = (
    Change({"seed": ("0", "1")}),
    Change({"optimizer.base_lr": ("0.8", "0.4")}),
    Change({"batch": ("16", "8")}),
    Change({"encoder.name": ("cifar_resnet8", "cifar_resnet14")}),
    Change({"views.crop_min": ("0.2", "0.3")}),
    Change({"stop_gradient": ("true", "false")}),
    Change({"epochs": ("4", "5")}),
    Change({"seed": ("0", "7"), "views.flip": ("0.5", "0.25"), "projector.out": ("64", "32")}),
)
ALLOWED = ("--checkpoint_every", "5", "--knn_every", "0", "--knn.k", "10")


def check(lab: Lab, tries: int) -> Outcome:
    """So many changes by flags, then one by hand, one image, and the changes that are allowed."""
    failures: list[str] = []
    for number in range(tries):
        change = REFUSED[number % len(REFUSED)]
        failures += _refused(lab, _flags(change), _told(change), code=CONFIG)
    failures += _by_hand(lab) + _one_image(lab) + _allowed(lab)
    flags, told = _flags(REFUSED[0]), _told(REFUSED[0])
    unguarded = _refused(lab, flags, told, code=CONFIG, sabotage="no_guards")
    controls = (control("guards off", unguarded, sees="exit code"),)
    return Outcome(tries + 3, tuple(failures), controls)


def _flags(change: Change) -> list[str]:
    return [word for key, (_, new) in change.knobs.items() for word in (f"--{key}", new)]


def _told(change: Change) -> list[str]:
    return [
        rf"{re.escape(k)}: {re.escape(o)} -> {re.escape(n)}" for k, (o, n) in change.knobs.items()
    ]


def _refused(
    lab: Lab, flags: Sequence[object], told: Sequence[str], *, code: int, sabotage: str = ""
) -> list[str]:
    """What is wrong when a copy of a run is to go on with these flags."""
    return _still_refused(lab, lab.copy(lab.halfway, "changed"), flags, told, code, sabotage)


def _still_refused(
    lab: Lab, run: Path, flags: Sequence[object], told: Sequence[str], code: int, sabotage: str
) -> list[str]:
    before = _contents(run)
    done = lab.run("resume", run, *flags, sabotage=sabotage)
    wrong = [done.crashed] if done.crashed else []
    wrong += [f"exit code {done.code}"] if done.code != code else []
    wrong += [f"{line!r} is not told" for line in told if not re.search(line, done.last_line)]
    wrong += ["the run was changed"] if _contents(run) != before else []
    return [f"{flags}: {line}: {done.last_line}" for line in wrong]


def _contents(run: Path) -> dict[str, bytes]:
    """All files but the lock, which a refused process may have made."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path.name != "lock")
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def _by_hand(lab: Lab) -> list[str]:
    """The seed changed in config.json itself."""
    run = lab.copy(lab.halfway, "edited")
    path = run / "config.json"
    values = json.loads(path.read_text())
    values["config"]["seed"] = 1
    path.write_text(json.dumps(values))
    return _still_refused(lab, run, (), ["seed: 0 -> 1"], CONFIG, "")


def _one_image(lab: Lab) -> list[str]:
    """One picture drawn anew."""
    folder = Path(shutil.copytree(lab.pictures, lab.place("other") / "pictures"))
    path = min((folder / "train").rglob("*.png"))
    draw_picture(lab.chance("R14"), tint=0).save(path)
    told = [r"fingerprint: \w{12} -> \w{12}"]
    return _refused(lab, ("--data", folder), told, code=DATA)


def _allowed(lab: Lab) -> list[str]:
    """What changes no bit of training may change; the run then ends as it would have."""
    run = lab.copy(lab.halfway, "allowed")
    done = lab.run("resume", run, *ALLOWED)
    if done.code != 0:
        return [f"{ALLOWED}: refused with exit code {done.code}: {done.last_line}"]
    same = state.model_hash(run) == state.model_hash(lab.reference.run)
    return [] if same else [f"{ALLOWED}: another state at the end"]
