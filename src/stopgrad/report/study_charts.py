"""A study -> its figures, each with its protocol and a finding computed from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import methodcaller
from typing import Any

import altair as alt

from stopgrad.evaluation import (
    ACCURACIES,
    CHARTED,
    MEASURE_NAMES,
    SPACE,
    SUPERVISED,
    Record,
    count,
    labels_text,
    mean_and_spread,
    metric_text,
    number,
)
from stopgrad.report.arms import (
    ArmScore,
    Axis,
    arms_chart,
    knob_axis,
    knob_chart,
    labels_chart,
    of_metric,
    scores,
)
from stopgrad.report.curves import epoch_axis, measure_caption, spectrum_figures
from stopgrad.report.evidence import StudyEvidence, images_measured
from stopgrad.report.facts import place_text, protocol_text
from stopgrad.report.style import (
    HALF,
    SERIES,
    Figure,
    Role,
    Values,
    dots,
    drawn,
    drawn_from,
    layered,
    light,
    line,
    plot,
    styled,
    told_apart,
)
from stopgrad.storage import printable
from stopgrad.studies import COLLAPSE, CurvePoint, EpochRow, seed_curves

FEW_ARMS = 4  # up to so many are compared over the label fraction
TOGETHER = 3  # arms that share one panel; more have a panel each, with the others in grey
MOST_POINTS = 40  # of a line; between two drawn epochs others are left out
GROUPS: dict[str, Role] = {"baseline": "first", "other arms": "third", "collapsed arms": "wrong"}


def score_figures(evidence: StudyEvidence) -> list[Figure]:
    """The figures of the table: against a knob or the label fraction, and arm by arm."""
    found = scores(evidence.results)
    study = evidence.results.stored.study
    axis = knob_axis(evidence.knobs) if len(evidence.knobs) == len(study.arms) else None
    figures = []
    if axis is not None and any(s.is_accuracy and s.arm in axis.places for s in found):
        figures.append(_against_knob(evidence, found, axis))
    compared = [s for s in found if s.is_accuracy and not s.baseline and not s.published]
    if len({s.labels for s in compared}) > 1 and len(study.arms) <= FEW_ARMS:
        figures.append(_against_labels(found, compared))
    else:
        by_arm = list(_arm_by_arm(evidence, found))
        figures += by_arm if axis is None else by_arm[:1]
    return figures


def curve_figures(evidence: StudyEvidence) -> list[Figure]:
    """kNN and loss over the epochs, with their spread over seeds."""
    watched, config = "kNN watched during the runs.", evidence.config
    if config is not None:
        watched = (
            f"Watched during the runs: k{SPACE}={SPACE}{config.knn.k} at most, "
            f"T{SPACE}={SPACE}{config.knn.temperature:g}, cosine."
        )
    figures = []
    for key, title, says, percent in (
        ("knn", "kNN accuracy, %", watched, True),
        ("loss", "loss", "Negative cosine similarity of the two views.", False),
    ):
        points = seed_curves(evidence.epochs, methodcaller("get", key))
        if len({point.epoch for point in points}) > 1:  # one moment is no curve
            end = ended(points, percent=percent)
            caption = f"{says} Line: mean over seeds; band: one standard deviation. {end}"
            label = f"Lines: {title} over the epochs, by arm. {end}"
            chart = seeds_chart(points, title=title, percent=percent)
            figures.append(drawn(f"{key}-epochs", chart, label=label, caption=caption))
    return figures


def collapse_figures(evidence: StudyEvidence) -> list[Figure]:
    """The measures of z over the epochs by group, then the spectra of the baseline."""
    baseline = evidence.results.stored.study.baseline
    groups = dict.fromkeys(evidence.epochs, "other arms") | {baseline: "baseline"}
    groups |= dict.fromkeys(collapsed_arms(evidence), "collapsed arms")
    figures = []
    every = [row for runs in evidence.epochs.values() for rows in runs for row in rows]
    for measure in CHARTED:
        points = seed_curves(evidence.epochs, _measure(measure))
        if points:
            title = f"{MEASURE_NAMES[measure].title} of z"
            says = f"{measure_caption(measure)} On {images_measured(every)}. {ended(points)}"
            chart = groups_chart(points, groups, title=title)
            label = f"Lines: {title} over the epochs. {says}"
            figures.append(drawn(measure.replace("_", "-"), chart, label=label, caption=says))
    runs = evidence.epochs.get(baseline) or []
    return figures + (spectrum_figures(runs[0]) if runs else [])


def collapsed_arms(evidence: StudyEvidence) -> list[str]:
    """The arms in which most runs collapsed, by the newest verdict of each."""
    results, found = evidence.results, []
    for arm in sorted(each.name for each in results.stored.study.arms):
        runs = [results.runs[slot.run] for slot in results.stored.slots if slot.arm == arm]
        if 2 * sum(run.state.verdict in COLLAPSE for run in runs) > len(runs):
            found.append(arm)
    return found


def ended(points: Sequence[CurvePoint], *, percent: bool = False) -> str:
    """Where the arms stand at the end, from the lowest to the highest."""
    last = {point.arm: point for point in points}
    order = sorted(last.values(), key=lambda point: point.summary.mean)
    means = [point.summary.mean for point in order]
    texts = [f"{100 * mean:.2f}{SPACE}%" if percent else number(mean) for mean in means]
    if len(order) == 1:
        return f"At epoch {order[0].epoch}: {texts[0]} (n = {order[0].summary.n})."
    low, high = (f"{texts[n]} ({printable(order[n].arm)!r})" for n in (0, -1))
    return f"At the last epoch: from {low} to {high}."


def protocol_lines(evidence: StudyEvidence) -> list[str]:
    """On what the accuracies were scored, then how, a line for each of them."""
    found = dict[str, list[Record]]()
    for run in evidence.results.runs.values():
        for key, record in run.numbers.items():
            wanted = key.metric in ACCURACIES and key.of in ("encoder", "supervised")
            if wanted and key.split == evidence.results.stored.study.protocol.split:
                found.setdefault(key.metric, []).append(record)
    if not found:
        return []
    [first, *_] = next(iter(found.values()))
    where = f"{count(first.images_scored)} images of the {first.split} split, last epoch"
    how = [
        f"{metric_text(metric)}: {protocol}."
        for metric, records in found.items()
        if (protocol := _protocol_of_all(records))
    ]
    return [f"All: scored on {where}.", *how]


def _protocol_of_all(records: Sequence[Record]) -> str:
    """What holds for every number of a metric, and the names of what does not."""
    protocols = [record.protocol for record in records]
    names = dict.fromkeys(name for protocol in protocols for name in protocol)
    same = {n: protocols[0].get(n) for n in names if len({str(p.get(n)) for p in protocols}) == 1}
    other = [name.replace("_", " ") for name in names if name not in same]
    parts = [protocol_text(same)] if same else []
    if other:
        parts.append(f"{', '.join(other)} depending on the label fraction")
    return ", ".join(filter(None, parts))


def _guessing(evidence: StudyEvidence) -> tuple[float | None, str]:
    """The accuracy of guessing, in percent, where a study shows it, and a sentence of its line."""
    stored = evidence.results.stored
    if "chance" not in stored.study.protocol.beside:
        return None, ""
    chance = 100 / stored.data.classes
    return chance, f" Dashed red: guessing ({chance:g}{SPACE}%)."


def _extremes(found: Sequence[ArmScore]) -> tuple[ArmScore, ArmScore]:
    """The best and the worst."""
    return max(found, key=lambda s: s.mean), min(found, key=lambda s: s.mean)


def _against_knob(evidence: StudyEvidence, found: Sequence[ArmScore], axis: Axis) -> Figure:
    chance, red = _guessing(evidence)
    says = _best_place(found, axis)
    caption = f"Mean and standard deviation over seeds{_marks(found)}.{red} {says}"
    name = axis.knob.rsplit(".", 1)[-1]
    label = f"Lines: accuracy against {name}, by metric and label fraction. {says}"
    return drawn(name, knob_chart(found, axis, chance=chance), label=label, caption=caption)


def _best_place(found: Sequence[ArmScore], axis: Axis) -> str:
    """Where the first metric is highest and lowest, with the most labels."""
    ours = [s for s in found if s.is_accuracy and s.arm in axis.places and not s.published]
    if not ours:
        return ""
    most = max(score.labels for score in ours)
    best, worst = _extremes([s for s in of_metric(ours, ours[0].metric) if s.labels == most])
    high, low = (
        f"{place_text(axis.places[s.arm])} {axis.series[s.arm]}".strip() for s in (best, worst)
    )
    where = f"highest at {high} ({best.written}), lowest at {low} ({worst.written})"
    return f"{best.title}: {where}."


def _marks(found: Sequence[ArmScore]) -> str:
    """What the marks mean that the lines have besides those of sound means of ours."""
    shown = [score for score in found if score.is_accuracy]
    hollow = "; hollow: published" if any(s.published for s in shown) else ""
    crossed = any(s.collapsed for s in shown if not s.published)
    return hollow + ("; a red cross: collapsed runs in the mean" if crossed else "")


def _against_labels(found: Sequence[ArmScore], compared: Sequence[ArmScore]) -> Figure:
    """The figure, and how the best and the supervised network do with the fewest labels."""
    fewest = min(score.labels for score in compared)
    few = sorted((s for s in compared if s.labels == fewest), key=lambda score: -score.mean)
    best, other = few[0], ([s for s in few if s.metric == SUPERVISED] or few[-1:])[0]
    says = f"With {labels_text(fewest)} {metric_text(best.metric)}"
    if best is other:
        says += f" is best: {best.written}."
    else:
        beside = f"{metric_text(other.metric)} of {other.arm!r} {other.written}"
        says += f" of {best.arm!r} reaches {best.written}, {beside}."
    caption = f"Mean and standard deviation over seeds{_marks(found)}. {says}"
    label = f"Lines: accuracy against the label fraction. {says}"
    return drawn("labels", labels_chart(found), label=label, caption=caption)


def _arm_by_arm(evidence: StudyEvidence, found: Sequence[ArmScore]) -> Iterator[Figure]:
    for metric in evidence.results.stored.study.protocol.metrics:
        ours = [s for s in of_metric(found, metric) if not s.published and s.labels == 1]
        if not ours:
            continue
        chance, red = _guessing(evidence) if ours[0].is_accuracy else (None, "")
        best, worst = _extremes([score for score in ours if not score.baseline] or ours)
        says = f"{best.arm!r}: {best.written}."
        if best is not worst:
            says = f"From {worst.written} ({worst.arm!r}) to {best.written} ({best.arm!r})."
        caption = f"Large: mean over seeds, bar: standard deviation; small: runs.{red} {says}"
        chart = arms_chart(found, metric, chance=chance)
        label = f"Points: {metric_text(metric)} of each arm. {says}"
        yield drawn(f"arms-{metric.replace('_', '-')}", chart, label=label, caption=caption)


def _measure(key: str) -> Callable[[EpochRow], float | None]:
    def pick(row: EpochRow) -> float | None:
        value: float | None = (row.get("measures") or {}).get("z", {}).get(key)
        return value

    return pick


def seeds_chart(
    points: Sequence[CurvePoint], *, title: str, percent: bool = False
) -> alt.LayerChart | alt.ConcatChart:
    """One number over the epochs: the mean over seeds, and a band of one standard deviation.

    Up to three arms share a panel. Of more, each has a panel of its own, with the means of all
    others in grey. Fractions may be written in percent.
    """
    values = curve_rows(points, percent=percent)
    arms = list(dict.fromkeys(row["name"] for row in values))
    x, y = _axes(values)
    if len(arms) <= TOGETHER:
        marks = [line(values, width=2.4).encode(**told_apart(arms))]
        for arm, role in zip(arms, SERIES, strict=False):
            marks += _band(values, arm, role)
        return plot(*marks, x=x, y=y, title=title)
    means = [{key: row[key] for key in ("epoch", "value", "name")} for row in values]
    others = line(means, role="third", width=1, opacity=0.35).encode(detail="name:N")
    panels = []
    for arm in arms:
        own = line([row for row in values if row["name"] == arm], role="first", width=2.4)
        marks = [others, own, *_band(values, arm, "first")]
        head = alt.Title(arm, fontSize=12, fontWeight="normal", limit=HALF)
        panels.append(layered(*marks, x=x, y=y, title=head, width=HALF, height=90))
    return styled(alt.concat(*panels, columns=2, spacing=16).properties(title=title))


def groups_chart(
    points: Sequence[CurvePoint],
    groups: Mapping[str, str],
    *,
    title: str,
) -> alt.LayerChart:
    """One measure over the epochs, a line per arm, coloured by the key of `GROUPS` of each arm."""
    values = [row | {"group": groups[row["arm"]]} for row in curve_rows(points)]
    names = [group for group in GROUPS if group in {row["group"] for row in values}]
    legend = alt.Legend(symbolType="stroke") if len(names) > 1 else None
    colors = [light(GROUPS[name]) for name in names]
    dashes = [[6, 3] if name == "collapsed arms" else [1, 0] for name in names]
    x, y = _axes(values, zero=True)
    lines = line(values, width=2.2).encode(
        detail="name:N",
        color=alt.Color("group:N", legend=legend).scale(domain=names, range=colors),
        strokeDash=alt.StrokeDash("group:N", legend=legend).scale(domain=names, range=dashes),
    )
    points_of = (
        dots([row for row in values if row["group"] == name], size=18, role=GROUPS[name])
        for name in names
    )
    return plot(lines, *points_of, x=x, y=y, title=title)


def curve_rows(points: Sequence[CurvePoint], *, percent: bool = False) -> list[dict[str, Any]]:
    """Points as a chart takes them, at most so many of each arm, the last one always."""
    rows = []
    for arm in dict.fromkeys(point.arm for point in points):
        own = [point for point in points if point.arm == arm]
        every = -(-len(own) // MOST_POINTS)
        rows += [_row(point, percent=percent) for point in own[::-1][::every][::-1]]
    return rows


def _row(point: CurvePoint, *, percent: bool) -> dict[str, Any]:
    scale = 100.0 if percent else 1.0
    mean, std, n = point.summary
    mean, spread = scale * mean, None if std is None else scale * std
    written = mean_and_spread(mean, spread, percent=percent)
    name = printable(point.arm)
    return {
        "epoch": point.epoch,
        "value": mean,
        "low": mean - (spread or 0.0),
        "high": mean + (spread or 0.0),
        "arm": point.arm,
        "name": name,
        "text": f"{name}, epoch {point.epoch}: {written} (n = {n})",
    }


def _band(values: Values, arm: str, role: Role) -> list[alt.Chart]:
    """The band and the points of one arm."""
    own = [row for row in values if row["name"] == arm]
    area = drawn_from(own).mark_area(color=light(role), opacity=0.18, aria=False)
    band = area.transform_calculate(value="datum.low").encode(y2="high:Q")
    return [band, dots(own, size=16, role=role)]


def _axes(values: Values, *, zero: bool = False) -> tuple[alt.X, alt.Y]:
    """One scale for all panels, from the first epoch measured: none of the numbers begins at 0."""
    epochs = [row["epoch"] for row in values]
    low, high = min(row["low"] for row in values), max(row["high"] for row in values)
    domain = [min(0.0, low) if zero else low, high if high > low else low + 1]
    y = alt.Y("value:Q", title=None).scale(domain=domain, nice=True, zero=zero)
    return epoch_axis(max(epochs), first=min(epochs)), y
