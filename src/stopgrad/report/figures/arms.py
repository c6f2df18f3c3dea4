"""Scores of a study's arms -> accuracy arm by arm, over the share of the labels, against a knob."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stopgrad.evaluation import ACCURACIES, SUPERVISED, labels_text, metric_text, unit_text
from stopgrad.report.figures.scores import HOLLOW, ArmScore, as_row, level, series_marks
from stopgrad.report.figures.style import (
    FONT_SIZE,
    HEIGHT,
    WIDTH,
    drawn_from,
    layered,
    light,
    styled,
)

if TYPE_CHECKING:
    import altair as alt

ROW = 30  # px from one arm to the next
KINDS = ("ours", "published", "not pretrained", "with collapsed runs")
MOST_SERIES = 8
LOGARITHMIC = 20.0  # ratio of the largest to the smallest value from which the axis is logarithmic
MOST_LINES = 4  # values of the second knob


def arms_chart(
    found: Sequence[ArmScore],
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


def _kind(score: ArmScore) -> str:
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


def share_chart(
    found: Sequence[ArmScore], *, width: int = WIDTH, height: int = HEIGHT + 50
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


def _name(score: ArmScore, *, many: bool) -> str:
    """`linear probe`, or `alpha_h 2/3, linear probe` where several arms are compared."""
    metric = metric_text(score.metric)
    return metric if score.metric == SUPERVISED or not many else f"{score.arm}, {metric}"


class Axis(NamedTuple):
    """The number that the arms of a study differ in, and where each arm lies on it."""

    knob: str  # its key path
    places: Mapping[str, float]  # by arm
    series: Mapping[str, str]  # by arm: the value of a second knob, "" where there is none

    @property
    def logarithmic(self) -> bool:
        """Whether the values span more than an order of magnitude."""
        values = self.places.values()
        return min(values) > 0 and max(values) / min(values) >= LOGARITHMIC


def knob_axis(configs: Mapping[str, Mapping[str, Any]]) -> Axis | None:
    """The axis on which a study's arms lie; None where they differ in another way.

    One knob is a number with at least three values; a second may have a few values.

    Args:
        configs: Knobs by key path, by arm.
    """
    keys = sorted({key for config in configs.values() for key in config} - {"seed"})
    varied = [key for key in keys if len({str(c.get(key)) for c in configs.values()}) > 1]
    numbers = [key for key in varied if all(_is_number(c.get(key)) for c in configs.values())]
    numbers = [key for key in numbers if len({c[key] for c in configs.values()}) >= 3]
    others = [key for key in varied if key not in numbers]
    if len(numbers) != 1 or len(others) > 1:
        return None
    series = {arm: " ".join(_plain(c.get(key)) for key in others) for arm, c in configs.items()}
    places = {arm: float(config[numbers[0]]) for arm, config in configs.items()}
    spots = {(places[arm], series[arm]) for arm in configs}
    if len(spots) < len(configs) or len(set(series.values())) > MOST_LINES:
        return None
    return Axis(numbers[0], places, series)


def knob_chart(
    found: Sequence[ArmScore], axis: Axis, *, chance: float | None = None, width: int = WIDTH
) -> alt.ConcatChart:
    """Accuracy against a knob: a column per metric, a row per share of the labels.

    Args:
        found: Scores of one study.
        axis: From `knob_axis`.
        chance: Accuracy of guessing, in percent, as a red line.
        width: px of the inside of a row.
    """
    import altair as alt

    chosen = [s for s in found if s.metric in ACCURACIES and s.arm in axis.places]
    metrics = list(dict.fromkeys(score.metric for score in chosen))
    shares = sorted({score.labels for score in chosen}, reverse=True)
    domain = _domain(chosen, chance)
    columns = min(2, len(metrics))
    inside = width if columns == 1 else (width - 26) // 2
    panels = [
        _panel(
            [s for s in chosen if (s.metric, s.labels) == (metric, share)],
            axis,
            chance=chance,
            domain=domain,
        ).properties(
            width=inside,
            height=120,
            title=alt.Title(metric_text(metric), subtitle=labels_text(share)),
        )
        for share in shares
        for metric in metrics
    ]
    chart = alt.concat(*panels, columns=columns, spacing=18)
    return styled(chart.properties(title=_key(chosen)))


def _key(chosen: Sequence[ArmScore]) -> alt.Title:
    """What the marks of all panels mean."""
    import altair as alt

    crossed = any(score.collapsed for score in chosen if not score.published)
    keys = [
        *([HOLLOW] if any(score.published for score in chosen) else []),
        *(["red cross: collapsed runs"] if crossed else []),
    ]
    text = ", ".join(keys)
    return alt.Title(text, fontSize=FONT_SIZE, fontWeight="normal", color=light("muted"))


def _panel(
    chosen: Sequence[ArmScore], axis: Axis, *, chance: float | None, domain: list[float]
) -> alt.LayerChart:
    import altair as alt

    names = list(dict.fromkeys(axis.series.values()))
    values = [
        as_row(
            score,
            place=axis.places[score.arm],
            name=axis.series[score.arm],
            published=score.published,
            collapsed=0 if score.published else score.collapsed,
        )
        for score in chosen
    ]
    x = alt.X("place:Q", title=axis.knob.rsplit(".", 1)[-1].replace("_", " "))
    y = alt.Y("value:Q", title=None).scale(domain=domain, nice=False).axis(tickCount=5)
    marks = series_marks(values, names, x=_x(x, axis), y=y)
    return layered(*([] if chance is None else [level(chance)]), *marks)


def _x(x: alt.X, axis: Axis) -> alt.X:
    """Ticks at the values of the arms, written as a person would."""
    import altair as alt

    values = sorted(set(axis.places.values()))
    names = {f"{value!r}": place_text(value) for value in values}
    expression = " : ".join(
        f"abs(datum.value / {value} - 1) < 1e-6 ? {name!r}" for value, name in names.items()
    )
    ticks = alt.Axis(
        values=values, grid=False, labelExpr=f"{expression} : ''", labelAngle=0, labelFontSize=10
    )
    kind: Literal["log", "linear"] = "log" if axis.logarithmic else "linear"
    low, high = values[0], values[-1]
    edges = [low / 1.5, high * 1.5] if axis.logarithmic else _widened(low, high)
    scale = alt.Scale(type=kind, domain=edges, nice=False, zero=False)
    scaled: alt.X = x.axis(ticks).scale(scale)
    return scaled


def place_text(value: float) -> str:
    """`2/3`, `5e-4`, `0.05`, `10`."""
    share = Fraction(value).limit_denominator(9)
    if value and abs(float(share) - value) < 1e-9 and share.denominator in (3, 6, 7, 9):
        return str(share)
    if value and not 1e-2 <= abs(value) < 1e4:
        mantissa, power = f"{value:e}".split("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:g}"


def _widened(low: float, high: float) -> list[float]:
    edge = 0.08 * (high - low)
    return [low - edge, high + edge]


def _domain(chosen: Sequence[ArmScore], chance: float | None) -> list[float]:
    """One scale for all panels, in whole tens of percent."""
    low = min(s.mean - (s.std or 0) for s in chosen)
    high = max(s.mean + (s.std or 0) for s in chosen)
    low = min(low, chance) if chance is not None else low
    return [10.0 * math.floor(low / 10), min(100.0, 10.0 * math.ceil(high / 10))]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: object) -> str:
    return {True: "on", False: "off"}.get(value, "") if isinstance(value, bool) else str(value)
