"""A run -> its tables: scores, epochs, measures of collapse, knobs; protocols and the finding.

No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stopgrad.config import Config, describe_knobs, knob_values
from stopgrad.evaluation import (
    ABSENT,
    LAYERS,
    MEASURE_NAMES,
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
from stopgrad.report.evidence import Evidence
from stopgrad.report.facts import flag_text
from stopgrad.report.table import Column, Table, TableCell

BASELINES: tuple[Subject, ...] = ("untrained", "pixels", "supervised")


def metrics_of(records: Sequence[Record]) -> list[str]:
    """The metrics there are: the known ones in their order, then the others."""
    found = dict.fromkeys(record.metric for record in records)
    return [*(name for name in METRICS if name in found), *(n for n in found if n not in METRICS)]


def score_table(records: Sequence[Record]) -> Table:
    """Top-1 accuracy: a row for each metric and label fraction, a column for each subject.

    Args:
        records: The newest of one run, at least one, of one split.
    """
    subjects: list[Subject] = [of for of in SUBJECTS if of in {r.of for r in records}]
    found = {(r.metric, r.labels, r.of): r for r in records}
    rows = []
    for metric in metrics_of(records):
        for labels in sorted({r.labels for r in records if r.metric == metric}, reverse=True):
            scores = [_score(found.get((metric, labels, of))) for of in subjects]
            scores[0] = scores[0]._replace(emphasis="strong")
            named = TableCell(metric_text(metric)), TableCell(f"{100 * labels:g}{SPACE}%", labels)
            rows.append((*named, *scores, _top5(found.get((metric, labels, "encoder")))))
    heads = ["labels", *(SUBJECTS[of] for of in subjects), f"top-5, {SUBJECTS[subjects[0]]}"]
    columns = (Column("by"), *(Column(head, "right") for head in heads))
    caption = "Top-1 accuracy, by the fraction of the training labels that was used"
    return Table("results", columns, tuple(rows), caption)


def protocol_lines(records: Sequence[Record]) -> list[str]:
    """How each metric was scored."""
    return [_protocol(records, metric) for metric in metrics_of(records)]


def finding(records: Sequence[Record]) -> str:
    """What pretraining gained over each baseline, by the first metric and the most labels.

    A difference within two standard errors of two independent samples is called none.
    """
    if not records:
        return ""
    metric, labels = metrics_of(records)[0], max(record.labels for record in records)
    found = {r.of: r for r in records if r.metric == metric and r.labels == labels}
    encoder = found.get("encoder")
    if encoder is None:
        return ""
    start = (
        f"By {metric_text(metric)} with {labels_text(labels)} the pretrained encoder reaches "
        f"{percent(encoder.value, images=encoder.images_scored)}"
    )
    others = [_compared(encoder, found[of]) for of in BASELINES if of in found]
    return f"{start}: {' and '.join(others)}." if others else f"{start}."


def epoch_table(evidence: Evidence) -> Table:
    """The numbers behind the curves."""
    images = evidence.images_watched
    rows = tuple(
        (
            TableCell(str(row.epoch), row.epoch),
            TableCell(number(row.loss, digits=4), row.loss),
            TableCell(number(row.lr), row.lr),
            TableCell(number(row.predictor_lr), row.predictor_lr),
            TableCell(percent(row.knn, images=images), row.knn),
            TableCell(number(row.views_per_s), row.views_per_s),
            TableCell((row.judgement and row.judgement.state) or ABSENT),
        )
        for row in evidence.epochs
    )
    heads = ("epoch", "loss", "lr", "predictor lr", "kNN", "views/s")
    columns = (*(Column(head, "right") for head in heads), Column("verdict"))
    return Table("epochs", columns, rows)


def measure_table(evidence: Evidence) -> Table | None:
    """All measures of collapse at the last epoch that has them; None before any."""
    taken = [row.measures for row in evidence.epochs if row.measures]
    if not taken:
        return None
    rows = tuple(
        (
            TableCell(measure.title),
            *(_measured(taken[-1].get(layer, {}).get(key)) for layer in LAYERS),
            TableCell(measure.healthy),
            TableCell(measure.collapsed),
            TableCell(measure.meaning),
        )
        for key, measure in MEASURE_NAMES.items()
    )
    layers = [Column(layer, "right") for layer in LAYERS.values()]
    ends = Column("healthy"), Column("collapsed")
    columns = (Column("measure"), *layers, *ends, Column("what it says", wraps=True))
    caption = (
        "Measures of the last epoch, on two views of training images, the same ones in every epoch"
    )
    return Table("measures", columns, rows, caption)


def knob_table(config: Config) -> Table:
    """Every knob: its value here, in bold with its default where they differ, and its meaning."""
    values, rows = knob_values(config), []
    for knob in describe_knobs():
        changed = values[knob.key] != knob.default
        cells = TableCell(knob.key), TableCell(flag_text(values[knob.key]))
        default = TableCell(flag_text(knob.default) if changed else "")
        marked = (cell._replace(emphasis="strong") if changed else cell for cell in cells)
        rows.append((*marked, default, TableCell(knob.meaning)))
    columns = (Column("knob"), Column("value"), Column("default"), Column("meaning", wraps=True))
    return Table("knobs", columns, tuple(rows))


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """A protocol in a line: `k 200, temperature 0.1`."""
    parts = []
    for key, value in protocol.items():
        if key == "evaluator" or (key == "k_requested" and value == protocol.get("k")):
            continue
        parts.append(f"{key.replace('_', ' ')} {_value(value)}")
    return ", ".join(parts)


def _compared(encoder: Record, other: Record) -> str:
    difference = encoder.value - other.value
    error = math.sqrt(sum(r.value * (1 - r.value) / r.images_scored for r in (encoder, other)))
    name = {"untrained": "the untrained one", "pixels": "raw pixels"}.get(other.of, other.of)
    gap = points(difference, images=encoder.images_scored)
    if abs(difference) <= 2 * error:
        return f"no clear difference from {name} ({gap} are within the sampling error)"
    return f"{gap} {'above' if difference > 0 else 'below'} {name}"


def _score(record: Record | None) -> TableCell:
    if record is None:
        return TableCell()
    return TableCell(percent(record.value, images=record.images_scored), record.value)


def _top5(record: Record | None) -> TableCell:
    if record is None or record.top5 is None or len(record.per_class) <= 5:
        return TableCell()
    return TableCell(percent(record.top5, images=record.images_scored), record.top5)


def _measured(value: float | None) -> TableCell:
    return TableCell(number(value), value)


def _protocol(records: Sequence[Record], metric: str) -> str:
    """How a metric was taken: all that its records share, then what changes with the labels."""
    own = [record for record in records if record.metric == metric]
    chosen = [record for record in own if record.of == "encoder"] or own
    first = max(chosen, key=lambda record: record.labels)
    shared = {k: v for k, v in first.protocol.items() if all(_same(r, k, v) for r in chosen)}
    where = f"{count(first.images_scored)} images of the {first.split} split"
    when = f", epoch {first.epoch}" if first.epoch else ""
    text = f"{metric_text(metric)}: scored on {where}{when}; {protocol_text(shared)}"
    for record in chosen:
        differs = {k: v for k, v in record.protocol.items() if k not in shared}
        if differs:
            text += f"; with {labels_text(record.labels)}: {protocol_text(differs)}"
    return text + "."


def _same(record: Record, key: str, value: object) -> bool:
    return key in record.protocol and bool(record.protocol[key] == value)


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
