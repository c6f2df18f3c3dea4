"""Runs ordered by a measure that needs no labels, as rows and as tables.

In: a `Comparison`. Out: `Ranking`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stopgrad import evaluation
from stopgrad.evaluation import ABSENT, MEASURE_NAMES, count, metric_text, number, percent
from stopgrad.library.tables import Shown
from stopgrad.report import Column, Table, TableCell
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.evaluation import Agreement, Comparison, Kendall
    from stopgrad.evaluation import Row as RankedRun

TITLES = {"lidar": "LiDAR", "rankme": "RankMe"}


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
        """What to make of them."""
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
    """What so few runs can tell."""
    n = min(kendall.n for kendall in taus)
    if n == 2:
        return " (n = 2: it can only be +1 or -1, which says little)"
    if min(kendall.smallest_p for kendall in taus) > evaluation.SIGNIFICANCE:
        return f" (n = {n}: no order of so few runs could be told from chance at 5 %)"
    return f" (n = {n})"
