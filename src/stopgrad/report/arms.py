"""A study's results -> scores, and their charts: arm by arm, over the labels, against a knob."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import altair as alt

from stopgrad.evaluation import (
    ACCURACIES,
    SUPERVISED,
    labels_text,
    mean_and_spread,
    metric_text,
    unit_text,
)
from stopgrad.report.facts import place_text
from stopgrad.report.study_tables import BESIDE
from stopgrad.report.style import (
    FONT_SIZE,
    HALF,
    HEIGHT,
    SERIES,
    SHAPES,
    WIDTH,
    Role,
    Values,
    dots,
    drawn_from,
    layered,
    light,
    line,
    plot,
    styled,
    told_apart,
)
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.studies import Results

ROW = 30  # px from one arm to the next
MOST_SERIES = 8
LOGARITHMIC = 20.0  # ratio of the largest to the smallest value from which the axis is logarithmic
MOST_LINES = 4  # values of the second knob
HOLLOW = "hollow marks: published"
CROSS = "M-1,-1L1,1M1,-1L-1,1"
# Shape, stroke and fill of each kind of mean.
KINDS = {
    "ours": ("circle", light("first"), light("first")),
    "published": ("diamond", light("second"), light("paper")),
    "not pretrained": ("square", light("third"), light("third")),
    "with collapsed runs": ("cross", light("wrong"), light("wrong")),
}


class ArmScore(NamedTuple):
    """One mean of a study; accuracies in percent."""

    arm: str
    metric: str  # as records name it
    labels: float
    mean: float
    std: float | None
    n: int
    collapsed: int = 0  # of the n runs, wholly or to a few dimensions
    values: tuple[float, ...] = ()  # one for each run
    published: bool = False
    baseline: bool = False  # an untrained encoder or raw pixels

    @property
    def is_accuracy(self) -> bool:
        """Whether it is in percent; a measure of collapse is not."""
        return self.metric in ACCURACIES

    @property
    def title(self) -> str:
        """`kNN, 10 % of the labels`."""
        labels = f", {labels_text(self.labels)}" if self.is_accuracy else ""
        return f"{metric_text(self.metric)}{labels}"

    @property
    def written(self) -> str:
        """`61.75 ± 0.20 % (n = 3)`."""
        found = mean_and_spread(self.mean, self.std, percent=self.is_accuracy)
        after = f", {self.collapsed} collapsed" if self.collapsed else ""
        return f"{found} (n = {self.n}{after})"

    @property
    def kind(self) -> str:
        """A key of `KINDS`."""
        if self.published:
            return "published"
        if self.baseline:
            return "not pretrained"
        return "with collapsed runs" if self.collapsed else "ours"

    def row(self, **more: Any) -> dict[str, Any]:
        """A row of a chart, with the sentence that stands under the pointer."""
        spread = self.std or 0.0
        source = "published, " if self.published else ""
        return {
            "value": self.mean,
            "low": self.mean - spread,
            "high": self.mean + spread,
            "arm": self.arm,
            "text": f"{self.arm}, {source}{self.title}: {self.written}",
            "published": self.published,
            "collapsed": 0 if self.published else self.collapsed,
            **more,
        }


def scores(results: Results) -> list[ArmScore]:
    """Every mean of a study, then the published ones; final test scores are left out."""
    found = []
    for row in results.rows:
        if row.final or row.cell.summary is None:
            continue
        scale = 100 if row.place.metric in ACCURACIES else 1
        mean, std, n = row.cell.summary
        found.append(
            ArmScore(
                arm=BESIDE.get(row.of, printable(row.place.arm)),
                metric=row.place.metric,
                labels=row.place.labels,
                mean=scale * mean,
                std=None if std is None else scale * std,
                n=n,
                collapsed=row.cell.collapsed + row.cell.dimensional,
                values=tuple(scale * value for value in row.cell.values if value is not None),
                baseline=row.of in BESIDE,
            )
        )
    published = results.stored.study.published
    if published is None:
        return found
    return found + [
        ArmScore(printable(arm), metric, labels, *value, published.seeds, published=True)
        for (arm, metric, labels), value in published.values.items()
    ]


def of_metric(found: Sequence[ArmScore], metric: str) -> list[ArmScore]:
    """The scores of one metric."""
    return [score for score in found if score.metric == metric]


def arms_chart(
    found: Sequence[ArmScore], metric: str, *, chance: float | None = None
) -> alt.LayerChart:
    """One metric of every arm with all labels, and guessing as a dashed red line.

    Small dots are single runs, hollow diamonds the published means.
    """
    chosen = [score for score in of_metric(found, metric) if score.labels == 1]
    arms = list(dict.fromkeys(score.arm for score in chosen if not score.published))
    chosen = [score for score in chosen if score.arm in arms]
    kinds = [kind for kind in KINDS if kind in {score.kind for score in chosen}]
    values = [score.row(kind=score.kind) for score in chosen]
    runs = [{"value": v, "arm": s.arm} for s in chosen if s.n > 1 for v in s.values]
    legend = alt.Legend(symbolSize=90, columns=2) if len(kinds) > 1 else None
    channels = {"shape": alt.Shape, "stroke": alt.Stroke, "fill": alt.Fill}
    by_kind = {
        name: channel("kind:N", legend=legend).scale(
            domain=kinds, range=[KINDS[kind][place] for kind in kinds]
        )
        for place, (name, channel) in enumerate(channels.items())
    }
    small = drawn_from(runs).mark_point(
        filled=True, size=14, opacity=0.7, color=light("third"), aria=False
    )
    means = drawn_from(values).mark_point(size=95, strokeWidth=2, opacity=1)
    marks = [
        _bars(values, role="muted", width=1.6).encode(x2="high:Q"),
        small,
        means.encode(description="text:N", **by_kind),
    ]
    x = alt.X("value:Q", title=None).scale(zero=False, nice=True)
    y = alt.Y("arm:N", title=None, sort=arms, axis=alt.Axis(labelLimit=190, grid=True))
    marks = [mark.encode(x=x, y=y) for mark in marks]
    if chance is not None:
        marks.insert(0, _level(x=alt.datum(chance)))
    return plot(*marks, title=unit_text(metric), width=WIDTH - 100, height=alt.Step(ROW))


def labels_chart(found: Sequence[ArmScore]) -> alt.LayerChart:
    """A line per arm and metric over the fraction of the labels; hollow marks are published.

    Baselines and measures of collapse are left out.
    """
    chosen = [s for s in found if s.is_accuracy and not s.baseline]
    many = len({s.arm for s in chosen if s.metric != SUPERVISED}) > 1
    names = list(dict.fromkeys(_series_name(s, many=many) for s in chosen if not s.published))
    names = names[:MOST_SERIES]
    values = [
        score.row(fraction=f"{100 * score.labels:g} %", name=name)
        for score in chosen
        if (name := _series_name(score, many=many)) in names
    ]
    order = [f"{100 * fraction:g} %" for fraction in sorted({s.labels for s in chosen})]
    axis = alt.Axis(labelAngle=0, grid=False)
    x = alt.X("fraction:N", title="fraction of the training labels", sort=order, axis=axis)
    x = x.scale(type="point", padding=0.25)
    y = alt.Y("value:Q", title=None).scale(zero=False, nice=True)
    subtitle = HOLLOW if any(row["published"] for row in values) else ""
    title = alt.Title("accuracy, %", subtitle=subtitle)
    return plot(*series_marks(values, names), x=x, y=y, title=title, height=HEIGHT + 50)


def _series_name(score: ArmScore, *, many: bool) -> str:
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
    """The axis on which a study's arms lie, from the knobs of each; None where they differ else.

    One knob is a number with at least three values; a second may have a few values.
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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: object) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def knob_chart(
    found: Sequence[ArmScore], axis: Axis, *, chance: float | None = None
) -> alt.ConcatChart:
    """Accuracy against a knob: a column per metric, a row per fraction of the labels.

    Guessing, in percent, is a red line.
    """
    chosen = [s for s in found if s.is_accuracy and s.arm in axis.places]
    metrics = list(dict.fromkeys(score.metric for score in chosen))
    names = list(dict.fromkeys(axis.series.values()))
    x = _knob_x(axis)
    y = alt.Y("value:Q", title=None).axis(tickCount=5)
    y = y.scale(domain=_score_range(chosen, chance), nice=False)
    panels = []
    for fraction in sorted({score.labels for score in chosen}, reverse=True):
        for metric in metrics:
            own = [s for s in of_metric(chosen, metric) if s.labels == fraction]
            rows = [s.row(place=axis.places[s.arm], name=axis.series[s.arm]) for s in own]
            marks = [mark.encode(x=x, y=y) for mark in series_marks(rows, names)]
            below = [] if chance is None else [_level(y=alt.datum(chance))]
            title = alt.Title(metric_text(metric), subtitle=labels_text(fraction))
            width = WIDTH if len(metrics) == 1 else HALF
            panels.append(layered(*below, *marks, width=width, height=120, title=title))
    published = any(score.published for score in chosen)
    crossed = any(score.collapsed for score in chosen if not score.published)
    key = ", ".join([HOLLOW] * published + ["red cross: collapsed runs"] * crossed)
    title = alt.Title(key, fontSize=FONT_SIZE, fontWeight="normal", color=light("muted"))
    chart = alt.concat(*panels, columns=min(2, len(metrics)), spacing=18)
    return styled(chart.properties(title=title))


def _knob_x(axis: Axis) -> alt.X:
    """Ticks at the values of the arms, written as a person would."""
    values = sorted(set(axis.places.values()))
    expression = " : ".join(
        f"abs(datum.value / {value} - 1) < 1e-6 ? {place_text(value)!r}" for value in values
    )
    ticks = alt.Axis(
        values=values, grid=False, labelExpr=f"{expression} : ''", labelAngle=0, labelFontSize=10
    )
    low, high = values[0], values[-1]
    edge = 0.08 * (high - low)
    edges = [low / 1.5, high * 1.5] if axis.logarithmic else [low - edge, high + edge]
    kind: Literal["log", "linear"] = "log" if axis.logarithmic else "linear"
    x = alt.X("place:Q", title=axis.knob.rsplit(".", 1)[-1].replace("_", " ")).axis(ticks)
    scaled: alt.X = x.scale(alt.Scale(type=kind, domain=edges, nice=False, zero=False))
    return scaled


def _score_range(chosen: Sequence[ArmScore], chance: float | None) -> list[float]:
    """One scale for all panels, in whole tens of percent."""
    low = min(s.mean - (s.std or 0) for s in chosen)
    high = max(s.mean + (s.std or 0) for s in chosen)
    low = min(low, chance) if chance is not None else low
    return [10.0 * math.floor(low / 10), min(100.0, 10.0 * math.ceil(high / 10))]


def series_marks(values: Values, names: list[str]) -> list[alt.Chart]:
    """A line per name with points and error bars; published ones hollow, collapsed ones crossed.

    The rows are those of `ArmScore` with a `name`.
    """
    ours = [row for row in values if not row["published"]]
    crossed = [row for row in values if row["collapsed"]]
    marks = [line(ours, width=2.2).encode(**told_apart(names))]
    for place, name in enumerate(names):
        role, shape = SERIES[place % len(SERIES)], SHAPES[place % len(SHAPES)]
        own = [row for row in ours if row["name"] == name]
        hollow = [row for row in values if row["published"] and row["name"] == name]
        sound = [row for row in own if not row["collapsed"]]
        marks += [
            _bars(own, role=role, width=1.4).encode(y2="high:Q"),
            dots(hollow, size=80, role=role, shape=shape, filled=False),
            dots(sound, size=50, role=role, shape=shape),
        ]
    cross = drawn_from(crossed).mark_point(
        shape=CROSS, size=190, stroke=light("wrong"), strokeWidth=2.6, filled=False
    )
    return [*marks, cross.encode(description="text:N")]


def _bars(values: Values, *, role: Role, width: float) -> alt.Chart:
    """Rules from `low` to `high`, of which a caller names the channel."""
    rules = drawn_from(values).mark_rule(color=light(role), strokeWidth=width, aria=False)
    bars: alt.Chart = rules.transform_calculate(value="datum.low")
    return bars


def _level(**place: Any) -> alt.Chart:
    """A dashed red line at one `x` or one `y`."""
    line = alt.Chart(alt.InlineData(values=[{}])).mark_rule(
        color=light("wrong"), strokeDash=[5, 3], strokeWidth=1.6, aria=False
    )
    rule: alt.Chart = line.encode(**place)
    return rule
