"""A study's results as Markdown, CSV or JSON: its tables, and all about each cell. No torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Literal

from stopgrad.evaluation import confidence_interval, extent_values, smallest_visible, tied
from stopgrad.report.study_tables import (
    ENDS,
    bold_text,
    cost,
    effect_table,
    final_table,
    finding_table,
    length_text,
    published_value,
    score_table,
    score_tables,
    scored,
    visible_text,
)
from stopgrad.report.table import Table, as_markdown, one_line
from stopgrad.storage import cell_text
from stopgrad.studies import (
    Answered,
    Effect,
    ResultRow,
    Results,
    StudyDirectory,
    answer_findings,
    arm_extents,
    load_results,
    missing_runs,
    read_epochs,
    read_factorial,
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


def study_parts(directory: StudyDirectory, name: str) -> Iterator[Table | str]:
    """The tables and sentences of a study, for a terminal; errors as for `study_table`."""
    results = load_results(directory, directory.read(name))
    study, length, visible = results.stored.study, length_text(results), visible_text(results)
    yield f"{study.name}: {study.question}"
    yield f"{conditions(results)}\n" + (f"{length}\n" if length else "")
    yield from score_tables(results)
    yield str(tied(f"{_definitions(results)}\n\n" + (f"{visible}\n\n" if visible else "")))
    yield str(tied(f"Finding: {sentence(results)}\n"))
    yield from (t for t in (finding_table(results), effect_table(results)) if t and t.rows)
    for slot, run in missing_runs(results):
        yield f"incomplete: {one_line(slot_text(slot))}: {run_text(run)}"
    yield cost(results)


def study_markdown(results: Results) -> str:
    """A study as its tables, its findings, what is missing and what it cost."""
    return "\n".join(_paragraphs(results))


def study_csv(results: Results) -> str:
    """A study's cells, one per line, with everything about each."""
    text = io.StringIO()
    rows = list(_cells(results))
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell_text(value) for key, value in row.items()} for row in rows)
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
        "cells": [
            cell | {"values": list(row.cell.values)}
            for cell, row in zip(_cells(results), results.rows, strict=True)
        ],
        "finding": sentence(results),
        "findings": [_answer(answered) for answered in answer_findings(results)],
        "effects": [_effect(effect) for effect in read_factorial(results)],
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


def _paragraphs(results: Results) -> Iterator[str]:
    study = results.stored.study
    yield f"## {study.name}"
    yield f"\n{study.question}\n"
    yield conditions(results)
    if length := length_text(results):
        yield f"\n{length}"
    for metric in study.protocol.metrics:
        yield f"\n{as_markdown(score_table(results, metric, measured='all labels'))}"
    final, findings = final_table(results), finding_table(results)
    if final is not None:
        yield f"\n{final.caption}:\n\n{as_markdown(final)}"
    yield f"\n{_definitions(results)}"
    if visible := visible_text(results):
        yield f"\n{visible}"
    yield f"\n**Finding.** {sentence(results)}"
    if findings.rows:
        yield f"\n{findings.caption}.\n\n{as_markdown(findings)}"
    effects = effect_table(results)
    if effects is not None:
        yield f"\n{effects.caption}.\n\n{as_markdown(effects)}"
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


def _cells(results: Results) -> Iterator[dict[str, Any]]:
    """Every cell with everything about it, and how far its arm was trained."""
    extents = arm_extents(results)
    for row in results.rows:
        reach = extents.get(row.place.arm) if row.of == "encoder" else None
        far = (
            extent_values(reach) if reach else {"steps": None, "passes": None, "decay_folds": None}
        )
        yield _cell(results, row) | {"mark_unpaired": row.unpaired} | far


def _cell(results: Results, row: ResultRow) -> dict[str, Any]:
    """A cell as values; accuracies as fractions, published ones in percent."""
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
    tested = answered.tested
    return {
        "says": answered.finding.says,
        "answer": answered.answer,
        "why": answered.why,
        "difference": tested.paired.difference if tested else None,
        "p": tested.paired.p if tested else None,
        "p_corrected": tested.p if tested else None,
        "pairs": tested.paired.n if tested else None,
        "p_unpaired": tested.welch.p if tested else None,
        "p_unpaired_corrected": tested.p_of_welch if tested else None,
        "could_see": tested.visible if tested else None,
    }


def _effect(effect: Effect) -> dict[str, Any]:
    test = effect.test
    return {
        "metric": effect.metric,
        "knob": effect.knob,
        "from": effect.low,
        "to": effect.high,
        "difference": test.difference,
        "pairs": test.n,
        "p": test.two_sided,
        "p_corrected": effect.p,
        "could_see": smallest_visible(test.std, test.n, sides=2),
    }
