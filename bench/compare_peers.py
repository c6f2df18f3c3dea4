"""stopgrad and its peers at the same work, in turn, on this machine.

    python bench/compare_peers.py --data CIFAR10 --minutes 20
    python bench/compare_peers.py --data CIFAR10 --minutes 20 --beside 2

`--data` is what `stopgrad pretrain --data` takes: a folder of Parquet files of CIFAR-10. The
contests: the training step of ResNet-18 and of the `cpu` preset's network, data included, against
lightly's own recipe (and against it with bf16 and channels_last given by hand) and against
stable-pretraining's loop; the command on a folder of image files against lightly-train's command;
views alone against torchvision and kornia; peak memory at batch 128. The systems take turns, A B C
A B C, each turn in a process of its own, so that no thread pool and no loader disturbs the next;
the first round is discarded; ratios compare turns of the same round. With `--beside N` so many
loops that never wait run during each turn. Every turn becomes a line of `OUT/peers.jsonl` as it
ends; medians and ratios follow at the end, and the README's table is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from compare_peers_table import NOT_HERE, OURS, PEERS, markdown, results_of

from stopgrad.runs import environment
from stopgrad.speed.beside import busy
from stopgrad.storage import append_lines, wait_briefly

HERE = Path(__file__).resolve().parent

SYSTEMS = {
    "resnet18": ("stopgrad", "lightly", "lightly-bf16", "stable-pretraining"),
    "cpu": ("stopgrad", "lightly", "lightly-bf16"),
    "folder": ("stopgrad", "lightly-train"),
    "views": ("stopgrad", "torchvision", "kornia"),
    "memory": ("stopgrad", "lightly"),
}
# Of the time, for each turn; 0: as long as its work takes.
WEIGHTS = {"resnet18": 4.0, "cpu": 2.0, "folder": 0.0, "views": 1.0, "memory": 0.0}
PACKAGES = {"lightly-bf16": "lightly"}  # where they differ from the system's name
START_S = 8.0  # that a turn spends before its clock starts, about


class Turn(NamedTuple):
    """What is asked of one process, `compare_peers_turn`."""

    contest: str
    system: str
    batch: int
    seconds: float  # timed at least
    threads: int
    workers: int  # of a loader; lightly-train chooses its own
    beside: int  # loops that compute meanwhile
    files: int  # images in the folder of the contest `folder`
    epochs: int  # of the longer of its two commands
    data: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all rounds, writes the record, prints the table."""
    options = _options(arguments)
    missing = _missing(options)
    if missing:
        print(
            f"not installed: {', '.join(missing)}; pip install {' '.join(missing)}", file=sys.stderr
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    file, lines = options.out / "peers.jsonl", [about(options)]
    append_lines(file, lines[:1])
    for number, turn in plan(options):
        lines.append(take(turn, number=number))
        append_lines(file, lines[-1:])
        print(progress(lines[-1]), file=sys.stderr, flush=True)
    results = results_of(lines)
    for result in results:
        append_lines(file, [result])
    print(markdown(lines))
    return 0


def plan(options: argparse.Namespace) -> Iterator[tuple[int, Turn]]:
    """All turns in their order, each with the number of its round; round 0 is discarded."""
    for number in range(options.rounds + 1):
        for contest in options.contests:
            # The most memory that a process held needs no median: one round is enough.
            if contest != "memory" or number == 1:
                yield from ((number, turn) for turn in _turns(contest, options))


def take(turn: Turn, *, number: int) -> dict[str, Any]:
    """Runs one turn in a process of its own; returns its line of the record.

    Raises:
        SystemExit: When it fails, with its last words.
    """
    asked = {"kind": "turn", "round": number, "discarded": number == 0, **turn._asdict()}
    del asked["data"]  # a path of this machine is nobody's business
    command = [sys.executable, str(HERE / "compare_peers_turn.py"), json.dumps(turn._asdict())]
    began = time.perf_counter()
    with busy(turn.beside):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=_environment(turn)
        )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        sys.exit(f"{turn.contest} by {turn.system} failed: {words[-1]}")
    return {**asked, **json.loads(done.stdout), "wall_s": time.perf_counter() - began}


def about(options: argparse.Namespace) -> dict[str, Any]:
    """The first line of the record: code, versions, machine and settings, no names and no paths."""
    peers = {name: _version(name) for name in (*PEERS, "pillow")}
    settings = {key: value for key, value in vars(options).items() if key not in ("data", "out")}
    here = environment(device="cpu", threads=options.threads)
    return {
        "kind": "about",
        "code": here.code,
        "versions": here.versions | peers,
        "processor": here.device_name,
        "cores": os.cpu_count(),
        "settings": settings,
        "time": here.time,
    }


def progress(line: dict[str, Any]) -> str:
    """One line about a turn that has ended."""
    memory = f"{line['peak_bytes'] / 1e9:.2f} GB"
    rate = f"{line['views_per_s']:,.1f} views/s, " if "views_per_s" in line else ""
    what = f"round {line['round']}  {line['contest']:9s} {line['system']:13s}"
    return f"{what} {rate}{memory}, {line['wall_s']:.0f} s in all"


def _turns(contest: str, options: argparse.Namespace) -> Iterator[Turn]:
    """The turns of one contest in one round."""
    batch = options.memory_batch if contest == "memory" else options.batch
    for system in _taking_part(contest, options):
        yield Turn(
            contest=contest,
            system=system,
            batch=batch,
            seconds=_unit(options) * WEIGHTS[contest],
            threads=options.threads,
            workers=options.workers,
            beside=options.beside,
            files=options.files if contest == "folder" else 0,
            epochs=options.epochs if contest == "folder" else 0,
            data=options.data,
        )


def _unit(options: argparse.Namespace) -> float:
    """Seconds that a turn of weight 1 measures, so that all with a weight take the minutes."""
    count = [
        (len(_taking_part(contest, options)), WEIGHTS[contest])
        for contest in options.contests
        if WEIGHTS[contest]
    ]
    each: float = 60 * options.minutes / (options.rounds + 1) - START_S * sum(n for n, _ in count)
    # A quarter of the time goes before the clock starts.
    return max(0.0, each / 1.25 / max(1.0, sum(n * weight for n, weight in count)))


def _taking_part(contest: str, options: argparse.Namespace) -> list[str]:
    return [system for system in SYSTEMS[contest] if system in options.systems]


def _missing(options: argparse.Namespace) -> list[str]:
    """The packages that the systems need and that are not here."""
    wanted = {
        PACKAGES.get(system, system)
        for contest in options.contests
        for system in _taking_part(contest, options)
    }
    return sorted(name for name in wanted if find_spec(name.replace("-", "_")) is None)


def _environment(turn: Turn) -> dict[str, str]:
    """That of the process: its threads, nobody called at home, and for ours what a command sets."""
    found = os.environ | {"OMP_NUM_THREADS": str(turn.threads)}
    found |= {"LIGHTLY_TRAIN_EVENTS_DISABLED": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    if turn.system == OURS:
        wait_briefly(found)
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_HERE


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    cores = os.cpu_count() or 1
    systems = sorted({system for systems in SYSTEMS.values() for system in systems})
    today = datetime.now(UTC).date().isoformat()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="CIFAR-10: a folder of Parquet files")
    parser.add_argument(
        "--minutes", type=float, default=20, help="about, without `folder`; default: 20"
    )
    parser.add_argument("--rounds", type=int, default=5, help="that count; default: 5")
    parser.add_argument("--batch", type=int, default=64, help="images per step; default: 64")
    parser.add_argument("--memory-batch", type=int, default=128, help="default: 128")
    parser.add_argument("--threads", type=int, default=cores, help="default: one per core")
    parser.add_argument(
        "--workers", type=int, default=min(8, cores), help="of a peer's loader; default: cores, 8"
    )
    parser.add_argument("--beside", type=int, default=0, help="busy loops meanwhile; default: 0")
    parser.add_argument("--files", type=int, default=2048, help="of `folder`; default: 2048")
    parser.add_argument(
        "--epochs", type=int, default=3, help="of the longer command of `folder`; default: 3"
    )
    parser.add_argument("--contests", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--systems", nargs="+", choices=systems, default=systems)
    parser.add_argument(
        "--out", type=Path, default=HERE.parent / "results" / f"{today}-peers", help="folder"
    )
    options = parser.parse_args(arguments)
    if options.epochs < 2 or options.files < options.batch:
        parser.error("--epochs: at least 2; --files: at least a batch")
    return options


if __name__ == "__main__":
    sys.exit(main())
