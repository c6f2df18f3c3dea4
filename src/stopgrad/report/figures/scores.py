"""A study's results -> scores, rows of a chart, and the marks that charts of scores share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.evaluation import ACCURACIES, labels_text, mean_and_spread, metric_text
from stopgrad.report.figures.curves import told_apart
from stopgrad.report.figures.style import SERIES, SHAPES, drawn_from, light
from stopgrad.storage import printable

if TYPE_CHECKING:
    import altair as alt

    from stopgrad.studies import Results

HOLLOW = "hollow marks: published"
Values = Sequence[dict[str, Any]]


class ArmScore(NamedTuple):
    """One mean of a study; accuracies in percent."""

    arm: str
    metric: str  # as records name it
    labels: float
    mean: float
    std: float | None
    n: int
    collapsed: int = 0  # of the n runs, wholly or to a few dimensions
    values: tuple[float, ...] = ()  # a run each
    published: bool = False
    baseline: bool = False  # an untrained encoder or raw pixels

    @property
    def title(self) -> str:
        """`kNN, 10 % of the labels`."""
        if self.metric not in ACCURACIES:
            return metric_text(self.metric)
        return f"{metric_text(self.metric)}, {labels_text(self.labels)}"

    @property
    def written(self) -> str:
        """`61.75 ± 0.20 % (n = 3)`."""
        found = mean_and_spread(self.mean, self.std, percent=self.metric in ACCURACIES)
        after = f", {self.collapsed} collapsed" if self.collapsed else ""
        return f"{found} (n = {self.n}{after})"


def scores(results: Results) -> list[ArmScore]:
    """Every mean of a study with what was published beside it; final test scores are left out."""
    rows = []
    for row in results.rows:
        if row.final or row.cell.summary is None:
            continue
        scale = 100 if row.place.metric in ACCURACIES else 1
        mean, std, n = row.cell.summary
        rows.append(
            ArmScore(
                arm={"untrained": "untrained encoder", "pixels": "raw pixels"}.get(
                    row.of, printable(row.place.arm)
                ),
                metric=row.place.metric,
                labels=row.place.labels,
                mean=scale * mean,
                std=None if std is None else scale * std,
                n=n,
                collapsed=row.cell.collapsed + row.cell.dimensional,
                values=tuple(scale * value for value in row.cell.values if value is not None),
                baseline=row.of in ("untrained", "pixels"),
            )
        )
    return rows + _published(results)


def of_metric(found: Sequence[ArmScore], metric: str) -> list[ArmScore]:
    """The scores of one metric."""
    return [score for score in found if score.metric == metric]


def as_row(score: ArmScore, **more: Any) -> dict[str, Any]:
    """A score as a chart takes it, with the sentence that stands under the pointer."""
    spread = score.std or 0.0
    source = "published, " if score.published else ""
    return {
        "value": score.mean,
        "low": score.mean - spread,
        "high": score.mean + spread,
        "arm": score.arm,
        "text": f"{score.arm}, {source}{score.title}: {score.written}",
        **more,
    }


def _published(results: Results) -> list[ArmScore]:
    published = results.stored.study.published
    if published is None:
        return []
    return [
        ArmScore(
            printable(place.arm),
            place.metric,
            place.labels,
            value.mean,
            value.std,
            published.seeds,
            published=True,
        )
        for place, value in published.values.items()
    ]


def series_marks(values: Values, names: list[str], *, x: Any, y: Any) -> list[alt.Chart]:
    """A line per name with points and error bars; published ones hollow, collapsed ones crossed.

    Args:
        values: Rows with `name`, `value`, `low`, `high`, `text`, `published` and `collapsed`.
        names: The series in the order of their colours.
        x: Encoding of the place.
        y: Encoding of `value`.
    """
    data = drawn_from(values)
    lines = data.transform_filter("!datum.published").mark_line(strokeWidth=2.2, aria=False)
    return [
        lines.encode(x=x, y=y, **told_apart(names)),
        *(mark for place, name in enumerate(names) for mark in _points(data, name, place, x, y)),
        crosses(data, x=x, y=y),
    ]


def crosses(data: alt.Chart, *, x: Any, y: Any) -> alt.Chart:
    """A red cross in the place of every mean that holds collapsed runs."""
    chosen = data.transform_filter("datum.collapsed > 0")
    shape = "M-1,-1L1,1M1,-1L-1,1"
    marks: alt.Chart = chosen.mark_point(
        shape=shape, size=190, stroke=light("wrong"), strokeWidth=2.6, filled=False
    )
    return marks.encode(x=x, y=y, description="text:N")


def level(value: float, *, role: Any = "wrong") -> alt.Chart:
    """A dashed horizontal line."""
    import altair as alt

    line = alt.Chart(alt.InlineData(values=[{}])).mark_rule(
        color=light(role), strokeDash=[5, 3], strokeWidth=1.6, aria=False
    )
    rule: alt.Chart = line.encode(y=alt.datum(value))
    return rule


def _points(data: alt.Chart, name: str, place: int, x: Any, y: Any) -> list[alt.Chart]:
    role, shape = SERIES[place % len(SERIES)], SHAPES[place % len(SHAPES)]
    own = data.transform_filter(f"datum.name === {json.dumps(name)}")
    ours = own.transform_filter("!datum.published")
    theirs = own.transform_filter("datum.published")
    bars = ours.mark_rule(color=light(role), strokeWidth=1.4, aria=False)
    sound = ours.transform_filter("!(datum.collapsed > 0)")
    solid = sound.mark_point(filled=True, size=50, opacity=1, color=light(role), shape=shape)
    hollow = theirs.mark_point(filled=False, size=80, opacity=1, color=light(role), shape=shape)
    return [
        bars.transform_calculate(value="datum.low").encode(x=x, y=y, y2="high:Q"),
        hollow.encode(x=x, y=y, description="text:N"),
        solid.encode(x=x, y=y, description="text:N"),
    ]
