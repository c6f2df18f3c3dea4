"""A run's records -> bars beside the baselines and a dot plot of the classes; and its network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jinja2

from stopgrad.config import TIMM, Config
from stopgrad.evaluation import (
    SUBJECTS,
    Record,
    class_name,
    labels_text,
    metric_text,
    newest,
    percent,
)
from stopgrad.report.evidence import Evidence, StudyEvidence
from stopgrad.report.facts import metrics_of
from stopgrad.report.style import (
    PALETTE,
    SERIES,
    SHAPES,
    Figure,
    Spec,
    drawn,
    encoded,
    layered,
    light,
    mark,
    nominal,
    numeric,
    plot,
    styled,
)
from stopgrad.storage import printable

BAR = 26  # px from one bar to the next
CLASS = 22  # px from one class to the next
MOST_CLASSES = 30  # beyond that, the best and the worst of them are drawn
LONGEST = 14  # letters of the encoder's name that a box of the architecture holds


def accuracy_figures(evidence: Evidence) -> list[Figure]:
    """Bars for every metric, with the baselines."""
    records, classes = evidence.scored, len(evidence.class_names)
    chance = 1 / classes if classes else None
    guess = f" Dashed: guessing among {classes} classes." if classes else ""
    return [
        drawn(
            metric,
            accuracy_chart(records, metric, chance=chance),
            label=f"Bars: {metric_text(metric)} accuracy, as in the table of results.",
            caption=f"Top-1 accuracy by {metric_text(metric)}.{guess}",
        )
        for metric in metrics_of(records)
    ]


def class_figures(evidence: Evidence) -> list[Figure]:
    """Accuracy of each class by the first metric that has it."""
    records = [r for r in evidence.scored if r.per_class and r.labels == 1]
    if not any(record.of == "encoder" for record in records):
        return []
    names, metric = evidence.class_names, metrics_of(records)[0]
    few = " Only the best 15 and the worst 15 are shown." if len(names) > MOST_CLASSES else ""
    label = f"Points: {metric_text(metric)} accuracy of each class, the encoder's best first."
    caption = f"Accuracy of each class by {metric_text(metric)} with all labels, best first.{few}"
    chart = per_class_chart(records, names, metric)
    return [drawn("classes", chart, label=label, caption=caption)]


def accuracy_chart(
    records: Sequence[Record], metric: str = "knn_accuracy", *, chance: float | None = None
) -> Spec:
    """Accuracy of the encoder beside its baselines, a block of bars per fraction of the labels.

    Records of other metrics are ignored; the accuracy of guessing is a dashed line.
    """
    chosen = [record for record in newest(records).values() if record.metric == metric]
    subjects = _subjects(chosen)
    axis = {"values": list(range(0, 101, 20))}
    x = numeric("value", title=None, scale={"domain": [0, 118]}, axis=axis)
    y = nominal("name", title=None, sort=subjects)
    bars = mark("bar", height=BAR - 8, cornerRadiusEnd=3)
    bars = encoded(bars, x=x, y=y, color=_by_subject(subjects), description=nominal("text"))
    labels = mark("text", align="left", dx=6, fontSize=13, color=light("ink"), aria=False)
    layers = [bars, encoded(labels, x=x, y=y, text=nominal("label"))]
    if chance is not None:
        look: Spec = {"strokeDash": [3, 3], "strokeWidth": 1, "opacity": 0.7, "aria": False}
        rule = mark("rule", color=light("ink"), **look)
        layers.append(encoded(rule, x={"datum": 100 * chance}))
    fractions = sorted({record.labels for record in chosen}, reverse=True)
    header = {"labelOrient": "top", "labelAnchor": "start", "labelPadding": 4}
    order = [labels_text(fraction) for fraction in fractions]
    return styled(
        {
            "data": {"values": [_bar(record) for record in chosen]},
            "facet": {"row": nominal("labels", sort=order, title=None, header=header)},
            "spec": layered(*layers, height={"step": BAR}),
            "spacing": 12,
            "title": f"{metric_text(metric)} accuracy, %",
        }
    )


def per_class_chart(
    records: Sequence[Record], class_names: Sequence[str], metric: str = "knn_accuracy"
) -> Spec:
    """Accuracy of each class with all labels, best class of the encoder first.

    Of more than 30 classes the 15 best and the 15 worst are drawn.
    """
    chosen = [
        r for r in newest(records).values() if r.metric == metric and r.labels == 1 and r.per_class
    ]
    subjects, order = _subjects(chosen), _ranking(chosen)
    values = [row for record in chosen for row in _dots(record, class_names, classes=order)]
    titles = [class_name(class_names, index) for index in order]
    # Rows are identified by their index, because two classes may share a name.
    expression = f"{json.dumps(titles)}[toNumber(datum.value)]"  # JSON is a part of Vega's language
    axis = {"labelExpr": expression, "grid": True, "labelOverlap": False, "labelLimit": 150}
    points = mark("point", values, filled=True, size=70, opacity=1)
    shapes = {"domain": subjects, "range": list(SHAPES)}
    return plot(
        encoded(
            points,
            color=_by_subject(subjects, legend={"symbolType": "circle", "symbolSize": 90}),
            shape=nominal("name", scale=shapes),
            description=nominal("text"),
        ),
        x=numeric("value", title=None, scale={"domain": [0, 100]}),
        y=nominal("place", title=None, sort=[str(n) for n in range(len(order))], axis=axis),
        title=f"{metric_text(metric)} accuracy of each class, %",
        height={"step": CLASS},
    )


def _subjects(records: Sequence[Record]) -> list[str]:
    return [name for of, name in SUBJECTS.items() if of in {r.of for r in records}]


def _by_subject(subjects: list[str], *, legend: Spec | None = None) -> Spec:
    colors = {"domain": subjects, "range": [light(role) for role in SERIES]}
    return nominal("name", legend=legend, scale=colors)


def _bar(record: Record) -> dict[str, Any]:
    name, labels = SUBJECTS[record.of], labels_text(record.labels)
    label = percent(record.value, images=record.images_scored)
    text = f"{name}, {labels}: {label}"
    value = 100 * record.value
    return {"value": value, "name": name, "labels": labels, "label": label, "text": text}


def _ranking(records: Sequence[Record]) -> list[int]:
    """Classes from the best to the worst of the encoder; of many, those at either end.

    A class without images is left out.
    """
    first = min(records, key=lambda record: list(SUBJECTS).index(record.of)).per_class
    known = {index: value for index, value in enumerate(first) if value is not None}
    order = sorted(known, key=lambda index: (-known[index], index))
    half = MOST_CLASSES // 2
    return order if len(order) <= MOST_CLASSES else order[:half] + order[-half:]


def _dots(
    record: Record, class_names: Sequence[str], *, classes: list[int]
) -> list[dict[str, Any]]:
    images, name = max(1, record.images_scored // len(record.per_class)), SUBJECTS[record.of]
    rows = []
    for place, index in enumerate(classes):
        accuracy = record.per_class[index]
        if accuracy is not None:
            text = f"{class_name(class_names, index)}, {name}: {percent(accuracy, images=images)}"
            rows.append({"value": 100 * accuracy, "place": str(place), "name": name, "text": text})
    return rows


def architecture_figures(evidence: Evidence | StudyEvidence, *, letters: int = 0) -> list[Figure]:
    """The network of a pretraining as configured, or that of a study's baseline."""
    config, name = evidence.config, "this run"
    if isinstance(evidence, StudyEvidence):
        name = repr(printable(evidence.results.stored.study.baseline))
    elif evidence.info.task != "pretrain":
        config = None
    if config is None:
        return []
    text = (
        f"The network of {name}. Both views pass through the same weights. Blue arrows carry the "
        "gradient, which stops at the red bars. A removed part is dashed and red."
    )
    return [
        drawn("architecture", architecture_svg(config, letters=letters), label=text, caption=text)
    ]


def architecture_svg(config: Config, *, letters: int = 0) -> str:
    """SimSiam as `architecture.svg` draws it: the first of the two symmetric terms of the loss.

    A removed part has a dashed red outline and says so. Letters are 12 and 14 px large,
    plus `letters` px.
    """
    projector, predictor = config.projector, config.predictor
    widths = f"{projector.out} → {predictor.hidden} → {projector.out}"
    norms = (  # the BN of the heads, and where the drawing says that one is removed: x and y, px
        (projector.output_bn, ("output BN of g", 282, 84)),
        (projector.hidden_bn, ("hidden BN of g", 282, 105)),
        (predictor.hidden_bn or not predictor.enabled, ("hidden BN of h", 420, 126)),
    )
    loader, strict = jinja2.PackageLoader("stopgrad.report", "."), jinja2.StrictUndefined
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=strict)
    return environment.get_template("architecture.svg").render(
        {role: tone.light for role, tone in PALETTE.items()},
        views=f"{config.views.size} px",
        encoder=config.encoder.name.removeprefix(TIMM)[:LONGEST],
        projector=f"{projector.hidden} → {projector.out}",
        predictor=widths if predictor.enabled else "",
        stop_gradient=config.stop_gradient,
        weights="moving average" if config.target == "momentum" else "same weights",
        letters=letters,
        lost=[lost for there, lost in norms if not there],
    )
