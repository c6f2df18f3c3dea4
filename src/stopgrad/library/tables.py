"""What the library gives back, as it shows itself: a table in a terminal and in a notebook.

Each object here holds its rows as plain dicts too, which pandas and polars take as they are.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from stopgrad import evaluation, report
from stopgrad.evaluation import (
    ABSENT,
    MEASURE_NAMES,
    METRICS,
    SUBJECTS,
    count,
    labels_text,
    metric_text,
    number,
    percent,
)
from stopgrad.report import Column, Emphasis, Table, TableCell, as_html
from stopgrad.storage import printable, write_atomically

if TYPE_CHECKING:
    from stopgrad.evaluation import Agreement, Comparison, Kendall, Record
    from stopgrad.evaluation import Row as RankedRun
    from stopgrad.report import NeighborPanel, Query
    from stopgrad.studies import ArmState, Overview

WIDTH = 120  # characters, of a table outside of a terminal
TITLES = {"lidar": "LiDAR", "rankme": "RankMe"}


class Shown:
    """Something that is clearest as tables."""

    @property
    def parts(self) -> Sequence[Table | str]:
        """Its tables, and the sentences between them."""
        raise NotImplementedError

    def __rich__(self) -> RenderableType:
        """What a terminal shows."""
        parts = self.parts
        return Group(*(p if isinstance(p, Table) else Text(printable(p)) for p in parts))

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
        with console.capture() as text:
            console.print(self, soft_wrap=False)
        return text.get().rstrip("\n")

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        return "\n".join(
            as_html(part) if isinstance(part, Table) else Markup("<p>{}</p>").format(part)
            for part in self.parts
        )


class Scores(Shown, Sequence["Record"]):
    """Records, the newest last; `rows` are the same as plain dicts."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = tuple(records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: Any) -> Any:
        return self.records[place]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Each record as its line in records.jsonl has it."""
        return [json.loads(evaluation.to_line(record)) for record in self.records]

    @property
    def parts(self) -> list[Table | str]:
        """The accuracies with what they say, then each measure of collapse on a line."""
        scores = [record for record in self.records if record.metric.endswith("_accuracy")]
        others = [record for record in self.records if record not in scores]
        parts: list[Table | str] = []
        if scores:
            parts = [scores_table(scores), protocol_line(scores), report.finding(scores)]
        measures = (f"{r.metric} {r.value:.4g}" for r in others)
        return [part for part in (*parts, *measures) if part]


def scores_table(records: Sequence[Record]) -> Table:
    """Scores beside each other, a row per metric and fraction of the labels."""
    first = records[0]
    subjects = [of for of in SUBJECTS if of in {r.of for r in records}]
    found = {(r.labels, r.metric, r.of): r.value for r in records}
    rows = []
    for labels in sorted({r.labels for r in records}, reverse=True):
        for metric, name in METRICS.items():
            values = {of: found.get((labels, metric, of)) for of in subjects}
            if any(value is not None for value in values.values()):
                cells = (_score(value, of, first.images_scored) for of, value in values.items())
                rows.append((TableCell(f"{100 * labels:g} %", labels), TableCell(name), *cells))
    named = (Column("labels", "right"), Column("metric"))
    columns = (*named, *(Column(SUBJECTS[of], "right") for of in subjects))
    caption = f"top-1 accuracy on {first.images_scored:,} {first.split} images"
    return Table("scores", columns, tuple(rows), caption)


def protocol_line(records: Sequence[Record]) -> str:
    """How kNN was taken, and where all other settings stand."""
    used = {r.labels: r.protocol["k"] for r in records if r.metric == "knn_accuracy"}
    ks = ", ".join(f"{k} with {labels_text(labels)}" for labels, k in used.items())
    knn = f"kNN: cosine, k = {ks}; probes and " if ks else ""
    return f"{knn}protocols: --json; epoch {records[0].epoch}"


def _score(value: float | None, of: str, images: int) -> TableCell:
    if value is None:
        return TableCell()
    emphasis: Emphasis = "strong" if of == "encoder" else ""
    return TableCell(percent(value, images=images), value, emphasis=emphasis)


class Neighborhood(Shown):
    """Images with their nearest training images, the nearest first."""

    def __init__(self, panel: NeighborPanel) -> None:
        self.panel = panel

    @cached_property
    def queries(self) -> list[Query]:
        """Each image asked about, with its neighbours."""
        return report.queries(self.panel)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All about each query; the keys of `stopgrad neighbors --json`."""
        protocol = {
            "bank_images": len(self.panel.bank),
            "distance": "cosine",
            **self.panel.protocol,
        }
        return [
            {
                "query": query.source or None,
                "class": query.class_name or None,
                "taken_for": query.predicted or None,
                "neighbors": [
                    {
                        "index": int(index),
                        "file": near.source or None,
                        "class": near.class_name or None,
                        "similarity": near.similarity,
                    }
                    for index, near in zip(row, query.neighbors, strict=True)
                ],
                "protocol": protocol,
            }
            for query, row in zip(self.queries, self.panel.index, strict=True)
        ]

    def save(self, out: str | Path) -> Path:
        """Draws the images into a PNG file.

        Raises:
            StorageError: When the disk refuses.
        """
        write_atomically(Path(out), self._repr_png_())
        return Path(out)

    def _repr_png_(self) -> bytes:
        drawing = io.BytesIO()
        report.neighbor_grid(self.panel).save(drawing, format="PNG")
        return drawing.getvalue()

    @property
    def parts(self) -> list[Table | str]:
        """A row per query, and how queries and votes came about."""
        return [self.table, *filter(None, [self._caption()])]

    @property
    def table(self) -> Table:
        """A row per query: what it is, what it is taken for, and its neighbours by similarity."""
        panel = self.panel
        classes = any(query.class_name for query in self.queries)
        votes = any(query.predicted for query in self.queries)
        rows = []
        for place, query in enumerate(self.queries, start=1):
            cells = [TableCell(query.source or f"{place}")]
            cells += [TableCell(query.class_name)] if classes else []
            cells += [_taken_for(query)] if votes else []
            near = (
                f"{n.class_name or n.source or '-'} {n.similarity:.3f}" for n in query.neighbors
            )
            rows.append((*cells, TableCell(", ".join(near))))
        heads = ["query", *(["is"] if classes else []), *(["taken for"] if votes else [])]
        columns = tuple(map(Column, [*heads, "nearest, by cosine similarity"]))
        caption = f"{panel.index.shape[1]} nearest of {count(len(panel.bank))} training images"
        return Table("neighbors", columns, tuple(rows), caption)

    def _caption(self) -> str:
        panel = self.panel
        parts = [f"Queries: {panel.rule}."] if panel.rule else []
        if panel.protocol:
            k, temperature = panel.protocol["k"], panel.protocol["temperature"]
            parts.append(f"Votes: k = {k}, T = {temperature:g}, cosine.")
        return " ".join(parts)


def _taken_for(query: Query) -> TableCell:
    wrong = query.correct is False
    text = f"x {query.predicted}" if wrong else query.predicted
    return TableCell(text, emphasis="wrong" if wrong else "")


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
        agreements = [_agreement_table(self.found)] if self.found.agreements else []
        return [_runs_table(self.found), *agreements]

    @property
    def lines(self) -> list[str]:
        """What to make of them."""
        return [ranking_finding(self.found), *self.found.notes]

    @property
    def parts(self) -> list[Table | str]:
        """The tables, then what to make of them."""
        return [*self.tables, *self.lines]


def _runs_table(found: Comparison) -> Table:
    """A row per run: its measures with their ranks, and its accuracies."""
    how = found.protocol
    known = [m for m in evaluation.COMPARED if any(m in row.accuracies for row in found.rows)]
    noted = any(row.notes for row in found.rows)
    rows = []
    for row in found.rows:
        scores = (
            TableCell(percent(row.accuracies.get(metric), images=how["images_scored"]))
            for metric in known
        )
        notes = [TableCell("; ".join(row.notes))] if noted else []
        rows.append((TableCell(str(row.run.path)), *_measures(row, by=found.by), *scores, *notes))
    measures = (Column(measure_title(name), "right") for name in evaluation.LABEL_FREE)
    accuracies = (Column(metric_text(metric), "right") for metric in known)
    columns = (Column("run"), *measures, *accuracies, *([Column("note")] if noted else []))
    caption = (
        f"{how['layer']} of {count(how['images'])} images of {how['data']['name']}, "
        f"{how['views']} views each; rank in brackets"
    )
    return Table("ranking", columns, tuple(rows), caption)


def _measures(row: RankedRun, *, by: str) -> Iterator[TableCell]:
    for name, value in row.measures._asdict().items():
        rank = row.ranks[name]
        text = "not finite" if rank is None else f"{number(value)} ({rank})"
        yield TableCell(text, emphasis="strong" if name == by else "")


def _agreement_table(found: Comparison) -> Table:
    """A row per measure, a column per accuracy: Kendall's tau, p, n."""
    metrics = list(dict.fromkeys(agreement.accuracy for agreement in found.agreements))
    cells = {(a.measure, a.accuracy): a for a in found.agreements}
    rows = tuple(
        (
            TableCell(measure_title(name)),
            *(TableCell(_tau(cells[name, metric])) for metric in metrics),
        )
        for name in evaluation.LABEL_FREE
    )
    columns = (Column("measure"), *(Column(metric_text(metric), "right") for metric in metrics))
    return Table("agreements", columns, rows, "Kendall's tau with the order by labels")


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


class ArmsTable(Shown):
    """How the runs of a study stand."""

    def __init__(self, name: str, found: Overview) -> None:
        self.name, self.found = name, found

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each run that is not done."""
        return self.found.lines

    @property
    def parts(self) -> list[Table | str]:
        """The arms; the runs that are not done stand in `lines`."""
        return [arms_table(self.found, title=self.name)]


def arms_table(found: Overview, *, title: str) -> Table:
    """The arms of a study with their runs: done, at work, failed, and the newest kNN."""
    numbers = ("done", "at work", "failed", "collapsed", "newest kNN")
    columns = (Column("arm"), *(Column(name, "right") for name in numbers))
    rows = tuple(tuple(map(TableCell, _arm_cells(arm))) for arm in found.arms)
    return Table("arms", columns, rows, title)


def _arm_cells(arm: ArmState) -> tuple[str, ...]:
    knn = "" if arm.knn is None else f"{100 * arm.knn:.2f} %"
    counts = (str(runs or "") for runs in (arm.at_work, arm.failed, arm.collapsed))
    return (arm.name, f"{arm.done}/{arm.runs}", *counts, knn)
