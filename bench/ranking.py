"""How well measures without labels order runs by accuracy: Kendall's tau over kept studies.

    PYTHONPATH=src python bench/ranking.py results/2026-11-2*-*
    PYTHONPATH=src python bench/ranking.py results/2026-*-ranking-*/compare.jsonl

The second reads fresh runs of 12 settings. Those of 4 and 8 epochs on CIFAR-10 (seed 0) chose
RankMe. Those of 6 (seeds 1 and 2) chose nothing and check it, as do the ones with a wider encoder
and on other images, whose commands are in results/README.md:

    for EPOCHS in 4 8 6; do
      SEEDS=1; if [ $EPOCHS = 6 ]; then SEEDS="1 2"; fi  # 1: one seed, 0
      stopgrad study run bench/ranking.yaml --data CIFAR10 --out fresh/$EPOCHS \
        --preset miniature --epochs $EPOCHS --seeds $SEEDS --jobs 2 --threads 1
      stopgrad compare fresh/$EPOCHS/runs/*/run --json > fresh/$EPOCHS.jsonl
    done

In: study directories, with their runs or kept without, or lines of `compare` on runs of one N. Out:
a line per measure and accuracy, against all labels: tau over the pairs of runs of one study, over
those that also have one N, over those that also trained for as many epochs, and over all pairs; and
how far the run that a measure puts first is below the best. The number of epochs, which needs no
run, is a measure too. Measures are of the features, those of directories at the last epoch. What
`compare` ranks by rests on it.

Runs of one arm differ by their seed alone, so the 95 % interval is a bootstrap over arms.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stopgrad.evaluation import Key, folds_text, record_extent
from stopgrad.studies import StudyDirectory

MEASURES = (
    "participation_ratio",
    "effective_rank",
    "top_share",
    "correlation_strength",
    "positive_minus_random",
)
ACCURACIES = ("linear_accuracy", "knn_accuracy")
DRAWS = 2000
LEARNED = 0.35  # kNN; untrained encoders have 33 to 34 % on CIFAR-10


class OrderedRun(NamedTuple):
    """A run as far as its place among the others goes."""

    study: str
    arm: str
    seed: int
    folds: str  # N
    values: dict[str, float]  # of the features, the negative loss, and the epochs that it trained
    accuracies: dict[str, float]  # on the validation or the test split


def read_runs(path: Path) -> Iterator[OrderedRun]:
    """The scored pretrainings of the studies of a directory, each once."""
    directory, seen = StudyDirectory(path), set[str]()
    for stored in directory.read_all() if directory.names() else ():
        split = stored.study.protocol.split
        for slot in stored.slots:
            rows, numbers = directory.epoch_rows(slot.run), directory.run(slot.run).numbers
            keys = {metric: Key(metric, 1.0, "encoder", split) for metric in ACCURACIES}
            if slot.run in seen or not rows or not {*keys.values()} <= numbers.keys():
                continue
            seen.add(slot.run)
            reach = record_extent(numbers[keys["knn_accuracy"]])
            features = rows[-1]["measures"]["features"]
            yield OrderedRun(
                study=f"{path.name}/{stored.study.name}",
                arm=slot.arm,
                seed=slot.seed,
                folds=folds_text(reach.folds) if reach else "",
                values={name: features[name] for name in MEASURES}
                | {"-loss": -rows[-1]["loss"], "epoch": rows[-1]["epoch"]},
                accuracies={metric: numbers[key].value for metric, key in keys.items()},
            )


def read_compared(path: Path) -> Iterator[OrderedRun]:
    """The runs that `stopgrad compare --json` has measured, beside the study that they are of."""
    slots = json.loads((path.parent / "studies" / "ranking.json").read_text())["slots"]
    arms = {slot["run"]: slot["arm"] for slot in slots}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "run":
            arm = next(arms[part] for part in Path(row["run"]).parts if part in arms)
            values = row["measures"] | {"epoch": row["epoch"]}
            yield OrderedRun(str(path), arm, row["seed"], "", values, row["accuracies"])


def tau(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    *,
    pairs: NDArray[np.bool_],
    weights: NDArray[np.float64] | None = None,
) -> float:
    """Kendall's tau-b over some pairs of runs; NaN where no such pair has an order in both.

    Args:
        one: (R,) numbers.
        other: (R,) other numbers of the same runs.
        pairs: (R, R) which pairs count.
        weights: (R,) how often each run counts; None: once.
    """
    weights = np.ones(len(one)) if weights is None else weights
    weight = np.where(pairs, np.outer(weights, weights), 0)
    np.fill_diagonal(weight, 0)
    signs = [np.sign(values[:, None] - values) for values in (one, other)]
    scale = np.prod([(weight * sign**2).sum() for sign in signs]) ** 0.5
    return float((weight * signs[0] * signs[1]).sum() / scale) if scale else float("nan")


def interval(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    *,
    pairs: NDArray[np.bool_],
    arms: Sequence[str],
) -> tuple[float, float]:
    """95 % of tau when arms are drawn again, with all of their runs."""
    chance = np.random.default_rng(0)
    names = sorted(set(arms))
    of = np.array([names.index(arm) for arm in arms])
    drawn = [
        np.bincount(chance.integers(0, len(names), len(names)), minlength=len(names))[of]
        for _ in range(DRAWS)
    ]
    taus = [tau(one, other, pairs=pairs, weights=weights.astype(float)) for weights in drawn]
    if np.isnan(taus).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(taus, [2.5, 97.5])
    return float(low), float(high)


def lost(runs: Sequence[OrderedRun], measure: str, accuracy: str) -> float:
    """How far below the best run the first one by a measure is, the mean over studies and seeds.

    In the unit of the accuracies; runs that share the first place count by their mean.
    """
    groups: dict[tuple[str, str, int], list[OrderedRun]] = {}
    for run in runs:
        groups.setdefault((run.study, run.folds, run.seed), []).append(run)
    found = []
    for group in groups.values():
        first = max(run.values[measure] for run in group)
        chosen = [run.accuracies[accuracy] for run in group if run.values[measure] == first]
        found.append(max(run.accuracies[accuracy] for run in group) - np.mean(chosen))
    return float(np.mean(found))


def report(runs: Sequence[OrderedRun], title: str) -> None:
    """Prints tau of each measure with each accuracy, on three kinds of pairs, and what it loses."""
    studies = np.array([run.study for run in runs])
    folds = np.array([run.folds for run in runs])
    epochs = np.array([run.values["epoch"] for run in runs])
    arms = [f"{run.study} {run.arm}" for run in runs]
    alike = studies[:, None] == studies
    of_one_n = alike & (folds[:, None] == folds)
    kinds = {
        "within a study": alike,
        "and one N": of_one_n,
        "and as many epochs": of_one_n & (epochs[:, None] == epochs),
        "all pairs": np.ones_like(alike),
    }
    print(f"\n{title}: {len(runs)} runs, {len(set(arms))} arms, {len(set(studies))} studies")
    heads = ["measure", "accuracy", *kinds, "first below best, points"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for metric in ACCURACIES:
        scores = np.array([run.accuracies[metric] for run in runs])
        for name in runs[0].values:
            values = np.array([run.values[name] for run in runs])
            cells = []
            for pairs in kinds.values():
                low, high = interval(values, scores, pairs=pairs, arms=arms)
                found = tau(values, scores, pairs=pairs)
                text = f"{found:+.2f} ({low:+.2f} to {high:+.2f})"
                cells.append("-" if np.isnan(found) else text)
            cells.append(f"{100 * lost(runs, name, metric):.1f}")
            print(f"| {name} | {metric} | {' | '.join(cells)} |")


def main() -> None:
    """Reads the studies that were named, and prints all runs, then those that learned something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("paths", nargs="+", type=Path, help="study directories, or files of lines")
    paths = parser.parse_args().paths
    readers = {read_compared if path.suffix == ".jsonl" else read_runs for path in paths}
    if len(readers) > 1:
        parser.error("either directories or files: they measure other images")
    runs = [run for path in paths for read in readers for run in read(path)]
    report(runs, "all runs")
    learned = [run for run in runs if run.accuracies["knn_accuracy"] > LEARNED]
    report(learned, f"kNN above {LEARNED:.0%}")


if __name__ == "__main__":
    main()
