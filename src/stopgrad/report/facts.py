"""A run -> the text of a page, next to its figures: tables, protocols, the finding, facts.

No torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from stopgrad.config import OWN, Config, describe_knobs, knob_values
from stopgrad.evaluation import (
    ABSENT,
    LAYERS,
    MEASURE_NAMES,
    METRICS,
    SPACE,
    SUBJECTS,
    Record,
    Subject,
    count,
    duration,
    extent_text,
    folds_text,
    is_clear,
    labels_text,
    metric_text,
    number,
    percent,
    points,
)
from stopgrad.method import Extent, published_extent
from stopgrad.report.commands import flag_text
from stopgrad.report.evidence import Evidence, images_measured
from stopgrad.report.table import Column, Table, TableCell

TIMES = "\N{MULTIPLICATION SIGN}"


class Fact(NamedTuple):
    """A fact about what was done, and its name."""

    name: str
    value: str


class Tile(NamedTuple):
    """One of the numbers that a reader should see first."""

    name: str
    value: str
    note: str  # the line under it
    tone: str = ""  # "good" or "wrong"


def run_lead(run: Evidence) -> str:
    """The line under the name of a run: what was trained on what."""
    learned = f"{count(run.info.data['images'])} images of {run.data_name}, without labels."
    return f"SimSiam pretraining of {run.info.config.encoder.name} on {learned}"


def facts(evidence: Evidence) -> list[Fact]:
    """The facts of a run, in reading order."""
    info = evidence.info
    data, init = info.data, info.data.get("init")  # absent: random weights
    classes = len(evidence.class_names)
    labels = f"{classes} classes (not used in training)" if classes else "no labels"
    where = f"{evidence.data_name}: {count(data['images'])} images, {labels}"
    made = [
        Fact("Data", f"{where}; content {data['fingerprint'][:12]}"),
        Fact("Start", f"from {init['from']}, sha256 {init['sha256'][:12]}" if init else ""),
        *method_facts(info.config),
        Fact("Length", _length(evidence)),
        Fact("Cost", _cost(evidence)),
        Fact("Seed", str(info.config.seed)),
        *_machine(evidence),
    ]
    return [fact for fact in made if fact.value]


def method_facts(config: Config) -> list[Fact]:
    """What is trained, and how."""
    encoder, projector, predictor = config.encoder, config.projector, config.predictor
    wide = f", width {TIMES}{SPACE}{encoder.width:g}" if encoder.width != 1 else ""
    bn = "" if projector.output_bn else "; without BN on the output (ablation)"
    widths = (projector.out, predictor.hidden, projector.out)
    arrow = f"{SPACE}\N{RIGHTWARDS ARROW}{SPACE}"
    heads = arrow.join(map(str, widths)) if predictor.enabled else "removed (ablation)"
    optimizer = config.optimizer
    how = (
        f"{optimizer.algorithm.upper()}, batch {config.batch}, peak lr {number(config.lr)} "
        f"(cosine), weight decay {flag_text(optimizer.weight_decay)}; predictor: "
        f"{place_text(optimizer.alpha_h)} {TIMES} lr, {optimizer.predictor_schedule}"
    )
    named = f"{encoder.name}, {encoder.stem} stem{wide}"
    if encoder.is_given:
        named = f"{encoder.name.removeprefix(OWN)}, given in Python"
    views = f"views of {config.views.size} px"
    if config.views.own:
        views = f"views {config.views.own.removeprefix(OWN)}, given in Python"
    averaged = f"moving average of encoder and projector, momentum {config.target_momentum:g}"
    return [
        Fact("Encoder", f"{named}; {views}"),
        Fact(
            "Projector",
            f"{projector.layers} layers, hidden {projector.hidden}, out {projector.out}{bn}",
        ),
        Fact("Predictor", heads),
        Fact("Stop-gradient", "on" if config.stop_gradient else "removed (ablation)"),
        *([Fact("Target", averaged)] if config.target == "momentum" else []),
        Fact("Optimiser", how),
    ]


def training_seconds(evidence: Evidence) -> float:
    """Time of the training steps alone, from the views and the speed of each epoch, s.

    Steps of an epoch without a speed count as much as the others.
    """
    rows, batch = evidence.epochs, evidence.info.config.batch
    ends = itertools.pairwise([0, *(row["step"] for row in rows)])
    timed = [
        (end - start, float(row["views_per_s"]))
        for (start, end), row in zip(ends, rows, strict=True)
        if row.get("views_per_s")
    ]
    if not timed:
        return 0.0
    seconds = sum(2 * batch * steps / speed for steps, speed in timed)
    return float(seconds * rows[-1]["step"] / sum(steps for steps, _ in timed))


def decay_tile(extents: Sequence[Extent], published: Sequence[Extent] = ()) -> Tile:
    """N of a run, or the range of several, next to that of the published run."""
    of_published = folds_range(published or [published_extent()])
    note = f"e-folds that weight decay erases; published: {of_published}"
    return Tile("N", folds_range(extents), note)


def folds_range(extents: Sequence[Extent]) -> str:
    """`11.6`, or `0.25 to 25.0` of several."""
    folds = sorted(extent.folds for extent in extents)
    return " to ".join(dict.fromkeys(folds_text(each) for each in (folds[0], folds[-1])))


def place_text(value: float) -> str:
    """`2/3`, `5e-4`, `0.05`, `10`."""
    simple = Fraction(value).limit_denominator(9)
    if value and abs(float(simple) - value) < 1e-9 and simple.denominator in (3, 6, 7, 9):
        return str(simple)
    if value and not 1e-2 <= abs(value) < 1e4:
        mantissa, power = f"{value:e}".split("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:g}"


def _length(evidence: Evidence) -> str:
    rows, config = evidence.epochs, evidence.info.config
    if not rows:
        return f"no epoch of {config.epochs} finished yet"
    epoch, step = rows[-1]["epoch"], rows[-1]["step"]
    views = f"{count(2 * step * config.batch)} views"
    return f"{epoch} of {config.epochs} epochs, {views}; {extent_text(evidence.info.extent(step))}"


def _cost(evidence: Evidence) -> str:
    seconds = training_seconds(evidence)
    if not seconds:
        return ""
    views = 2 * evidence.epochs[-1]["step"] * evidence.info.config.batch
    speed = count(round(views / seconds))
    own = (record.flops or 0.0 for record in evidence.records if record.of == "encoder")
    flops = max(own, default=0.0)
    work = f"; {number(flops / 1e15)} PFLOP" if flops else ""
    return f"{duration(seconds)} of training steps, {speed} views per second{work}"


def _machine(evidence: Evidence) -> list[Fact]:
    found: dict[str, Any] = {**evidence.info.environment}
    place = [found.pop(key) for key in ("device", "machine") if found.get(key)]
    threads = found.pop("threads")
    place.append(f"{threads} thread{'s' if threads != 1 else ''}")
    place.append(found.pop("precision", evidence.info.config.precision))
    versions = ", ".join(f"{name} {value}" for name, value in found.items())
    return [Fact("Machine", ", ".join(place)), Fact("Versions", versions)]


BASELINES: tuple[Subject, ...] = ("untrained", "pixels", "supervised")


def metrics_of(records: Sequence[Record]) -> list[str]:
    """The metrics of these records: the known ones in their order, then the others."""
    found = dict.fromkeys(record.metric for record in records)
    return [*(name for name in METRICS if name in found), *(n for n in found if n not in METRICS)]


def score_table(records: Sequence[Record]) -> Table:
    """Top-1 accuracy: a row for each metric and label fraction, a column for each subject."""
    subjects: list[Subject] = [of for of in SUBJECTS if of in {r.of for r in records}]
    found = {(r.metric, r.labels, r.of): r for r in records}
    rows = []
    for metric in metrics_of(records):
        for labels in sorted({r.labels for r in records if r.metric == metric}, reverse=True):
            own = [found.get((metric, labels, of)) for of in subjects]
            scores = [_share(record, None if record is None else record.value) for record in own]
            scores[0] = scores[0]._replace(emphasis="strong")
            encoder = found.get((metric, labels, "encoder"))
            # The top five of five classes say nothing.
            top5 = encoder.top5 if encoder and len(encoder.per_class) > 5 else None
            named = TableCell(metric_text(metric)), TableCell(f"{100 * labels:g}{SPACE}%", labels)
            rows.append((*named, *scores, _share(encoder, top5)))
    heads = ["labels", *(SUBJECTS[of] for of in subjects), f"top-5, {SUBJECTS[subjects[0]]}"]
    columns = (Column("by"), *(Column(head, "right") for head in heads))
    caption = "Top-1 accuracy, by the fraction of the training labels that was used"
    return Table("results", columns, tuple(rows), caption)


def protocol_lines(records: Sequence[Record]) -> list[str]:
    """How each metric was scored: what its records share, then what changes with the labels."""
    lines = []
    for metric in metrics_of(records):
        own = [record for record in records if record.metric == metric]
        chosen = [record for record in own if record.of == "encoder"] or own
        first = max(chosen, key=lambda record: record.labels)
        same = [
            item
            for item in first.protocol.items()
            if all(item in r.protocol.items() for r in chosen)
        ]
        where = f"{count(first.images_scored)} images of the {first.split} split"
        when = f", epoch {first.epoch}" if first.epoch else ""
        parts = [f"scored on {where}{when}", protocol_text(dict(same))]
        for record in chosen:
            differs = {k: v for k, v in record.protocol.items() if k not in dict(same)}
            if differs:
                parts.append(f"with {labels_text(record.labels)}: {protocol_text(differs)}")
        lines.append(f"{metric_text(metric)}: {'; '.join(parts)}.")
    return lines


def finding(records: Sequence[Record]) -> str:
    """What pretraining gained over each baseline, by the first metric and the most labels."""
    if not records:
        return ""
    metric, labels = metrics_of(records)[0], max(record.labels for record in records)
    found = {r.of: r for r in records if r.metric == metric and r.labels == labels}
    encoder = found.get("encoder")
    if encoder is None:
        return ""
    start = (
        f"By {metric_text(metric)} with {labels_text(labels)} the pretrained encoder reaches "
        f"{percent(encoder.value, images=encoder.images_scored)}"
    )
    others = [_compared(encoder, found[of]) for of in BASELINES if of in found]
    said = f"{start}: {' and '.join(others)}." if others else f"{start}."
    return f"{said} {_uneven(encoder)}" if encoder.majority is not None else said


def _uneven(record: Record) -> str:
    """What accuracy hides where some classes have many more images than others."""
    largest, balanced = (
        percent(value, images=record.images_scored) for value in (record.majority, record.balanced)
    )
    return (
        f"The classes are uneven: always naming the largest one would be right for {largest}; the "
        f"balanced accuracy is {balanced}."
    )


def epoch_table(evidence: Evidence) -> Table:
    """The numbers behind the curves."""
    images, rows = evidence.images_watched, []
    for row, state in zip(evidence.epochs, evidence.states, strict=True):
        loss, knn, epoch = row.get("loss"), row.get("knn"), row["epoch"]
        others = (row.get(key) for key in ("lr", "predictor_lr"))
        rows.append(
            (
                TableCell(str(epoch), epoch),
                TableCell(number(loss, digits=4), loss),
                *(TableCell(number(value), value) for value in others),
                TableCell(percent(knn, images=images), knn),
                TableCell(number(row.get("views_per_s")), row.get("views_per_s")),
                TableCell(state or ABSENT),
            )
        )
    heads = ("epoch", "loss", "lr", "predictor lr", "kNN", "views/s")
    columns = (*(Column(head, "right") for head in heads), Column("verdict"))
    return Table("epochs", columns, tuple(rows))


def measure_table(evidence: Evidence) -> Table | None:
    """All measures of collapse at the last epoch that has them; None before any."""
    taken = [row for row in evidence.epochs if row.get("measures")]
    if not taken:
        return None
    last, rows = taken[-1], []
    clean = last.get("clean")
    for key, measure in MEASURE_NAMES.items():
        values = [last["measures"].get(layer, {}).get(key) for layer in LAYERS]
        values += [clean.get(key)] if clean else []
        cells = [TableCell(number(value), value) for value in values]
        says = (TableCell(text) for text in (measure.healthy, measure.collapsed, measure.meaning))
        rows.append((TableCell(measure.title), *cells, *says))
    named = [*LAYERS.values(), *(["z, clean"] if clean else [])]
    layers = [Column(layer, "right") for layer in named]
    ends = Column("healthy"), Column("collapsed")
    columns = (Column("measure"), *layers, *ends, Column("what it says", wraps=True))
    is_last = last["epoch"] == evidence.epochs[-1]["epoch"]
    epoch = "the last epoch" if is_last else f"epoch {last['epoch']}"
    caption = f"Measures of {epoch}, on {images_measured([last])}, the same in every epoch"
    if clean:
        caption += f"; clean: on {count(last['clean_images'])} without augmentation"
    return Table("measures", columns, tuple(rows), caption)


def knob_table(config: Config) -> Table:
    """Every knob: its value here, in bold with its default where they differ, and its meaning."""
    values, rows = knob_values(config), []
    for knob in describe_knobs():
        changed = values[knob.key] != knob.default
        cells = TableCell(knob.key), TableCell(flag_text(values[knob.key]))
        default = TableCell(flag_text(knob.default) if changed else "")
        marked = (cell._replace(emphasis="strong") if changed else cell for cell in cells)
        rows.append((*marked, default, TableCell(knob.meaning)))
    columns = (Column("knob"), Column("value"), Column("default"), Column("meaning", wraps=True))
    return Table("knobs", columns, tuple(rows))


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """A protocol in a line: `k 200, temperature 0.1`."""
    parts = []
    for key, value in protocol.items():
        if key == "evaluator" or (key == "k_requested" and value == protocol.get("k")):
            continue
        parts.append(f"{key.replace('_', ' ')} {_value(value)}")
    return ", ".join(parts)


def _compared(encoder: Record, other: Record) -> str:
    """The difference in words; it is clear beyond two standard errors of independent samples."""
    difference = encoder.value - other.value
    name = {"untrained": "the untrained one", "pixels": "raw pixels"}.get(other.of, other.of)
    gap = points(difference, images=encoder.images_scored)
    if not is_clear(encoder, other):
        return f"no clear difference from {name} ({gap} are within the sampling error)"
    return f"{gap} {'above' if difference > 0 else 'below'} {name}"


def _share(record: Record | None, value: float | None) -> TableCell:
    """A share of a record's images in percent; an empty cell without a value."""
    if record is None or value is None:
        return TableCell()
    return TableCell(percent(value, images=record.images_scored), value)


def _value(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return count(value)
        case float():
            return number(value)
        case list() | tuple():
            return " / ".join(_value(part) for part in value)
    return str(value)
