"""R30: output that cannot be written stops no training, and what it cost is said in the exit code.

Standard output and error go to /dev/full, or to a reader that is gone; what the log of a study's
run gets is refused by strace, as a full disk would.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

from tests.promises import outside, state
from tests.promises.lab import ALONE, SMALL, Lab
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done
from tests.promises.strace import strace

STORAGE = 5


def check(lab: Lab, tries: int) -> Outcome:
    """So many commands whose output cannot be written."""
    failures: list[str] = []
    for number in lab.numbers(tries):
        name = list(CASES)[number % len(CASES)]
        failures += [f"{name}: {line}" for line in CASES[name](lab)]
    return Outcome(tries, tuple(failures), _controls(lab) if lab.is_first else ())


def _controls(lab: Lab) -> tuple[Control, ...]:
    found = _full_error(lab, sabotage="fragile_output")
    return (control("output as Python writes it", found, sees="exit code"),)


def _to(redirection: str) -> tuple[str, ...]:
    """What a process is started by so that its output goes there."""
    return ("sh", "-c", f'exec "$0" "$@" {redirection}')


def _full_error(lab: Lab, *, sabotage: str = "") -> Iterator[str]:
    yield from _trained(lab, _to("2>/dev/full"), sabotage)


def _full_both(lab: Lab) -> Iterator[str]:
    yield from _trained(lab, _to(">/dev/full 2>&1"))


def _gone(lab: Lab) -> Iterator[str]:
    yield from _trained(lab, ("sh", "-c", '"$0" "$@" 2>&1 | :'), judge=False)


def _trained(
    lab: Lab, under: tuple[str, ...], sabotage: str = "", *, judge: bool = True
) -> Iterator[str]:
    """Pretrains; the exit code of a pipe is that of its reader."""
    run = lab.place("run")
    done = lab.run(*lab.pretraining(run), under=under, sabotage=sabotage)
    if judge and done.code != 0:
        yield f"exit code {done.code}: {done.last_line}"
    if not run.exists():
        yield "no run was begun"
    else:
        yield from state.differences(run, lab.reference.end)


def _results(lab: Lab) -> Iterator[str]:
    """Results that cannot be printed: the trainings go on, the records are kept, the code is 5."""
    out = lab.place("supervised")
    more = ("--labels", 0.5, 1, "--supervised.epochs", 1, "--json")
    words = ("supervised", "--data", lab.pictures, "--out", out, *SMALL[:2], *ALONE, *more)
    done = lab.run(*words, under=_to(">/dev/full"))
    yield from _code(done, STORAGE)
    rows = (out / "records.jsonl").read_text().splitlines() if out.exists() else []
    labels = sorted(json.loads(row)["labels"] for row in rows)
    if labels != [0.5, 1.0]:
        yield f"records of the fractions {labels}, not of both"


def _log(lab: Lab) -> Iterator[str]:
    """The log of a run of a study: the study is done, and no attempt has failed."""
    base = outside.study(lab)
    run = next(base.glob("runs/*"))
    shutil.rmtree(run / "run")
    for name in ("attempts.jsonl", "log"):
        (run / name).unlink()
    inject = ("-P", str(run / "log"), "-e", "inject=write,writev:error=ENOSPC")
    under = (strace(), "-f", "-qq", "-o", str(lab.place("strace")), "-e", "trace=write,writev")
    done = lab.run(*outside.study_words(lab, base), under=(*under, *inject))
    yield from _code(done, 0)
    rows = (run / "attempts.jsonl").read_text().splitlines()
    codes = [json.loads(row)["exit_code"] for row in rows]
    if not codes or any(codes):
        yield f"attempts with the exit codes {codes}"
    if os.path.getsize(run / "log"):
        yield "the log was written: nothing was tested"


def _code(done: Done, wanted: int) -> Iterator[str]:
    if done.crashed or done.code != wanted:
        yield done.crashed or f"exit code {done.code}: {done.last_line}"


CASES = {
    "standard error on a full disk": _full_error,
    "the log of a study's run on a full disk": _log,
    "results on a full disk": _results,
    "both on a full disk": _full_both,
    "a reader that is gone": _gone,
}
