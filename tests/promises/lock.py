"""R13: of two processes on one run directory exactly one writes; kill -9 frees it at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from tests.promises import state
from tests.promises.lab import Lab
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done, Running

LOCKED = 6
REFUSED = 2


class Race(NamedTuple):
    """What two processes that were started at once came to."""

    met: bool  # whether they were there at the same time
    failures: tuple[str, ...]


def check(lab: Lab, tries: int) -> Outcome:
    """So many races; the winner of each is killed, and the run goes on to the undisturbed end."""
    races: list[Race] = []
    failures: list[str] = []
    run = lab.place("raced")
    for _ in range(2 * tries):
        if sum(race.met for race in races) == tries:
            break
        if state.status(run).get("state") == "finished":
            failures += state.differences(run, lab.reference.end)
            run = lab.place("raced")
        races.append(_race(lab, run))
    failures += [line for race in races for line in race.failures]
    failures += lab.finish(run)
    controls = (_unlocked(lab),) if lab.is_first else ()
    return Outcome(sum(race.met for race in races), tuple(failures), controls)


def _race(lab: Lab, run: Path, *, sabotage: str = "") -> Race:
    words, fresh = lab.going_on(run), lab.next_is_fresh()  # both, or they would not meet
    runners = [lab.start(*words, sabotage=sabotage, fresh=fresh) for _ in range(2)]
    while all(runner.is_running() for runner in runners):
        time.sleep(0.001)
    winner, loser = sorted(runners, key=Running.is_running, reverse=True)
    done = loser.wait()
    if done.code == 0 and _came_late(winner):
        return Race(False, ())
    met = winner.is_running() or done.code in (LOCKED, REFUSED) or done.code == 0
    winner.kill()
    return Race(met, tuple(_wrong(run, done, winner)) if met else ())


def _came_late(other: Running) -> bool:
    """Whether the other process only began when the run had ended, and wrote nothing."""
    done = other.wait()
    had_nothing_to_do = done.code == 0 and "epoch " not in done.err + done.out
    return done.code in (LOCKED, REFUSED) or "is finished" in done.err or had_nothing_to_do


def _wrong(run: Path, loser: Done, holder: Running) -> list[str]:
    if loser.code == REFUSED and f"{run} exists" in loser.last_line:
        return []  # a second `pretrain` that came late: it is sent to `resume`
    if loser.code != LOCKED:
        return [f"{run.name}: two writers, the first to end with {loser.code}: {loser.last_line}"]
    who = f"process {holder.pid} on {holder.host} since "
    if who not in loser.last_line:
        return [f"{run.name}: not said: {who}: {loser.last_line}"]
    return []


def _unlocked(lab: Lab) -> Control:
    races = (_race(lab, lab.copy(lab.halfway, "unlocked"), sabotage="no_lock") for _ in range(5))
    met = next((race.failures for race in races if race.met), ())
    return control("no lock", met, sees="two writers")
