"""R5: signals that ask to stop save at the next step; nothing is lost, nobody is left behind.

The runs write no checkpoint within an epoch, so that a lost step would show.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

from tests.promises import state
from tests.promises.lab import Lab, seconds_until
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done, Running

FLAGS = ("--checkpoint_every", "1000")
SIGNALS = 4  # to one run
LONGEST = 10.0  # s from the signal to the end


class Blow(NamedTuple):
    """A signal: which, to whom, how often."""

    number: signal.Signals
    group: bool
    twice: bool


BLOWS = tuple(
    Blow(number, group, twice)
    for twice in (False, True)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
    for group in (True, False)
)


class Tally(NamedTuple):
    """What came of the signals so far."""

    hit: list[float]  # s from the signal to the end, of each that hit a training
    early: list[int]  # exit codes of those that came before the training had begun
    failures: list[str]


def check(lab: Lab, tries: int) -> Outcome:
    """Sends so many signals in all to runs in training, each of which is brought to its end."""
    tally, runs = Tally([], [], []), 0
    while len(tally.hit) < tries and runs < tries:
        run, chance = lab.place("stopped"), lab.chance("R5", lab.part, runs)
        runs += 1
        for _ in range(min(SIGNALS, tries - len(tally.hit))):
            blow = BLOWS[(lab.part + len(tally.hit) + len(tally.early)) % len(BLOWS)]
            _strike(lab, run, blow, chance=chance, tally=tally)
        tally.failures.extend(lab.finish(run, *FLAGS))
    measured = {
        "runs": runs,
        "most_seconds_to_the_end": round(max(tally.hit, default=0.0), 3),
        "before_training": len(tally.early),
    }
    controls = (_deaf(lab),) if lab.is_first else ()
    return Outcome(len(tally.hit), tuple(tally.failures), controls, measured)


def _strike(lab: Lab, run: Path, blow: Blow, *, chance: random.Random, tally: Tally) -> None:
    """Starts or resumes a run and stops it at a random moment of its training."""
    running = lab.start(*lab.going_on(run, *FLAGS))
    seconds_until(lambda: state.status(run).get("pid") == running.pid, running)
    time.sleep(chance.uniform(0, lab.reference.training / (2 * SIGNALS)))
    if not running.is_running():
        return
    began = time.perf_counter()
    _hit(running, blow, chance)
    done = running.wait(LONGEST)
    tally.failures.extend(f"{run.name}, {_words(blow)}: {x}" for x in _wrong(run, done, blow))
    if running.left_behind():
        tally.failures.append(f"{run.name}: a process is left behind")
    tally.hit.append(time.perf_counter() - began)


def _hit(running: Running, blow: Blow, chance: random.Random) -> None:
    running.send(blow.number, group=blow.group)
    if blow.twice:
        time.sleep(chance.uniform(0, 0.01))
        running.send(blow.number, group=blow.group)


def _wrong(run: Path, done: Done, blow: Blow) -> list[str]:
    """What is wrong with a run that was told to stop."""
    status, newest = state.status(run), state.newest_step(run)
    if done.code == 0 and status["state"] == "finished":
        return []  # the signal came after the last step
    wrong = [done.crashed] if done.crashed else []
    if done.code != 128 + blow.number:
        wrong.append(f"exit code {done.code}")
    if status["state"] != "interrupted" or status["step"] != newest:
        wrong.append(f"status {status['state']} at step {status['step']}, saved at {newest}")
    if state.last_row_step(run) != newest:
        wrong.append(f"saved at step {newest}, rows to step {state.last_row_step(run)}")
    if f"stopgrad resume {run}" not in done.last_line:
        wrong.append(f"does not say how to go on: {done.last_line}")
    return wrong


def _words(blow: Blow) -> str:
    whom = "the group" if blow.group else "the process"
    return f"{blow.number.name} to {whom}{' twice' if blow.twice else ''}"


def _deaf(lab: Lab) -> Control:
    run, blow = lab.place("deaf"), BLOWS[0]
    running = lab.start(*lab.pretraining(run, *FLAGS), sabotage="no_handlers")
    seconds_until(lambda: bool(state.status(run)), running)
    running.send(blow.number)
    return control("signals not caught", _wrong(run, running.wait(), blow), sees="exit code -15")
