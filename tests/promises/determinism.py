"""R11: the surroundings of a run do not reach its bits. R12: nor does looking at it."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.promises import state
from tests.promises.lab import ALONE, EPOCHS, SMALL, Lab
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done

HASH_SEEDS = ("0", "1", "31337", "random")
ZONES = ("UTC", "Asia/Kathmandu", "America/St_Johns")
LANGUAGES = ("C", "C.UTF-8", "tr_TR.UTF-8")


class Surroundings(NamedTuple):
    """Where and how one repeat of the run takes place."""

    hash_seed: str
    zone: str
    language: str
    elsewhere: bool  # another working directory, and the spec relative to it
    copied: bool  # the pictures copied in another order, and decoded anew
    fresh: bool  # a plain new process; PYTHONHASHSEED needs one


def check(lab: Lab, tries: int) -> Outcome:
    """R11: repeats the run in so many surroundings, every fourth one in a fresh process."""
    failures = []
    for number in lab.numbers(tries):
        place = _surroundings(lab.chance("R11", number), number)
        failures += [f"{place}: {line}" for line in _repeat(lab, place)]
    return Outcome(tries, tuple(failures), tuple(_other_runs(lab)) if lab.is_first else ())


def _surroundings(chance: random.Random, number: int) -> Surroundings:
    return Surroundings(
        hash_seed=chance.choice(HASH_SEEDS),
        zone=chance.choice(ZONES),
        language=chance.choice(LANGUAGES),
        elsewhere=number % 4 in (1, 2),
        copied=number % 4 in (0, 1),
        fresh=number % 4 == 0,
    )


def _repeat(lab: Lab, place: Surroundings) -> list[str]:
    run, how = lab.place("repeated"), _how(lab, place)
    pictures = _copied(lab) if place.copied else lab.pictures
    spec = pictures.name if place.elsewhere else pictures
    cwd = str(pictures.parent) if place.elsewhere else str(lab.folder)
    words = ("pretrain", "--data", spec, "--out", run, *SMALL, *ALONE)
    return _end(lab, run, lab.run(*words, cwd=cwd, fresh=place.fresh, **how))


def _how(lab: Lab, place: Surroundings) -> dict[str, Any]:
    cache = {"STOPGRAD_CACHE": str(lab.place("cache"))} if place.copied else {}
    environment = {
        "PYTHONHASHSEED": place.hash_seed,
        "TZ": place.zone,
        "LANG": place.language,
        "LC_ALL": place.language,
    }
    return {"environment": environment | cache}


def _copied(lab: Lab) -> Path:
    """The same pictures in a folder whose files were made in another order."""
    folder = lab.place("copied") / "pictures"
    files = [path for path in lab.pictures.rglob("*") if path.is_file()]
    lab.chance("copies").shuffle(files)
    for path in files:
        place = folder / path.relative_to(lab.pictures)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return folder


def _end(lab: Lab, run: Path, done: Done) -> list[str]:
    if done.code != 0:
        return [f"exit code {done.code}: {done.last_line}"]
    return state.differences(run, lab.reference.end)


def _other_runs(lab: Lab) -> Iterator[Control]:
    """Runs that must not end like the undisturbed one."""
    for name, flags, sabotage in (
        ("seed + 1", ("--seed", "1"), ""),
        ("two batches swapped", (), "swapped_batches"),
    ):
        run = lab.place("other")
        done = lab.run(*lab.pretraining(run, *flags), sabotage=sabotage)
        yield control(name, _end(lab, run, done), sees="another state")


OBSERVERS: dict[str, tuple[str, ...]] = {
    "evaluated never, saved rarely": ("--knn_every", "0", "--checkpoint_every", "0"),
    "evaluated now and then, saved always": ("--knn_every", "3", "--checkpoint_every", "1"),
    "a progress bar": (),
}
BAR = "views/s"


def observe(lab: Lab, tries: int) -> Outcome:
    """R12: runs that are looked at in so many ways; the state must be the same in all."""
    failures = []
    ways = list(itertools.islice(itertools.cycle(OBSERVERS.items()), tries))
    for name, flags in ways:
        failures += [f"{name}: {line}" for line in _observed(lab, flags, bar="bar" in name)]
    found = _observed(lab, (), bar=False, sabotage="watching_trains")
    perturbed = control("measuring in training mode", found, sees="another state")
    return Outcome(len(ways), tuple(failures), (perturbed,))


def _observed(lab: Lab, flags: tuple[str, ...], *, bar: bool, sabotage: str = "") -> list[str]:
    run = lab.place("observed")
    environment = {"FORCE_COLOR": "1", "COLUMNS": "120"} if bar else {}
    words = lab.pretraining(run, *flags)
    done = lab.run(*words, environment=environment, sabotage=sabotage)
    if done.code != 0:
        return [f"exit code {done.code}: {done.last_line}"]
    wrong = [] if (done.err.count(BAR) > EPOCHS) == bar else ["the bar was not as asked for"]
    same = state.model_hash(run) == lab.reference.end.hash
    return wrong if same else [*wrong, "another state at the end"]
