"""Records -> the table of results, its protocol in words and its finding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stopgrad.evaluation import (
    METRICS,
    SPACE,
    SUBJECTS,
    Record,
    Subject,
    count,
    labels_text,
    metric_text,
    number,
    percent,
    points,
)

BASELINES: tuple[Subject, ...] = ("untrained", "pixels", "supervised")


class ResultRow(NamedTuple):
    """One metric at one share of the labels."""

    name: str
    labels: str
    cells: tuple[str, ...]  # a subject each
    top5: str


class Results(NamedTuple):
    """A table of results; the rows of one metric stand together."""

    subjects: tuple[str, ...]
    rows: tuple[ResultRow, ...]
    protocols: tuple[str, ...]
    finding: str


def results(records: Sequence[Record]) -> Results:
    """The table of the newest records of one run.

    Args:
        records: At least one, of one split.
    """
    present: tuple[Subject, ...] = tuple(of for of in SUBJECTS if of in {r.of for r in records})
    return Results(
        subjects=tuple(SUBJECTS[of] for of in present),
        rows=tuple(_rows(records, present)),
        protocols=tuple(_protocol(records, metric) for metric in metrics_of(records)),
        finding=finding(records),
    )


def metrics_of(records: Sequence[Record]) -> list[str]:
    """The metrics there are: the known ones in their order, then the others."""
    found = dict.fromkeys(record.metric for record in records)
    return [*(name for name in METRICS if name in found), *(n for n in found if n not in METRICS)]


def finding(records: Sequence[Record]) -> str:
    """What pretraining brought over each baseline, by the first metric and the most labels.

    A difference within two standard errors of two independent samples is called none.
    """
    if not records:
        return ""
    metric, share = metrics_of(records)[0], max(record.labels for record in records)
    found = {r.of: r for r in records if r.metric == metric and r.labels == share}
    encoder = found.get("encoder")
    if encoder is None:
        return ""
    value = percent(encoder.value, images=encoder.images_scored)
    start = (
        f"By {metric_text(metric)} with {labels_text(share)} the pretrained encoder reaches {value}"
    )
    others = [_compared(encoder, found[of]) for of in BASELINES if of in found]
    return f"{start}: {' and '.join(others)}." if others else f"{start}."


def _compared(encoder: Record, other: Record) -> str:
    difference = encoder.value - other.value
    error = math.sqrt(sum(r.value * (1 - r.value) / r.images_scored for r in (encoder, other)))
    name = {"untrained": "the untrained one", "pixels": "raw pixels"}.get(other.of, other.of)
    gap = points(difference, images=encoder.images_scored)
    if abs(difference) <= 2 * error:
        return f"no clear difference from {name} ({gap} are within the sampling error)"
    return f"{gap} {'above' if difference > 0 else 'below'} {name}"


def _rows(records: Sequence[Record], subjects: Sequence[Subject]) -> list[ResultRow]:
    by_place = {(r.metric, r.labels, r.of): r for r in records}
    rows = []
    for metric in metrics_of(records):
        for share in sorted({r.labels for r in records if r.metric == metric}, reverse=True):
            found = [by_place.get((metric, share, of)) for of in subjects]
            first = by_place.get((metric, share, "encoder"))
            rows.append(
                ResultRow(
                    metric_text(metric),
                    f"{100 * share:g}{SPACE}%",
                    tuple(_cell(record) for record in found),
                    _top5(first),
                )
            )
    return rows


def _cell(record: Record | None) -> str:
    return "" if record is None else percent(record.value, images=record.images_scored)


def _top5(record: Record | None) -> str:
    if record is None or record.top5 is None or len(record.per_class) <= 5:
        return ""
    return percent(record.top5, images=record.images_scored)


def _protocol(records: Sequence[Record], metric: str) -> str:
    """How a metric was taken: all that its records share, then what changes with the labels."""
    chosen = [r for r in records if r.metric == metric and r.of == "encoder"] or [
        r for r in records if r.metric == metric
    ]
    first = max(chosen, key=lambda record: record.labels)
    shared = {k: v for k, v in first.protocol.items() if all(_same(r, k, v) for r in chosen)}
    where = f"{count(first.images_scored)} images of the {first.split} split"
    when = f", epoch {first.epoch}" if first.epoch else ""
    text = f"{metric_text(metric)}: scored on {where}{when}; {in_words(shared)}"
    for record in chosen:
        own = {k: v for k, v in record.protocol.items() if k not in shared}
        if own:
            text += f"; with {labels_text(record.labels)}: {in_words(own)}"
    return text + "."


def _same(record: Record, key: str, value: object) -> bool:
    return key in record.protocol and bool(record.protocol[key] == value)


def in_words(protocol: Mapping[str, Any]) -> str:
    """A protocol as a list of words: `k 200, temperature 0.1`."""
    parts = []
    for key, value in protocol.items():
        if key == "evaluator" or (key == "k_requested" and value == protocol.get("k")):
            continue
        parts.append(f"{key.replace('_', ' ')} {_value(value)}")
    return ", ".join(parts)


def _value(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return count(value)
        case float():
            return number(value)
        case list() | tuple():
            return " / ".join(_value(part) for part in value)
    return str(value)
