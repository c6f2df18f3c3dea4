"""A promise in parts, each tested in a process of its own, several at the same time if wished.

A part that has come to its end is a line of a file and is not tested again. One that was killed
is tested anew from its beginning, in a folder that is emptied first; disks that it had mounted are
taken away. When the process that started it ends in any way, a part ends too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tests.promises.lab import Lab
from tests.promises.outcome import Control, NotRunError, Outcome, Promise

Line = dict[str, Any]


class Part(NamedTuple):
    """So many tries of a promise."""

    promise: Promise
    number: int
    tries: int

    @property
    def name(self) -> str:
        """`R4.3`."""
        return f"{self.promise.name}.{self.number}"


def parts_of(promise: Promise, *, tries: int, parts: int) -> list[Part]:
    """A promise in parts of the same size; -1 tries stay what they are in each part."""
    if promise.check is None:
        return []
    each = tries if tries < 0 else -(-tries // parts)
    return [Part(promise, number, each) for number in range(parts)]


def test(part: Part, lab: Lab) -> Line:
    """Tests a part; what comes of it as plain values."""
    assert part.promise.check is not None
    lab = replace(lab, apart=lab.apart and not part.promise.one_machine)
    not_run, outcome, began = "", Outcome(0, (), ()), time.perf_counter()
    try:
        outcome = part.promise.check(lab, part.tries)
        if outcome.tries < part.tries:
            few = f"only {outcome.tries} of {part.tries} tries came about"
            outcome = outcome._replace(failures=(*outcome.failures, few))
    except NotRunError as error:
        not_run = str(error)
    except Exception:
        outcome = Outcome(0, (f"the test itself broke: {traceback.format_exc()}",), ())
    return _line(part, outcome, not_run, seconds=time.perf_counter() - began)


def _line(part: Part, outcome: Outcome, not_run: str = "", *, seconds: float = 0) -> Line:
    return {
        "part": part.name,
        "not_run": not_run,
        "tries": outcome.tries,
        "failures": list(outcome.failures),
        "controls": [[control.sabotage, list(control.found)] for control in outcome.controls],
        "measured": dict(outcome.measured),
        "seconds": round(seconds, 1),
    }


def outcome_of(line: Line) -> Outcome:
    """The outcome in a line."""
    controls = tuple(Control(name, tuple(found)) for name, found in line["controls"])
    return Outcome(line["tries"], tuple(line["failures"]), controls, line["measured"])


def test_in_children(
    parts: Iterable[Part], *, home: Path, seed: int, apart: bool, jobs: int
) -> Iterator[Line]:
    """Tests parts, so many at a time, and gives each line as it comes."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(_child, part, home=home, seed=seed, apart=apart) for part in parts]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _child(part: Part, *, home: Path, seed: int, apart: bool) -> Line:
    order = json.dumps([part.promise.name, part.number, part.tries, str(home), seed, apart])
    done = subprocess.Popen(
        [sys.executable, "-m", "tests.promises.parts", order],
        stdin=subprocess.PIPE,  # its end tells the child that this process is gone
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    code, answer = done.wait(), _answer(home, part.name)
    if answer.exists():
        return dict(json.loads(answer.read_text()))
    return _line(part, Outcome(0, (f"the test itself ended with exit code {code}",), ()))


def _answer(home: Path, name: str) -> Path:
    return home / "parts" / f"{name}.json"


def clear(folder: Path) -> None:
    """Removes a folder of tests, with the disks that a killed one has left mounted in it."""
    mounts = Path("/proc/mounts").read_text().splitlines() if folder.exists() else []
    for place in (line.split()[1] for line in mounts):
        if Path(place).is_relative_to(folder):
            subprocess.run(["umount", place], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _end_with_parent(then: Callable[[], object]) -> None:
    def watch() -> None:
        sys.stdin.read()
        then()

    threading.Thread(target=watch, daemon=True).start()


def main(order: str) -> None:
    """The inside of a child: tests one part and writes its line."""
    from tests.promises.table import PROMISES

    _end_with_parent(lambda: os._exit(1))
    name, number, tries, home, seed, apart = json.loads(order)
    part = Part(next(p for p in PROMISES if p.name == name), number, tries)
    folder, answer = Path(home) / "parts" / part.name, _answer(Path(home), part.name)
    clear(folder)
    folder.mkdir(parents=True)
    lab = Lab(folder, seed, full=True, part=number, apart=apart, home=Path(home))
    line = test(part, lab)
    answer.write_text(json.dumps(line))
    if outcome_of(line).kept:
        clear(folder)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
