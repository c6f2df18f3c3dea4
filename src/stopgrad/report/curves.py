"""Rows of metrics.jsonl -> figures over the epochs: loss, kNN, measures of collapse, spectra."""

from __future__ import annotations

import itertools
import math
import operator
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stopgrad.evaluation import (
    ABSENT,
    CHARTED,
    LAYERS,
    MEASURE_NAMES,
    SPACE,
    SUBJECTS,
    Record,
    number,
    percent,
)
from stopgrad.report.evidence import Evidence, LoggedRows, epoch_rows, images_measured
from stopgrad.report.style import (
    SERIES,
    SHAPES,
    Figure,
    Spec,
    dots,
    drawn,
    encoded,
    line,
    nominal,
    numeric,
    plot,
    told_apart,
)

Point = tuple[float, float]  # epoch and value

MOST_POINTS = 300  # of the line of single steps; more would not be seen at this width
MOST_TICKS = 7  # of the time axis
MOST_LINES = 5  # moments of the training whose spectrum is drawn
FEW_POINTS = 40  # up to which points are drawn large; more are small, only for tooltips


def curve_figures(evidence: Evidence) -> list[Figure]:
    """Loss and kNN accuracy over the epochs, where they were measured."""
    figures, metrics = [], evidence.metrics
    losses, scored = (series(metrics, key) for key in ("loss", "knn"))
    if evidence.epochs:
        finding = _change("Loss", losses, lambda x: number(x, digits=3))
        caption = (
            "Negative cosine similarity of the two views. Points: means of the epochs; thin line: "
            f"single steps. {finding}"
        )
        label = f"Line: the loss over the epochs. {finding}"
        figures.append(drawn("loss", loss_chart(metrics), label=label, caption=caption))
    if scored:
        images, config = evidence.images_watched, evidence.info.config.knn
        finding = _change("kNN", scored, lambda x: percent(x, images=images))
        caption = (
            f"Measured during the run on the {evidence.watched_split} images: at most "
            f"k{SPACE}={SPACE}{config.k}, T{SPACE}={SPACE}{config.temperature:g}, cosine. {finding}"
        )
        label = f"Line: kNN accuracy over the epochs. {finding}"
        chart = knn_chart(metrics, evidence.watched)
        figures.append(drawn("knn", chart, label=label, caption=caption))
    return figures


def measure_figures(evidence: Evidence) -> list[Figure]:
    """The measures that reveal a collapse."""
    if not any(row.get("measures") for row in evidence.epochs):
        return []
    return [
        drawn(
            measure,
            measure_chart(evidence.metrics, measure),
            label=f"Lines: {MEASURE_NAMES[measure].title} of three layers over the epochs.",
            caption=f"{measure_caption(measure)} On {images_measured(evidence.epochs)}.",
        )
        for measure in CHARTED
    ]


def spectrum_figures(metrics: LoggedRows, *, of: str = "") -> list[Figure]:
    """How z fills its directions, and the predictor along each, where spectra were taken.

    `of` names the run where it is one of several.
    """
    found = spectra_of(metrics)
    if not found:
        return []
    ranks, weights = (found[-1]["spectra"][key] for key in ("ranks", "representation"))
    ratio = number(weights[-1] / weights[0], digits=2)
    epoch, last = found[-1]["epoch"], ranks[-1]
    fell = f"At epoch {epoch}, direction {last} has {ratio} times the weight of the first."
    named = f"Of {of}. " if of else ""
    return [
        drawn(
            "spectrum",
            spectrum_chart(metrics),
            label=f"Lines: eigenvalues of z by rank, at several epochs. {named}{fell}",
            caption=f"{named}How much of z lies along each direction, the strongest first "
            f"(eigenvalues of its second moment, on {images_measured(found)}). Flat is healthy: "
            f"many directions are used; steep means few. {fell}",
        ),
        *predictor_figures(metrics, named=named),
    ]


def predictor_figures(metrics: LoggedRows, *, named: str = "") -> list[Figure]:
    """The predictor's gain along each direction of z; none where it has no gain along the first.

    `named` is the sentence that names the run, with a space.
    """
    points, row = predictor_points(metrics), spectra_of(metrics)[-1]
    if not points:
        return []
    law = (
        "How much of each direction of z the predictor keeps. In theory it keeps what tells "
        "images apart and drops what differs between views of one: its gain is proportional to "
        "the part of the variance that lies between images "
        f"(ICC, on {images_measured([row])}; dashed)."
    )
    if not row["spectra"].get("between"):
        law = (
            "How much of each direction of z the predictor keeps. This run did not record the part "
            "of the variance between images, to which the gain is proportional in theory. "
            "Dashed: proportional to the root of the eigenvalue (Tian et al. 2021)."
        )
    power = exponent(row["spectra"])
    says = "" if power is None else f"The gain scales as the eigenvalue to the power {power:.2f}."
    label = f"Points: the gain of the predictor along each direction of z. {named}{says}"
    chart = predictor_chart(metrics)
    return [drawn("predictor-spectrum", chart, label=label, caption=f"{named}{law} {says}")]


def measure_caption(measure: str) -> str:
    """What a measure of collapse means, and its healthy and collapsed values."""
    known = MEASURE_NAMES[measure]
    says = known.meaning[0].upper() + known.meaning[1:]
    return f"{says}. Healthy: {known.healthy}; collapsed: {known.collapsed}."


def collapse_finding(evidence: Evidence) -> str:
    """The verdicts over the epochs: `Verdict: healthy in epochs 1–3.`."""
    parts = []
    stated = zip(evidence.states, evidence.epochs, strict=True)
    for state, rows in itertools.groupby(stated, operator.itemgetter(0)):
        epochs = [row["epoch"] for _, row in rows]
        first, last = epochs[0], epochs[-1]
        where = f"epoch {first}" if first == last else f"epochs {first}{ABSENT}{last}"
        parts.append(f"{state or 'unknown'} in {where}")
    return f"Verdict: {'; '.join(parts)}." if parts else ""


def _change(name: str, points: list[Point], written: Callable[[float], str]) -> str:
    if not points:
        return ""
    ends = [f"{written(value)} at epoch {epoch}" for epoch, value in (points[0], points[-1])]
    return f"{name}: from {ends[0]} to {ends[1]}." if len(points) > 1 else f"{name}: {ends[0]}."


def series(metrics: LoggedRows, key: str) -> list[Point]:
    """One number over the epochs at which it was taken."""
    rows = epoch_rows(metrics)
    return [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]


def step_losses(metrics: LoggedRows) -> list[Point]:
    """Losses of the single steps over time, averaged over neighbours to at most 300 points."""
    epochs = epoch_rows(metrics)
    steps = [row for row in metrics if row.get("kind") == "step" and row.get("loss") is not None]
    if not epochs:
        return []
    per_epoch = epochs[-1]["step"] / epochs[-1]["epoch"]
    size = max(1, -(-len(steps) // MOST_POINTS))
    bins = (steps[start : start + size] for start in range(0, len(steps), size))
    return [(_mean(rows, "step") / per_epoch, _mean(rows, "loss")) for rows in bins]


def _mean(rows: LoggedRows, key: str) -> float:
    return sum(float(row[key]) for row in rows) / len(rows)


def loss_chart(metrics: LoggedRows) -> Spec:
    """The loss over the epochs: a point per epoch, and a thin line of the steps behind."""
    epochs = [
        {
            "epoch": epoch - 0.5,  # a mean is drawn at the middle of its steps
            "value": value,
            "text": f"epoch {epoch}: loss {number(value, digits=4)}",
        }
        for epoch, value in series(metrics, "loss")
    ]
    steps = [{"epoch": epoch, "value": value} for epoch, value in step_losses(metrics)]
    return plot(
        line(steps, role="third", width=1, opacity=0.6),
        line(epochs, role="first"),
        dots(epochs, size=42 if len(epochs) <= FEW_POINTS else 16),
        x=epoch_axis(epoch_rows(metrics)[-1]["epoch"]),
        y=numeric("value", title=None, scale={"zero": False}),
        title="loss",
    )


def knn_chart(metrics: LoggedRows, records: Sequence[Record] = ()) -> Spec:
    """kNN accuracy over the epochs, of which at least one was scored.

    The untrained encoder and raw pixels are level lines: kNN with all labels, on the same images.
    """
    images = max((record.images_scored for record in records), default=1000)
    epochs: list[dict[str, Any]] = [
        {
            "epoch": epoch,
            "value": 100 * value,
            "name": SUBJECTS["encoder"],
            "text": f"epoch {epoch}: kNN {percent(value, images=images)}",
        }
        for epoch, value in series(metrics, "knn")
    ]
    last = epochs[-1]["epoch"]
    knn = {r.of: r for r in records if r.metric == "knn_accuracy" and r.labels == 1}
    levels = [
        {"epoch": epoch, "value": 100 * knn[of].value, "name": SUBJECTS[of]}
        for of in ("untrained", "pixels")
        if of in knn
        for epoch in (0, last)
    ]
    rows = [*epochs, *levels]
    return plot(
        encoded(line(rows), **told_apart(list(dict.fromkeys(row["name"] for row in rows)))),
        dots(epochs, size=42 if len(epochs) <= FEW_POINTS else 16),
        x=epoch_axis(last),
        y=numeric("value", title=None, scale={"zero": False, "nice": True}),
        title="kNN accuracy, %",
    )


def epoch_axis(last: float, *, first: float = 0.0) -> Spec:
    """The time axis, from the first to the last epoch that is drawn, whole epochs only."""
    first = first if first < last else 0.0
    axis = {"format": "d", "values": _ticks(first, last), "grid": False}
    scale = {"domain": [first, last], "nice": False}
    return numeric("epoch", title="epoch", axis=axis, scale=scale)


def _ticks(first: float, last: float) -> list[int]:
    """Whole epochs at round intervals, seven at most."""
    wide = last - first
    steps = (size * 10**power for power in range(9) for size in (1, 2, 5))
    step = next(step for step in steps if wide / step <= MOST_TICKS - 1)
    return list(range(math.ceil(first / step) * step, math.floor(last) + 1, step))


def measure_chart(metrics: LoggedRows, measure: str) -> Spec:
    """One of `MEASURE_NAMES` over the epochs: features, projector output before its BN, and z."""
    rows = [
        {
            "epoch": row["epoch"],
            "value": value,
            "name": (name := LAYERS.get(layer, layer)),
            "text": f"epoch {row['epoch']}, {name}: {number(value)}",
        }
        for row in epoch_rows(metrics)
        for layer, measures in (row.get("measures") or {}).items()
        if (value := measures.get(measure)) is not None
    ]
    epochs, names = [row["epoch"] for row in rows] or [0.0, 1.0], list(LAYERS.values())
    size = 36 if len(rows) <= len(names) * FEW_POINTS else 12
    # One layer of points per series, with fixed colour and shape: the lines alone make the legend.
    points = [
        dots([r for r in rows if r["name"] == name], size=size, role=role, shape=shape)
        for name, role, shape in zip(names, SERIES, SHAPES, strict=False)
    ]
    return plot(
        encoded(line(rows), **told_apart(names)),
        *points,
        x=epoch_axis(max(epochs), first=min(epochs)),
        y=numeric("value", title=None, scale={"zero": True, "nice": True}),
        title=MEASURE_NAMES[measure].title,
    )


def spectra_of(metrics: LoggedRows) -> list[Mapping[str, Any]]:
    """The epochs that have spectra of at least three directions."""
    rows = [row for row in epoch_rows(metrics) if row.get("spectra")]
    return [row for row in rows if len(row["spectra"]["ranks"]) >= 3]


def spectrum_chart(metrics: LoggedRows) -> Spec:
    """Eigenvalues of E[z z^T] by their rank, both logarithmic, at moments of the training."""
    found = spectra_of(metrics)
    count = min(MOST_LINES, len(found))  # the first, the last and some between them
    chosen = [found[round(n * (len(found) - 1) / max(1, count - 1))] for n in range(count)]
    names = [f"epoch {row['epoch']}" for row in chosen]
    rows = [point for row, name in zip(chosen, names, strict=True) for point in _weights(row, name)]
    shades = [0.25 + 0.75 * place / max(1, len(names) - 1) for place in range(len(names))]
    opacity = nominal(
        "name",
        legend={"symbolType": "stroke", "columns": 3},
        scale={"type": "ordinal", "domain": names, "range": shades},
    )
    sizes = {"tickCount": 4, "format": ".0e"}
    return plot(
        encoded(line(rows, role="first", width=2.2), opacity=opacity),
        dots([row for row in rows if row["name"] == names[-1]], size=24),
        x=numeric(
            "rank",
            title="direction, by its weight",
            scale={"type": "log", "nice": False},
            axis={"grid": False, "tickCount": 4, "format": "~s"},
        ),
        y=numeric("value", title=None, scale={"type": "log"}, axis=sizes),
        title="spectrum of z",
    )


def _weights(row: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The eigenvalues of one epoch, by their rank."""
    spectra = row["spectra"]
    for rank, value in zip(spectra["ranks"], spectra["representation"], strict=True):
        text = f"{name}, rank {rank}: {number(value)}"
        yield {"rank": rank, "value": value, "name": name, "text": text}


def predictor_chart(metrics: LoggedRows) -> Spec:
    """The predictor's gain along each direction of z, last epoch, and the line that theory draws.

    Both axes are relative to the first direction, so the line has no free parameter.
    """
    points = predictor_points(metrics)
    rows = [
        {"along": x, "value": y, "text": f"{number(x)}: gain {number(y)} of the first direction's"}
        for x, y in points
    ]
    theory = [{"along": x, "value": x} for x in (f(x for x, _ in points) for f in (min, max))]
    known = spectra_of(metrics)[-1]["spectra"].get("between")
    title = "variance between images (ICC)" if known else "root of the eigenvalue of z"
    return plot(
        line(theory, role="third", width=2, strokeDash=[5, 3]),
        dots(rows, size=50),
        x=numeric(
            "along",
            title=f"{title}, first direction = 1",
            scale={"zero": False},
            axis={"grid": False},
        ),
        y=numeric("value", title=None, scale={"zero": False}),
        title="gain of the predictor, first direction = 1",
    )


def predictor_points(metrics: LoggedRows) -> list[Point]:
    """(ICC_j / ICC_1, p_j / p_1) of the last spectra; of older runs (sqrt(s_j / s_1), p_j / p_1).

    Empty where the first direction has no gain, or two views have nothing in common along it.
    """
    spectra = spectra_of(metrics)[-1]["spectra"]
    law = spectra.get("between") or [math.sqrt(value) for value in spectra["representation"]]
    gains = spectra["predictor"]
    if min(law[0], gains[0]) <= 0:
        return []
    return [(x / law[0], p / gains[0]) for x, p in zip(law, gains, strict=True)]


def exponent(spectra: Mapping[str, Sequence[float]]) -> float | None:
    """x of p_j ~ s_j^x by least squares of the logarithms, over the directions with a gain above 0.

    None where fewer than two of them have different eigenvalues.
    """
    pairs = zip(spectra["representation"], spectra["predictor"], strict=True)
    logs = [(math.log(s), math.log(p)) for s, p in pairs if p > 0]
    if len({s for s, _ in logs}) < 2:
        return None
    return statistics.linear_regression(*zip(*logs, strict=True)).slope
