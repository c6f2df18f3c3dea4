"""R34, R37: no home, no working directory, a link that leads nowhere, a block that has rotted."""

from __future__ import annotations

import sys

from tests.promises.lab import Lab, seconds_until
from tests.promises.outcome import Outcome, control
from tests.promises.process import Done

CONFIG = 2
# A user without an entry, as in a container whose image knows no names.
NAMELESS = """
import os, pwd, runpy, sys
def none(*key): raise KeyError(key)
pwd.getpwuid = pwd.getpwnam = none
for name in ("HOME", "STOPGRAD_CACHE", "XDG_CACHE_HOME"): os.environ.pop(name, None)
"""


def homes(lab: Lab, tries: int) -> Outcome:
    """Commands without HOME and without an entry of the user, and paths of unknown users."""
    commands = (
        lab.pretraining(lab.place("homeless"), "--epochs", 1),
        ("check-data", "~nobody/pictures"),
        ("evaluate", lab.copy(lab.reference.run, "scored")),
        ("verify", "~nobody/run"),
    )
    failures: list[str] = []
    for number in lab.numbers(tries):
        words = commands[number % len(commands)]
        done = _homeless(lab, words)
        right = (0,) if str(words[-1])[:1] != "~" else (2, 3, 7)
        failures += [f"{words[0]}: {done.crashed}"] if done.crashed else []
        failures += [f"{words[0]}: {done.code}, {done.last_line}"] if done.code not in right else []
    found = _homeless(lab, ("verify", lab.reference.run), first="raise SystemExit(1)")
    seen = [] if found.code == 0 else [f"exit code {found.code}"]
    controls = (control("a process that fails", seen, sees="exit code 1"),)
    return Outcome(tries, tuple(failures), controls if lab.is_first else ())


def _homeless(lab: Lab, words: tuple[object, ...], *, first: str = "") -> Done:
    code = (
        f"{NAMELESS}{first}\nsys.argv[1:4] = []\nrunpy.run_module('stopgrad', run_name='__main__')"
    )
    under = (sys.executable, "-c", code)
    return lab.run(*words, fresh=True, under=under)


def smaller(lab: Lab, tries: int) -> Outcome:
    """Commands from a removed folder, into a link to nowhere, over a block with a flipped bit."""
    kinds = (_removed, _dangling, _rotten)
    failures = [x for number in lab.numbers(tries) for x in kinds[number % len(kinds)](lab)]
    whole = _rotten(lab, compare_with=b"another table")
    return Outcome(tries, tuple(failures), (control("another table", whole, sees="differs"),))


def _removed(lab: Lab) -> list[str]:
    gone = lab.place("gone")
    under = ("sh", "-c", f"mkdir '{gone}' && cd '{gone}' && rmdir '{gone}' && exec \"$@\"", "sh")
    failures = []
    for words in (("check-data", "pictures"), ("check-data", lab.pictures), ("verify", "run")):
        done = lab.run(*words, fresh=True, under=under)
        failures += [f"removed folder, {words}: {done.last_line}"] if done.code != CONFIG else []
    return failures


def _dangling(lab: Lab) -> list[str]:
    """The link is replaced or refused in a line, and nothing is written where it leads."""
    failures, target = [], lab.place("nowhere") / "inside"
    for command, ending in (("export", ".safetensors"), ("embed", ".csv"), ("report", ".html")):
        link = lab.place("link").with_suffix(ending)
        link.symlink_to(target)
        more: tuple[object, ...] = ("--format", "safetensors") if command == "export" else ()
        done = lab.run(command, lab.reference.run, "--out", link, *more)
        failures += [f"{command} into a link: {done.crashed}"] if done.crashed else []
        failures += [f"{command} wrote outside"] if target.parent.exists() else []
    return failures


def _rotten(lab: Lab, *, compare_with: bytes | None = None) -> list[str]:
    """A killed `embed`, a bit of a block that it left, and the rest: the table is the same."""
    out = lab.place("table").with_suffix(".csv")
    words = ("embed", lab.reference.run, "--data", "mnist5k", "--out")
    if compare_with is None:
        done = lab.run(*words, out)
        compare_with = out.read_bytes() if done.code == 0 else done.err.encode()
    again = lab.place("again").with_suffix(".csv")
    parts = again.with_name(f".{again.name}.parts")
    running = lab.start(*words, again)
    seconds_until(lambda: len(list(parts.glob("*.npy"))) >= 2, running)
    running.kill()
    for block in sorted(parts.glob("*.npy"))[:1]:
        data = bytearray(block.read_bytes())
        data[len(data) // 2] ^= 1
        block.write_bytes(data)
    done = lab.run(*words, again)
    if done.code != 0:
        return [f"a flipped bit: {done.last_line}"]
    return [] if again.read_bytes() == compare_with else ["the table differs"]
