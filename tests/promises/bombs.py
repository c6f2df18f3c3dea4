"""R32, R33: what is small on disk and huge in memory, and numbers without measure, end in a line.

Every process is limited by prlimit, as batch systems limit theirs, and by a clock.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tests.promises.lab import Lab
from tests.promises.outcome import Control, NotRunError, Outcome, control
from tests.promises.process import Done

CONFIG, DATA, MEMORY = 2, 3, 5
SECONDS = 60.0  # the time that is promised, 20 s, on a machine that does three other things
RESIDENT = 2 << 30  # bytes
Words = tuple[object, ...]


def _yaml(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def _aliases() -> str:
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in pairwise("abcdefgh")]
    return "\n".join([*lines, "seed: *h"])


def _parquet(path: Path) -> None:
    """Rows that share one value of 48 MB, in some 2 kB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shared = pa.DictionaryArray.from_arrays(
        pa.array([0] * 64, pa.int32()), pa.array([bytes(48 << 20)])
    )
    table = pa.table({"image": shared, "label": pa.array([0, 1] * 32)})
    pq.write_table(table, path, compression="zstd")


def _lying(path: Path) -> None:
    """One page of 1.6 GB of zeros, in some 50 kB, of which the footer says that it has 1,000 bytes.

    Sizes are Thrift's numbers of 7 bits a byte; a small one may be written as long as a large one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [bytes(100 << 20)] * 16})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    data, group = path.read_bytes(), pq.read_metadata(path).row_group(0)
    for size in (group.total_byte_size, group.column(0).total_uncompressed_size):
        known = bytes(2 * size >> 7 * place & 127 | 128 for place in range(5))
        known = known[:-1] + bytes([known[-1] & 127])
        data = data.replace(known, b"\xd0\x8f\x80\x80\0")
    path.write_bytes(data)


BOMBS: dict[str, tuple[str, int, Callable[[Path], None]]] = {
    "aliases": ("config", CONFIG, _yaml(_aliases())),
    "a cycle": ("config", CONFIG, _yaml("seed: &a {b: *a}")),
    "a pipe": ("config", CONFIG, lambda path: os.mkfifo(path)),
    "a shared value": ("data", DATA, _parquet),
    "depth": ("config", CONFIG, _yaml("seed: " + "[" * 20_000)),
    "a study of aliases": ("study", CONFIG, _yaml(_aliases())),
    "a study of a pipe": ("study", CONFIG, lambda path: os.mkfifo(path)),
    "a study of 20,000 arms": (
        "study",
        CONFIG,
        _yaml("arms:\n" + "".join(f"  a{n}: {{seed: {n}}}\n" for n in range(20_000))),
    ),
    "a lying footer": ("data", DATA, _lying),
    "a number of many parts": ("config", CONFIG, _yaml("seed: 1" + ":1" * 500_000)),
}


def check(lab: Lab, tries: int) -> Outcome:
    """So many bombs, each met by the command that it is made for."""
    failures, kinds = list[str](), list(BOMBS.items())
    for number in lab.numbers(tries):
        what, (role, code, make) = kinds[number % len(kinds)]
        failures += [f"{what}: {x}" for x in _meet(lab, role, code, make)]
    controls: tuple[Control, ...] = ()
    if lab.is_first:
        found = _meet(lab, "config", CONFIG, _yaml("epochs: 1"))
        controls = (control("a plain file of knobs", found, sees="exit code 3"),)
    return Outcome(tries, tuple(failures), controls)


def _meet(lab: Lab, role: str, code: int, make: Callable[[Path], None]) -> list[str]:
    path = lab.place("bomb").with_suffix(".parquet" if role == "data" else ".yaml")
    make(path)
    none, out = lab.folder / "no data", lab.place("bombed")
    words: dict[str, Words] = {
        "config": ("pretrain", "--data", none, "--out", out, "--config", path),
        "study": ("study", "run", path, "--data", none, "--out", out),
        "data": ("check-data", path),
    }
    done = lab.run(*words[role], longest=SECONDS, fresh=True, under=_limited("data", RESIDENT))
    return _wrong(done, code)


def _limited(what: str, size: int) -> tuple[str, ...]:
    program = shutil.which("prlimit")
    if program is None:
        raise NotRunError("no prlimit")
    return (program, f"--{what}={size}")


def _wrong(done: Done, code: int) -> list[str]:
    wrong = [done.crashed] if done.crashed else []
    if done.code != code:
        wrong.append(f"exit code {done.code}: {done.last_line}")
    if done.err.count("\n") != 1 or "; expected " not in done.err:
        wrong.append(f"not one line: {done.err[:300]!r}")
    return wrong


NUMBERS: dict[str, str] = {
    "encoder.width": "1e9",
    "threads": "5000",
    "epochs": "1000000000000000",
    "projector.hidden": "1000000000",
    "views.size": "1000000000",
    "batch": "100000000000",
    "seed": "1e30",
    "views.brightness": "1e300",
}


def limits(lab: Lab, tries: int) -> Outcome:
    """So many numbers without measure; a report where address space is limited."""
    failures, kinds = list[str](), list(NUMBERS.items())
    for number in lab.numbers(tries):
        key, value = kinds[number % len(kinds)]
        failures += [f"{key}: {x}" for x in _wrong(_begin(lab, key, value), CONFIG)]
    controls: tuple[Control, ...] = ()
    if lab.is_first:
        failures += [f"report: {x}" for x in _wrong(_report(lab, _limited("as", 12 << 30)), MEMORY)]
        controls = (
            control("a number in bounds", _wrong(_begin(lab, "seed", "7"), CONFIG), sees="code 3"),
            control("no limit", _wrong(_report(lab, ()), MEMORY), sees="exit code 0"),
        )
    return Outcome(tries, tuple(failures), controls)


def _begin(lab: Lab, key: str, value: str) -> Done:
    out = lab.place("numbered")
    return lab.run("pretrain", "--data", lab.folder / "no data", "--out", out, f"--{key}", value)


def _report(lab: Lab, under: tuple[str, ...]) -> Done:
    page = lab.place("page").with_suffix(".html")
    return lab.run("report", lab.reference.run, "--out", page, fresh=True, under=under)
