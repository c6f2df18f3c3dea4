"""R10: a process that gets no memory says so and what to do; the run goes on bit for bit.

The decoding workers are threads, so nobody can kill one alone: the process is killed or stopped
while they decode, and stopped while it trains.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.promises import state
from tests.promises.lab import ALONE, SMALL, Lab, draw_picture, seconds_until
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done, Running

# Weights that take much memory and little work.
LARGE = ("--projector.hidden", "2048", "--projector.out", "2048", "--epochs", "1")
MORE = 160 << 20  # bytes that the process may take, at most, besides what its imports took
OURS = (3, 5)  # exit codes of what the pictures or the rest need
LOCKED = 6
DISTURBED = 3  # tries in which the process is killed or stopped
PICTURES, PICTURE_SIDE = 48, 1000  # that take a second to decode


def check(lab: Lab, tries: int) -> Outcome:
    """Most tries have too little memory, from next to nothing on, and then enough."""
    failures: list[str] = []
    wanted, starved = lab.refer(*LARGE).end, 0
    limits = max(1, tries - DISTURBED)
    for number in range(limits):
        run = lab.place("starved")
        if number % 2:
            _begin(lab, run)
        more = MORE // limits * (number + 1)
        done = lab.run(*lab.going_on(run, *LARGE), memory=more)
        starved += done.code != 0
        failures += [f"{more >> 20} MiB: {x}" for x in _wrong(run, done)] if done.code else []
        failures += [f"{more >> 20} MiB: {x}" for x in _finish(lab, run, wanted)]
    if 2 * starved < limits:
        failures.append(f"only {starved} of {limits} had too little memory")
    failures += _disturbed(lab)
    controls = (_enough(lab), _raw(lab))
    return Outcome(limits + DISTURBED, tuple(failures), controls, {"starved": starved})


def _begin(lab: Lab, run: Path) -> None:
    """A run that was killed after a checkpoint within its epoch."""
    running = lab.start(*lab.pretraining(run, *LARGE))
    seconds_until(lambda: state.newest_step(run) >= 3, running)
    running.kill()


def _wrong(run: Path, done: Done) -> list[str]:
    wrong = [done.crashed] if done.crashed else []
    if done.code not in OURS:
        wrong.append(f"exit code {done.code}")
    if "memory" not in done.last_line or "; expected " not in done.last_line:
        wrong.append(f"cause and advice are not said: {done.last_line}")
    status = state.status(run)
    if status.get("state", "failed") == "failed" and "memory" not in status.get("reason", "memory"):
        wrong.append(f"the status says {status}")
    return wrong


def _finish(lab: Lab, run: Path, wanted: state.End, *flags: object) -> list[str]:
    ended = lab.run(*lab.going_on(run, *(flags or LARGE)))
    if ended.code != 0:
        return [f"not resumable: {ended.last_line}"]
    return state.differences(run, wanted)


def _disturbed(lab: Lab) -> list[str]:
    """Killed in decoding, stopped in decoding, stopped in training: the end is the same."""
    folder = _large_pictures(lab)
    reference = lab.place("reference")
    done = lab.run(*_words(reference, folder), environment=_cold_cache(lab))
    assert done.code == 0, done.err
    wanted = state.read_end(reference)
    failures = []
    for name, disturb in {"killed": Running.kill, "stopped": _stop}.items():
        run, cache = lab.place(name), _cold_cache(lab)
        running = lab.start(*_words(run, folder), environment=cache)
        seconds_until(_is_filling(Path(cache["STOPGRAD_CACHE"])), running)
        disturb(running)
        done = running.wait() if running.is_running() else lab.run(*_words(run, folder))
        failures += [f"{name} in decoding: {done.last_line}"] if done.code != 0 else []
        failures += state.differences(run, wanted)
    return failures + _stopped_in_training(lab)


def _words(run: Path, folder: Path) -> tuple[object, ...]:
    return ("pretrain", "--data", folder, "--out", run, *SMALL, *ALONE, "--epochs", 1)


def _cold_cache(lab: Lab) -> dict[str, str]:
    return {"STOPGRAD_CACHE": str(lab.place("cache"))}


def _is_filling(cache: Path) -> Callable[[], bool]:
    return lambda: any(path.is_file() for path in cache.rglob("*"))


def _stop(running: Running) -> None:
    """Stops the whole process, and lets it go on after a while."""
    running.send(signal.SIGSTOP)
    time.sleep(1)
    running.send(signal.SIGCONT)


def _stopped_in_training(lab: Lab) -> list[str]:
    """While a run is stopped another process is told who holds it, and does not wait."""
    run = lab.place("stopped")
    running = lab.start(*lab.pretraining(run))
    seconds_until(lambda: state.newest_step(run) >= 3, running)
    running.send(signal.SIGSTOP)
    other = lab.run("resume", run)
    running.send(signal.SIGCONT)
    done = running.wait()
    failures = [f"stopped in training: {done.last_line}"] if done.code != 0 else []
    if other.code != LOCKED:
        failures.append(f"beside a stopped process: {other.code}, {other.last_line}")
    return failures + state.differences(run, lab.reference.end)


def _large_pictures(lab: Lab) -> Path:
    """Few pictures that take long to decode."""
    folder, chance = lab.place("large") / "pictures", lab.chance("R10")
    for number in range(PICTURES):
        path = folder / "train" / f"{number % 2}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = draw_picture(chance, tint=number % 3).resize((PICTURE_SIDE, PICTURE_SIDE))
        picture.save(path, compress_level=1)
    return folder


def _enough(lab: Lab) -> Control:
    run = lab.place("fed")
    done = lab.run(*lab.pretraining(run, *LARGE), memory=8 << 30)
    return control("enough memory", _wrong(run, done), sees="exit code 0")


def _raw(lab: Lab) -> Control:
    run = lab.place("raw")
    done = lab.run(*lab.pretraining(run, *LARGE), memory=MORE // 2, sabotage="raw_memory")
    return control("the error of PyTorch as it is", _wrong(run, done), sees="traceback")
