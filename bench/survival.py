"""Whether the directions that weight decay leaves alive can be predicted (`method/survival.py`).

    stopgrad study run weight-decay --data CIFAR10 --out DIR --preset miniature
    PYTHONPATH=src python bench/survival.py DIR

A direction j is predicted to live while weight decay < c ICC_j^m. ICC_j is measured in the run with
the lowest weight decay; c is fitted to the run at `--fit`, and the number of living directions at
every other weight decay is predicted from it, for m = 1 and m = 2, seed by seed. Living directions
are counted by the effective rank of z at the last epoch.

In: a directory of the study weight-decay. Out: a line per seed and weight decay.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stopgrad.method import Spectra, every_direction, fit_threshold, largest_decay
from stopgrad.studies import StudyDirectory


class DecayedRun(NamedTuple):
    """What a run at one weight decay left alive."""

    seed: int
    decay: float
    alive: float  # effective rank of z
    between: list[float]  # ICC of each direction of z


def read_runs(path: Path) -> Iterator[DecayedRun]:
    """The finished runs of the study, by seed and weight decay."""
    directory = StudyDirectory(path)
    for stored in directory.read_all():
        for slot in stored.slots:
            rows = directory.epoch_rows(slot.run)
            if not rows or not directory.run(slot.run).numbers:  # not finished, not scored
                continue
            row = next(row for row in reversed(rows) if row.get("spectra"))
            spectra = Spectra(*(tuple(row["spectra"][name]) for name in Spectra._fields))
            alive = row["measures"]["z"]["effective_rank"]
            yield DecayedRun(slot.seed, float(slot.arm), alive, every_direction(spectra))


def predictions(runs: list[DecayedRun], *, fit: float, m: int) -> dict[float, int]:
    """Weight decay -> how many directions should live, for the runs of one seed."""
    between = min(runs, key=lambda run: run.decay).between
    [known] = [run for run in runs if run.decay == fit]
    numbers = range(1, len(between) + 1)
    c = fit_threshold(between, weight_decay=fit, alive=round(known.alive), m=m)
    return {
        run.decay: sum(run.decay < largest_decay(between, keep=n, c=c, m=m) for n in numbers)
        for run in runs
        if run.decay != fit
    }


def main() -> int:
    """Prints what was predicted beside what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("study", type=Path, help="directory of the study weight-decay")
    parser.add_argument("--fit", type=float, default=5e-4, help="weight decay that c is fitted to")
    options = parser.parse_args()
    found = list(read_runs(options.study))
    print("| seed | weight decay | effective rank | predicted, m = 1 | m = 2 |")
    print("|---|---|---|---|---|")
    for seed in sorted({run.seed for run in found}):
        runs = [run for run in found if run.seed == seed]
        if options.fit not in {run.decay for run in runs}:
            continue
        one, two = (predictions(runs, fit=options.fit, m=m) for m in (1, 2))
        for run in sorted(runs, key=lambda run: run.decay):
            told = f"{one[run.decay]} | {two[run.decay]}" if run.decay in one else "fitted | fitted"
            print(f"| {seed} | {run.decay:g} | {run.alive:.1f} | {told} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
