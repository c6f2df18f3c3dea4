"""A study from its records as text: Markdown, CSV or JSON; half a study gives half a table.

What is missing is listed below the tables, run by run. Every mean stands with its spread and its
count. No torch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Literal

from stopgrad.evaluation import confidence_interval, correction_text
from stopgrad.report.study_tables import final_table, finding_table, published_value, score_table
from stopgrad.report.table import as_markdown, one_line
from stopgrad.studies import (
    Answered,
    ResultRow,
    Results,
    StudyDirectory,
    answer_findings,
    best_arm,
    load_results,
    missing_runs,
    read_epochs,
    run_text,
    seed_curves,
    sentence,
    slot_text,
)

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
    study, summary = results.stored.study, row.cell.summary
    interval = confidence_interval(summary) if summary is not None else None
    value = published_value(results, row)
    return {
        "study": study.name,
        "arm": row.place.arm,
        "of": row.of,
        "metric": row.place.metric,
        "labels": row.place.labels,
        "split": row.split,
        "mean": summary.mean if summary else None,
        "std": summary.std if summary else None,
        "n": summary.n if summary else 0,
        "low_95": interval.low if interval else None,
        "high_95": interval.high if interval else None,
        "mark": row.mark,
        "dimensional": row.cell.dimensional,
        "collapsed": row.cell.collapsed,
        "diverged": row.cell.diverged,
        "failed": row.cell.failed,
        "missing": row.cell.missing,
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
