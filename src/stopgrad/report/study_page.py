"""A study -> what `study.html` shows of it."""

from __future__ import annotations

import shlex
from typing import Any

from stopgrad.evaluation import (
    ACCURACIES,
    MEASURES,
    SPACE,
    count,
    duration,
    labels_text,
    metric_text,
    number,
    state_text,
    unit_text,
)
from stopgrad.report import study_charts, study_scores
from stopgrad.report.accuracy import architecture_figures
from stopgrad.report.evidence import StudyEvidence
from stopgrad.report.facts import Fact, Tile, decay_tile, method_facts
from stopgrad.report.gallery import image_sections
from stopgrad.report.study_tables import (
    SORTED_LAST,
    bold_text,
    clean_images,
    cost,
    effect_table,
    finding_table,
    mean_cell,
    scale_text,
    score_tables,
    scored,
    visible_text,
)
from stopgrad.report.study_text import study_csv
from stopgrad.report.table import Column, Table, TableCell
from stopgrad.storage import printable
from stopgrad.studies import (
    Place,
    Results,
    StudyRun,
    arm_extents,
    labels_of,
    missing_runs,
    published_extents,
    run_text,
    sentence,
    slot_text,
)

ENDED = ("collapsed", "diverged", "failed")
"""Phases in which repeating the command leaves a run as it is."""
LISTED = 5  # runs that lack numbers


def study_chapter(evidence: StudyEvidence) -> dict[str, Any]:
    """The values for `study.html`; what has no data is empty, its section left out."""
    results, study, shown = evidence.results, evidence.results.stored.study, evidence.shown
    return {
        "template": "study.html",
        "kind": f"study {study.name}",
        "name": study.name,
        "title": study.question,
        "lead": f"{results.stored.data.name}, {scored(results)}",
        "missing": missing_lines(evidence),
        "tiles": study_tiles(evidence),
        "finding": sentence(results),
        "published": study.published is not None,
        "scale": scale_text(results),
        "key_figures": study_scores.key_figures(evidence),
        "score_figures": study_scores.score_figures(evidence),
        "findings": finding_table(results),
        "effects": effect_table(results),
        "scores": score_tables(results),
        "definitions": definitions(results),
        "protocols": study_charts.protocol_lines(evidence),
        "csv": study_csv(results) + "\n",
        "components": component_table(results),
        "curve_figures": study_charts.curve_figures(evidence),
        "collapse_figures": study_charts.collapse_figures(evidence),
        "few": few_epochs(evidence),
        "images": image_sections(shown and shown.run, run=shown.text if shown else ""),
        "architecture": architecture_figures(evidence),
        "facts": study_facts(evidence),
        "command": study_command(evidence),
        "runs": run_table(results),
    }


def definitions(results: Results) -> str:
    """What the numbers in the tables mean."""
    spread = "Standard deviations are those of the sample (n - 1)."
    return f"{spread} {bold_text(results)} {visible_text(results)}"


def few_epochs(evidence: StudyEvidence) -> str:
    """Why there are no curves, where there are too few points for any."""
    measured = {row["epoch"] for row in study_charts.all_rows(evidence)}
    if not 0 < len(measured) < study_charts.FEWEST_POINTS:
        return ""
    return (
        f"No curves: the runs have {len(measured)} measured epochs, and a curve needs "
        f"{study_charts.FEWEST_POINTS}."
    )


def missing_lines(evidence: StudyEvidence) -> list[str]:
    """What a half-finished study lacks, run by run, and how to continue."""
    missing, slots = missing_runs(evidence.results), evidence.results.stored.slots
    if not missing:
        return []
    again = [run for _, run in missing if run.claimed or run.state.phase != "diverged"]
    ended = sum(run.state.phase in ENDED and not run.claimed for run in again)
    retry = " --retry" if ended == len(again) else ""
    also = f" (add --retry for the {ended} that ended badly)" if ended and not retry else ""
    lines = []
    if again:
        lines.append(
            f"Incomplete: {len(again)} of {len(slots)} runs lack numbers. Continue with: "
            f"{study_command(evidence)}{retry}{also}"
        )
    if diverged := len(missing) - len(again):
        lines.append(f"{diverged} of {len(slots)} runs diverged, and would again.")
    lines += [f"{slot_text(slot)}: {run_text(run)}" for slot, run in missing[:LISTED]]
    more = len(missing) - LISTED
    return [*lines, f"and {more} more"] if more > 0 else lines


def study_tiles(evidence: StudyEvidence) -> list[Tile]:
    """The best arm, how many runs there are, and what they took."""
    results = evidence.results
    done = len(results.stored.slots) - len(missing_runs(results))
    tiles = []
    best = [row for row in results.rows if row.mark == "best" and row.place.metric in ACCURACIES]
    if best:
        row = max(best, key=lambda row: row.place.labels)
        assert row.cell.summary is not None
        spread = row.cell.summary.std
        around = "" if spread is None else f"± {100 * spread:.2f}; "
        value = f"{100 * row.cell.summary.mean:.2f}{SPACE}%"
        how = f"{metric_text(row.place.metric)}, {labels_text(row.place.labels)}"
        note = f"{around}{row.place.arm}: {how}"
        tiles.append(Tile("Best arm", value, note))
    if extents := arm_extents(results):
        tiles.append(decay_tile([*extents.values()], [*published_extents(results).values()]))
    seeds = ", ".join(map(str, results.stored.seeds))
    arms = f"{len(results.stored.study.arms)} arms, seeds {seeds}"
    tiles.append(Tile("Runs", f"{done} of {len(results.stored.slots)}", arms))
    collapsed = study_charts.collapsed_arms(evidence)
    if collapsed:
        arms = f"{len(collapsed)} arm{'s' if len(collapsed) > 1 else ''}"
        tiles.append(Tile("Collapsed", arms, ", ".join(collapsed), "wrong"))
    seconds = sum(run.wall_s for run in results.runs.values())
    trained = sum(run.train_s or 0.0 for run in results.runs.values())
    if max(seconds, trained):
        tiles.append(Tile("Time", duration(max(seconds, trained)), "of processes, all runs"))
    return tiles


def study_facts(evidence: StudyEvidence) -> list[Fact]:
    """What was done: data, method, work, energy, machines and versions."""
    results = evidence.results
    stored = results.stored
    records = [r for run in results.runs.values() for r in run.numbers.values()]
    views = sum(run.views for run in results.runs.values())
    flops = sum(run.flops for run in results.runs.values())
    work = f"{count(views)} views" + (f", {number(flops / 1e15)} PFLOP" if flops else "")
    machines = ", ".join(sorted({r.device_name or r.device for r in records}))
    threads = ", ".join(map(str, sorted({r.threads for r in records})))
    codes = [f"stopgrad {code}" for code in sorted({r.code for r in records})]
    versions = sorted({f"{name} {v}" for r in records for name, v in r.versions.items()})
    versions = [version for version in versions if not version.startswith("stopgrad")]
    changed = ", ".join(f"{key} {value}" for key, value in stored.overrides.items())
    made = [
        Fact("Data", f"{stored.data.name}, {stored.data.classes} classes"),
        Fact("Settings", f"preset {stored.preset}{f' with {changed}' if changed else ''}"),
        Fact("Baseline", stored.study.baseline),
        *(method_facts(evidence.config) if evidence.config else []),
        Fact("Work", work if views else ""),
        Fact("Cost", cost(results).removeprefix("Cost: ")),
        Fact("Machines", f"{machines}; threads {threads}" if records else ""),
        Fact("Versions", ", ".join([*codes, *versions])),
    ]
    return [Fact(fact.name, printable(fact.value)) for fact in made if fact.value]


def study_command(evidence: StudyEvidence) -> str:
    """The command that repeats or continues the study."""
    stored = evidence.results.stored
    words = ["stopgrad", "study", "run", stored.study.name, "--data", stored.data.spec]
    words += ["--out", evidence.path, "--preset", stored.preset]
    seeds = list(stored.seeds)
    counted = seeds == list(range(len(seeds)))
    listed = 2 * seeds if len(seeds) == 1 else seeds  # one number alone is how many
    words += ["--seeds", *([str(len(seeds))] if counted else map(str, listed))]
    for key, value in stored.overrides.items():
        words += [f"--{key}", str(value)]
    return shlex.join(words)


def component_table(results: Results) -> Table | None:
    """Each arm with kNN, its measures and verdicts; None where correlation is not measured."""
    study = results.stored.study
    measures = [metric for metric in study.protocol.metrics if metric in MEASURES]
    if "correlation_strength" not in measures:
        return None
    metrics = [m for m in study.protocol.metrics if m in ACCURACIES][:1] + measures
    rows = []
    for arm in study.arms:
        cells = [TableCell(arm.name)]
        for metric in metrics:
            most = max(labels_of(metric, study.protocol))
            cell = results.cells.get(Place(arm.name, metric, most))
            # Without a note: the verdicts say how each run ended.
            found = TableCell() if cell is None else mean_cell(cell, metric)._replace(note="")
            cells.append(found)
        rows.append((*cells, TableCell(_verdicts(results, arm.name))))
    heads = [Column(unit_text(metric), "right") for metric in metrics]
    on = clean_images(results, "correlation_strength") or "views of training images"
    caption = (
        f"Each arm: mean ± standard deviation (runs) of z on {on}, and the verdicts on its runs"
    )
    columns = (Column("arm"), *heads, Column("verdict"))
    return Table("components", columns, tuple(rows), caption)


def _verdicts(results: Results, arm: str) -> str:
    """`complete collapse in 3 of 3`, by the newest measurement of each run."""
    states = [
        _state(results.runs[slot.run]) or "unknown"
        for slot in results.stored.slots
        if slot.arm == arm
    ]
    return ", ".join(f"{s} in {states.count(s)} of {len(states)}" for s in dict.fromkeys(states))


def _state(run: StudyRun) -> str:
    """The newest verdict on a run, refined by its records; "" before any."""
    records = [*run.numbers.values()]
    return state_text(run.state.verdict or "", records, epoch=run.state.epoch)


def run_table(results: Results) -> Table:
    """Every run: its state, how long it took, and the newest kNN that it was watched by."""
    rows = []
    for slot in results.stored.slots:
        run = results.runs[slot.run]
        state, knn = run.state, run.state.knn
        trained = state.phase == "trained" and not run.claimed
        rows.append(
            (
                TableCell(slot.arm),
                TableCell(str(slot.seed), slot.seed),
                TableCell("" if slot.labels is None else labels_text(slot.labels)),
                TableCell("trained" if trained else run_text(run)),
                TableCell(str(state.epoch), state.epoch),
                TableCell("", SORTED_LAST) if knn is None else TableCell(f"{100 * knn:.2f}", knn),
                TableCell(_state(run)),
                TableCell(f"{run.wall_s / 60:.1f}", run.wall_s),
                TableCell(slot.run),
            )
        )
    heads = ("arm", "seed", "labels", "state", "epoch", "newest kNN, %", "verdict", "min", "run")
    numbers = ("seed", "epoch", "newest kNN, %", "min")
    columns = tuple(Column(head, "right" if head in numbers else "left") for head in heads)
    return Table("runs", columns, tuple(rows), "Every run of the study")
