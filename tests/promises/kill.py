"""R1: a run survives kill -9 of its process group at any moment, bit for bit.

Moments are drawn of three kinds: anywhere in the life of the process, in training, and from the
start of a save on, because a save is short. Several kills hit one run before it may end.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from tests.promises import state
from tests.promises.lab import EVERY, STEPS_PER_EPOCH, Lab, seconds_until
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Running

Kind = Literal["anywhere", "training", "saving"]

KILLS = 5  # of one run
KEPT = 2  # checkpoints between two saves
KINDS: tuple[Kind, ...] = ("anywhere", "training", "training", "saving", "saving")
LONGEST_SAVE = 0.02  # s
SHARE_IN_SAVE = 0.1  # of all kills, at least


class Killed(NamedTuple):
    """What a kill left behind."""

    run: str
    epoch: int
    in_save: bool
    lost: int  # steps with rows but without a checkpoint
    went_back: int  # steps by which the newest checkpoint is older than when the process began


def check(lab: Lab, tries: int) -> Outcome:
    """Kills runs so many times in all; every run must end like the undisturbed one."""
    kills: list[Killed] = []
    failures: list[str] = []
    runs = 0
    while len(kills) < tries and runs < tries:
        run, chance = lab.place("killed"), lab.chance("R1", lab.part, runs)
        runs += 1
        kills += _kill_often(lab, run, chance, most=min(KILLS, tries - len(kills)))
        failures += lab.finish(run)
    failures += [f"{k.run}: {k.lost} steps lost" for k in kills if k.lost > EVERY]
    failures += [f"{k.run}: a checkpoint is gone" for k in kills if k.went_back > 0]
    controls: tuple[Control, ...] = ()
    if lab.is_first:
        controls = (_forgotten_momentum(lab), _global_generator(lab), _row_twice(lab))
    return Outcome(len(kills), tuple(failures), controls, _measured(kills, runs))


def enough_in_saves(outcome: Outcome) -> list[str]:
    """A failure when too few of all kills landed in a save."""
    hit = outcome.measured["kills_in_a_save"]
    return [] if hit >= SHARE_IN_SAVE * outcome.tries else [f"only {hit} kills landed in a save"]


def _kill_often(lab: Lab, run: Path, chance: random.Random, *, most: int) -> list[Killed]:
    """Kills a run so often, or until it ends before the kill."""
    kills = []
    for kind in chance.sample(KINDS, most):
        running = lab.start(*lab.going_on(run))
        before = state.newest_step(run)
        _wait_for(kind, running, run, lab, chance)
        if not running.is_running():
            break
        running.kill()
        kills.append(_look_at(run, before=before))
    return kills


def _wait_for(kind: Kind, running: Running, run: Path, lab: Lab, chance: random.Random) -> None:
    """Waits until a random moment of this kind."""
    life = lab.reference.seconds
    match kind:
        case "anywhere":
            moment = chance.uniform(0, life)
        case "training":
            seconds_until(lambda: state.status(run).get("pid") == running.pid, running)
            moment = chance.uniform(0, lab.reference.training / 3)
        case "saving":
            seconds_until(_new_folder(run), running)
            moment = max(0.0, chance.uniform(-LONGEST_SAVE, LONGEST_SAVE))  # half of them at once
    deadline = time.perf_counter() + moment
    while running.is_running() and time.perf_counter() < deadline:
        time.sleep(0.0005)


def _new_folder(run: Path) -> Callable[[], bool]:
    """Whether a folder of a checkpoint has been made since now."""
    before = _folders(run)
    return lambda: bool(_folders(run) - before)


def _folders(run: Path) -> set[str]:
    checkpoints = run / "checkpoints"
    return {path.name for path in checkpoints.iterdir()} if checkpoints.exists() else set()


def _look_at(run: Path, *, before: int) -> Killed:
    committed, newest = state.committed(run), state.newest_step(run)
    lost = state.last_row_step(run) - max(0, newest)
    torn = any(run.rglob("*.tmp")) or len(_folders(run)) != len(committed)
    in_save = torn or len(committed) > KEPT or lost > 0
    epoch = max(0, newest) // STEPS_PER_EPOCH
    return Killed(run.name, epoch, in_save, lost, before - newest)


def _measured(kills: list[Killed], runs: int) -> dict[str, int]:
    together = Counter((kill.run, kill.epoch) for kill in kills)
    return {
        "runs": runs,
        "kills_in_a_save": sum(kill.in_save for kill in kills),
        "most_lost_steps": max((kill.lost for kill in kills), default=0),
        "most_kills_in_one_epoch": max(together.values(), default=0),
    }


def _forgotten_momentum(lab: Lab) -> Control:
    run = lab.copy(lab.halfway, "forgotten")
    for folder in state.committed(run):
        state.overwrite_tensors(folder / "optimizer.safetensors", bytes(1))
        state.reseal(folder)
    return control("optimiser state dropped", lab.finish(run), sees="another state")


def _global_generator(lab: Lab) -> Control:
    sabotage = "global_generator"
    wanted = lab.refer(sabotage=sabotage).end
    run = lab.kill_halfway(sabotage=sabotage)
    assert lab.run("resume", run, sabotage=sabotage).code == 0
    found = state.differences(run, wanted)
    return control("augmentation from the global generator", found, sees="another state")


def _row_twice(lab: Lab) -> Control:
    run = lab.copy(lab.reference.run, "twice")
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join([*lines[:7], lines[6], *lines[7:]]))
    found = state.differences(run, lab.reference.end)
    return control("one metric row duplicated", found, sees="2 rows instead of 1")
