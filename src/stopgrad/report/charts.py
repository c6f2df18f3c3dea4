"""A run -> its figures: SVG with a caption that states the protocol and what was found."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.config import Config
from stopgrad.evaluation import (
    ABSENT,
    CHARTED,
    MEASURE_NAMES,
    SPACE,
    count,
    metric_text,
    number,
    percent,
)
from stopgrad.report.accuracy import MOST_CLASSES, accuracy_chart, per_class_chart
from stopgrad.report.curves import (
    Point,
    Rows,
    correlation,
    knn_chart,
    loss_chart,
    measure_chart,
    predictor_chart,
    predictor_points,
    series,
    spectra_of,
    spectrum_chart,
)
from stopgrad.report.evidence import Evidence
from stopgrad.report.facts import metrics_of, protocol_text
from stopgrad.report.panels import (
    MOST_CONFUSED,
    ConfusionPanel,
    MapPanel,
    coloured_classes,
    confusion_chart,
    confusions,
    map_chart,
    mistakes,
)
from stopgrad.report.style import PALETTE, inline_svg

if TYPE_CHECKING:
    from stopgrad.report.style import Drawing

LONGEST = 14  # letters of the encoder's name that a box of the architecture holds


class Figure(NamedTuple):
    """A chart on a page."""

    svg: str  # escaped by its maker
    caption: str
    name: str  # of its file
    chart: Drawing
    finding: str = ""  # where it stands above the figure and not in the caption


def drawn(name: str, chart: Drawing, *, label: str, caption: str, finding: str = "") -> Figure:
    """A chart made ready for a page; `label` describes it to those who cannot see it."""
    return Figure(inline_svg(chart, label=label), caption, name, chart, finding)


def accuracy_figures(evidence: Evidence) -> list[Figure]:
    """Bars for every metric, with the baselines."""
    records = evidence.scored
    classes = len(evidence.info.data.get("class_names") or [])
    chance = 1 / classes if classes else None
    guess = f" Dashed: guessing among {classes} classes." if classes else ""
    return [
        drawn(
            metric,
            accuracy_chart(records, metric, chance=chance),
            label=f"Bars: {metric_text(metric)} accuracy, as in the table of results.",
            caption=f"Top-1 accuracy by {metric_text(metric)}.{guess}",
        )
        for metric in metrics_of(records)
    ]


def class_figures(evidence: Evidence) -> list[Figure]:
    """Accuracy of each class by the first metric that has it."""
    records = [r for r in evidence.scored if r.per_class and r.labels == 1]
    if not any(record.of == "encoder" for record in records):
        return []
    names = evidence.info.data.get("class_names") or []
    metric = metrics_of(records)[0]
    few = " Only the best 15 and the worst 15 are shown." if len(names) > MOST_CLASSES else ""
    label = f"Points: {metric_text(metric)} accuracy of each class, the encoder's best first."
    caption = f"Accuracy of each class by {metric_text(metric)} with all labels, best first.{few}"
    chart = per_class_chart(records, names, metric)
    return [drawn("classes", chart, label=label, caption=caption)]


def curve_figures(evidence: Evidence) -> list[Figure]:
    """Loss and kNN accuracy over the epochs, where they were measured."""
    figures = []
    losses, scored = (series(evidence.metrics, key) for key in ("loss", "knn"))
    if evidence.epochs:
        finding = _change("Loss", losses, lambda x: number(x, digits=3))
        caption = (
            "Negative cosine similarity of the two views. Points: means of the epochs; thin line: "
            f"single steps. {finding}"
        )
        label = f"Line: the loss over the epochs. {finding}"
        figures.append(drawn("loss", loss_chart(evidence.metrics), label=label, caption=caption))
    if scored:
        images, config = evidence.images_watched, evidence.info.config.knn
        finding = _change("kNN", scored, lambda x: percent(x, images=images))
        caption = (
            f"Measured during the run on the {evidence.watched_split} images: at most "
            f"k{SPACE}={SPACE}{config.k}, T{SPACE}={SPACE}{config.temperature:g}, cosine. {finding}"
        )
        label = f"Line: kNN accuracy over the epochs. {finding}"
        chart = knn_chart(evidence.metrics, evidence.watched)
        figures.append(drawn("knn", chart, label=label, caption=caption))
    return figures


def measure_figures(evidence: Evidence) -> list[Figure]:
    """The measures that reveal a collapse."""
    if not any(row.measures for row in evidence.epochs):
        return []
    return [
        drawn(
            measure,
            measure_chart(evidence.metrics, measure),
            label=f"Lines: {MEASURE_NAMES[measure].title} of three layers over the epochs.",
            caption=measure_caption(measure),
        )
        for measure in CHARTED
    ]


def spectrum_figures(metrics: Rows) -> list[Figure]:
    """How z fills its directions, and the predictor along each, where spectra were taken."""
    found = spectra_of(metrics)
    if not found:
        return []
    ranks, weights = (found[-1]["spectra"][key] for key in ("ranks", "representation"))
    ratio = number(weights[-1] / weights[0], digits=2)
    epoch, last = found[-1]["epoch"], ranks[-1]
    fell = f"At epoch {epoch}, direction {last} has {ratio} times the weight of the first."
    r = correlation(predictor_points(metrics))
    says = f"Correlation of the points: {number(r, digits=2)}." if r is not None else ""
    return [
        drawn(
            "spectrum",
            spectrum_chart(metrics),
            label=f"Lines: eigenvalues of z by rank, at several epochs. {fell}",
            caption="Eigenvalues of the second moment of z, on views of training images. A flat "
            f"curve is healthy; a steep one means that few directions are used. {fell}",
        ),
        drawn(
            "predictor-spectrum",
            predictor_chart(metrics),
            label=f"Points: the predictor along each direction of z. {says}",
            caption="In theory (Tian et al. 2021) all directions lie on a line through 0; dashed: "
            f"the best fit. {says}",
        ),
    ]


def map_figure(panel: MapPanel) -> Figure:
    """The map with its protocol and its finding."""
    finding = map_finding(panel)
    colours = "coloured by class" if coloured_classes(panel) else "all in one colour"
    how = f"Laid out by {panel.method}, which preserves neighbours, not distances"
    if panel.method == "PCA":
        how = f"The two directions of the largest variance (PCA of {count(panel.fitted)} images)"
    caption = (
        f"{count(len(panel.points))} images by their features, scaled to unit length, {colours}. "
        f"{how}. Larger points: the {count(panel.shown)} images that can be picked."
    )
    label = f"Map of the features. {finding}"
    return drawn("map", map_chart(panel), label=label, caption=caption, finding=finding)


def map_finding(panel: MapPanel) -> str:
    """How much of the features a plane can show, in one sentence."""
    images = len(panel.points)
    parts = []
    if panel.variance:
        held = percent(sum(panel.variance), images=1000)
        parts.append(f"the plane holds {held} of the variance")
    if panel.same_class:
        flat, full = (percent(fraction, images=images) for fraction in panel.same_class)
        parts.append(
            f"the nearest image on the map has the same class for {flat} of the images, "
            f"the nearest by all features for {full}"
        )
    return _sentence("; ".join(parts)) if parts else ""


def confusion_figure(panel: ConfusionPanel) -> Figure:
    """The confusion matrix with its protocol and its finding."""
    classes, finding = len(panel.counts), confusion_finding(panel)
    few = f" Of {classes} classes, the {MOST_CONFUSED} with the most mistakes are shown."
    caption = (
        "Rows: the true class; columns: what kNN takes its images for, in percent of the row. "
        f"{count(int(panel.counts.sum()))} images, {protocol_text(panel.protocol)}."
        f"{few if classes > MOST_CONFUSED else ''}"
    )
    label = f"Confusion matrix. {finding}"
    chart = confusion_chart(panel)
    return drawn("confusion", chart, label=label, caption=caption, finding=finding)


def confusion_finding(panel: ConfusionPanel) -> str:
    """How many mistakes there are, and the most frequent one."""
    found, total = confusions(panel), int(panel.counts.sum())
    wrong = int(mistakes(panel.counts).sum())
    if not found:
        return f"None of {count(total)} images is taken for another class."
    first = found[0]
    return (
        f"{count(wrong)} of {count(total)} images are taken for another class, most often "
        f"{first.true} for {first.taken_for} ({first.images} of {first.of})."
    )


def architecture_figures(evidence: Evidence) -> list[Figure]:
    """The network of a pretraining."""
    pretrained = evidence.info.task == "pretrain"
    return [architecture_figure(evidence.info.config)] if pretrained else []


def architecture_figure(config: Config, *, name: str = "this run") -> Figure:
    """The network of a run as it was set."""
    text = (
        f"The network of {name}. Both views pass through the same weights. Blue arrows carry the "
        "gradient, which stops at the red bars. A removed part is dashed and red."
    )
    return drawn("architecture", architecture_svg(config), label=text, caption=text)


def architecture_svg(config: Config) -> str:
    """SimSiam as `architecture.svg` draws it: the first of the two symmetric terms of the loss.

    A removed part has a dashed red outline and says so.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    projector, predictor = config.projector, config.predictor
    widths = f"{projector.out} → {predictor.hidden} → {projector.out}"
    loader = PackageLoader("stopgrad.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("architecture.svg").render(
        {role: tone.light for role, tone in PALETTE.items()},
        views=f"{config.views.size} px",
        encoder=config.encoder.name.removeprefix("timm:")[:LONGEST],
        projector=f"{projector.hidden} → {projector.out}",
        predictor=widths if predictor.enabled else "",
        stop_gradient=config.stop_gradient,
        lost=_lost_norms(config),
    )


def _lost_norms(config: Config) -> list[tuple[str, int, int]]:
    """Every BN that the heads lack, and where the drawing says so: x and y, px."""
    projector, predictor = config.projector, config.predictor
    norms = (
        (projector.output_bn, ("output BN of g", 282, 84)),
        (projector.hidden_bn, ("hidden BN of g", 282, 105)),
        (predictor.hidden_bn or not predictor.enabled, ("hidden BN of h", 420, 126)),
    )
    return [lost for there, lost in norms if not there]


def measure_caption(measure: str) -> str:
    """What a measure of collapse says, and its values at both ends."""
    known = MEASURE_NAMES[measure]
    return f"{_sentence(known.meaning)} Healthy: {known.healthy}; collapsed: {known.collapsed}."


def collapse_finding(evidence: Evidence) -> str:
    """The verdicts over the epochs: `Verdict: healthy in epochs 1–3.`."""
    states = [
        (row.epoch, (row.judgement and row.judgement.state) or "unknown") for row in evidence.epochs
    ]
    parts = []
    for state, group in itertools.groupby(states, lambda s: s[1]):
        epochs = [epoch for epoch, _ in group]
        first, last = epochs[0], epochs[-1]
        where = f"epoch {first}" if first == last else f"epochs {first}{ABSENT}{last}"
        parts.append(f"{state} in {where}")
    return f"Verdict: {'; '.join(parts)}." if parts else ""


def _change(name: str, points: list[Point], written: Callable[[float], str]) -> str:
    if not points:
        return ""
    first, last = points[0], points[-1]
    start = f"{written(first.value)} at epoch {first.epoch}"
    if len(points) == 1:
        return f"{name}: {start}."
    return f"{name}: from {start} to {written(last.value)} at epoch {last.epoch}."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
