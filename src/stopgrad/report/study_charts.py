"""A study -> its figures, each with its protocol and a finding computed from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from stopgrad.evaluation import (
    ACCURACIES,
    CHARTED,
    MEASURE_NAMES,
    SPACE,
    SUPERVISED,
    Record,
    count,
    labels_text,
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
from stopgrad.report.charts import (
    Figure,
    architecture_figure,
    drawn,
    measure_caption,
    spectrum_figures,
)
from stopgrad.report.evidence import StudyEvidence
from stopgrad.report.facts import place_text, protocol_text
from stopgrad.report.seeds import groups_chart, seeds_chart
from stopgrad.storage import printable
from stopgrad.studies import COLLAPSE, CurvePoint, EpochRow, seed_curves

FEW_ARMS = 4  # up to so many are compared over the label fraction


def score_figures(evidence: StudyEvidence) -> list[Figure]:
    """The figures of the table: against a knob or the label fraction, and arm by arm."""
    found = scores(evidence.results)
    study = evidence.results.stored.study
    axis = knob_axis(evidence.knobs) if len(evidence.knobs) == len(study.arms) else None
    figures = []
    if axis is not None and any(s.metric in ACCURACIES and s.arm in axis.places for s in found):
        figures.append(_against_knob(evidence, found, axis))
    compared = [s for s in found if s.metric in ACCURACIES and not s.baseline and not s.published]
    if len({s.labels for s in compared}) > 1 and len(study.arms) <= FEW_ARMS:
        figures.append(_against_labels(evidence, found))
    else:
        by_arm = list(_arm_by_arm(evidence, found))
        figures += by_arm if axis is None else by_arm[:1]
    return figures


def curve_figures(evidence: StudyEvidence) -> list[Figure]:
    """kNN and loss over the epochs, with their spread over seeds."""
    return [
        drawn(
            name,
            seeds_chart(points, title=title, percent=percent),
            label=f"Lines: {title} over the epochs, by arm. {ended(points, percent=percent)}",
            caption=f"{says} Line: mean over seeds; band: one standard deviation. "
            f"{ended(points, percent=percent)}",
        )
        for name, title, says, percent in (
            ("knn-epochs", "kNN accuracy, %", _watched(evidence), True),
            ("loss-epochs", "loss", "Negative cosine similarity of the two views.", False),
        )
        if (points := seed_curves(evidence.epochs, _number("knn" if percent else "loss")))
        and len({point.epoch for point in points}) > 1  # one moment is no curve
    ]


def collapse_figures(evidence: StudyEvidence) -> list[Figure]:
    """The measures of z over the epochs by group, then the spectra of the baseline."""
    baseline = evidence.results.stored.study.baseline
    figures, collapsed = [], collapsed_arms(evidence)
    for measure in CHARTED:
        points = seed_curves(evidence.epochs, _measure(measure))
        if points:
            groups = {
                arm: "collapsed arms"
                if arm in collapsed
                else "baseline"
                if arm == baseline
                else "other arms"
                for arm in evidence.epochs
            }
            says = f"{measure_caption(measure)} {ended(points)}"
            chart = groups_chart(points, groups, title=f"{MEASURE_NAMES[measure].title} of z")
            label = f"Lines: {MEASURE_NAMES[measure].title} of z over the epochs. {says}"
            figures.append(drawn(measure.replace("_", "-"), chart, label=label, caption=says))
    runs = evidence.epochs.get(baseline) or []
    return figures + (spectrum_figures(runs[0]) if runs else [])


def architecture_figures(evidence: StudyEvidence) -> list[Figure]:
    """The baseline's network."""
    if evidence.config is None:
        return []
    name = printable(evidence.results.stored.study.baseline)
    return [architecture_figure(evidence.config, name=repr(name))]


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

    def written(point: CurvePoint) -> str:
        mean = point.summary.mean
        return f"{100 * mean:.2f}{SPACE}%" if percent else number(mean)

    low, high = order[0], order[-1]
    if len(order) == 1:
        return f"At epoch {low.epoch}: {written(low)} (n = {low.summary.n})."
    return (
        f"At the last epoch: from {written(low)} ({printable(low.arm)!r}) to {written(high)} "
        f"({printable(high.arm)!r})."
    )


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


def _against_knob(evidence: StudyEvidence, found: Sequence[ArmScore], axis: Axis) -> Figure:
    stored = evidence.results.stored
    chance = 100 / stored.data.classes if "chance" in stored.study.protocol.beside else None
    says = _best_place(found, axis)
    red = f" Dashed red: guessing ({chance:g}{SPACE}%)." if chance is not None else ""
    caption = f"Mean and standard deviation over seeds{_marks(found)}.{red} {says}"
    name = axis.knob.rsplit(".", 1)[-1]
    label = f"Lines: accuracy against {name}, by metric and label fraction. {says}"
    return drawn(name, knob_chart(found, axis, chance=chance), label=label, caption=caption)


def _best_place(found: Sequence[ArmScore], axis: Axis) -> str:
    """Where the first metric is highest and lowest, with the most labels."""
    ours = [s for s in found if s.metric in ACCURACIES and s.arm in axis.places and not s.published]
    if not ours:
        return ""
    own = [s for s in of_metric(ours, ours[0].metric) if s.labels == max(x.labels for x in ours)]
    best, worst = (pick(own, key=lambda score: score.mean) for pick in (max, min))

    def where(score: ArmScore) -> str:
        after = axis.series[score.arm]
        return f"{place_text(axis.places[score.arm])}{f' {after}' if after else ''}"

    return (
        f"{best.title}: highest at {where(best)} ({best.written}), lowest at {where(worst)} "
        f"({worst.written})."
    )


def _marks(found: Sequence[ArmScore]) -> str:
    """What the marks mean that the lines have besides those of sound means of ours."""
    shown = [score for score in found if score.metric in ACCURACIES]
    hollow = "; hollow: published" if any(s.published for s in shown) else ""
    crossed = any(s.collapsed for s in shown if not s.published)
    return hollow + ("; a red cross: collapsed runs in the mean" if crossed else "")


def _against_labels(evidence: StudyEvidence, found: Sequence[ArmScore]) -> Figure:
    says = _with_few_labels(found)
    caption = f"Mean and standard deviation over seeds{_marks(found)}. {says}"
    label = f"Lines: accuracy against the label fraction. {says}"
    return drawn("labels", labels_chart(found), label=label, caption=caption)


def _with_few_labels(found: Sequence[ArmScore]) -> str:
    """The best and the supervised network with the fewest labels."""
    ours = [s for s in found if s.metric in ACCURACIES and not s.baseline and not s.published]
    fewest = min(score.labels for score in ours)
    few = sorted((s for s in ours if s.labels == fewest), key=lambda score: -score.mean)
    rest = [s for s in few if s.metric == SUPERVISED] or few[-1:]
    if few[0] is rest[0]:
        return f"With {labels_text(fewest)} {metric_text(few[0].metric)} is best: {few[0].written}."
    return (
        f"With {labels_text(fewest)} {metric_text(few[0].metric)} of {few[0].arm!r} reaches "
        f"{few[0].written}, {metric_text(rest[0].metric)} of {rest[0].arm!r} {rest[0].written}."
    )


def _arm_by_arm(evidence: StudyEvidence, found: Sequence[ArmScore]) -> Iterator[Figure]:
    stored = evidence.results.stored
    for metric in stored.study.protocol.metrics:
        ours = [s for s in of_metric(found, metric) if not s.published and s.labels == 1]
        if not ours:
            continue
        usual = metric in ACCURACIES and "chance" in stored.study.protocol.beside
        chance = 100 / stored.data.classes if usual else None
        arms = [score for score in ours if not score.baseline] or ours
        best, worst = (pick(arms, key=lambda score: score.mean) for pick in (max, min))
        says = (
            f"From {worst.written} ({worst.arm!r}) to {best.written} ({best.arm!r})."
            if best is not worst
            else f"{best.arm!r}: {best.written}."
        )
        red = f" Dashed red: guessing ({chance:g}{SPACE}%)." if chance is not None else ""
        caption = f"Large: mean over seeds, bar: standard deviation; small: runs.{red} {says}"
        chart = arms_chart(found, metric, chance=chance)
        label = f"Points: {metric_text(metric)} of each arm. {says}"
        yield drawn(f"arms-{metric.replace('_', '-')}", chart, label=label, caption=caption)


def _watched(evidence: StudyEvidence) -> str:
    config = evidence.config
    if config is None:
        return "kNN watched during the runs."
    return (
        f"Watched during the runs: k{SPACE}={SPACE}{config.knn.k} at most, "
        f"T{SPACE}={SPACE}{config.knn.temperature:g}, cosine."
    )


def _number(key: str) -> Callable[[EpochRow], float | None]:
    return lambda row: row.get(key)


def _measure(key: str) -> Callable[[EpochRow], float | None]:
    def pick(row: EpochRow) -> float | None:
        value: float | None = (row.get("measures") or {}).get("z", {}).get(key)
        return value

    return pick
