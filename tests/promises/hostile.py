"""R18: a checkpoint made by somebody who means harm is refused; nothing of it is executed.

Each hostile checkpoint is the newest of two and agrees with its manifest; the older one is whole
and must not be used in its place. Python's audit events tell of programs and connections; with
--full strace does.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.promises import state
from tests.promises.lab import Lab
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done
from tests.promises.strace import strace

CHECKPOINT = 7
MODEL, OPTIMIZER = state.PARTS
COMMANDS = ("resume", "evaluate", "report", "verify")
OUTSIDE = re.compile(r"execve\(|connect\([^{]*\{sa_family=AF_INET")
USUAL = 'execve("/sbin/ldconfig", ["/sbin/ldconfig", "-p"]'  # Python's search for libraries
Hostile = Callable[[Path], None]


def check(lab: Lab, tries: int) -> Outcome:
    """So many hostile checkpoints, each met by one of the commands that read a run."""
    failures: list[str] = []
    kinds = list(HOSTILE.items())
    for number in lab.numbers(tries):
        what, make = kinds[number % len(kinds)]
        command = COMMANDS[number % len(COMMANDS)]
        failures += [f"{what}, {command}: {x}" for x in _meet(lab, make, command)]
    controls: tuple[Control, ...] = ()
    if lab.is_first:
        found = _meet(lab, HOSTILE["a pickle"], "evaluate", sabotage="unpickling")
        controls = (control("unpickled", found, sees="executed"), _harmless(lab))
    return Outcome(tries, tuple(failures), controls)


def _meet(lab: Lab, make: Hostile, command: str, *, sabotage: str = "") -> list[str]:
    """What is wrong when a command reads a run with this checkpoint."""
    run = lab.copy(lab.halfway, "hostile")
    folder = state.newest(run)
    make(folder)
    done, seen = _watched(lab, (command, run), sabotage)
    wrong = [done.crashed] if done.crashed else []
    if done.code != CHECKPOINT:
        wrong.append(f"exit code {done.code}: {done.last_line}")
    if done.err.count("\n") != 1 or not done.err[:-1].isprintable():
        wrong.append(f"not one line: {done.err[:200]!r}")
    if list(run.rglob("proof")):
        wrong.append("the payload was executed")
    if not folder.exists():
        wrong.append("the checkpoint was replaced by an older one")
    return wrong + seen


def _watched(lab: Lab, words: tuple[object, ...], sabotage: str) -> tuple[Done, list[str]]:
    """Runs a command; programs that it started and connections that it made."""
    log = lab.place("watched")
    if not lab.full:
        done = lab.run(*words, sabotage=sabotage, watch=str(log))
        return done, [f"outside: {line}" for line in log.read_text().splitlines()]
    trace = (strace(), "-f", "-qq", "-e", "trace=execve,connect", "-o", str(log))
    done = lab.run(*words, sabotage=sabotage, under=trace)
    return done, [f"outside: {line}" for line in _outside(log) if USUAL not in line]


def _outside(log: Path) -> list[str]:
    """Programs and connections in a log of strace, but for the start of the command itself."""
    lines = log.read_text(errors="replace").splitlines()[1:]
    return [line for line in lines if OUTSIDE.search(line)]


def _harmless(lab: Lab) -> Control:
    found = _meet(lab, lambda folder: None, "verify")
    return control("a checkpoint of our own", found, sees="exit code 0")


def _put(name: str, data: bytes | Callable[[Path], bytes]) -> Hostile:
    """Writes a file and makes the manifest agree."""

    def put(folder: Path) -> None:
        (folder / name).write_bytes(data if isinstance(data, bytes) else data(folder))
        state.reseal(folder)

    return put


def _pickle(folder: Path) -> bytes:
    """A pickle, written by hand, that makes a folder when it is opened."""
    return f"cos\nmkdir\n(S'{folder}/proof'\ntR.".encode()


def _torch_file(folder: Path) -> bytes:
    """The archive of torch.save around that pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", _pickle(folder))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def _nested(folder: Path) -> bytes:
    """A pickle that has torch load another file, which makes the folder."""
    (folder / "inner.pt").write_bytes(_torch_file(folder))
    return f"ctorch\nload\n(S'{folder}/inner.pt'\ntR.".encode()


def _header(length: int, text: bytes) -> bytes:
    return length.to_bytes(8, "little") + text


def _edited(name: str, edit: Callable[[dict[str, Any]], None]) -> Hostile:
    """A safetensors file whose header was edited."""

    def change(folder: Path) -> bytes:
        raw = (folder / name).read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size])
        edit(header)
        text = json.dumps(header).encode()
        return _header(len(text), text) + raw[8 + size :]

    return _put(name, change)


def _first(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = next(entry for entry in header.values() if entry.get("shape"))
    return entry


def _filled(name: str, pattern: bytes) -> Hostile:
    """All tensors of a file filled with one number."""

    def fill(folder: Path) -> None:
        state.overwrite_tensors(folder / name, pattern)
        state.reseal(folder)

    return fill


def _state(**values: Any) -> Hostile:
    def change(folder: Path) -> bytes:
        known = json.loads((folder / "state.json").read_text())
        return json.dumps(known | values).encode()

    return _put("state.json", change)


def _manifest(edit: Callable[[dict[str, Any]], None]) -> Hostile:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        values = json.loads(path.read_text())
        edit(values)
        path.write_text(json.dumps(values))

    return change


def _instead(name: str, make: Callable[[Path], object]) -> Hostile:
    """Something else in the place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def _upwards(values: dict[str, Any]) -> None:
    values["sha256"]["../../../evil"] = "0" * 64


def _absolute(values: dict[str, Any]) -> None:
    values["sha256"]["/etc/passwd"] = "0" * 64


def _more(header: dict[str, Any]) -> None:
    header["\x1b[31mevil\n"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


DEEP = b"[" * 200_000
NAN, INFINITY = bytes([0, 0, 192, 127]), bytes([0, 0, 128, 255])

HOSTILE: dict[str, Hostile] = {
    "a pickle": _put(MODEL, _pickle),
    "a pickle as optimiser": _put(OPTIMIZER, _pickle),
    "a file of torch.save": _put(MODEL, _torch_file),
    "a pickle that loads another": _put(MODEL, _nested),
    "NaN": _filled(MODEL, NAN),
    "a header of 2^62 bytes": _put(MODEL, _header(1 << 62, b"{}")),
    "another shape": _edited(MODEL, lambda h: _first(h)["shape"].append(1)),
    "a link": _instead(MODEL, lambda path: path.symlink_to("/etc/passwd")),
    "a pipe": _instead(MODEL, os.mkfifo),
    "a path upwards": _manifest(_upwards),
    "a deep state": _put("state.json", DEEP),
    "8 GB of nothing": lambda folder: os.truncate(folder / MODEL, 8 << 30),
    "a file of torch.save as optimiser": _put(OPTIMIZER, _torch_file),
    "a nested load as optimiser": _put(OPTIMIZER, _nested),
    "a pickle as state": _put("state.json", _pickle),
    "a pickle as config": _put("config.json", _pickle),
    "infinity": _filled(MODEL, INFINITY),
    "NaN in momentum": _filled(OPTIMIZER, NAN),
    "a gzip bomb": _put(MODEL, lambda folder: gzip.compress(bytes(50 << 20))),
    "an empty file": _put(MODEL, b""),
    "seven bytes": _put(MODEL, b"\x01" * 7),
    "a header that is too long": _put(MODEL, _header(9, b"{}")),
    "a deep header": _put(MODEL, _header(len(DEEP), DEEP)),
    "a header of a list": _put(MODEL, _header(2, b"[]")),
    "a tensor of 2^40 numbers": _edited(MODEL, lambda h: _first(h).update(shape=[1 << 40])),
    "offsets outside": _edited(MODEL, lambda h: _first(h).update(data_offsets=[0, 1 << 40])),
    "offsets backwards": _edited(MODEL, lambda h: _first(h).update(data_offsets=[64, 0])),
    "another type": _edited(MODEL, lambda h: _first(h).update(dtype="I32")),
    "an unknown type": _edited(MODEL, lambda h: _first(h).update(dtype="EVIL")),
    "a tensor less": _edited(MODEL, lambda h: h.pop(next(iter(h)))),
    "a tensor more": _edited(MODEL, _more),
    "another step": _state(step=1),
    "losses of text": _state(losses=["1"]),
    "a NaN loss": _state(losses=[float("nan")]),
    "a state of a list": _put("state.json", b"[]"),
    "a path from the root": _manifest(_absolute),
    "a deep manifest": _instead("manifest.json", lambda path: path.write_bytes(DEEP)),
    "a link around": _instead("state.json", lambda path: path.symlink_to("state.json")),
    "a folder": _instead(OPTIMIZER, os.mkdir),
    "an endless device": _instead(MODEL, lambda path: path.symlink_to("/dev/zero")),
}
