"""A study -> its figures, each with its protocol and a finding computed from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import methodcaller
from typing import Any

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
    series_names,
)
from stopgrad.report.curves import epoch_axis, measure_caption, spectrum_figures
from stopgrad.report.evidence import StudyEvidence, images_measured
from stopgrad.report.facts import place_text, protocol_text
from stopgrad.report.study_tables import published_scale
from stopgrad.report.style import (
    SERIES,
    Figure,
    Role,
    Spec,
    Values,
    dots,
    drawn,
    encoded,
    light,
    line,
    mark,
    numeric,
    plot,
    told_apart,
)
from stopgrad.storage import printable
from stopgrad.studies import COLLAPSE, CurvePoint, EpochRow, seed_curves

FEW_ARMS = 4  # up to so many are compared over the label fraction
TOGETHER = 3  # arms that share one panel with the bands of their spread
MOST_ARMS = len(SERIES)  # with a name in the legend; the others are grey
MOST_POINTS = 40  # of a line; between two drawn epochs others are left out
FEWEST_POINTS = 5  # that make a curve
NEAR = 0.3  # guessing is drawn where it widens the axis by no more than this part


def key_figures(evidence: StudyEvidence) -> list[Figure]:
    """The figure that answers the question, on an axis of its own; then the published numbers."""
    found = _of_the_question(evidence)
    ours = [score for score in found if not score.published]
    theirs = [s for s in found if s.published and s.arm in {score.arm for score in ours}]
    published = evidence.results.stored.study.published
    if not ours:
        return []
    figures = [_key_figure(evidence, ours)]
    if theirs and published is not None:
        caption = f"Published, on an axis of its own: {published_scale(evidence.results)}."
        label = f"The same of the published numbers. {caption}"
        chart = _key_chart(evidence, theirs, ours=ours, chance=None, title="published")
        figures.append(drawn("published", chart, label=label, caption=caption))
    return figures


def score_figures(evidence: StudyEvidence) -> list[Figure]:
    """The other numbers of ours: the other panels against a knob, or arm by arm."""
    found = [score for score in scores(evidence.results) if not score.published]
    axis, shown = _axis(evidence), set(_of_the_question(evidence))
    rest = [score for score in found if score not in shown]
    if axis is not None:
        placed = [s for s in rest if s.is_accuracy and s.arm in axis.places]
        return [_against_knob(placed, axis)] if placed else []
    return [] if _over_labels(evidence, found) else list(_arm_by_arm(evidence, rest))


def _axis(evidence: StudyEvidence) -> Axis | None:
    complete = len(evidence.knobs) == len(evidence.results.stored.study.arms)
    return knob_axis(evidence.knobs) if complete else None


def _over_labels(evidence: StudyEvidence, found: Sequence[ArmScore]) -> bool:
    """Whether few arms are compared over several fractions of the labels."""
    fractions = {s.labels for s in found if s.is_accuracy and not s.baseline and not s.published}
    return len(fractions) > 1 and len(evidence.results.stored.study.arms) <= FEW_ARMS


def _of_the_question(evidence: StudyEvidence) -> list[ArmScore]:
    """The scores of the key figure: one metric with the most labels, or all over the labels."""
    found, axis = scores(evidence.results), _axis(evidence)
    if axis is None and _over_labels(evidence, found):
        return [score for score in found if score.is_accuracy and not score.baseline]
    if axis is not None:
        found = [score for score in found if score.arm in axis.places]
    first = next((s for s in found if s.is_accuracy and not s.published), None)
    if first is None:
        return []
    most = max(score.labels for score in found if score.metric == first.metric)
    return [score for score in of_metric(found, first.metric) if score.labels == most]


def _key_chart(
    evidence: StudyEvidence,
    chosen: Sequence[ArmScore],
    *,
    ours: Sequence[ArmScore],
    chance: float | None,
    title: str,
) -> Spec:
    axis, first = _axis(evidence), ours[0]
    if axis is not None:
        chart = knob_chart(chosen, axis, chance=chance)
    elif _over_labels(evidence, ours):
        chart = labels_chart(chosen, series_names(ours))
    else:
        chart = arms_chart(chosen, first.metric, chance=chance)
    alike = len({score.title for score in ours}) == 1
    subtitle = f"{first.title}, %" if alike else "accuracy, %"
    return chart | {"title": {"text": title, "subtitle": subtitle}}


def _key_figure(evidence: StudyEvidence, ours: Sequence[ArmScore]) -> Figure:
    axis, (chance, red) = _axis(evidence), _guessing(evidence, ours)
    if axis is None and _over_labels(evidence, ours):
        name, says, chance, red = "labels", _with_fewest_labels(ours), None, ""
    elif axis is not None:
        name, says = axis.knob.rsplit(".", 1)[-1], _best_place(ours, axis)
    else:
        name, says = f"arms-{ours[0].metric.replace('_', '-')}", _best_arm(ours)
    crossed = "; a red cross: collapsed runs in the mean" if any(s.collapsed for s in ours) else ""
    caption = f"Mean and standard deviation over seeds{crossed}.{red} {says}"
    chart = _key_chart(evidence, ours, ours=ours, chance=chance, title="here")
    return drawn(name, chart, label=f"The key figure. {caption}", caption=caption)


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
        if is_curve(points):
            end = ended(points, percent=percent)
            caption = f"{says} {_lines(points)} {end}"
            label = f"Lines: {title} over the epochs, by arm. {end}"
            chart = seeds_chart(evidence, points, title=title, percent=percent)
            figures.append(drawn(f"{key}-epochs", chart, label=label, caption=caption))
    return figures


def is_curve(points: Sequence[CurvePoint]) -> bool:
    """Whether there are enough moments for a curve."""
    return len({point.epoch for point in points}) >= FEWEST_POINTS


def _lines(points: Sequence[CurvePoint]) -> str:
    """What the lines of some arms are."""
    arms = len({point.arm for point in points})
    if arms <= TOGETHER:
        return "Line: mean over seeds; band: one standard deviation."
    few = f" Grey: arms between the {MOST_ARMS} that are named." if arms > MOST_ARMS else ""
    return f"Line: mean over seeds.{few}"


def collapse_figures(evidence: StudyEvidence) -> list[Figure]:
    """The measures of z over the epochs by arm, then the spectra of the baseline."""
    baseline = evidence.results.stored.study.baseline
    figures = []
    every = [row for runs in evidence.epochs.values() for rows in runs for row in rows]
    for measure in CHARTED:
        points = seed_curves(evidence.epochs, _measure(measure))
        if is_curve(points):
            title = f"{MEASURE_NAMES[measure].title} of z"
            says = f"{measure_caption(measure)} On {images_measured(every)}. {ended(points)}"
            chart = seeds_chart(evidence, points, title=title, zero=True)
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


def _guessing(evidence: StudyEvidence, chosen: Sequence[ArmScore]) -> tuple[float | None, str]:
    """The accuracy of guessing, in percent, where it is to be drawn, and a sentence of it."""
    stored = evidence.results.stored
    if "chance" not in stored.study.protocol.beside or not chosen[0].is_accuracy:
        return None, ""
    chance = 100 / stored.data.classes
    means = [score.mean for score in chosen]
    if min(means) - chance <= NEAR * (max(means) - chance):
        return chance, f" Dashed red: guessing ({chance:g}{SPACE}%)."
    return None, f" Guessing would be right for {chance:g}{SPACE}%."


def _extremes(found: Sequence[ArmScore]) -> tuple[ArmScore, ArmScore]:
    """The best and the worst."""
    return max(found, key=lambda s: s.mean), min(found, key=lambda s: s.mean)


def _against_knob(found: Sequence[ArmScore], axis: Axis) -> Figure:
    crossed = "; a red cross: collapsed runs in the mean" if any(s.collapsed for s in found) else ""
    caption = f"The other metrics and label fractions, each on an axis of its own{crossed}."
    name = axis.knob.rsplit(".", 1)[-1]
    label = f"Lines: accuracy against {name}, by metric and label fraction."
    return drawn(f"{name}-all", knob_chart(found, axis), label=label, caption=caption)


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


def _with_fewest_labels(compared: Sequence[ArmScore]) -> str:
    """How the best and the supervised network do with the fewest labels."""
    fewest = min(score.labels for score in compared)
    few = sorted((s for s in compared if s.labels == fewest), key=lambda score: -score.mean)
    best, other = few[0], ([s for s in few if s.metric == SUPERVISED] or few[-1:])[0]
    says = f"With {labels_text(fewest)} {metric_text(best.metric)}"
    if best is other:
        return f"{says} is best: {best.written}."
    beside = f"{metric_text(other.metric)} of {other.arm!r} {other.written}"
    return f"{says} of {best.arm!r} reaches {best.written}, {beside}."


def _best_arm(ours: Sequence[ArmScore]) -> str:
    """The worst and the best: `From 10.00 % ('a') to 50.00 % ('b')`."""
    best, worst = _extremes([score for score in ours if not score.baseline] or ours)
    if best is worst:
        return f"{best.arm!r}: {best.written}."
    return f"From {worst.written} ({worst.arm!r}) to {best.written} ({best.arm!r})."


def _arm_by_arm(evidence: StudyEvidence, found: Sequence[ArmScore]) -> Iterator[Figure]:
    for metric in evidence.results.stored.study.protocol.metrics:
        ours = [score for score in of_metric(found, metric) if score.labels == 1]
        if not ours:
            continue
        chance, red = _guessing(evidence, ours)
        says = _best_arm(ours)
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
    evidence: StudyEvidence,
    points: Sequence[CurvePoint],
    *,
    title: str,
    percent: bool = False,
    zero: bool = False,
) -> Spec:
    """One number over the epochs, in percent or as it is: the mean over seeds of each arm.

    Collapsed arms are red. Up to three arms have a band of one standard deviation. Of more than
    ten, the baseline and those that end highest and lowest are named, and the others grey.
    """
    return arms_over_time(
        curve_rows(points, percent=percent),
        first=evidence.results.stored.study.baseline,
        collapsed=collapsed_arms(evidence),
        title=title,
        zero=zero,
    )


def arms_over_time(
    values: Values, *, first: str, collapsed: Sequence[str] = (), title: str, zero: bool = False
) -> Spec:
    """Rows of `curve_rows` as a line for each arm; see `seeds_chart`."""
    arms = _named(values, first=first)
    labels = {arm: f"{printable(arm)}{', collapsed' * (arm in collapsed)}" for arm in arms}
    roles: list[Role] = [
        "wrong" if a in collapsed else r for a, r in zip(arms, SERIES, strict=False)
    ]
    own = [{**row, "name": labels[row["arm"]]} for row in values if row["arm"] in arms]
    others = [row for row in values if row["arm"] not in arms]
    marks = [encoded(line(own, width=2.2), **told_apart(list(labels.values()), roles))]
    if others:
        grey = line(others, role="third", width=1, opacity=0.35)
        marks.insert(0, encoded(grey, detail={"field": "arm", "type": "nominal"}))
    for arm, role in zip(arms, roles, strict=True):
        rows = [row for row in own if row["arm"] == arm]
        marks += _band(rows, role) if len(arms) <= TOGETHER else [dots(rows, size=14, role=role)]
    x, y = _axes(values, zero=zero)
    return plot(*marks, x=x, y=y, title=title)


def _named(values: Values, *, first: str) -> list[str]:
    """The arms that have a name in the legend, in their order."""
    last = {row["arm"]: row["value"] for row in values}
    if len(last) <= MOST_ARMS:
        return list(last)
    order = sorted((arm for arm in last if arm != first), key=lambda arm: last[arm])
    half = (MOST_ARMS - 1) // 2
    kept = {first, *order[:half], *order[half - MOST_ARMS + 1 :]}
    return [arm for arm in last if arm in kept]


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


def _band(rows: Values, role: Role) -> list[Spec]:
    """The band and the points of one arm."""
    low = [{**row, "value": row["low"]} for row in rows]
    area = mark("area", low, color=light(role), opacity=0.18, aria=False)
    return [encoded(area, y2={"field": "high"}), dots(rows, size=16, role=role)]


def _axes(values: Values, *, zero: bool = False) -> tuple[Spec, Spec]:
    """One scale for all arms, from the first epoch measured: none of the numbers begins at 0."""
    epochs = [row["epoch"] for row in values]
    low, high = min(row["low"] for row in values), max(row["high"] for row in values)
    domain = [min(0.0, low) if zero else low, high if high > low else low + 1]
    y = numeric("value", title=None, scale={"domain": domain, "nice": True, "zero": zero})
    return epoch_axis(max(epochs), first=min(epochs)), y
