"""The table of a study as a page of Markdown: arms beside the published numbers, and findings."""

from __future__ import annotations

from collections.abc import Iterator

from stopgrad.evaluation import cell_text, correction_text, labels_text, metric_text, unit_text
from stopgrad.studies.definition import Value, labels_of
from stopgrad.studies.findings import answer_findings, sentence
from stopgrad.studies.results import Results, Row, RunResult, best_arm, missing_runs
from stopgrad.studies.words import value_text

BESIDE = {"untrained": "untrained encoder", "pixels": "raw pixels"}


def markdown(results: Results) -> str:
    """A study as its table, its findings, what is missing and what it cost."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    stored = results.stored
    study = stored.study
    yield f"## {study.name}"
    yield f"\n{study.question}\n"
    yield conditions(results)
    for metric in study.protocol.metrics:
        yield ""
        yield from _block(results, metric)
    yield from _final(results)
    yield "\n" + _definitions(results)
    yield f"\n**Finding.** {sentence(results)}"
    answers = answer_findings(results)
    if answers:
        correction = correction_text(study.protocol.correction)
        yield f"\nPublished findings held against our numbers; p: {correction} over them.\n"
        yield "| published finding | here | why |\n|---|---|---|"
        yield from (f"| {_one_cell(a.finding.says)} | {a.answer} | {a.why} |" for a in answers)
    yield from _missing(results)
    yield f"\n{cost(results)}"


def conditions(results: Results) -> str:
    """Data, settings, seeds and split, in a line."""
    return f"{results.stored.data['name']}, {settings(results)}, {scored(results)}"


def settings(results: Results) -> str:
    """The preset and what was changed of it, as one writes it."""
    stored = results.stored
    changed = "".join(f" --{key} {value}" for key, value in stored.overrides.items())
    return f"preset {stored.preset}{changed}"


def scored(results: Results) -> str:
    """Seeds, the images that were scored, and the arm that was chosen by them."""
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


def _block(results: Results, metric: str) -> Iterator[str]:
    """One metric: a line per arm, ours and the published number for each share of the labels."""
    study = results.stored.study
    shares = labels_of(metric, study.protocol)
    published = study.published
    columns = [text for share in shares for text in (labels_text(share), "published")]
    if published is None:
        columns = [labels_text(share) for share in shares]
    yield f"| {unit_text(metric)} | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    rows = [row for row in results.rows if row.place.metric == metric and not row.final]
    for name in dict.fromkeys(_name(row) for row in rows):
        cells = []
        for share in shares:
            row = next(r for r in rows if _name(r) == name and r.place.labels == share)
            cells.append(_marked(row))
            if published is not None:
                cells.append(value_text(published_value(results, row)))
        yield f"| {name} | {' | '.join(cells)} |"
    if "chance" in study.protocol.beside and metric.endswith("_accuracy"):
        yield f"| chance | {' | '.join(_chance(results, len(columns) // len(shares), shares))} |"


def _final(results: Results) -> Iterator[str]:
    """What the arm that the validation split chose scores on the test split."""
    rows = [row for row in results.rows if row.final]
    if rows:
        yield "\nTest split, scored once, for the arm chosen on the validation split alone:\n"
        yield f"| {_one_cell(rows[0].place.arm)} | here, % |\n|---|---|"
    for row in rows:
        where = f"{metric_text(row.place.metric)}, {labels_text(row.place.labels)}"
        yield f"| {where} | {cell_text(row.cell, row.place.metric)} |"


def published_value(results: Results, row: Row) -> Value | None:
    """The published number of the same cell, under the same split."""
    published = results.stored.study.published
    if published is None or row.final or row.of in BESIDE:
        return None
    return published.values.get(row.place)


def _chance(results: Results, width: int, shares: tuple[float, ...]) -> list[str]:
    chance = f"{100 / results.stored.data['classes']:.2f}"
    return [chance, *[""] * (width - 1)] * len(shares)


def _name(row: Row) -> str:
    return BESIDE.get(row.of, _one_cell(row.place.arm))


def _one_cell(text: str) -> str:
    """Text that stays in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _marked(row: Row) -> str:
    text = cell_text(row.cell, row.place.metric)
    return f"**{text}**" if row.mark in ("best", "level") else text


def _definitions(results: Results) -> str:
    study = results.stored.study
    text = (
        "Mean ± standard deviation of the sample (n - 1 below the fraction) over seeds (n). "
        "Bold: the best arm and every arm that is not separated from it "
        f"({correction_text(study.protocol.correction)}, in each column). Collapsed runs are part "
        "of the mean and counted; diverged and failed ones have no number."
    )
    if study.published is not None:
        text += f" Published: {study.published.source}, {study.published.seeds} seeds."
    return text


def _missing(results: Results) -> Iterator[str]:
    missing = missing_runs(results)
    if missing:
        yield f"\nIncomplete, {len(missing)} of {len(results.stored.slots)} runs:\n"
    for slot, run in missing:
        share = "" if slot.labels is None else f", {labels_text(slot.labels)}"
        yield f"- {_one_cell(slot.arm)}, seed {slot.seed}{share}: {run_text(run)}"


def run_text(run: RunResult) -> str:
    """How a run stands, in words."""
    state = run.state
    if run.claimed:
        return f"at work, epoch {state.epoch}"
    if state.phase in ("waiting", "interrupted", "trained"):
        after = {"trained": "trained, not scored yet", "waiting": "not begun"}
        return after.get(state.phase, f"stopped at epoch {state.epoch}")
    return f"{state.phase}, {state.reason}"


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
    return f"Cost: {len(results.runs)} runs, {hours:.2f} hours of processes{energy}" + (
        f" ({'; '.join(dict.fromkeys(how))})." if how else "."
    )
