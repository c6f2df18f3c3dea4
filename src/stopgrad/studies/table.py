"""The table of a study from its records, as Markdown, CSV or JSON; half a study gives half a one.

What is missing is said below it, run by run. Every mean stands with its spread and its count.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Literal

from stopgrad.evaluation import confidence_interval
from stopgrad.studies.curves import read_epochs, seed_curves
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.findings import Answered, answer_findings, sentence
from stopgrad.studies.markdown import conditions, cost, markdown, published_value, run_text
from stopgrad.studies.results import Results, Row, load_results, missing_runs
from stopgrad.studies.stored import StoredStudy

Format = Literal["markdown", "csv", "json"]


def study_table(directory: StudyDirectory, name: str, *, form: Format) -> str:
    """The table of a study that was begun in a directory.

    Raises:
        DataError: When there is no such study.
    """
    results = load_results(directory, directory.read(name))
    match form:
        case "markdown":
            return markdown(results)
        case "csv":
            return as_csv(results)
        case "json":
            values = as_json(results) | {"knn_over_epochs": _curves(directory, results.stored)}
            return json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)


def as_csv(results: Results) -> str:
    """A study's cells, one a line, with everything about each."""
    text = io.StringIO()
    rows = [_flat(results, row) for row in results.rows]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _flat(results: Results, row: Row) -> dict[str, Any]:
    """A row with everything about it; accuracies as fractions, published ones in percent."""
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


def as_json(results: Results) -> dict[str, Any]:
    """A study's results as JSON can hold them."""
    stored = results.stored
    return {
        "study": stored.study.name,
        "question": stored.study.question,
        "conditions": conditions(results),
        "preset": stored.preset,
        "overrides": dict(stored.overrides),
        "data": dict(stored.data),
        "seeds": list(stored.seeds),
        "selected": stored.selected,
        "protocol": stored.study.protocol._asdict(),
        "cells": [_flat(results, row) | {"values": list(row.cell.values)} for row in results.rows],
        "finding": sentence(results),
        "findings": [_answer(answered) for answered in answer_findings(results)],
        "missing": [
            {"arm": slot.arm, "seed": slot.seed, "labels": slot.labels, "why": run_text(run)}
            for slot, run in missing_runs(results)
        ],
        "cost": cost(results),
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


def _curves(directory: StudyDirectory, stored: StoredStudy) -> list[dict[str, Any]]:
    """The kNN accuracy that runs were watched by, over their epochs."""
    points = seed_curves(read_epochs(directory, stored), lambda row: row.get("knn"))
    return [{"arm": p.arm, "epoch": p.epoch, **p.summary._asdict()} for p in points]
