"""Scores of a study -> accuracy against the share of the labels, with the supervised baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stopgrad.evaluation import ACCURACIES, SUPERVISED, metric_text
from stopgrad.report.figures.marks import HOLLOW, series_marks
from stopgrad.report.figures.palette import HEIGHT, WIDTH, layered, styled
from stopgrad.report.figures.scores import Score, as_row

if TYPE_CHECKING:
    import altair as alt

MOST_SERIES = 8


def share_chart(
    found: Sequence[Score], *, width: int = WIDTH, height: int = HEIGHT + 50
) -> alt.LayerChart:
    """A line per arm and metric over the share of the labels; hollow marks are published.

    Args:
        found: Scores of one study; baselines and measures of collapse are passed over.
        width: px of the inside.
        height: px of the inside.
    """
    import altair as alt

    chosen = [s for s in found if s.metric in ACCURACIES and not s.baseline]
    many = len({s.arm for s in chosen if s.metric != SUPERVISED}) > 1
    names = list(dict.fromkeys(_name(s, many=many) for s in chosen if not s.published))
    values = [
        as_row(
            score,
            share=f"{100 * score.labels:g} %",
            name=_name(score, many=many),
            published=score.published,
            collapsed=score.collapsed,
        )
        for score in chosen
        if _name(score, many=many) in names[:MOST_SERIES]
    ]
    order = [f"{100 * share:g} %" for share in sorted({s.labels for s in chosen})]
    axis = alt.Axis(labelAngle=0, grid=False)
    x = alt.X("share:N", title="share of the training labels", sort=order, axis=axis)
    x = x.scale(type="point", padding=0.25)
    y = alt.Y("value:Q", title=None).scale(zero=False, nice=True)
    subtitle = HOLLOW if any(row["published"] for row in values) else ""
    marks = series_marks(values, names[:MOST_SERIES], x=x, y=y)
    return styled(
        layered(
            *marks, title=alt.Title("accuracy, %", subtitle=subtitle), width=width, height=height
        )
    )


def _name(score: Score, *, many: bool) -> str:
    """`linear probe`, or `alpha_h 2/3, linear probe` where several arms are compared."""
    metric = metric_text(score.metric)
    return metric if score.metric == SUPERVISED or not many else f"{score.arm}, {metric}"
