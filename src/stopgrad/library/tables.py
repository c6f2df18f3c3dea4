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
from rich.table import Table
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
from stopgrad.storage import printable, write_atomically

if TYPE_CHECKING:
    from stopgrad.evaluation import Agreement, Comparison, Kendall, Record
    from stopgrad.evaluation import Row as RankedRun
    from stopgrad.report import NeighborPanel, Query
    from stopgrad.studies import ArmState, Overview

WIDTH = 120  # characters, of a table outside of a terminal
TITLES = {"lidar": "LiDAR", "rankme": "RankMe"}
PAGE = '<pre style="font-family:monospace;line-height:1.2">{code}</pre>'


class Shown:
    """Something that is clearest as a table."""

    def __rich__(self) -> RenderableType:
        """What a terminal shows."""
        raise NotImplementedError

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
        with console.capture() as text:
            console.print(self, soft_wrap=False)
        return text.get().rstrip("\n")

    def _repr_html_(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, highlight=False, record=True)
        console.print(self)
        return console.export_html(inline_styles=True, code_format=PAGE)


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

    def __rich__(self) -> RenderableType:
        scores = [record for record in self.records if record.metric.endswith("_accuracy")]
        others = [record for record in self.records if record not in scores]
        lines: list[RenderableType] = []
        if scores:
            lines = [scores_table(scores), Text(report.finding(scores))]
        return Group(*lines, *(Text(f"{r.metric} {r.value:.4g}") for r in others))


def scores_table(records: Sequence[Record]) -> Table:
    """Scores beside each other, a row per metric and fraction of the labels."""
    first = records[0]
    title = f"top-1 accuracy on {first.images_scored:,} {first.split} images"
    table = Table(title=title, title_justify="left")
    table.add_column("labels", justify="right")
    table.add_column("metric")
    subjects = [of for of in SUBJECTS if of in {r.of for r in records}]
    for subject in subjects:
        bold = "bold" if subject == "encoder" else ""
        table.add_column(SUBJECTS[subject], justify="right", style=bold)
    found = {(r.labels, r.metric, r.of): r.value for r in records}
    for labels in sorted({r.labels for r in records}, reverse=True):
        for metric, name in METRICS.items():
            values = [found.get((labels, metric, subject)) for subject in subjects]
            if values == [None] * len(values):
                continue
            cells = [
                "" if value is None else percent(value, images=first.images_scored)
                for value in values
            ]
            table.add_row(f"{100 * labels:g} %", name, *cells)
    used = {r.labels: r.protocol["k"] for r in records if r.metric == "knn_accuracy"}
    ks = ", ".join(f"{k} with {labels_text(labels)}" for labels, k in used.items())
    knn = f"kNN: cosine, k = {ks}; probes and " if ks else ""
    table.caption = f"{knn}protocols: --json; epoch {first.epoch}"
    return table


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

    def __rich__(self) -> Table:
        """A row per query: what it is, what it is taken for, and its neighbours by similarity."""
        panel = self.panel
        title = f"{panel.index.shape[1]} nearest of {count(len(panel.bank))} training images"
        table = Table(title=title, title_justify="left", caption=self._caption())
        classes = any(query.class_name for query in self.queries)
        votes = any(query.predicted for query in self.queries)
        for name, wanted in (("query", True), ("is", classes), ("taken for", votes)):
            if wanted:
                table.add_column(name, overflow="fold")
        table.add_column("nearest, by cosine similarity", overflow="fold")
        for place, query in enumerate(self.queries, start=1):
            cells = [Text(query.source or f"{place}")]
            cells += [Text(query.class_name)] if classes else []
            cells += [_taken_for(query)] if votes else []
            near = (
                f"{n.class_name or n.source or '-'} {n.similarity:.3f}" for n in query.neighbors
            )
            table.add_row(*cells, Text(", ".join(near)))
        return table

    def _caption(self) -> str:
        panel = self.panel
        parts = [f"Queries: {panel.rule}."] if panel.rule else []
        if panel.protocol:
            k, temperature = panel.protocol["k"], panel.protocol["temperature"]
            parts.append(f"Votes: k = {k}, T = {temperature:g}, cosine.")
        return " ".join(parts)


def _taken_for(query: Query) -> Text:
    wrong = query.correct is False
    return Text(f"x {query.predicted}" if wrong else query.predicted, style="red" if wrong else "")


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

    def __rich__(self) -> RenderableType:
        return Group(*self.tables, *map(Text, self.lines))


def _runs_table(found: Comparison) -> Table:
    """A row per run: its measures with their ranks, and its accuracies."""
    how = found.protocol
    data = printable(how["data"]["name"])
    table = Table(
        title=Text(
            f"{how['layer']} of {count(how['images'])} images of {data}, {how['views']} views "
            "each; rank in brackets"
        ),
        title_justify="left",
    )
    table.add_column("run", overflow="fold")
    for name in evaluation.LABEL_FREE:
        style = "bold" if name == found.by else ""
        table.add_column(measure_title(name), justify="right", style=style)
    known = [m for m in evaluation.COMPARED if any(m in row.accuracies for row in found.rows)]
    for metric in known:
        table.add_column(metric_text(metric), justify="right")
    noted = any(row.notes for row in found.rows)
    if noted:
        table.add_column("note")
    for row in found.rows:
        scores = [
            percent(row.accuracies.get(metric), images=how["images_scored"]) for metric in known
        ]
        notes = ["; ".join(row.notes)] if noted else []
        table.add_row(*map(_cell, [str(row.run.path), *_measures(row), *scores, *notes]))
    return table


def _measures(row: RankedRun) -> Iterator[str]:
    for name, value in row.measures._asdict().items():
        rank = row.ranks[name]
        yield "not finite" if rank is None else f"{number(value)} ({rank})"


def _agreement_tables(found: Comparison) -> Iterator[Table]:
    """A row per measure, a column per accuracy: Kendall's tau, p, n."""
    if not found.agreements:
        return
    metrics = list(dict.fromkeys(agreement.accuracy for agreement in found.agreements))
    table = Table(title="Kendall's tau with the order by labels", title_justify="left")
    table.add_column("measure")
    for metric in metrics:
        table.add_column(metric_text(metric), justify="right")
    cells = {(a.measure, a.accuracy): a for a in found.agreements}
    for name in evaluation.LABEL_FREE:
        table.add_row(measure_title(name), *(_tau(cells[name, metric]) for metric in metrics))
    yield table


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

    def __rich__(self) -> Table:
        return arms_table(self.found, title=self.name)


def arms_table(found: Overview, *, title: str) -> Table:
    """The arms of a study with their runs: done, at work, failed, and the newest kNN."""
    table = Table(title=_cell(title), title_justify="left")
    table.add_column("arm")
    for column in ("done", "at work", "failed", "collapsed", "newest kNN"):
        table.add_column(column, justify="right")
    for arm in found.arms:
        table.add_row(*map(_cell, _arm_cells(arm)))
    return table


def _arm_cells(arm: ArmState) -> tuple[str, ...]:
    knn = "" if arm.knn is None else f"{100 * arm.knn:.2f} %"
    counts = (str(runs or "") for runs in (arm.at_work, arm.failed, arm.collapsed))
    return (arm.name, f"{arm.done}/{arm.runs}", *counts, knn)


def _cell(text: str) -> Text:
    """A text that neither rich's markup nor a terminal's codes can change."""
    return Text(printable(text))
