"""Tests the promises of docs/reliability.md from outside and says which are kept.

    python -m tests.promises                    # the quick set, as on every commit
    python -m tests.promises --full --jobs 2    # all, two parts at a time; takes hours
    python -m tests.promises --only R1,R4
    python -m tests.promises --apart            # each command as on a machine of its own

With --full, or with --out, each result is a line of DIR/records.jsonl. A promise that has one of
the same code, seed and mode is not tested again, nor, with --full, is a part of one
(DIR/parts.jsonl), so that it may be killed and started again; --again tests all anew. --jobs N is
for a machine with N cores that does nothing else: some promises count seconds. The exit code is 1
when a promise is broken or a negative control was not caught.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table

from stopgrad.errors import LockedError, did_you_mean
from stopgrad.runs import code_version, versions
from stopgrad.storage import lock
from tests.promises import parts
from tests.promises.lab import Lab
from tests.promises.outcome import Promise, join
from tests.promises.parts import Line, Part
from tests.promises.process import can_go_apart
from tests.promises.table import PROMISES

FULL_OUT = Path(__file__).parents[2] / "results" / "reliability"
RECORDS, PARTS = "records.jsonl", "parts.jsonl"
TOLD = 20  # failures that a record holds in words

Record = dict[str, Any]


def main() -> int:
    """Tests what was asked for; returns the exit code."""
    options, console = _options(), Console()
    console.print(f"seed {options.seed}; repeat with --seed {options.seed}")
    records, lines = _kept(options, RECORDS, "promise"), _kept(options, PARTS, "part")
    for name in records:
        console.print(_words(records[name]), soft_wrap=True, highlight=False, markup=False)
    _report(records, lines, options, console)
    wanted = [part for promise in options.only for part in _parts(promise, options)]
    missing = [p for p in wanted if p.promise.name not in records and p.name not in lines]
    for line in _test(missing, options):
        lines[line["part"]] = line
        _report(records, lines, options, console)
    ordered = [records[promise.name] for promise in options.only]
    console.print(_table(ordered))
    return 1 if any(map(_broken, ordered)) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="all promises, with all their tries")
    parser.add_argument("--only", type=_promises, help="names such as R1,R4. Default: all")
    parser.add_argument("--jobs", type=int, default=1, help="with --full: parts at the same time")
    parser.add_argument("--out", type=Path, help=f"folder of records. With --full: {FULL_OUT}")
    parser.add_argument("--again", action="store_true", help="test what has a record already")
    parser.add_argument("--seed", type=int, default=0, help="of everything random. Default: 0")
    parser.add_argument("--tries", type=int, help="instead of the usual number, to look around")
    parser.add_argument(
        "--apart",
        action="store_true",
        help="each command with a host name and a network of its own",
    )
    options = parser.parse_args()
    if options.apart and not can_go_apart():
        parser.exit(
            2, "--apart: the kernel gives no process a name and a network of its own here\n"
        )
    options.only = options.only or [p for p in PROMISES if options.full or p.quick or not p.check]
    options.out = options.out or (FULL_OUT if options.full else None)
    return options


def _promises(text: str) -> list[Promise]:
    known = {promise.name: promise for promise in PROMISES}
    unknown = [name for name in text.split(",") if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]}{did_you_mean(unknown[0], known)}")
    return [known[name] for name in text.split(",")]


def _parts(promise: Promise, options: argparse.Namespace) -> list[Part]:
    tries = options.tries or (promise.full if options.full else promise.quick or promise.full)
    return parts.parts_of(promise, tries=tries, parts=promise.parts if options.full else 1)


def _report(
    records: dict[str, Record],
    lines: dict[str, Line],
    options: argparse.Namespace,
    console: Console,
) -> None:
    """Makes a record of each promise whose parts are all tested, and says so."""
    for promise in options.only:
        names = [part.name for part in _parts(promise, options)]
        if promise.name in records or not all(name in lines for name in names):
            continue
        record = _record(promise, [lines[name] for name in names], options)
        records[promise.name] = record
        _append(options, RECORDS, record)
        console.print(_words(record), soft_wrap=True, highlight=False, markup=False)


def _test(missing: list[Part], options: argparse.Namespace) -> Iterator[Line]:
    """Tests parts; their folder stays where something failed."""
    if not missing:
        return
    (home, held), kept = new_home(options), True
    how = {"seed": options.seed, "apart": options.apart}
    if options.full:
        Lab(home, **how).prepare()
        tested = parts.test_in_children(missing, home=home, **how, jobs=options.jobs)
    else:
        tested = (parts.test(part, Lab(home / part.name, **how)) for part in missing)
    for line in tested:
        kept = kept and (parts.outcome_of(line).kept or bool(line["not_run"]))
        if options.full and not line["not_run"]:
            _append(options, PARTS, line | _circumstances(options))
        yield line
    if kept:
        parts.clear(home)
    held.close()


def new_home(options: argparse.Namespace) -> tuple[Path, IO[str]]:
    """A new folder to test in, and its lock; those of processes that were killed are removed."""
    which = hashlib.sha256(f"{options.out} {options.seed}".encode()).hexdigest()[:8]
    name = f"stopgrad-promises-{which}-"
    for file in Path(tempfile.gettempdir()).resolve().glob(f"{name}*/lock"):
        with suppress(LockedError, OSError), lock(file.parent):
            parts.clear(file.parent)
    home = Path(tempfile.mkdtemp(prefix=name)).resolve()
    return home, lock(home)


def _record(promise: Promise, lines: Sequence[Line], options: argparse.Namespace) -> Record:
    found = join([parts.outcome_of(line) for line in lines])
    not_run = promise.why_not or next((line["not_run"] for line in lines if line["not_run"]), "")
    failures = [*found.failures, *(() if not_run else promise.together(found))]
    return {
        "promise": promise.name,
        "claim": promise.claim,
        "not_run": not_run,
        "one_machine": promise.one_machine if options.apart else "",
        "tries": found.tries,
        "failures": len(failures),
        "found": failures[:TOLD],
        "controls": {control.sabotage: list(control.found[:1]) for control in found.controls},
        "measured": dict(found.measured),
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        **_circumstances(options),
    }


def _circumstances(options: argparse.Namespace) -> Record:
    return {
        "mode": _mode(options),
        "seed": options.seed,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "versions": versions(),
        "code": code_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _mode(options: argparse.Namespace) -> str:
    words = ("full" if options.full else "quick", options.tries, "apart" if options.apart else "")
    return ", ".join(str(word) for word in words if word)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _kept(options: argparse.Namespace, name: str, key: str) -> dict[str, Record]:
    """Lines of a file by their key, those of the same code, seed and mode, the newest of each."""
    if options.again or options.out is None:
        return {}
    same, wanted = (code_version(), options.seed, _mode(options)), {p.name for p in options.only}
    return {
        record[key]: record
        for record in _read(options.out / name)
        if (record["code"], record["seed"], record["mode"]) == same
        and not record["not_run"]
        and record[key].partition(".")[0] in wanted
    }


def _read(path: Path) -> Iterator[Record]:
    """The records of a file; a line torn by a kill is left out."""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _append(options: argparse.Namespace, name: str, record: Record) -> None:
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / name).open("a") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _uncaught(record: Record) -> list[str]:
    return [name for name, found in record["controls"].items() if not found]


def _broken(record: Record) -> bool:
    return record["failures"] > 0 or bool(_uncaught(record))


def _words(record: Record) -> str:
    """One promise in words, with its failures and the controls that were not caught."""
    if record["not_run"]:
        return f"{record['promise']} not run: {record['not_run']}"
    lines = [f"{record['promise']} {'broken' if _broken(record) else 'kept'}"]
    if record["one_machine"]:
        lines += [f"  not between two machines: {record['one_machine']}"]
    lines += [f"  {failure}" for failure in record["found"]]
    lines += [f"  not caught: {name}" for name in _uncaught(record)]
    return "\n".join(lines)


def _table(records: Sequence[Record]) -> Table:
    table = Table(title="promises", title_justify="left")
    for name in ("", "promise", "tries", "failures", "controls caught", "seconds"):
        number = name in ("tries", "failures", "seconds")
        table.add_column(name, justify="right" if number else "left")
    for record in records:
        row = [record["promise"], record["claim"]]
        if record["not_run"]:
            table.add_row(*row, f"not run: {record['not_run']}")
            continue
        count = len(record["controls"])
        caught = f"{count - len(_uncaught(record))} of {count}"
        numbers = [str(record[key]) for key in ("tries", "failures")]
        table.add_row(*row, *numbers, caught, f"{record['seconds']:.0f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
