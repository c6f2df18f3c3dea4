"""Scores of a study -> a row per arm: its mean with its spread, its runs, and the published one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stopgrad.evaluation import unit_text
from stopgrad.report.figures.palette import WIDTH, drawn_from, layered, light, styled
from stopgrad.report.figures.scores import Score, as_row

if TYPE_CHECKING:
    import altair as alt

ROW = 30  # px from one arm to the next
KINDS = ("ours", "published", "not pretrained", "with collapsed runs")


def arms_chart(
    found: Sequence[Score],
    metric: str,
    *,
    labels: float = 1.0,
    chance: float | None = None,
    width: int = WIDTH - 100,
) -> alt.LayerChart:
    """One metric of every arm; small dots are single runs, hollow diamonds the published means.

    Args:
        found: Scores of one study.
        metric: Which of them to draw.
        labels: At which share of the labels.
        chance: The value of guessing, as a dashed red line.
        width: px of the inside.
    """
    import altair as alt

    chosen = [s for s in found if s.metric == metric and s.labels == labels]
    arms = list(dict.fromkeys(score.arm for score in chosen if not score.published))
    chosen = [score for score in chosen if score.arm in arms]
    kinds = [kind for kind in KINDS if kind in {_kind(score) for score in chosen}]
    values = [as_row(score, kind=_kind(score)) for score in chosen]
    runs = [{"value": v, "arm": s.arm} for s in chosen if s.n > 1 for v in s.values]
    y = alt.Y("arm:N", title=None, sort=arms, axis=alt.Axis(labelLimit=190, grid=True))
    x = alt.X("value:Q", title=None).scale(zero=False, nice=True)
    bars = drawn_from(values).mark_rule(strokeWidth=1.6, color=light("muted"), aria=False)
    dots = drawn_from(runs).mark_point(
        filled=True, size=14, opacity=0.7, color=light("third"), aria=False
    )
    means = drawn_from(values).mark_point(size=95, strokeWidth=2, opacity=1)
    marks = [
        bars.transform_calculate(value="datum.low").encode(y=y, x=x, x2="high:Q"),
        dots.encode(x=x, y=y),
        means.encode(x=x, y=y, description="text:N", **_told_apart(kinds)),
    ]
    if chance is not None:
        line = alt.Chart(alt.InlineData(values=[{}])).mark_rule(
            color=light("wrong"), strokeDash=[5, 3], strokeWidth=1.6, aria=False
        )
        marks.insert(0, line.encode(x=alt.datum(chance)))
    title = unit_text(metric)
    return styled(layered(*marks, title=title, width=width, height=alt.Step(ROW)))


def _kind(score: Score) -> str:
    if score.published:
        return "published"
    if score.baseline:
        return "not pretrained"
    return "with collapsed runs" if score.collapsed else "ours"


def _told_apart(kinds: list[str]) -> dict[str, Any]:
    """Kinds by colour, shape and filling; no legend for a single one."""
    import altair as alt

    look = {
        "ours": ("circle", light("first"), light("first")),
        "published": ("diamond", light("second"), light("paper")),
        "not pretrained": ("square", light("third"), light("third")),
        "with collapsed runs": ("cross", light("wrong"), light("wrong")),
    }
    legend = alt.Legend(symbolSize=90, columns=2) if len(kinds) > 1 else None
    shapes, strokes, fills = ([look[kind][place] for kind in kinds] for place in range(3))
    return {
        "shape": alt.Shape("kind:N", legend=legend).scale(domain=kinds, range=shapes),
        "stroke": alt.Stroke("kind:N", legend=legend).scale(domain=kinds, range=strokes),
        "fill": alt.Fill("kind:N", legend=legend).scale(domain=kinds, range=fills),
    }
