"""Results of the library, which show themselves as tables in a terminal and in a notebook.

Each object here also has its rows as plain dicts, which pandas and polars accept.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stopgrad import evaluation, report
from stopgrad.evaluation import (
    MEASURES,
    METRICS,
    SUBJECTS,
    Balance,
    balance_text,
    count,
    labels_text,
    percent,
)
from stopgrad.report import Column, Table, TableCell
from stopgrad.storage import check_ending, make_folder, printable, user_path, write_atomically

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stopgrad.evaluation import Record, Subject
    from stopgrad.report import NeighborPanel, Query
    from stopgrad.runs import MetricsRow

WIDTH = 120  # characters, of a table outside of a terminal


class Shown:
    """A result that is shown as tables, with sentences below them."""

    @property
    def tables(self) -> list[Table]:
        """The tables."""
        raise NotImplementedError

    @property
    def lines(self) -> list[str]:
        """The sentences."""
        return []

    def for_a_pipe(self) -> str:
        """Each table with tabs between its cells and an empty line below it, then the sentences."""
        tables = ("\n".join([*report.as_lines(table), "\n"]) for table in self.tables)
        return "".join([*tables, "\n".join(self.lines)])

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        return Group(*self.tables, *map(Text, map(printable, self.lines)))

    def __repr__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
        with console.capture() as text:
            console.print(self)
        return text.get().rstrip("\n")

    def _repr_html_(self) -> str:
        from markupsafe import escape

        sentences = (f"<p>{escape(printable(line))}</p>" for line in self.lines)
        return "\n".join([*map(report.as_html, self.tables), *sentences])


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
    def tables(self) -> list[Table]:
        """The accuracies, a row per metric and fraction of the labels."""
        return [scores_table(self._accuracies)] if self._accuracies else []

    @property
    def lines(self) -> list[str]:
        """The finding and the protocol of the accuracies; measures of collapse."""
        scores = self._accuracies
        measures = [r for r in self.records if r not in scores]
        found = [*filter(None, [report.finding(scores)]), _protocol(scores)] if scores else []
        if (own := next((r for r in scores if r.verdict), None)) and own.epoch:
            state = evaluation.state_text(str(own.verdict), scores, epoch=own.epoch)
            found += [f"Verdict: {state}."] if state.startswith(evaluation.NO_BETTER) else []
        return [*found, *(f"{r.metric} {r.value:.4g}, n = {r.images_scored:,}" for r in measures)]

    @property
    def _accuracies(self) -> list[Record]:
        return [record for record in self.records if record.metric.endswith("_accuracy")]


def newest_scores(records: Sequence[Record]) -> Scores:
    """The accuracies of the split that was scored last, and the newest measures of collapse."""
    measures = [r for r in evaluation.newest(records).values() if r.metric in MEASURES]
    return Scores([*evaluation.scored_last(records), *measures])


def flat_epoch(row: MetricsRow) -> dict[str, object]:
    """An epoch's row of metrics without nesting; spectra, which are curves, are left out."""
    nested, verdict = ("kind", "measures", "clean", "verdict", "spectra"), row.get("verdict")
    flat: dict[str, object] = {key: value for key, value in row.items() if key not in nested}
    flat["verdict"] = verdict["state"] if verdict else None
    for layer, found in (row.get("measures") or {}).items():
        flat |= {f"{layer}.{name}": value for name, value in found.items()}
    return flat


def scores_table(records: Sequence[Record]) -> Table:
    """Scores side by side, a row per metric and fraction of the labels."""
    first = records[0]
    subjects = [of for of in SUBJECTS if of in {r.of for r in records}]
    found = {(r.labels, r.metric, r.of): r for r in records}
    rows = []
    for labels in sorted({r.labels for r in records}, reverse=True):
        for metric, name in METRICS.items():
            own = [found.get((labels, metric, subject)) for subject in subjects]
            shown = {
                name: [r.value if r else None for r in own],
                f"{name}, balanced": [r.balanced if r else None for r in own],
            }
            for what, values in shown.items():
                if values != [None] * len(values):
                    cells = map(partial(_score_cell, first), values, subjects)
                    rows.append((TableCell(f"{100 * labels:g} %"), TableCell(what), *cells))
    heads = (Column(SUBJECTS[subject], "right") for subject in subjects)
    share = percent(first.majority, images=first.images_scored)
    largest = "" if first.majority is None else f", {share} of them in the largest class"
    return Table(
        "scores",
        (Column("labels", "right"), Column("metric"), *heads),
        tuple(rows),
        f"top-1 accuracy on {first.images_scored:,} {first.split} images{largest}",
    )


def _score_cell(first: Record, value: float | None, of: Subject) -> TableCell:
    if value is None:
        return TableCell()
    text = percent(value, images=first.images_scored)
    return TableCell(text, value, emphasis="strong" if of == "encoder" else "")


def _protocol(records: Sequence[Record]) -> str:
    """How kNN was computed, and where the rest is described."""
    used = {r.labels: r.protocol["k"] for r in records if r.metric == "knn_accuracy"}
    ks = ", ".join(f"{k} with {labels_text(labels)}" for labels, k in used.items())
    knn = f"kNN: cosine, k = {ks}; probes and " if ks else ""
    epochs = (f"; epoch {r.epoch}" for r in records if r.of != "pixels")
    return f"{knn}protocols: --json{next(epochs, '')}"


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
        """Everything about each query; the keys of `stopgrad neighbors --json`."""
        how = {"bank_images": len(self.panel.bank), "distance": "cosine", **self.panel.protocol}
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
                "protocol": how,
            }
            for query, row in zip(self.queries, self.panel.index, strict=True)
        ]

    def save(self, out: str | Path) -> Path:
        """Draws the images into a PNG file.

        Raises:
            ConfigError: For the name of another format.
            StorageError: When the disk refuses.
        """
        out = user_path(out)
        check_ending(out, ".png")
        make_folder(out.absolute().parent)
        write_atomically(out, self._repr_png_())
        return out

    def _repr_html_(self) -> str:
        """The images, then the table: a notebook that shows HTML does not show the PNG."""
        drawing = base64.b64encode(self._repr_png_()).decode()
        return f'<img src="data:image/png;base64,{drawing}">\n{super()._repr_html_()}'

    def _repr_png_(self) -> bytes:
        return report.figure_as_png(report.neighbor_grid(self.panel))

    @property
    def tables(self) -> list[Table]:
        """A row per query: what it is, what it is taken for, and its neighbours by similarity."""
        panel = self.panel
        heads = ("query", "is", "taken for", "nearest, by cosine similarity")
        found = Table(
            "neighbors",
            tuple(map(Column, heads)),
            tuple(_query_row(query, place) for place, query in enumerate(self.queries, start=1)),
            f"{panel.index.shape[1]} nearest of {count(len(panel.bank))} training images",
        )
        return [found.without_empty_columns()]

    @property
    def lines(self) -> list[str]:
        """How the queries were chosen, and how kNN votes."""
        panel = self.panel
        parts = [f"Queries: {panel.rule}."] if panel.rule else []
        if panel.protocol:
            k, temperature = panel.protocol["k"], panel.protocol["temperature"]
            parts.append(f"Votes: k = {k}, T = {temperature:g}, cosine.")
        return [" ".join(parts)] if parts else []


def _query_row(query: Query, place: int) -> tuple[TableCell, ...]:
    wrong = query.correct is False
    near = (f"{n.class_name or n.source or '-'} {n.similarity:.3f}" for n in query.neighbors)
    return (
        TableCell(query.source or f"{place}"),
        TableCell(query.class_name),
        TableCell(
            f"x {query.predicted}" if wrong else query.predicted, emphasis="wrong" if wrong else ""
        ),
        TableCell(", ".join(near)),
    )


def knn_balance(row: Mapping[str, Any]) -> str:
    """The note after the kNN accuracy of an epoch where the classes are uneven."""
    return balance_text(Balance(row.get("knn_balanced"), row.get("knn_majority")))
