"""Runs ordered by a measure that needs no labels, as rows and as tables.

In: the paths of runs. Out: `Ranking`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from stopgrad import evaluation, method, runs
from stopgrad.config import RANKED_BY, Config, LabelFreeName, Layer
from stopgrad.errors import DataError
from stopgrad.evaluation import ABSENT, MEASURE_NAMES, count, metric_text, number, percent
from stopgrad.face.arguments import as_list, check_choices, in_plain_torch
from stopgrad.face.data import AnyData
from stopgrad.face.progress import Screen, at_work
from stopgrad.face.run import Run
from stopgrad.face.tables import Shown
from stopgrad.report import Column, Table, TableCell
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.evaluation import Agreement, Comparison, Kendall, RankedRun
    from stopgrad.images import Dataset
    from stopgrad.runs import RunData

TITLES = {"lidar": "LiDAR", "rankme": "RankMe", "retrieval": "retrieval of the second view"}


@at_work
@in_plain_torch
def compare(
    paths: str | Path | Run | Sequence[str | Path | Run],
    *,
    data: AnyData | None = None,
    by: LabelFreeName = RANKED_BY,
    layer: Layer = "features",
    score: bool = True,
) -> Ranking:
    """Ranks runs by measures that need no labels, and says how far labels would agree.

    Args:
        paths: The runs.
        data: Images to measure on; None: those that the runs learned from.
        by: The measure that orders the runs.
        layer: What is measured: the encoder's output, or the projector's.
        score: Score what the records lack, where there are labels.

    Raises:
        ConfigError: For a measure or a layer that does not exist, or a count of directions over
            layers of several widths.
        DataError: When the runs learned from different images and none are named.
    """
    check_choices("by", [by], get_args(LabelFreeName))
    check_choices("layer", [layer], get_args(Layer))
    given, screen = as_list(paths, "run"), Screen()
    opened = [path if isinstance(path, Run) else Run(path) for path in given]
    found = [run.trained(screen) for run in opened]
    method.use_threads(found[0].info.config.threads)
    datasets = _datasets(opened, data, screen)
    ranked = evaluation.compare_runs(
        found, datasets, by=by, layer=layer, score=score, track=screen.track
    )
    return Ranking(ranked)


def _datasets(opened: Sequence[Run], data: AnyData | None, screen: Screen) -> list[Dataset]:
    """The images to measure on, as each run stores them.

    Without `data` they are what all runs learned from: the same pixels, or the same source read
    for each run at its own size.
    """
    found = [run.trained() for run in opened]
    same = data is not None or evaluation.same_data(found)
    if not same and len({run.info.data["spec"] for run in found}) > 1:
        raise _different(opened)
    first = opened[0].config
    stored: dict[tuple[object, ...], Dataset] = {}
    datasets = []
    for each, run in zip(opened, found, strict=True):
        config = replace(run.info.config, bad_images=first.bad_images)
        like = each.like(data)
        key = _storing(config, like)
        source, config = opened[0].read_by(config, data)
        if key not in stored:
            changed = each.changed(source)
            stored[key] = source.stored_for(config, screen, like=like, changed=changed)
        datasets.append(stored[key])
        now = stored[key].train.fingerprint
        if not same and now != run.info.data["fingerprint"]:
            raise _different(opened, f"; {source.spec} gives {run.path} now {now[:12]}")
    return datasets


def _storing(config: Config, like: RunData | None) -> tuple[object, ...]:
    """All values of a config that decide how images are stored and seen whole."""
    reading = runs.reading_of(config, split="auto", like=like)
    side = runs.side_of(config, like=like)
    return (side, runs.are_squares(like), reading, config.views.size, config.encoder)


def _different(opened: Sequence[Run], why: str = "") -> DataError:
    cards = [run.trained().info.data for run in opened]
    data = {card["fingerprint"]: card for card in cards}
    named = ", ".join(
        f"{printable(card['name'])} {mark[:12]} of {printable(card['spec'])}"
        for mark, card in data.items()
    )
    return DataError(
        f"runs that learned from different images ({named}{why})",
        expected="runs that learned from the same images",
        hint="name the images to measure all of them on with --data",
    )


class Ranking(Shown):
    """Runs ordered by a measure that needs no labels, and how far labels agree."""

    def __init__(self, found: Comparison) -> None:
        self.found = found

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row per run, best first."""
        found = self.found
        return [
            {
                "kind": "run",
                "place": place,
                "by": found.by,
                "run": str(row.run.path),
                "epoch": row.run.epoch,
                "seed": row.run.info.config.seed,
                "view_size": row.run.info.config.views.size,
                "measures": {
                    name: value if math.isfinite(value) else None
                    for name, value in row.measures._asdict().items()
                },
                "ranks": row.ranks,
                "accuracies": row.accuracies,
                "notes": row.notes,
                "protocol": found.protocol,
            }
            for place, row in enumerate(found.rows, start=1)
        ]

    @property
    def agreements(self) -> list[dict[str, Any]]:
        """A row per measure and accuracy: Kendall's tau of their two orders."""
        return [
            {
                "kind": "agreement",
                **each._asdict(),
                "kendall": each.kendall._asdict() if each.kendall else None,
            }
            for each in self.found.agreements
        ]

    @property
    def tables(self) -> list[Table]:
        """The runs, and the agreements where there are any."""
        return [_runs_table(self.found), *_agreement_tables(self.found)]

    @property
    def lines(self) -> list[str]:
        """What the tables mean, in sentences."""
        return [ranking_finding(self.found), *self.found.notes]


def _runs_table(found: Comparison) -> Table:
    """A row per run: its measures with their ranks, and its accuracies."""
    how = found.protocol
    known = [m for m in evaluation.COMPARED if any(m in row.accuracies for row in found.rows)]
    heads = [Column(measure_title(name), "right") for name in evaluation.LABEL_FREE]
    heads += [Column(metric_text(metric), "right") for metric in known]
    rows = []
    for row in found.rows:
        scores = [
            percent(row.accuracies.get(metric), images=how["images_scored"]) for metric in known
        ]
        cells = [str(row.run.path), *_measures(row), *scores, "; ".join(row.notes)]
        rows.append(tuple(map(TableCell, cells)))
    made = Table(
        "runs",
        (Column("run"), *heads, Column("note")),
        tuple(rows),
        f"{how['layer']} of {count(how['images'])} images of {how['data']['name']}, "
        f"{how['views']} views each; rank in brackets",
    )
    return made.without_empty_columns()


def _measures(row: RankedRun) -> Iterator[str]:
    for name, value in row.measures._asdict().items():
        rank = row.ranks[name]
        yield "not finite" if rank is None else f"{number(value)} ({rank})"


def _agreement_tables(found: Comparison) -> Iterator[Table]:
    """A row per measure, a column per accuracy: Kendall's tau, p, n."""
    if not found.agreements:
        return
    metrics = list(dict.fromkeys(agreement.accuracy for agreement in found.agreements))
    cells = {(a.measure, a.accuracy): a for a in found.agreements}
    yield Table(
        "agreement",
        (Column("measure"), *(Column(metric_text(metric), "right") for metric in metrics)),
        tuple(
            (
                TableCell(measure_title(name)),
                *(TableCell(_tau(cells[name, metric])) for metric in metrics),
            )
            for name in evaluation.LABEL_FREE
        ),
        "Kendall's tau with the order by labels",
    )


def _tau(agreement: Agreement) -> str:
    if agreement.kendall is None:
        return ABSENT
    tau, p, n = agreement.kendall
    return f"{tau:+.2f} (p = {p:.2g}, n = {n})"


def measure_title(measure: str) -> str:
    """`LiDAR`, `effective rank`."""
    return TITLES.get(measure) or MEASURE_NAMES[measure].title


def ranking_finding(found: Comparison) -> str:
    """One sentence: the first run, and what its rank is worth."""
    first, by = found.rows[0], measure_title(found.by)
    if len(found.rows) == 1:
        return "One run: there is nothing to rank."
    best = f"By {by}, {printable(str(first.run.path))} is first of {len(found.rows)} runs"
    taus = {a.accuracy: a.kendall for a in found.agreements if a.measure == found.by and a.kendall}
    if not taus:
        return f"{best}; no labels say whether that order is right."
    agreeing = " and ".join(
        f"{kendall.tau:+.2f} with {metric_text(metric)}" for metric, kendall in taus.items()
    )
    return f"{best}; Kendall's tau of that order is {agreeing}{_worth(list(taus.values()))}."


def _worth(taus: Sequence[Kendall]) -> str:
    """The number of runs, and how little so few can tell."""
    n = min(kendall.n for kendall in taus)
    if n == 2:
        return " (n = 2: it can only be +1 or -1, which says little)"
    if min(kendall.smallest_p for kendall in taus) > evaluation.SIGNIFICANCE:
        return f" (n = {n}: with so few runs no order is significant at 5 %)"
    return f" (n = {n})"
