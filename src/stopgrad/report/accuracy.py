"""Records -> bars of accuracy beside the baselines, and a dot plot of the classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stopgrad.evaluation import (
    SUBJECTS,
    Record,
    class_name,
    labels_text,
    metric_text,
    newest,
    percent,
)
from stopgrad.report.style import (
    SERIES,
    SHAPES,
    WIDTH,
    drawn_from,
    layered,
    light,
    styled,
)

if TYPE_CHECKING:
    import altair as alt

BAR = 26  # px from one bar to the next
CLASS = 22  # px from one class to the next
MOST_CLASSES = 30  # beyond that, the best and the worst of them are drawn


def accuracy_chart(
    records: Sequence[Record],
    metric: str = "knn_accuracy",
    *,
    chance: float | None = None,
) -> alt.FacetChart:
    """Accuracy of the encoder beside its baselines, a block of bars per fraction of the labels.

    Args:
        records: Results of one run; other metrics are passed over.
        metric: Which of them to draw.
        chance: Accuracy of guessing, drawn as a dashed line.
    """
    import altair as alt

    chosen = [record for record in newest(records).values() if record.metric == metric]
    subjects = [name for of, name in SUBJECTS.items() if of in {r.of for r in chosen}]
    fractions = sorted({record.labels for record in chosen}, reverse=True)
    base = alt.Chart().encode(y=alt.Y("name:N", title=None, sort=subjects))
    x = alt.X("value:Q", title=None)
    x = x.scale(domain=[0, 118]).axis(values=list(range(0, 101, 20)))
    bars = base.mark_bar(height=BAR - 8, cornerRadiusEnd=3).encode(
        x=x, color=_by_subject(subjects), description="text:N"
    )
    labels = base.mark_text(align="left", dx=6, fontSize=13, color=light("ink"), aria=False)
    layers = [bars, labels.encode(x=x, text="label:N"), *_chance(chance)]
    inside = layered(*layers, width=WIDTH, height=alt.Step(BAR))
    row = alt.Row("labels:N", sort=[labels_text(fraction) for fraction in fractions], title=None)
    row = row.header(labelOrient="top", labelAnchor="start", labelPadding=4)
    values = [_bar(record) for record in chosen]
    chart = inside.facet(row=row, data=alt.InlineData(values=values), spacing=12)
    return styled(chart.properties(title=f"{metric_text(metric)} accuracy, %"))


def per_class_chart(
    records: Sequence[Record], class_names: Sequence[str], metric: str = "knn_accuracy"
) -> alt.LayerChart:
    """Accuracy of each class with all labels, best class of the encoder first.

    Args:
        records: Results of one run that hold accuracies per class.
        class_names: C names; of more than 30 classes the 15 best and the 15 worst are drawn.
        metric: Which of the results to draw.
    """
    import altair as alt

    chosen = [
        r for r in newest(records).values() if r.metric == metric and r.labels == 1 and r.per_class
    ]
    subjects = [name for of, name in SUBJECTS.items() if of in {r.of for r in chosen}]
    order = _extremes(_ranking(chosen))
    values = [row for record in chosen for row in _dots(record, class_names, classes=order)]
    rows = [f"{place}" for place in range(len(order))]
    titles = [class_name(class_names, index) for index in order]
    # Rows are known by their place, because two classes may have one name.
    expression = f"{_expression(titles)}[toNumber(datum.value)]"
    axis = alt.Axis(labelExpr=expression, grid=True, labelOverlap=False, labelLimit=150)
    data = drawn_from(values).encode(
        x=alt.X("value:Q", title=None).scale(domain=[0, 100]),
        y=alt.Y("place:N", title=None, sort=rows, axis=axis),
    )
    dots = data.mark_point(filled=True, size=70, opacity=1).encode(
        color=_by_subject(subjects, legend=alt.Legend(symbolType="circle", symbolSize=90)),
        shape=alt.Shape("name:N").scale(domain=subjects, range=list(SHAPES)),
        description="text:N",
    )
    title = f"{metric_text(metric)} accuracy of each class, %"
    return styled(layered(dots, title=title, width=WIDTH, height=alt.Step(CLASS)))


def _expression(titles: Sequence[str]) -> str:
    """Text as a list in Vega's expression language; JSON is a part of it."""
    return json.dumps(list(titles))


def _by_subject(subjects: list[str], *, legend: Any = None) -> alt.Color:
    import altair as alt

    colors = [light(role) for role in SERIES]
    return alt.Color("name:N", legend=legend).scale(domain=subjects, range=colors)


def _bar(record: Record) -> dict[str, Any]:
    name, labels = SUBJECTS[record.of], labels_text(record.labels)
    label = percent(record.value, images=record.images_scored)
    text = f"{name}, {labels}: {label}"
    value = 100 * record.value
    return {"value": value, "name": name, "labels": labels, "label": label, "text": text}


def _chance(chance: float | None) -> list[alt.Chart]:
    import altair as alt

    if chance is None:
        return []
    rule = alt.Chart().mark_rule(
        color=light("ink"), strokeDash=[3, 3], strokeWidth=1, opacity=0.7, aria=False
    )
    return [rule.encode(x=alt.datum(100 * chance))]


def _ranking(records: Sequence[Record]) -> list[int]:
    """Classes from the best to the worst of the encoder; one without images has no place."""
    first = min(records, key=lambda record: list(SUBJECTS).index(record.of)).per_class
    known = {index: value for index, value in enumerate(first) if value is not None}
    return sorted(known, key=lambda index: (-known[index], index))


def _extremes(order: list[int]) -> list[int]:
    half = MOST_CLASSES // 2
    return order if len(order) <= MOST_CLASSES else order[:half] + order[-half:]


def _dots(
    record: Record, class_names: Sequence[str], *, classes: list[int]
) -> list[dict[str, Any]]:
    images = max(1, record.images_scored // len(record.per_class))
    rows = []
    for place, index in enumerate(classes):
        accuracy = record.per_class[index]
        if accuracy is not None:
            name = SUBJECTS[record.of]
            text = f"{class_name(class_names, index)}, {name}: {percent(accuracy, images=images)}"
            rows.append({"value": 100 * accuracy, "place": str(place), "name": name, "text": text})
    return rows
