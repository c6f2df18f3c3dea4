"""A study's results -> its tables: scores beside the published, components, findings, runs.

Built once, for `stopgrad study table`, the page and the poster alike. No torch.
"""

from __future__ import annotations

from stopgrad.evaluation import (
    ACCURACIES,
    MEASURES,
    Cell,
    correction_text,
    labels_text,
    mean_text,
    metric_text,
    unit_text,
)
from stopgrad.report.table import Column, Emphasis, Table, TableCell
from stopgrad.studies import (
    Answer,
    Place,
    ResultRow,
    Results,
    Value,
    answer_findings,
    labels_of,
    run_text,
)

BESIDE = {"untrained": "untrained encoder", "pixels": "raw pixels"}
ABSENT = -1.0  # what a cell without a number is sorted by
ANSWERS: dict[Answer, Emphasis] = {
    "shows": "good",
    "does not show": "wrong",
    "the opposite shows": "wrong",
    "cannot be told yet": "",
}


def score_tables(results: Results) -> list[Table]:
    """A table for each metric that any run can have, then what the chosen arm scores at last.

    Columns without a number are left out.
    """
    known = {row.place.metric for row in results.rows}  # none of supervised without such an arm
    metrics = [metric for metric in results.stored.study.protocol.metrics if metric in known]
    found = [score_table(results, metric).without_empty_columns() for metric in metrics]
    final = final_table(results)
    return found if final is None else [*found, final]


def score_table(results: Results, metric: str, *, measured: str = "here") -> Table:
    """One metric: a row for each arm, ours and the published number for each label fraction.

    Args:
        results: Of the study.
        metric: One of its protocol.
        measured: The head over a measure of collapse, which needs no labels.
    """
    study = results.stored.study
    fractions = labels_of(metric, study.protocol)
    columns = [Column(unit_text(metric))]
    for fraction in fractions:
        columns.append(Column(labels_text(fraction) if metric in ACCURACIES else measured, "right"))
        if study.published is not None:
            columns.append(Column("published", "right", published=True))
    own = [row for row in results.rows if row.place.metric == metric and not row.final]
    rows = []
    for name in dict.fromkeys(_name(row) for row in own):
        cells = {row.place.labels: _score_cells(results, row) for row in own if _name(row) == name}
        rows.append((TableCell(name), *(c for fraction in fractions for c in cells[fraction])))
    if "chance" in study.protocol.beside and metric in ACCURACIES:
        chance = 1 / results.stored.data.classes
        guess = [TableCell(f"{100 * chance:.2f}", chance), TableCell()]
        width = 1 if study.published is None else 2
        rows.append((TableCell("chance"), *guess[:width] * len(fractions)))
    return Table("scores", tuple(columns), tuple(rows), _caption(results, metric))


def final_table(results: Results) -> Table | None:
    """What the arm that the validation split chose scores on the test split, if it was scored."""
    rows = [row for row in results.rows if row.final]
    if not rows:
        return None
    cells = tuple(
        (
            TableCell(f"{metric_text(row.place.metric)}, {labels_text(row.place.labels)}"),
            _mean_cell(row.cell, row.place.metric),
        )
        for row in rows
    )
    caption = "Test split, scored once, for the arm chosen on the validation split alone"
    columns = (Column(rows[0].place.arm), Column("here, %", "right"))
    return Table("final", columns, cells, caption)


def component_table(results: Results) -> Table | None:
    """Each arm with kNN, its measures and verdicts; None where correlation is not measured."""
    study = results.stored.study
    measures = [metric for metric in study.protocol.metrics if metric in MEASURES]
    if "correlation_strength" not in measures:
        return None
    metrics = [m for m in study.protocol.metrics if m in ACCURACIES][:1] + measures
    most, rows = max(study.protocol.labels), []
    for arm in study.arms:
        runs = [results.cells.get(Place(arm.name, metric, most)) for metric in metrics]
        cells = [
            TableCell() if cell is None else _mean_cell(cell, metric)._replace(note="")
            for cell, metric in zip(runs, metrics, strict=True)
        ]  # the verdicts say what became of each run
        rows.append((TableCell(arm.name), *cells, TableCell(_verdicts(results, arm.name))))
    heads = [Column(unit_text(metric), "right") for metric in metrics]
    caption = "Each arm: mean ± standard deviation (runs) of z, and the verdicts on its runs"
    columns = (Column("arm"), *heads, Column("verdict"))
    return Table("components", columns, tuple(rows), caption)


def finding_table(results: Results) -> Table:
    """What was published as a finding, and whether it shows here."""
    rows = tuple(
        (
            TableCell(found.finding.says),
            TableCell(found.answer, emphasis=ANSWERS[found.answer]),
            TableCell(found.why),
        )
        for found in answer_findings(results)
    )
    correction = correction_text(results.stored.study.protocol.correction)
    caption = f"Published findings held against our numbers; p: {correction} over them"
    columns = (Column("published finding"), Column("here"), Column("why", wraps=True))
    return Table("findings", columns, rows, caption)


def run_table(results: Results) -> Table:
    """Every run: how it stands, how long it took, and the newest kNN that it was watched by."""
    rows = []
    for slot in results.stored.slots:
        run = results.runs[slot.run]
        state, knn = run.state, run.state.knn
        trained = state.phase == "trained" and not run.claimed
        rows.append(
            (
                TableCell(slot.arm),
                TableCell(str(slot.seed), slot.seed),
                TableCell("" if slot.labels is None else labels_text(slot.labels)),
                TableCell("trained" if trained else run_text(run)),
                TableCell(str(state.epoch), state.epoch),
                TableCell("", ABSENT) if knn is None else TableCell(f"{100 * knn:.2f}", knn),
                TableCell(state.verdict or ""),
                TableCell(f"{run.wall_s / 60:.1f}", run.wall_s),
                TableCell(slot.run),
            )
        )
    heads = ("arm", "seed", "labels", "state", "epoch", "newest kNN, %", "verdict", "min", "run")
    numbers = ("seed", "epoch", "newest kNN, %", "min")
    columns = tuple(Column(head, "right" if head in numbers else "left") for head in heads)
    return Table("runs", columns, tuple(rows), "Every run of the study")


def published_value(results: Results, row: ResultRow) -> Value | None:
    """The published number of the same cell, under the same split."""
    published = results.stored.study.published
    if published is None or row.final or row.of in BESIDE:
        return None
    return published.values.get(row.place)


def value_text(value: Value) -> str:
    """A published number as it was printed."""
    places = 2 if value.mean >= 1 else 3
    spread = "" if value.std is None else f" ± {value.std:.{places}f}"
    return f"{value.mean:.{places}f}{spread}"


def _name(row: ResultRow) -> str:
    return BESIDE.get(row.of, row.place.arm)


def _score_cells(results: Results, row: ResultRow) -> list[TableCell]:
    """Our number, then the published one where a study has any."""
    best: Emphasis = "strong" if row.mark in ("best", "level") else ""
    ours = _mean_cell(row.cell, row.place.metric)._replace(emphasis=best)
    if results.stored.study.published is None:
        return [ours]
    value = published_value(results, row)
    return [
        ours,
        TableCell("", ABSENT) if value is None else TableCell(value_text(value), value.mean),
    ]


def _mean_cell(cell: Cell, metric: str) -> TableCell:
    ends = [
        f"{count} {name}"
        for name, count in (
            ("dimensional collapse", cell.dimensional),
            ("collapsed", cell.collapsed),
            ("diverged", cell.diverged),
            ("failed", cell.failed),
            ("missing", cell.missing),
        )
        if count
    ]
    note = ", ".join(ends)
    if cell.summary is None:
        return TableCell("" if note else "no runs", ABSENT, note=note)
    mean, std, n = cell.summary
    return TableCell(mean_text(mean, std, metric), mean, n, note)


def _verdicts(results: Results, arm: str) -> str:
    """`complete collapse in 3 of 3`, by the newest measurement of each run."""
    states = [
        results.runs[slot.run].state.verdict or "unknown"
        for slot in results.stored.slots
        if slot.arm == arm
    ]
    return ", ".join(f"{s} in {states.count(s)} of {len(states)}" for s in dict.fromkeys(states))


def _caption(results: Results, metric: str) -> str:
    study = results.stored.study
    what = metric_text(metric)
    named = what if what[1:2].isupper() else what[0].upper() + what[1:]  # kNN begins small
    start = f"{named}: mean ± standard deviation (number of runs)"
    if study.published is None or all(p.metric != metric for p in study.published.values):
        return start
    return f"{start}; published: {study.published.source}, n = {study.published.seeds}"
