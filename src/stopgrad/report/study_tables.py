"""A study's results -> its tables: scores beside the published, components, findings, runs.

Built once, for `stopgrad study table`, the page and the poster alike. No torch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Literal

from stopgrad.evaluation import (
    ACCURACIES,
    Cell,
    confidence_interval,
    correction_text,
    labels_text,
    mean_text,
    metric_text,
    unit_text,
)
from stopgrad.report.table import Column, Emphasis, Table, TableCell, as_markdown, one_line
from stopgrad.studies import (
    Answer,
    Answered,
    ResultRow,
    Results,
    StudyDirectory,
    Value,
    answer_findings,
    best_arm,
    labels_of,
    load_results,
    missing_runs,
    read_epochs,
    run_text,
    seed_curves,
    sentence,
    slot_text,
)

BESIDE = {"untrained": "untrained encoder", "pixels": "raw pixels"}
ABSENT = -1.0  # what a cell without a number is sorted by
# What may have become of runs that are not sound, by its field of `Cell`.
ENDS = {
    "dimensional": "dimensional collapse",
    "collapsed": "collapsed",
    "diverged": "diverged",
    "failed": "failed",
    "missing": "missing",
}
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

    `measured` is the head over a measure of collapse, which needs no labels.
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
    names = (f"{metric_text(r.place.metric)}, {labels_text(r.place.labels)}" for r in rows)
    means = (mean_cell(row.cell, row.place.metric) for row in rows)
    cells = tuple(zip(map(TableCell, names), means, strict=True))
    caption = "Test split, scored once, for the arm chosen on the validation split alone"
    columns = (Column(rows[0].place.arm), Column("here, %", "right"))
    return Table("final", columns, cells, caption)


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


def published_value(results: Results, row: ResultRow) -> Value | None:
    """The published number of the same cell, under the same split."""
    published = results.stored.study.published
    if published is None or row.final or row.of in BESIDE:
        return None
    return published.values.get(row.place)


def _name(row: ResultRow) -> str:
    return BESIDE.get(row.of, row.place.arm)


def _score_cells(results: Results, row: ResultRow) -> list[TableCell]:
    """Our number, then the published one, as it was printed, where a study has any."""
    best: Emphasis = "strong" if row.mark in ("best", "level") else ""
    ours = mean_cell(row.cell, row.place.metric)._replace(emphasis=best)
    if results.stored.study.published is None:
        return [ours]
    value = published_value(results, row)
    if value is None:
        return [ours, TableCell("", ABSENT)]
    places = 2 if value.mean >= 1 else 3
    spread = "" if value.std is None else f" ± {value.std:.{places}f}"
    return [ours, TableCell(f"{value.mean:.{places}f}{spread}", value.mean)]


def mean_cell(cell: Cell, metric: str) -> TableCell:
    """A mean with its spread and count, and what became of the runs that are not in it."""
    counts = {name: getattr(cell, name) for name in ENDS}
    ends = [f"{n} {ENDS[name]}" for name, n in counts.items() if n]
    note = ", ".join(ends)
    if cell.summary is None:
        return TableCell("" if note else "no runs", ABSENT, note=note)
    mean, std, n = cell.summary
    return TableCell(mean_text(mean, std, metric), mean, n, note)


def _caption(results: Results, metric: str) -> str:
    study = results.stored.study
    what = metric_text(metric)
    named = what if what[1:2].isupper() else what[0].upper() + what[1:]  # kNN begins small
    start = f"{named}: mean ± standard deviation (number of runs)"
    if study.published is None or all(p.metric != metric for p in study.published.values):
        return start
    return f"{start}; published: {study.published.source}, n = {study.published.seeds}"


Format = Literal["markdown", "csv", "json"]


def study_table(directory: StudyDirectory, name: str, *, form: Format) -> str:
    """The tables of a study that was begun in a directory.

    Raises:
        DataError: When there is no such study.
    """
    results = load_results(directory, directory.read(name))
    match form:
        case "markdown":
            return study_markdown(results)
        case "csv":
            return study_csv(results)
        case "json":
            return study_json(results, directory)


def study_parts(directory: StudyDirectory, name: str) -> Iterator[Table | str]:
    """The same as tables and sentences, for a terminal; errors as of `study_table`."""
    results = load_results(directory, directory.read(name))
    study, findings = results.stored.study, finding_table(results)
    yield f"{study.name}: {study.question}"
    yield f"{conditions(results)}\n"
    yield from score_tables(results)
    yield f"{_definitions(results)}\n\nFinding: {sentence(results)}\n"
    if findings.rows:
        yield findings
    for slot, run in missing_runs(results):
        yield f"incomplete: {one_line(slot_text(slot))}: {run_text(run)}"
    yield cost(results)


def study_markdown(results: Results) -> str:
    """A study as its tables, its findings, what is missing and what it cost."""
    return "\n".join(_paragraphs(results))


def study_csv(results: Results) -> str:
    """A study's cells, one a line, with everything about each."""
    text = io.StringIO()
    rows = [_cell(results, row) for row in results.rows]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def study_json(results: Results, directory: StudyDirectory) -> str:
    """A study's cells, findings and curves as JSON."""
    stored = results.stored
    points = seed_curves(read_epochs(directory, stored), lambda row: row.get("knn"))
    values = {
        "study": stored.study.name,
        "question": stored.study.question,
        "conditions": conditions(results),
        "preset": stored.preset,
        "overrides": dict(stored.overrides),
        "data": stored.data._asdict(),
        "seeds": list(stored.seeds),
        "selected": stored.selected,
        "protocol": stored.study.protocol._asdict(),
        "cells": [_cell(results, row) | {"values": list(row.cell.values)} for row in results.rows],
        "finding": sentence(results),
        "findings": [_answer(answered) for answered in answer_findings(results)],
        "missing": [
            {"arm": slot.arm, "seed": slot.seed, "labels": slot.labels, "why": run_text(run)}
            for slot, run in missing_runs(results)
        ],
        "cost": cost(results),
        "knn_over_epochs": [
            {"arm": p.arm, "epoch": p.epoch, **p.summary._asdict()} for p in points
        ],
    }
    return json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)


def conditions(results: Results) -> str:
    """Data, settings, seeds and split, in a line."""
    stored = results.stored
    changed = "".join(f" --{key} {value}" for key, value in stored.overrides.items())
    return f"{stored.data.name}, preset {stored.preset}{changed}, {scored(results)}"


def scored(results: Results) -> str:
    """Seeds, the images that were scored, and the arm that was chosen by them."""
    stored = results.stored
    split = stored.study.protocol.split
    images = {
        record.images_scored
        for run in results.runs.values()
        for key, record in run.numbers.items()
        if key.split == split
    }
    count = f" ({', '.join(f'{n:,}' for n in sorted(images))} images)" if images else ""
    chosen = f" Selected on it for the test split: {stored.selected!r}." if stored.selected else ""
    best = best_arm(results) if stored.selected else None
    if best not in (None, stored.selected):
        chosen += f" By all of its seeds {best!r} is best now; the choice was made once and stays."
    return f"seeds {', '.join(map(str, stored.seeds))}, {split} split{count}, last epoch.{chosen}"


def cost(results: Results) -> str:
    """Time and energy of all runs, with the factors behind them."""
    runs = results.runs.values()
    hours = sum(run.wall_s for run in runs) / 3600
    spent = [run.energy for run in runs if run.energy is not None]
    metered = "" if len(spent) == len(runs) else f" of {len(spent)} of them"
    kwh = sum(energy.kwh for energy in spent)
    energy = f", training{metered} about {kwh:.3g} kWh" if spent else ""
    sources = {(e.source, e.watts, e.kg_co2_per_kwh) for e in spent}
    how = [
        f"{source}{f' of {watts:g} W' if watts else ''}, {factor:g} kg CO2 per kWh"
        for source, watts, factor in sorted(sources, key=str)
    ]
    factors = f" ({'; '.join(dict.fromkeys(how))})" if how else ""
    return f"Cost: {len(results.runs)} runs, {hours:.2f} hours of processes{energy}{factors}."


def bold_text(results: Results) -> str:
    """What bold means, and which runs a mean holds."""
    correction = correction_text(results.stored.study.protocol.correction)
    return (
        f"Bold: the best arm and every arm that is not separated from it ({correction}, in each "
        "column). Collapsed runs are part of the mean and counted; diverged and failed ones have "
        "no number."
    )


def _paragraphs(results: Results) -> Iterator[str]:
    study = results.stored.study
    yield f"## {study.name}"
    yield f"\n{study.question}\n"
    yield conditions(results)
    for metric in study.protocol.metrics:
        yield f"\n{as_markdown(score_table(results, metric, measured='all labels'))}"
    final, findings = final_table(results), finding_table(results)
    if final is not None:
        yield f"\n{final.caption}:\n\n{as_markdown(final)}"
    yield f"\n{_definitions(results)}"
    yield f"\n**Finding.** {sentence(results)}"
    if findings.rows:
        yield f"\n{findings.caption}.\n\n{as_markdown(findings)}"
    missing = missing_runs(results)
    if missing:
        yield f"\nIncomplete, {len(missing)} of {len(results.stored.slots)} runs:\n"
    for slot, run in missing:
        yield f"- {one_line(slot_text(slot))}: {run_text(run)}"
    yield f"\n{cost(results)}"


def _definitions(results: Results) -> str:
    published = results.stored.study.published
    text = (
        "Mean ± standard deviation of the sample (n - 1 below the fraction) over seeds (n). "
        f"{bold_text(results)}"
    )
    if published is not None:
        text += f" Published: {published.source}, {published.seeds} seeds."
    return text


def _cell(results: Results, row: ResultRow) -> dict[str, Any]:
    """A cell with everything about it; accuracies as fractions, published ones in percent."""
    summary, place = row.cell.summary, row.place
    interval = confidence_interval(summary) if summary is not None else None
    value = published_value(results, row)
    return {
        "study": results.stored.study.name,
        "arm": place.arm,
        "of": row.of,
        "metric": place.metric,
        "labels": place.labels,
        "split": row.split,
        **(summary._asdict() if summary else {"mean": None, "std": None, "n": 0}),
        "low_95": interval.low if interval else None,
        "high_95": interval.high if interval else None,
        "mark": row.mark,
        **{name: getattr(row.cell, name) for name in ENDS},
        "published_mean": value.mean if value else None,
        "published_std": value.std if value else None,
    }


def _answer(answered: Answered) -> dict[str, Any]:
    test = answered.test
    return {
        "says": answered.finding.says,
        "answer": answered.answer,
        "why": answered.why,
        "difference": test.difference if test else None,
        "p": test.p if test else None,
        "p_corrected": answered.p,
    }
