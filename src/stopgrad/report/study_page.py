"""A study -> what the template of its part shows."""

from __future__ import annotations

import shlex
from typing import Any

from stopgrad.evaluation import (
    ACCURACIES,
    SPACE,
    correction_text,
    count,
    duration,
    labels_text,
    metric_text,
    number,
)
from stopgrad.report import study_charts, tables
from stopgrad.report.facts import Fact, method_facts
from stopgrad.report.shell import Chapter, Link
from stopgrad.report.shown import PICTURE_LINKS, shown_pictures
from stopgrad.report.study import StudyEvidence
from stopgrad.report.tiles import Tile
from stopgrad.storage import printable
from stopgrad.studies import cost, missing_runs, run_text, scored, sentence

LINKS = (
    ("score_tables", "numbers", "Numbers"),
    ("component_table", "components", "Components"),
    ("curve_figures", "curves", "Over the epochs"),
    ("collapse_figures", "collapse", "Collapse"),
    *PICTURE_LINKS,
    ("facts", "done", "What was done"),
)

ENDED = ("collapsed", "diverged", "failed")
"""Phases of a run that the same command, given again, leaves as it is."""


def study_chapter(evidence: StudyEvidence) -> Chapter:
    """A study as a chapter of a page."""
    content = study_content(evidence)
    links = tuple(Link(anchor, text) for key, anchor, text in LINKS if content[key])
    question = evidence.results.stored.study.question
    kind = f"study {evidence.name}"
    return Chapter("study.html", kind, question, content["lead"], links, content)


def study_content(evidence: StudyEvidence) -> dict[str, Any]:
    """All that the template shows; a section without data is empty and left out."""
    return {
        "file": evidence.name,
        "published": evidence.results.stored.study.published is not None,
        "lead": f"{evidence.results.stored.data['name']}, {scored(evidence.results)}",
        "missing": missing_lines(evidence),
        "tiles": study_tiles(evidence),
        "finding": sentence(evidence.results),
        "architecture": study_charts.architecture_figures(evidence),
        "score_figures": study_charts.score_figures(evidence),
        "score_tables": tables.score_tables(evidence),
        "definitions": _definitions(evidence),
        "protocols": study_charts.protocol_lines(evidence),
        "results_csv": tables.results_csv(evidence),
        "curve_figures": study_charts.curve_figures(evidence),
        "component_table": tables.component_table(evidence),
        "collapse_figures": study_charts.collapse_figures(evidence),
        "finding_table": tables.finding_table(evidence),
        "run_table": tables.run_table(evidence),
        "facts": study_facts(evidence),
        "command": study_command(evidence),
        **_shown(evidence),
    }


def _shown(evidence: StudyEvidence) -> dict[str, Any]:
    if evidence.shown is None:
        return shown_pictures(None)
    return shown_pictures(evidence.shown.run, run=evidence.shown.words)


def missing_lines(evidence: StudyEvidence) -> list[str]:
    """What a half-finished study lacks, run by run, and how to go on."""
    missing, slots = missing_runs(evidence.results), evidence.results.stored.slots
    if not missing:
        return []
    ended = sum(run.state.phase in ENDED and not run.claimed for _, run in missing)
    retry = " --retry" if ended == len(missing) else ""
    also = f" (with --retry also the {ended} that ended badly)" if ended and not retry else ""
    lines = [
        f"Incomplete: {len(missing)} of {len(slots)} runs lack numbers. Continue with: "
        f"{study_command(evidence)}{retry}{also}"
    ]
    for slot, run in missing[:20]:
        share = "" if slot.labels is None else f", {labels_text(slot.labels)}"
        lines.append(f"{slot.arm}, seed {slot.seed}{share}: {run_text(run)}")
    return [*lines, f"and {len(missing) - 20} more"] if len(missing) > 20 else lines


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
    arms = f"{len(results.stored.study.arms)} arms, seeds {_seeds(results.stored.seeds)}"
    tiles.append(Tile("Runs", f"{done} of {len(results.stored.slots)}", arms))
    collapsed = sorted(evidence.collapsed)
    if collapsed:
        names = ", ".join(collapsed)
        tiles.append(
            Tile(
                "Collapsed",
                f"{len(collapsed)} arm{'s' if len(collapsed) > 1 else ''}",
                names,
                "wrong",
            )
        )
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
    machines = sorted({r.device_name or r.device for r in records})
    threads = sorted({r.threads for r in records})
    versions = sorted({f"{name} {v}" for r in records for name, v in r.versions.items()})
    made = [
        Fact("Data", f"{stored.data['name']}, {stored.data['classes']} classes"),
        Fact("Settings", _settings(evidence)),
        Fact("Baseline", stored.study.baseline),
        *(method_facts(evidence.config) if evidence.config is not None else []),
        Fact("Work", work if views else ""),
        Fact("Cost", cost(results).removeprefix("Cost: ")),
        Fact("Machines", f"{', '.join(machines)}; threads {_seeds(threads)}" if records else ""),
        Fact(
            "Versions",
            ", ".join(
                [f"stopgrad {v}" for v in sorted({r.code for r in records})]
                + [v for v in versions if not v.startswith("stopgrad")]
            ),
        ),
    ]
    return [Fact(fact.name, printable(fact.value)) for fact in made if fact.value]


def study_command(evidence: StudyEvidence) -> str:
    """The command that repeats the study, or goes on with it."""
    stored = evidence.results.stored
    words = ["stopgrad", "study", "run", stored.study.name, "--data", str(stored.data["spec"])]
    words += ["--out", evidence.path, "--preset", stored.preset]
    seeds = list(stored.seeds)
    counted = seeds == list(range(len(seeds)))
    words += ["--seeds", *([str(len(seeds))] if counted else map(str, seeds))]
    for key, value in stored.overrides.items():
        words += [f"--{key}", str(value)]
    return shlex.join(words)


def _settings(evidence: StudyEvidence) -> str:
    stored = evidence.results.stored
    changed = ", ".join(f"{key} {value}" for key, value in stored.overrides.items())
    return f"preset {stored.preset}{f' with {changed}' if changed else ''}"


def _definitions(evidence: StudyEvidence) -> str:
    correction = correction_text(evidence.results.stored.study.protocol.correction)
    return (
        "Standard deviations are those of the sample (n - 1). Bold: the best arm and every arm "
        f"that is not separated from it ({correction}, in each column). Collapsed runs are part "
        "of a mean and counted beside it; diverged and failed ones have no number."
    )


def _seeds(values: Any) -> str:
    return ", ".join(map(str, values))
