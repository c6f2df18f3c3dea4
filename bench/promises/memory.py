"""R10: a process that gets no memory says so and what to do; the run goes on bit for bit.

stopgrad has no loader workers that could die: views are made in the process itself.
"""

from __future__ import annotations

from promises import state
from promises.lab import Lab
from promises.outcome import Control, Outcome, control
from promises.process import Done

LARGE = ("--encoder.width", "8", "--views.size", "64", "--epochs", "1")
MORE = 200 << 20  # bytes that the process may take besides what its imports took
OURS = (2, 3, 5)  # exit codes that a user can read something from


def check(lab: Lab, tries: int) -> Outcome:
    """Pretrains with too little memory so often, and then with enough."""
    failures: list[str] = []
    wanted = lab.refer(*LARGE).end
    for number in range(tries):
        run = lab.place("starved")
        more = MORE // tries * (number + 1)
        done = lab.run(*lab.pretraining(run, *LARGE), memory=more)
        failures += [f"{more >> 20} MiB: {line}" for line in _wrong(done)]
        ended = lab.run(*lab.going_on(run, *LARGE))
        failures += [f"not resumable: {ended.last_line}"] if ended.code != 0 else []
        failures += state.differences(run, wanted) if ended.code == 0 else []
    return Outcome(tries, tuple(failures), (_enough(lab),))


def _wrong(done: Done) -> list[str]:
    wrong = [done.crashed] if done.crashed else []
    if done.code not in OURS:
        wrong.append(f"exit code {done.code}")
    if "memory" not in done.last_line or "; expected " not in done.last_line:
        wrong.append(f"cause and advice are not said: {done.last_line}")
    return wrong


def _enough(lab: Lab) -> Control:
    done = lab.run(*lab.pretraining(lab.place("fed")), memory=8 << 30)
    return control("enough memory", _wrong(done), sees="exit code 0")
