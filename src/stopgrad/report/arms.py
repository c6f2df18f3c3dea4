"""A study's results -> scores, and their charts: arm by arm, over the labels, against a knob."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
    CROSS,
    HALF,
    HEIGHT,
    SERIES,
    SHAPES,
    WIDTH,
    ChartRows,
    Role,
    Spec,
    dots,
    encoded,
    layered,
    light,
    line,
    mark,
    nominal,
    numeric,
    plot,
    styled,
    told_apart,
)
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.studies import Results

ROW = 30  # px from one arm to the next
MOST_SERIES = len(SERIES)
SMALL = {"width": HALF, "height": 120}  # of one of several panels
LOGARITHMIC = 20.0  # ratio of the largest to the smallest value from which the axis is logarithmic
MOST_LINES = 4  # values of the second knob
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
        """A row of a chart, with the sentence of its tooltip."""
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
                collapsed=row.cell.collapsed_in_all,
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


def with_most_labels(found: Sequence[ArmScore]) -> list[ArmScore]:
    """The scores with the largest fraction of the labels among them."""
    most = max((score.labels for score in found), default=1.0)
    return [score for score in found if score.labels == most]


def arms_chart(found: Sequence[ArmScore], metric: str, *, chance: float | None = None) -> Spec:
    """One metric of every arm with the most labels, and guessing as a dashed red line.

    Small dots are single runs, hollow diamonds published means.
    """
    chosen = with_most_labels(of_metric(found, metric))
    arms = list(dict.fromkeys(score.arm for score in chosen))
    kinds = [kind for kind in KINDS if kind in {score.kind for score in chosen}]
    values = [score.row(kind=score.kind) for score in chosen]
    runs = [{"value": v, "arm": s.arm} for s in chosen if s.n > 1 for v in s.values]
    legend = {"symbolSize": 90, "columns": 2} if len(kinds) > 1 else None
    by_kind = {
        channel: nominal(
            "kind",
            legend=legend,
            scale={"domain": kinds, "range": [KINDS[kind][place] for kind in kinds]},
        )
        for place, channel in enumerate(("shape", "stroke", "fill"))
    }
    small = mark("point", runs, filled=True, size=14, opacity=0.7, color=light("third"), aria=False)
    means = mark("point", values, size=95, strokeWidth=2, opacity=1)
    marks = [
        encoded(_bars(values, role="muted", width=1.6), x2={"field": "high"}),
        small,
        encoded(means, description=nominal("text"), **by_kind),
    ]
    scale = {"zero": False, "nice": True, "padding": 8}  # so that no mark lies on a name
    x = numeric("value", title=None, scale=scale, axis={"tickCount": 5})
    y = nominal("arm", title=None, sort=arms, axis={"labelLimit": 230, "grid": True})
    marks = [encoded(each, x=x, y=y) for each in marks]
    if chance is not None:
        marks.insert(0, _level(x={"datum": chance}))
    return plot(*marks, title=unit_text(metric), width=WIDTH - 100, height={"step": ROW})


def labels_chart(found: Sequence[ArmScore], names: Sequence[str] = ()) -> Spec:
    """A line per arm and metric over the fraction of the labels; published ones are hollow.

    Baselines and measures of collapse are left out. Series are coloured by their index in
    `names`, by default all of them.
    """
    names = list(names or series_names(found))
    chosen = [s for s in found if s.is_accuracy and not s.baseline]
    named = ((s, next((n for n in _series_of(s) if n in names), None)) for s in chosen)
    values = [
        score.row(fraction=f"{100 * score.labels:g} %", name=name)
        for score, name in named
        if name is not None
    ]
    order = [f"{100 * fraction:g} %" for fraction in sorted({s.labels for s in chosen})]
    x = nominal(
        "fraction",
        title="fraction of the training labels",
        sort=order,
        axis={"labelAngle": 0, "grid": False},
        scale={"type": "point", "padding": 0.25},
    )
    y = numeric("value", title=None, scale={"zero": False, "nice": True})
    marks = series_marks(values, names)
    return plot(*marks, x=x, y=y, title="accuracy, %", height=HEIGHT + 50)


def series_names(found: Sequence[ArmScore]) -> list[str]:
    """`linear probe`, or `a, linear probe` where several arms are compared; ten at most."""
    chosen = [s for s in found if s.is_accuracy and not s.baseline]
    many = len({s.arm for s in chosen if s.metric != SUPERVISED}) > 1
    names = (_series_of(s)[many and s.metric != SUPERVISED] for s in chosen)
    return list(dict.fromkeys(names))[:MOST_SERIES]


def _series_of(score: ArmScore) -> tuple[str, str]:
    """The series that a score may belong to: its metric's, or its arm's."""
    metric = metric_text(score.metric)
    return metric, f"{score.arm}, {metric}"


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
    """The axis on which a study's arms lie, from the knobs of each; None if they differ otherwise.

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


def knob_chart(found: Sequence[ArmScore], axis: Axis, *, chance: float | None = None) -> Spec:
    """Accuracy against a knob: a panel for each metric and fraction of the labels, each zoomed.

    A single panel is as large as any chart. Guessing, in percent, is a red line.
    """
    chosen = [s for s in found if s.is_accuracy and s.arm in axis.places]
    kinds = sorted({(-s.labels, s.metric) for s in chosen})
    below = [] if chance is None else [_level(y={"datum": chance})]
    names, panels = list(dict.fromkeys(axis.series.values())), []
    for fraction, metric in kinds:
        own = [s for s in of_metric(chosen, metric) if s.labels == -fraction]
        rows = [s.row(place=axis.places[s.arm], name=axis.series[s.arm]) for s in own]
        domain = _score_range(own, chance)
        y = numeric("value", title=None, axis={"tickCount": 5})
        y |= {"scale": {"domain": domain, "clamp": True, "nice": False, "zero": False}}
        shared = {"x": _knob_x(axis), "y": y}
        marks = [encoded(each, **shared) for each in series_marks(rows, names)]
        title = {"text": f"{metric_text(metric)}, %", "subtitle": labels_text(-fraction)}
        size = {"width": WIDTH, "height": HEIGHT} if len(kinds) == 1 else SMALL
        panels.append(layered(*below, *marks, title=title, **size))
    if len(panels) == 1:
        return styled(panels[0])
    columns = len({metric for _, metric in kinds})
    return styled({"concat": panels, "columns": min(2, columns), "spacing": 18})


def _knob_x(axis: Axis) -> Spec:
    """Ticks at the values of the arms, written as a person would."""
    values = sorted(set(axis.places.values()))
    expression = " : ".join(
        f"abs(datum.value - {value}) <= {1e-6 * abs(value)} ? {place_text(value)!r}"
        for value in values
    )
    ticks = {"values": values, "grid": False, "labelExpr": f"{expression} : ''"}
    ticks |= {"labelAngle": 0, "labelFontSize": 10}
    low, high = values[0], values[-1]
    edge = 0.08 * (high - low)
    edges = [low / 1.5, high * 1.5] if axis.logarithmic else [low - edge, high + edge]
    scale = {"type": "log" if axis.logarithmic else "linear", "domain": edges}
    title = axis.knob.rsplit(".", 1)[-1]
    return numeric("place", title=title, axis=ticks, scale=scale | {"nice": False, "zero": False})


def _score_range(chosen: Sequence[ArmScore], chance: float | None) -> list[float]:
    """The range of these scores with their spread, widened to a few whole steps."""
    low = max(0.0, min(s.mean - (s.std or 0) for s in chosen))
    high = min(100.0, max(s.mean + (s.std or 0) for s in chosen))
    low = min(low, chance) if chance is not None else low
    step = next(step for step in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0) if high - low <= 6 * step)
    return [step * math.floor(low / step), min(100.0, step * (math.floor(high / step) + 1))]


def series_marks(values: ChartRows, names: Sequence[str]) -> list[Spec]:
    """A line per name with points and error bars; published ones hollow, collapsed ones crossed.

    The rows are those of `ArmScore` with a `name`, all of them ours or all of them published.
    """
    crossed = [row for row in values if row["collapsed"]]
    marks = [encoded(line(values, width=2.2), **told_apart(names))]
    for place, name in enumerate(names):
        role, shape = SERIES[place % len(SERIES)], SHAPES[place % len(SHAPES)]
        own = [row for row in values if row["name"] == name]
        hollow = [row for row in own if row["published"]]
        sound = [row for row in own if not row["collapsed"] and not row["published"]]
        marks += [
            encoded(_bars(own, role=role, width=1.4), y2={"field": "high"}),
            dots(hollow, size=80, role=role, shape=shape, filled=False),
            dots(sound, size=50, role=role, shape=shape),
        ]
    look = {"stroke": light("wrong"), "strokeWidth": 2.6, "filled": False}
    cross = mark("point", crossed, shape=CROSS, size=190, **look)
    return [*marks, encoded(cross, description=nominal("text"))]


def _bars(values: ChartRows, *, role: Role, width: float) -> Spec:
    """Rules from `low` to `high`; the caller names the channel."""
    words = ("text", "kind")
    rows = [{k: v for k, v in r.items() if k not in words} | {"value": r["low"]} for r in values]
    return mark("rule", rows, color=light(role), strokeWidth=width, aria=False)


def _level(**place: Spec) -> Spec:
    """A dashed red line at one `x` or one `y`."""
    look = {"strokeDash": [5, 3], "strokeWidth": 1.6, "aria": False}
    return encoded(mark("rule", [{}], color=light("wrong"), **look), **place)
