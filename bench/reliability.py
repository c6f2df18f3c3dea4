"""Tests the promises of RELIABILITY.md from outside and says which are kept.

    python bench/reliability.py                    # the quick set, as on every commit
    python bench/reliability.py --full             # all, in fresh processes; takes hours
    python bench/reliability.py --only R1,R4

With --full, or with --out, each result is a line of DIR/records.jsonl. A promise that has one of
the same code, seed and mode is not tested again, so that --full may be interrupted; --again does.
The exit code is 1 when a promise is broken or a negative control was not caught.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from promises.lab import Lab
from promises.outcome import NotRunError, Outcome, Promise
from promises.table import PROMISES
from rich.console import Console
from rich.table import Table

from stopgrad.errors import did_you_mean
from stopgrad.records import code_version, versions

FULL_OUT = Path(__file__).parents[1] / "results" / "reliability"
TOLD = 20  # failures that a record holds in words

Record = dict[str, Any]


def main() -> int:
    """Tests what was asked for; returns the exit code."""
    options = _options()
    console = Console()
    console.print(f"seed {options.seed}; repeat with --seed {options.seed}")
    kept = _kept(options)
    records = []
    for promise in options.only:
        record = kept.get(promise.name) or _test(promise, options)
        if promise.name not in kept:
            _keep(record, options)
        records.append(record)
        console.print(_line(record), soft_wrap=True, highlight=False, markup=False)
    console.print(_table(records))
    return 1 if any(map(_broken, records)) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="all promises, with all their tries")
    parser.add_argument("--only", type=_promises, help="names such as R1,R4. Default: all")
    parser.add_argument("--out", type=Path, help=f"folder of records. With --full: {FULL_OUT}")
    parser.add_argument("--again", action="store_true", help="test what has a record already")
    parser.add_argument("--seed", type=int, default=0, help="of everything random. Default: 0")
    parser.add_argument("--tries", type=int, help="instead of the usual number, to look around")
    options = parser.parse_args()
    options.only = options.only or [p for p in PROMISES if options.full or p.quick or not p.check]
    options.out = options.out or (FULL_OUT if options.full else None)
    return options


def _promises(text: str) -> list[Promise]:
    known = {promise.name: promise for promise in PROMISES}
    unknown = [name for name in text.split(",") if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]}{did_you_mean(unknown[0], known)}")
    return [known[name] for name in text.split(",")]


def _test(promise: Promise, options: argparse.Namespace) -> Record:
    """Tests one promise in a folder of its own, which stays where something failed."""
    folder = Path(tempfile.mkdtemp(prefix=f"stopgrad-{promise.name}-"))
    began = time.perf_counter()
    not_run, outcome = promise.why_not, None
    if promise.check is not None:
        tries = options.tries or (promise.full if options.full else promise.quick or promise.full)
        try:
            lab = Lab(folder, options.seed, fresh=options.full)
            outcome = promise.check(lab, tries)
        except NotRunError as error:
            not_run = str(error)
        except Exception:
            outcome = Outcome(0, (f"the test itself broke: {traceback.format_exc()}",), ())
    seconds = time.perf_counter() - began
    if outcome is None or outcome.kept:
        shutil.rmtree(folder, ignore_errors=True)
    return _record(promise, outcome, not_run, seconds=seconds, options=options)


def _record(
    promise: Promise,
    outcome: Outcome | None,
    not_run: str,
    *,
    seconds: float,
    options: argparse.Namespace,
) -> Record:
    found = outcome or Outcome(0, (), ())
    return {
        "promise": promise.name,
        "claim": promise.claim,
        "not_run": not_run,
        "tries": found.tries,
        "failures": len(found.failures),
        "found": list(found.failures[:TOLD]),
        "controls": {control.sabotage: list(control.found[:1]) for control in found.controls},
        "measured": dict(found.measured),
        "seconds": round(seconds, 1),
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
    return ("full" if options.full else "quick") + (f", {options.tries}" if options.tries else "")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _kept(options: argparse.Namespace) -> dict[str, Record]:
    """Records of the same code, seed and mode, the newest of each promise."""
    if options.again or options.out is None:
        return {}
    same = (code_version(), options.seed, _mode(options))
    return {
        record["promise"]: record
        for record in _read(options.out / "records.jsonl")
        if (record["code"], record["seed"], record["mode"]) == same and not record["not_run"]
    }


def _read(path: Path) -> Iterator[Record]:
    """The records of a file; a line torn by a kill is left out."""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _keep(record: Record, options: argparse.Namespace) -> None:
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "records.jsonl").open("a") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _uncaught(record: Record) -> list[str]:
    return [name for name, found in record["controls"].items() if not found]


def _broken(record: Record) -> bool:
    return record["failures"] > 0 or bool(_uncaught(record))


def _line(record: Record) -> str:
    """One promise in words, with its failures and the controls that were not caught."""
    if record["not_run"]:
        return f"{record['promise']} not run: {record['not_run']}"
    lines = [f"{record['promise']} {'broken' if _broken(record) else 'kept'}"]
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
