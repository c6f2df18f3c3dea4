"""A study -> its figures over the epochs, each with a finding computed from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any

from stopgrad.evaluation import (
    ACCURACIES,
    CHARTED,
    MEASURE_NAMES,
    SPACE,
    Record,
    count,
    mean_and_spread,
    metric_text,
    number,
)
from stopgrad.report.curves import measure_caption, spectrum_figures
from stopgrad.report.evidence import StudyEvidence, images_measured
from stopgrad.report.facts import protocol_text
from stopgrad.report.over_time import MOST_ARMS, TOGETHER, arms_over_time, thinned
from stopgrad.report.style import Figure, Spec, drawn
from stopgrad.storage import printable
from stopgrad.studies import COLLAPSE, CurvePoint, EpochRow, seed_curves

FEWEST_POINTS = 5  # that make a curve


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
            caption = f"{says} {_lines(points)}{_crosses(evidence, points)} {end}"
            label = f"Lines: {title} over the epochs, by arm. {end}"
            chart = seeds_chart(evidence, points, title=title, percent=percent)
            figures.append(drawn(f"{key}-epochs", chart, label=label, caption=caption))
    return figures


def is_curve(points: Sequence[CurvePoint]) -> bool:
    """Whether there are enough epochs for a curve."""
    return len({point.epoch for point in points}) >= FEWEST_POINTS


def _lines(points: Sequence[CurvePoint]) -> str:
    """What the lines in a chart of these arms mean."""
    arms = len({point.arm for point in points})
    if arms <= TOGETHER:
        return "Line: mean over seeds; band: one standard deviation."
    few = f" Grey: arms between the {MOST_ARMS} that are named." if arms > MOST_ARMS else ""
    return f"Line: mean over seeds.{few}"


def _crosses(evidence: StudyEvidence, points: Sequence[CurvePoint]) -> str:
    """What a cross at the end of a line is, where there is one."""
    collapsed = {*collapsed_arms(evidence)} & {point.arm for point in points}
    return " A cross ends the lines of collapsed arms." if collapsed else ""


def all_rows(evidence: StudyEvidence) -> list[EpochRow]:
    """The epochs of all pretrainings of a study."""
    return [row for runs in evidence.epochs.values() for rows in runs.values() for row in rows]


def collapse_figures(evidence: StudyEvidence) -> list[Figure]:
    """The measures of z over the epochs by arm, then the spectra of the baseline's first run."""
    baseline = evidence.results.stored.study.baseline
    figures = []
    measured = images_measured(all_rows(evidence))
    for measure in CHARTED:
        points = seed_curves(evidence.epochs, _measure(measure))
        if is_curve(points):
            title = f"{MEASURE_NAMES[measure].title} of z"
            says = f"{measure_caption(measure)} On {measured}.{_crosses(evidence, points)}"
            says += f" {ended(points)}"
            chart = seeds_chart(evidence, points, title=title, zero=True)
            label = f"Lines: {title} over the epochs. {says}"
            figures.append(drawn(measure.replace("_", "-"), chart, label=label, caption=says))
    for seed, rows in list(evidence.epochs.get(baseline, {}).items())[:1]:
        figures += spectrum_figures(rows, of=f"{printable(baseline)!r}, seed {seed}")
    return figures


def collapsed_arms(evidence: StudyEvidence) -> list[str]:
    """The arms in which most runs collapsed, by the newest verdict of each."""
    results, found = evidence.results, []
    for arm in sorted(each.name for each in results.stored.study.arms):
        runs = [results.runs[slot.run] for slot in results.stored.slots if slot.arm == arm]
        if 2 * sum(run.state.verdict in COLLAPSE for run in runs) > len(runs):
            found.append(arm)
    return found


def ended(points: Sequence[CurvePoint], *, percent: bool = False) -> str:
    """The values at the last epoch that all arms have, of the lowest and the highest arm."""
    arms = {point.arm for point in points}
    epochs = [{point.epoch for point in points if point.arm == arm} for arm in arms]
    shared = max(set.intersection(*epochs), default=None)
    if shared is None:
        return "No epoch was measured in all arms."
    last = {point.arm: point for point in points if point.epoch == shared}
    order = sorted(last.values(), key=lambda point: point.summary.mean)
    means = [point.summary.mean for point in order]
    texts = [f"{100 * mean:.2f}{SPACE}%" if percent else number(mean) for mean in means]
    if len(order) == 1:
        return f"At epoch {order[0].epoch}: {texts[0]} (n = {order[0].summary.n})."
    low, high = (f"{texts[n]} ({printable(order[n].arm)!r})" for n in (0, -1))
    whole = shared == max(point.epoch for point in points)
    when = "the last epoch" if whole else f"epoch {shared}, the last that all arms have"
    return f"At {when}: from {low} to {high}."


def protocol_lines(evidence: StudyEvidence) -> list[str]:
    """The images on which accuracies were scored, then a line on how, for each metric."""
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
    """The protocol shared by all numbers of a metric, and the names of what differs."""
    protocols = [record.protocol for record in records]
    names = dict.fromkeys(name for protocol in protocols for name in protocol)
    same = {n: protocols[0].get(n) for n in names if len({str(p.get(n)) for p in protocols}) == 1}
    other = [name.replace("_", " ") for name in names if name not in same]
    parts = [protocol_text(same)] if same else []
    if other:
        parts.append(f"{', '.join(other)} depending on the label fraction")
    return ", ".join(filter(None, parts))


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
    """One number over the epochs, in percent or as it is: the mean over seeds of each arm."""
    return arms_over_time(
        curve_rows(points, percent=percent),
        first=evidence.results.stored.study.baseline,
        collapsed=collapsed_arms(evidence),
        title=title,
        zero=zero,
    )


def curve_rows(points: Sequence[CurvePoint], *, percent: bool = False) -> list[dict[str, Any]]:
    """Points as a chart takes them, `thinned` for each arm."""
    rows = []
    for arm in dict.fromkeys(point.arm for point in points):
        own = [point for point in points if point.arm == arm]
        rows += [_row(point, percent=percent) for point in thinned(own)]
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
