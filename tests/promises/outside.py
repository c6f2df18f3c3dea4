"""R28, R29: what others made, or have put in a shared folder, never makes us write elsewhere.

R28: a run, a study or a store in which a file or a folder is a link or a pipe, from the start or
since a process works on it. R29: a folder in which links wait at the names that temporary files
once had.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.promises import state
from tests.promises.lab import Lab, seconds_until
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done, Running

REFUSALS = (2, 3, 5, 7)
PRECIOUS = b"precious\n"
STUDY = """
question: Does it stay inside?
baseline: sound
settings: {validation: 0.2, epochs: 1, knn_every: 1}
arms: {sound: {}}
protocol: {split: validation, metrics: [knn_accuracy]}
"""


class Planted(NamedTuple):
    """Something in the place of a file or a folder of somebody else's."""

    of: str  # run, study or store
    name: str  # * stands for the only run of a study
    kind: str  # link, folder (a link to one) or pipe
    command: str


PLANTED = (
    Planted("run", "costs.jsonl", "link", "resume"),
    Planted("study", "runs/*/log", "pipe", "study run"),
    Planted("study", "runs/*/attempts.jsonl", "link", "study run"),
    Planted("run", "costs.jsonl", "pipe", "resume"),
    Planted("run", "checkpoints", "folder", "resume"),
    Planted("run", "metrics.jsonl", "link", "resume"),
    Planted("run", "lock", "pipe", "resume"),
    Planted("run", "elsewhere", "folder", "evaluate"),
    Planted("run", "records.jsonl", "link", "evaluate"),
    Planted("run", "supervised", "folder", "resume"),
    Planted("study", "runs/*/log", "link", "study run"),
    Planted("study", "runs/*/attempts.jsonl", "pipe", "study run"),
    Planted("study", "runs/*/claim", "link", "study run"),
    Planted("study", "runs/*/card.json", "pipe", "study run"),
    Planted("study", "runs/*", "folder", "study run"),
    Planted("study", "runs", "folder", "study run"),
    Planted("study", "studies/lock", "pipe", "study run"),
    Planted("study", "runs/*/run/metrics.jsonl", "pipe", "study status"),
    Planted("study", "runs/*/claim", "pipe", "study status"),
    Planted("study", "runs", "folder", "study table"),
    Planted("store", "train-00000.pixels", "link", "views"),
    Planted("store", "train-00000.pixels", "pipe", "verify"),
    Planted("store", "stopgrad-store.json", "pipe", "views"),
)


def check(lab: Lab, tries: int) -> Outcome:
    """R28: so many links and pipes in what others made."""
    failures: list[str] = []
    for number in lab.numbers(tries):
        planted = PLANTED[number % len(PLANTED)]
        named = f"{planted.kind} {planted.name} of a {planted.of}, {planted.command}"
        failures += [f"{named}: {line}" for line in _meet(lab, planted)]
    if lab.is_first:
        failures += [f"swapped in a run: {line}" for line in _swap_in_run(lab)]
    if lab.is_first and lab.full:
        failures += [f"swapped in a study: {line}" for line in _swap_in_study(lab)]
    return Outcome(tries, tuple(failures), _controls(lab) if lab.is_first else ())


def _controls(lab: Lab) -> tuple[Control, ...]:
    found = _meet(lab, PLANTED[0], sabotage="links_followed")
    swapped = _swap_in_run(lab, sabotage="paths_followed")
    return (
        control("links are followed", found, sees="outside"),
        control("folders are opened by their paths", swapped, sees="outside"),
    )


def _meet(lab: Lab, planted: Planted, *, sabotage: str = "") -> list[str]:
    makers: dict[str, Callable[[], Path]] = {
        "run": lambda: lab.copy(
            lab.reference.run if planted.command == "evaluate" else lab.halfway, "planted"
        ),
        "study": lambda: study(lab),
        "store": lambda: _store(lab),
    }
    place = makers[planted.of]()
    victim = lab.place("victim")
    _plant(planted.kind, next(place.glob(planted.name), place / planted.name), victim)
    before = _bytes_of(victim)
    done = lab.run(*_words(lab, planted, place), sabotage=sabotage)
    wrong = [done.crashed] if done.crashed else []
    if done.code not in REFUSALS:
        wrong.append(f"exit code {done.code}: {done.last_line}")
    return wrong + ([] if _bytes_of(victim) == before else ["outside: a file was changed"])


def _swap_in_run(lab: Lab, *, sabotage: str = "") -> list[str]:
    """While a run trains, the folder of its checkpoints becomes a link."""
    run = lab.place("swapped")
    running = lab.start(*lab.pretraining(run), sabotage=sabotage)
    return _swap(lab, running, run / "checkpoints", when=lambda: state.newest_step(run) > 0)


def _swap_in_study(lab: Lab) -> list[str]:
    """While a study trains its run, the folder of that run becomes a link."""
    base = lab.place("swapped")
    running = lab.start(*study_words(lab, base))
    seconds_until(lambda: any(base.glob("runs/*/run/status.json")), running)
    return _swap(lab, running, next(base.glob("runs/*")), when=lambda: True)


def _swap(lab: Lab, running: Running, folder: Path, *, when: Callable[[], bool]) -> list[str]:
    """Stops a process, puts a link in the place of a folder, and lets the process go on."""
    seconds_until(when, running)
    running.send(signal.SIGSTOP)
    victim = lab.copy(folder, "victim")
    before = _bytes_of(victim)
    folder.rename(lab.place("aside"))
    folder.symlink_to(victim)
    running.send(signal.SIGCONT)
    done = running.wait()
    wrong = [done.crashed] if done.crashed else []
    if done.code not in REFUSALS:
        wrong.append(f"exit code {done.code}: {done.last_line}")
    return wrong + ([] if _bytes_of(victim) == before else ["outside: a file was changed"])


def _plant(kind: str, path: Path, victim: Path) -> None:
    """Puts a link to the victim, which is like what was there, or a pipe in the place of a file."""
    if path.exists():
        path.rename(victim)
    elif kind == "folder":
        victim.mkdir()
    else:
        victim.write_bytes(b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(victim)


def _bytes_of(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}


def _words(lab: Lab, planted: Planted, place: Path) -> tuple[object, ...]:
    match planted.command:
        case "study run":
            return study_words(lab, place)
        case "study status" | "study table":
            return (*planted.command.split(), place)
        case "evaluate":
            return ("evaluate", place, "--of", "pixels", "--metrics", "knn_accuracy")
        case "views":
            return ("views", "--data", place, "--out", f"{place}.png", "--preset", "tiny")
        case other:
            return (other, place)


def study_words(lab: Lab, out: Path) -> tuple[object, ...]:
    file = lab.folder / "inside.yaml"
    file.write_text(STUDY)
    more = ("--seeds", 1, "--jobs", 1, "--batch", 16)
    return ("study", "run", file, "--data", lab.pictures, "--out", out, "--preset", "tiny", *more)


def study(lab: Lab) -> Path:
    """A study whose only run is trained and not scored yet."""
    base = lab.folder / "study"
    if not base.exists():
        done = lab.run(*study_words(lab, base))
        assert done.code == 0, done.err
        next(base.glob("runs/*/run/records.jsonl")).unlink()
    return lab.copy(base, "study")


def _store(lab: Lab) -> Path:
    base = lab.folder / "store"
    if not base.exists():
        done = lab.run("pack", lab.pictures, "--out", base, "--side", 24)
        assert done.code == 0, done.err
    return lab.copy(base, "store")


def waiting(lab: Lab, tries: int) -> Outcome:
    """R29: so many commands that write into a folder where links wait."""
    failures: list[str] = []
    for number in lab.numbers(tries):
        name = list(WRITERS)[number % len(WRITERS)]
        failures += [f"{name}: {line}" for line in _wait_for(lab, name)]
    controls: tuple[Control, ...] = ()
    if lab.is_first:
        found = _wait_for(lab, "embed", sabotage="foreseen_names")
        controls = (control("temporary names that one can foresee", found, sees="outside"),)
    return Outcome(tries, tuple(failures), controls)


WRITERS: dict[str, tuple[str, tuple[object, ...]]] = {  # file to write, and the command
    "embed": ("f.npy", ("embed",)),
    "embed as CSV": ("f.csv", ("embed",)),
    "export": ("f.safetensors", ("export", "--format", "safetensors")),
    "export for the Hub": ("f", ("export", "--format", "hub")),
    "embed, the folder of blocks": ("f.parquet", ("embed",)),
    "report": ("f.html", ("report",)),
}


def _wait_for(lab: Lab, name: str, *, sabotage: str = "") -> list[str]:
    file, (command, *more) = WRITERS[name]
    shared, mine = lab.place("shared"), lab.place("mine")
    shared.mkdir()
    mine.mkdir()
    (mine / "file").write_bytes(PRECIOUS)
    (mine / "folder").mkdir()
    for each in (file, "f.rows.csv", f"{file}.json"):
        (shared / f".{each}.tmp").symlink_to(mine / "file")
    parts = name == "embed, the folder of blocks"
    if parts:
        (shared / f".{file}.parts").symlink_to(mine / "folder")
    words = (command, lab.reference.run, *more, "--out", shared / file)
    done = lab.run(*words, sabotage=sabotage)
    return list(_wrong(done, mine, shared / file, refused=parts))


def _wrong(done: Done, mine: Path, out: Path, *, refused: bool) -> list[str]:
    wrong = [done.crashed] if done.crashed else []
    if (mine / "file").read_bytes() != PRECIOUS or any((mine / "folder").iterdir()):
        wrong.append("outside: a file was changed")
    if refused and done.code not in REFUSALS:
        wrong.append(f"exit code {done.code}: {done.last_line}")
    if not refused and (done.code != 0 or out.is_symlink() or not out.exists()):
        wrong.append(f"exit code {done.code}, not written: {done.last_line}")
    left = [path.name for path in out.parent.glob(".*.tmp") if not path.is_symlink()]
    return wrong + ([f"left behind: {left}"] if left else [])
