"""A study's results -> its tables: scores beside the published ones, factorial, findings.

Built once, for `stopgrad study table`, the page and the poster alike. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from stopgrad.config import Config
from stopgrad.evaluation import (
    ACCURACIES,
    SPACE,
    Cell,
    correction_text,
    difference_text,
    distance_text,
    extent_text,
    folds_text,
    labels_text,
    mean_text,
    metric_text,
    p_text,
    smallest_visible,
    unit_text,
)
from stopgrad.method import Extent, published_extent
from stopgrad.report.facts import folds_range, place_text
from stopgrad.report.table import Column, Emphasis, Table, TableCell
from stopgrad.studies import (
    Answer,
    ResultRow,
    Results,
    Value,
    answer_findings,
    arm_extents,
    best_arm,
    is_of_report,
    labels_of,
    published_configs,
    published_extents,
    published_images,
    read_factorial,
)

REPORT = "the SimSiam study of tillaczel/simsiam (github.com/tillaczel/simsiam)"
PAPER = "the method: X. Chen and K. He, CVPR 2021 (arxiv.org/abs/2011.10566)"
BESIDE = {"untrained": "untrained encoder", "pixels": "raw pixels"}
SORTED_LAST = -1.0  # the value of a cell without a number, for sorting
# How runs that are not sound may have ended, by field of `Cell`.
ENDS = {
    "dimensional": "dimensional collapse",
    "collapsed": "collapsed",
    "diverged": "diverged",
    "failed": "failed",
    "missing": "missing",
}
ANSWERS: dict[Answer, Emphasis] = {
    "shows": "good",
    "does not show": "wrong",
    "the opposite shows": "wrong",
    "not separable with these seeds": "",
    "cannot be told yet": "",
}


def score_tables(results: Results) -> list[Table]:
    """A table for each metric that any run can have, then the chosen arm's final scores.

    Columns without a number are left out.
    """
    known = {row.place.metric for row in results.rows}  # none of supervised without such an arm
    metrics = [metric for metric in results.stored.study.protocol.metrics if metric in known]
    found = [score_table(results, metric).without_empty_columns() for metric in metrics]
    final = final_table(results)
    return found if final is None else [*found, final]


def score_table(results: Results, metric: str, *, measured: str = "here") -> Table:
    """One metric: a row for each arm, ours and the published number for each label fraction.

    `measured` is the column head of a measure of collapse, which needs no labels.
    """
    study = results.stored.study
    fractions = labels_of(metric, study.protocol)
    columns = [Column(unit_text(metric))]
    for fraction in fractions:
        columns.append(Column(labels_text(fraction) if metric in ACCURACIES else measured, "right"))
        if study.published is not None:
            columns.append(Column("published", "right", published=True))
    own = [row for row in results.rows if row.place.metric == metric and not row.final]
    reach = _decay_cells(results)
    rows = []
    for name in dict.fromkeys(_name(row) for row in own):
        cells = {row.place.labels: _score_cells(results, row) for row in own if _name(row) == name}
        scores = (c for fraction in fractions for c in cells[fraction])
        rows.append((TableCell(name), *scores, *reach.get(name, reach[""])))
    if "chance" in study.protocol.beside and metric in ACCURACIES:
        chance = 1 / results.stored.data.classes
        guess = [TableCell(f"{100 * chance:.2f}", chance), TableCell()]
        width = 1 if study.published is None else 2
        rows.append((TableCell("chance"), *guess[:width] * len(fractions), *reach[""]))
    columns += [Column("N", "right"), Column("published N", "right", published=True)][
        : len(reach[""])
    ]
    return Table("scores", tuple(columns), tuple(rows), _caption(results, metric))


def _decay_cells(results: Results) -> dict[str, list[TableCell]]:
    """Cells with N of each arm, here and published, if arms differ in it; "": for other rows."""
    own, published = arm_extents(results), published_extents(results)
    if len({folds_text(each.folds) for each in own.values()}) < 2:
        return {"": []}
    both = [own, published] if published else [own]
    return {"": [TableCell("", SORTED_LAST)] * len(both)} | {
        arm: [
            TableCell(folds_text(of[arm].folds), of[arm].folds)
            if arm in of
            else TableCell("", SORTED_LAST)
            for of in both
        ]
        for arm in own
    }


def length_text(results: Results) -> str:
    """N of the arms, with steps and passes, next to the published; "" before any run is scored."""
    own, published = [*arm_extents(results).values()], [*published_extents(results).values()]
    if not own:
        return ""
    texts = list(dict.fromkeys(map(extent_text, own)))
    here = texts[0] if len(texts) == 1 else f"N = {folds_range(own)}, by arm"
    numbers = results.stored.study.published
    if numbers is not None and not is_of_report(numbers):
        return f"{here}."
    return f"{here}; published: N = {folds_range(published or [published_extent()])}."


def scale_text(results: Results) -> str:
    """The scale here next to that of the published numbers, in one line; "" without either."""
    here = _scale_here(results)
    if results.stored.study.published is None or not here:
        return ""
    return f"Here: {here}. Published: {published_scale(results)}; {PAPER}."


def _scale_here(results: Results) -> str:
    """`cifar_resnet8, 3 epochs, 40,000 images, 3 seeds, N = 0.94`; "" before any run is scored."""
    records = [r for run in results.runs.values() for r in run.numbers.values()]
    first = next((r for r in records if r.of == "encoder" and r.config and r.epoch), None)
    reach = [*arm_extents(results).values()]
    if first is None or first.config is None or not first.epoch or not reach:
        return ""
    images = round((first.views or 0) / 2 / first.epoch)
    if first.extent is not None:
        images = first.extent["images"]
    return _scale(first.config["encoder"]["name"], first.epoch, images, results.stored.seeds, reach)


def published_scale(results: Results) -> str:
    """The scale of the published numbers, and the name of their source."""
    published = results.stored.study.published
    assert published is not None
    if published.source != "report":  # another source describes itself
        source = published.source.replace("report", REPORT, 1)
        return f"{source}, {_counted(published.seeds, 'seed')}"
    config = next(iter(published_configs(results).values()), Config())
    reach = [*published_extents(results).values()] or [published_extent()]
    images, seeds = published_images(config), range(published.seeds)
    scale = _scale("ResNet-18", config.epochs, images, seeds, reach)
    return f"{scale}, from {REPORT}"


def _scale(
    network: str, epochs: int, images: int, seeds: Sequence[int], reach: Sequence[Extent]
) -> str:
    parts = [network, _counted(epochs, "epoch"), f"{images:,} images", _counted(len(seeds), "seed")]
    return ", ".join([*parts, f"N{SPACE}={SPACE}{folds_range(reach)}"])


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def visible_text(results: Results) -> str:
    """The smallest difference between two arms that the seeds could see, by column."""
    parts = []
    for metric, labels in dict.fromkeys(row.place[1:] for row in results.rows):
        spread, seeds = results.spread(metric, labels), _seeds(results, metric, labels)
        if spread is not None:
            least = distance_text(smallest_visible(spread, seeds), metric)
            name = f"{metric_text(metric)}, {labels_text(labels)}"
            parts.append(f"{name if metric in ACCURACIES else metric_text(metric)}: {least}")
    if not parts:
        return ""
    return (
        "Smallest difference between two arms that the seeds could see (80 % power, paired "
        f"one-sided t-test at 5 %, uncorrected): {'; '.join(parts)}."
    )


def _seeds(results: Results, metric: str, labels: float) -> int:
    """The largest number of seeds that any arm has."""
    pairs = results.pairs.items()
    return max(len(found) for place, found in pairs if place[1:] == (metric, labels))


def effect_table(results: Results) -> Table | None:
    """The effect of each step of each knob, paired by seed; None where the arms are no grid."""
    rows = []
    for effect in read_factorial(results):
        test, metric = effect.test, effect.metric
        least = smallest_visible(test.std, test.n, sides=2)
        ends = (
            place_text(v) if isinstance(v, float) else str(v) for v in (effect.low, effect.high)
        )
        arrow = f"{effect.knob.rpartition('.')[2]} {' to '.join(ends)}"
        cells = [TableCell(metric_text(metric)), TableCell(arrow)]
        cells.append(TableCell(difference_text(test.difference, metric), test.difference))
        cells.append(TableCell(str(test.n), test.n))
        cells += [
            TableCell(p_text(p).removeprefix("p ").removeprefix("= "), p)
            for p in (test.two_sided, effect.p)
        ]
        rows.append((*cells, TableCell(distance_text(least, metric), least)))
    if not rows:
        return None
    heads = ("difference", "pairs", "p", "p, corrected", "could see")
    columns = (Column("metric"), Column("step"), *(Column(head, "right") for head in heads))
    most = labels_text(max(results.stored.study.protocol.labels))
    caption = (
        f"Read as a factorial, {most}: each step of a knob, paired by seed and by the other "
        "knobs; two-sided paired t-test; the smallest difference that so many pairs could see"
    )
    return Table("effects", columns, tuple(rows), caption)


def final_table(results: Results) -> Table | None:
    """What the arm that the validation split chose scores on the test split, if it was scored."""
    rows = [row for row in results.rows if row.final]
    if not rows:
        return None
    names = (f"{metric_text(r.place.metric)}, {labels_text(r.place.labels)}" for r in rows)
    means = (mean_cell(row.cell, row.place.metric) for row in rows)
    cells = tuple(zip(map(TableCell, names), means, strict=True))
    caption = "Test split, scored once, for the arm chosen on the validation split alone"
    columns = (Column(rows[0].place.arm), Column("here, %", "right"))
    return Table("final", columns, cells, caption)


def finding_table(results: Results) -> Table:
    """What was published as a finding, and whether it shows here."""
    rows = tuple(
        (
            TableCell(found.finding.says),
            TableCell(found.answer, emphasis=ANSWERS[found.answer]),
            TableCell(found.why),
        )
        for found in answer_findings(results)
    )
    correction = correction_text(results.stored.study.protocol.correction)
    caption = f"Published findings held against our numbers; p: {correction} over them"
    columns = (Column("published finding"), Column("here"), Column("why", wraps=True))
    return Table("findings", columns, rows, caption)


def published_value(results: Results, row: ResultRow) -> Value | None:
    """The published number of the same cell, under the same split."""
    published = results.stored.study.published
    if published is None or row.final or row.of in BESIDE:
        return None
    return published.values.get(row.place)


def _name(row: ResultRow) -> str:
    return BESIDE.get(row.of, row.place.arm)


def _score_cells(results: Results, row: ResultRow) -> list[TableCell]:
    """Our number, then the published one as printed, if the study has published numbers."""
    best: Emphasis = "strong" if row.mark in ("best", "level") else ""
    ours = mean_cell(row.cell, row.place.metric)._replace(emphasis=best)
    if results.stored.study.published is None:
        return [ours]
    value = published_value(results, row)
    if value is None:
        return [ours, TableCell("", SORTED_LAST)]
    places = 2 if value.mean >= 1 else 3
    spread = "" if value.std is None else f" ± {value.std:.{places}f}"
    return [ours, TableCell(f"{value.mean:.{places}f}{spread}", value.mean)]


def mean_cell(cell: Cell, metric: str) -> TableCell:
    """A mean with its spread and count, and how runs that are not sound ended."""
    counts = {name: getattr(cell, name) for name in ENDS}
    ends = [f"{n} {ENDS[name]}" for name, n in counts.items() if n]
    note = ", ".join(ends)
    if cell.summary is None:
        return TableCell("" if note else "no runs", SORTED_LAST, note=note)
    mean, std, n = cell.summary
    return TableCell(mean_text(mean, std, metric), mean, n, note)


def _caption(results: Results, metric: str) -> str:
    study = results.stored.study
    what = metric_text(metric)
    named = what if what[1:2].isupper() else what[0].upper() + what[1:]  # kNN keeps its small k
    start = f"{named}: mean ± standard deviation (number of runs)"
    if clean := clean_images(results, metric):
        start += f" on {clean}"
    if study.published is None or all(p.metric != metric for p in study.published.values):
        return start
    return f"{start}; published: {study.published.source}, n = {study.published.seeds}"


def clean_images(results: Results, metric: str) -> str:
    """`8,192 training images without augmentation`, which z was measured on; "" for views."""
    found = {
        record.images_scored if "images" in record.protocol else 0
        for run in results.runs.values()
        for record in run.numbers.values()
        if record.metric == metric
    }
    if not found or 0 in found:
        return ""
    images = " or ".join(f"{n:,}" for n in sorted(found))
    return f"{images} training images without augmentation"


def scored(results: Results) -> str:
    """Seeds, the images that were scored, and the arm that was chosen on them."""
    stored = results.stored
    split = stored.study.protocol.split
    images = {
        record.images_scored
        for run in results.runs.values()
        for key, record in run.numbers.items()
        if key.split == split
    }
    count = f" ({', '.join(f'{n:,}' for n in sorted(images))} images)" if images else ""
    chosen = f" Selected on it for the test split: {stored.selected!r}." if stored.selected else ""
    best = best_arm(results) if stored.selected else None
    if best not in (None, stored.selected):
        chosen += f" By all of its seeds {best!r} is best now; the choice was made once and stays."
    return f"seeds {', '.join(map(str, stored.seeds))}, {split} split{count}, last epoch.{chosen}"


def cost(results: Results) -> str:
    """Time and energy of all runs, with the factors behind them."""
    runs = results.runs.values()
    hours = sum(run.wall_s for run in runs) / 3600
    spent = [run.energy for run in runs if run.energy is not None]
    metered = "" if len(spent) == len(runs) else f" of {len(spent)} of them"
    kwh = sum(energy.kwh for energy in spent)
    energy = f", training{metered} about {kwh:.3g} kWh" if spent else ""
    sources = {(e.source, e.watts, e.kg_co2_per_kwh) for e in spent}
    how = [
        f"{source}{f' of {watts:g} W' if watts else ''}, {factor:g} kg CO2 per kWh"
        for source, watts, factor in sorted(sources, key=str)
    ]
    factors = f" ({'; '.join(dict.fromkeys(how))})" if how else ""
    return f"Cost: {len(results.runs)} runs, {hours:.2f} hours of processes{energy}{factors}."


def bold_text(results: Results) -> str:
    """What bold means, and which runs a mean holds."""
    correction = correction_text(results.stored.study.protocol.correction)
    return (
        f"Bold: the best arm and every arm that is not separated from it ({correction}, in each "
        "column); an arm without two seeds in common with the best is not tested. Collapsed runs "
        "are part of the mean and counted; diverged and failed ones have no number."
    )
