"""A study's numbers as figures: the one that answers its question, the published, the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stopgrad.evaluation import SPACE, SUPERVISED, labels_text, metric_text
from stopgrad.report.arms import (
    MOST_SERIES,
    ArmScore,
    Axis,
    arms_chart,
    knob_axis,
    knob_chart,
    labels_chart,
    of_metric,
    scores,
    series_names,
    with_most_labels,
)
from stopgrad.report.evidence import StudyEvidence
from stopgrad.report.facts import place_text
from stopgrad.report.study_tables import published_scale
from stopgrad.report.style import Figure, Spec, drawn

FEW_ARMS = 4  # arms at most, to be compared over the label fraction
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
    """Our other numbers: the other panels against a knob, or arm by arm."""
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
    """Whether few arms are compared over several fractions of the labels, by few metrics."""
    own = [s for s in found if s.is_accuracy and not s.baseline and not s.published]
    lines = {(s.arm, s.metric) for s in own}
    few = len(evidence.results.stored.study.arms) <= FEW_ARMS and len(lines) <= MOST_SERIES
    return few and len({s.labels for s in own}) > 1


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
    chart = _key_chart(evidence, ours, ours=ours, chance=chance, title="ours")
    return drawn(name, chart, label=f"The key figure. {caption}", caption=caption)


def _guessing(evidence: StudyEvidence, chosen: Sequence[ArmScore]) -> tuple[float | None, str]:
    """The accuracy of guessing, in percent, if it is to be drawn, and a sentence about it."""
    stored = evidence.results.stored
    if "chance" not in stored.study.protocol.beside or not chosen[0].is_accuracy:
        return None, ""
    chance = 100 / stored.data.classes
    means = [score.mean for score in chosen]
    if min(means) - chance <= NEAR * (max(means) - chance):
        return chance, f" Dashed red: guessing ({chance:g}{SPACE}%)."
    return None, f" Guessing would be right for {chance:g}{SPACE}%."


def _extremes(found: Sequence[ArmScore]) -> tuple[ArmScore, ArmScore]:
    """The scores with the highest and the lowest mean."""
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
        ours = with_most_labels(of_metric(found, metric))
        if not ours:
            continue
        chance, red = _guessing(evidence, ours)
        says = _best_arm(ours)
        caption = f"Large: mean over seeds, bar: standard deviation; small: runs.{red} {says}"
        chart = arms_chart(found, metric, chance=chance)
        label = f"Points: {metric_text(metric)} of each arm. {says}"
        yield drawn(f"arms-{metric.replace('_', '-')}", chart, label=label, caption=caption)
