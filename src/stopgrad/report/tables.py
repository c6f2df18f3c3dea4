"""A study -> the tables of its page, each cell with the number that it is sorted by, and as CSV."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from stopgrad.evaluation import (
    ACCURACIES,
    MEASURES,
    cell_text,
    correction_text,
    labels_text,
    metric_text,
    unit_text,
)
from stopgrad.evaluation import Cell as Runs
from stopgrad.report.study import StudyEvidence
from stopgrad.studies import (
    BESIDE,
    Answer,
    Place,
    Results,
    Row,
    answer_findings,
    as_csv,
    labels_of,
    published_value,
    run_text,
    value_text,
)

TONES: dict[Answer, str] = {
    "shows": "good",
    "does not show": "wrong",
    "the opposite shows": "wrong",
    "cannot be told yet": "",
}


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    sort: float | str = ""  # what it is sorted by, its text where that is empty
    mark: str = ""  # "best" or "level", of accuracies, or a tone; a class of the page
    number: bool = False
    note: str = ""  # what became of runs that are not sound


class Table(NamedTuple):
    """A table with a head; the first column names the rows."""

    kind: str  # a class of the page
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    csv: str = ""  # a data URI, "" for none
    file: str = ""


def score_tables(evidence: StudyEvidence) -> list[Table]:
    """Our numbers beside the published, a table per metric, as `stopgrad study table` has them."""
    results = evidence.results
    known = {row.place.metric for row in results.rows}  # none of supervised without such an arm
    metrics = results.stored.study.protocol.metrics
    tables = [_block(results, metric) for metric in metrics if metric in known]
    final = _final(results)
    return [*tables, final] if final.rows else tables


def component_table(evidence: StudyEvidence) -> Table | None:
    """Each arm with kNN, correlation strength and its verdict; None without such measures."""
    results, study = evidence.results, evidence.results.stored.study
    wanted = [metric for metric in study.protocol.metrics if metric in MEASURES]
    if "correlation_strength" not in wanted:
        return None
    metrics = [m for m in study.protocol.metrics if m in ACCURACIES][:1] + wanted
    most = max(study.protocol.labels)
    rows = []
    for arm in study.arms:
        cells = [  # the verdict tells what became of each run
            _number(results, Place(arm.name, metric, most))._replace(note="") for metric in metrics
        ]
        rows.append((Cell(arm.name), *cells, Cell(_verdicts(results, arm.name))))
    columns = ("arm", *(unit_text(metric) for metric in metrics), "verdict")
    caption = "What each arm came to: mean ± standard deviation (n) of z, and the verdict of runs"
    return Table("components", caption, columns, tuple(rows), *_file(evidence, columns, rows, "z"))


def finding_table(evidence: StudyEvidence) -> Table:
    """What was published as a finding, and whether it shows here."""
    found = answer_findings(evidence.results)
    rows = tuple(
        (Cell(a.finding.says), Cell(a.answer, mark=TONES[a.answer]), Cell(a.why)) for a in found
    )
    columns = ("published finding", "here", "why")
    correction = correction_text(evidence.results.stored.study.protocol.correction)
    caption = f"Published findings held against our numbers; p: {correction} over these findings"
    return Table("findings", caption, columns, rows)


def run_table(evidence: StudyEvidence) -> Table:
    """Every run: how it stands, how long it took, and the newest kNN that it was watched by."""
    results, rows = evidence.results, []
    for slot in results.stored.slots:
        run = results.runs[slot.run]
        lacking = run.state.phase in ("waiting", "interrupted") or run.claimed
        standing = run_text(run) if lacking or run.state.phase != "trained" else "trained"
        knn = run.state.knn
        share = "" if slot.labels is None else labels_text(slot.labels)
        rows.append(
            (
                Cell(slot.arm),
                Cell(str(slot.seed), slot.seed, number=True),
                Cell(share),
                Cell(standing),
                Cell(str(run.state.epoch), run.state.epoch, number=True),
                Cell(
                    "" if knn is None else f"{100 * knn:.2f}", -1 if knn is None else knn, "", True
                ),
                Cell(run.state.verdict or ""),
                Cell(f"{run.wall_s / 60:.1f}", run.wall_s, number=True),
                Cell(slot.run),
            )
        )
    columns = ("arm", "seed", "labels", "state", "epoch", "newest kNN, %", "verdict", "min", "run")
    caption = "Every run of the study"
    return Table("runs", caption, columns, tuple(rows), *_file(evidence, columns, rows, "runs"))


def results_csv(evidence: StudyEvidence) -> str:
    """The whole table as a data URI, as `stopgrad study table --format csv` prints it."""
    return _data_uri(as_csv(evidence.results) + "\n")


def _block(results: Results, metric: str) -> Table:
    study = results.stored.study
    shares = labels_of(metric, study.protocol)
    beside = study.published is not None and any(
        place.metric == metric for place in study.published.values
    )
    heads = [text for share in shares for text in (_head(metric, share), "published")]
    columns = (unit_text(metric), *(heads if beside else heads[::2]))
    rows = [row for row in results.rows if row.place.metric == metric and not row.final]
    made = []
    for name in dict.fromkeys(BESIDE.get(row.of, row.place.arm) for row in rows):
        own = {r.place.labels: r for r in rows if BESIDE.get(r.of, r.place.arm) == name}
        cells = [cell for share in shares for cell in _pair(results, own[share], beside=beside)]
        made.append((Cell(name), *cells))
    if "chance" in study.protocol.beside and metric in ACCURACIES:
        chance = 100 / results.stored.data["classes"]
        guess = [Cell(f"{chance:.2f}", chance / 100, number=True), *([Cell("")] if beside else [])]
        made.append((Cell("chance"), *(guess * len(shares))))
    return Table("scores", _caption(results, metric), columns, tuple(made))


def _head(metric: str, share: float) -> str:
    return labels_text(share) if metric in ACCURACIES else "here"


def _pair(results: Results, row: Row, *, beside: bool) -> list[Cell]:
    value = published_value(results, row)
    ours = _written(row.cell, row.place.metric, mark=row.mark or "")
    theirs = Cell(value_text(value), value.mean if value else -1, number=True)
    return [ours, theirs] if beside else [ours]


def _written(runs: Runs, metric: str, *, mark: str = "") -> Cell:
    mean = runs.summary.mean if runs.summary is not None else -1.0
    shown = mark if mark in ("best", "level") else ""
    text, _, note = cell_text(runs, metric).partition(", ")
    return Cell(text, mean, shown, number=True, note=note)


def _number(results: Results, place: Place) -> Cell:
    runs = results.cells.get(place)
    return Cell("") if runs is None else _written(runs, place.metric)


def _verdicts(results: Results, arm: str) -> str:
    """`complete collapse in 3 of 3`, by the newest measurement of each run."""
    states = [
        results.runs[slot.run].state.verdict or "unknown"
        for slot in results.stored.slots
        if slot.arm == arm
    ]
    return ", ".join(f"{s} in {states.count(s)} of {len(states)}" for s in dict.fromkeys(states))


def _final(results: Results) -> Table:
    rows = [row for row in results.rows if row.final]
    name = rows[0].place.arm if rows else ""
    cells = tuple(
        (
            Cell(f"{metric_text(row.place.metric)}, {labels_text(row.place.labels)}"),
            _written(row.cell, row.place.metric),
        )
        for row in rows
    )
    caption = "Test split, scored once, for the arm chosen on the validation split alone"
    return Table("final", caption, (name, "here, %"), cells)


def _caption(results: Results, metric: str) -> str:
    study = results.stored.study
    what = metric_text(metric)
    named = what if what[1:2].isupper() else what[0].upper() + what[1:]  # kNN begins small
    start = f"{named}: mean ± standard deviation (number of runs)"
    if study.published is None or all(p.metric != metric for p in study.published.values):
        return start
    return f"{start}; published: {study.published.source}, n = {study.published.seeds}"


def _file(
    evidence: StudyEvidence, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]], name: str
) -> tuple[str, str]:
    """A table as it is shown, as a data URI, and a name for it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{c.text}, {c.note}" if c.note else c.text for c in row] for row in rows)
    return _data_uri(text.getvalue()), f"{evidence.name}-{name}.csv"


def _data_uri(text: str) -> str:
    return f"data:text/csv;base64,{base64.b64encode(text.encode(errors='replace')).decode()}"
