"""Several runs or studies -> the overview before them on a page: one table, and runs overlaid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stopgrad.evaluation import (
    LAYERS,
    MEASURE_NAMES,
    duration,
    folds_text,
    labels_text,
    metric_text,
    number,
    percent,
)
from stopgrad.report.evidence import Evidence, LoggedRow, StudyEvidence, epoch_rows
from stopgrad.report.facts import metrics_of, training_seconds
from stopgrad.report.over_time import arms_over_time, thinned
from stopgrad.report.style import Figure, drawn
from stopgrad.report.table import Column, Table, TableCell
from stopgrad.storage import printable

RANK = "effective_rank"


class Glance(NamedTuple):
    """The overview before several chapters of one kind."""

    title: str
    table: Table
    figures: Sequence[Figure] = ()


def overviews(chapters: Sequence[Evidence | StudyEvidence]) -> list[Glance]:
    """The studies at a glance, then the runs side by side, each where there are several."""
    studies = [each for each in chapters if isinstance(each, StudyEvidence)]
    runs = [each for each in chapters if isinstance(each, Evidence)]
    found = [Glance("Studies at a glance", _study_table(studies))] if len(studies) > 1 else []
    if len(runs) > 1:
        found.append(Glance("Runs side by side", _run_table(runs), _run_figures(runs)))
    return found


def _study_table(studies: Sequence[StudyEvidence]) -> Table:
    """What each study asks, what it found, and how many published findings show."""
    from stopgrad.studies import answer_findings, missing_runs, sentence

    rows = []
    for study in studies:
        stored, answers = study.results.stored, answer_findings(study.results)
        shown = sum(found.answer == "shows" for found in answers)
        findings = f"{shown} of {len(answers)}" if answers else ""
        done = len(stored.slots) - len(missing_runs(study.results))
        texts = (study.name, stored.study.question, sentence(study.results), findings)
        rows.append((*map(TableCell, texts), TableCell(f"{done} of {len(stored.slots)}", done)))
    sentences = (Column(name, wraps=True) for name in ("question", "what was found"))
    counts = (Column(name, "right") for name in ("findings that show", "runs"))
    return Table("studies", (Column("study"), *sentences, *counts), tuple(rows), "The studies")


def _run_table(runs: Sequence[Evidence]) -> Table:
    """A row for each run: what it is, its scores with most labels, and its verdict."""
    scored = [record for run in runs for record in run.scored]
    metrics, several = metrics_of(scored)[:2], len({record.split for record in scored}) > 1
    rows = []
    for run, name in zip(runs, _names(runs), strict=True):
        last = run.epochs[-1] if run.epochs else None
        reach = run.info.extent(last["step"]) if last else None
        pairs = itertools.product(metrics, ("encoder", "untrained"))
        scores = (_score(run, metric, of, name_split=several) for metric, of in pairs)
        seconds, verdict = training_seconds(run), run.judgement
        rows.append(
            (
                TableCell(name),
                TableCell(run.data_name),
                TableCell(run.info.config.encoder.name),
                TableCell(str(len(run.epochs)), len(run.epochs)),
                TableCell(folds_text(reach.folds), reach.folds) if reach else TableCell(),
                *scores,
                TableCell(verdict.state if verdict else ""),
                TableCell(duration(seconds), seconds) if seconds else TableCell(),
            )
        )
    heads = [head for metric in metrics for head in (metric_text(metric), "untrained")]
    columns = (
        *(Column("run"), Column("data"), Column("encoder"), Column("epochs", "right")),
        *(Column(head, "right") for head in ("N", *heads)),
        *(Column("verdict"), Column("training", "right")),
    )
    caption = "The runs, with the most labels that each was scored with"
    return Table("side", columns, tuple(rows), caption).without_empty_columns()


def _score(run: Evidence, metric: str, of: str, *, name_split: bool) -> TableCell:
    own = [record for record in run.scored if record.metric == metric and record.of == of]
    if not own:
        return TableCell()
    best = max(own, key=lambda record: record.labels)
    text = percent(best.value, images=best.images_scored)
    few = [] if best.labels == 1 else [labels_text(best.labels)]
    split = [f"{best.split} split"] if name_split else []
    return TableCell(text, best.value, note=", ".join(few + split))


def _names(runs: Sequence[Evidence]) -> list[str]:
    """The names of runs, or their paths where two share a name."""
    names = [printable(run.name) for run in runs]
    return names if len({*names}) == len(names) else [printable(run.path) for run in runs]


def _run_figures(runs: Sequence[Evidence]) -> list[Figure]:
    """Loss, kNN and effective rank of z, a line for each run that has a curve."""
    rank = f"{MEASURE_NAMES[RANK].title} of {LAYERS['z']}"
    images = max(run.images_watched for run in runs)
    kinds: tuple[tuple[str, str, Callable[[LoggedRow], Any], Callable[[float], str]], ...] = (
        ("loss", "loss", lambda row: row.get("loss"), number),
        ("knn", "kNN accuracy, %", _knn, lambda value: percent(value / 100, images=images)),
        ("rank", rank, lambda row: (row.get("measures") or {}).get("z", {}).get(RANK), number),
    )
    figures = []
    for key, title, pick, written in kinds:
        rows = [
            row
            for run, name in zip(runs, _names(runs), strict=True)
            for row in _curve(run, name, pick, written)
        ]
        if len({row["arm"] for row in rows}) > 1:
            chart = arms_over_time(rows, first=rows[0]["arm"], title=title)
            label = f"Lines: {title} over the epochs, one for each run."
            says = "A line for each run."
            if key == "knn" and len(splits := {run.watched_split for run in runs}) > 1:
                says += f" They were watched on the {' or the '.join(sorted(splits))} split."
            figures.append(drawn(f"runs-{key}", chart, label=label, caption=says))
    return figures


def _knn(row: LoggedRow) -> float | None:
    return None if row.get("knn") is None else 100 * row["knn"]


def _curve(
    run: Evidence, name: str, pick: Callable[[LoggedRow], Any], written: Callable[[float], str]
) -> list[dict[str, Any]]:
    """The points of one run, `thinned`; none if there is only one."""
    found = [(row["epoch"], pick(row)) for row in epoch_rows(run.metrics)]
    points = [(epoch, value) for epoch, value in found if value is not None]
    return [
        {"epoch": epoch, "value": value, "low": value, "high": value, "arm": name}
        | {"text": f"{name}, epoch {epoch}: {written(value)}"}
        for epoch, value in thinned(points)
        if len(points) > 1
    ]
