"""How a study's numbers are written: accuracies in percent, with their spread and count."""

from __future__ import annotations

from collections.abc import Sequence

from stopgrad.evaluation import ACCURACIES, Cell, Correction, Summary, decimals

METRICS = {
    "knn_accuracy": "kNN",
    "linear_accuracy": "linear probe",
    "linear_lars_accuracy": "linear probe (LARS)",
    "finetune_accuracy": "fine-tuning",
    "supervised_accuracy": "supervised from scratch",
}


def metric_text(metric: str) -> str:
    """`kNN`, `effective rank`."""
    return METRICS.get(metric, metric.replace("_", " "))


def unit_text(metric: str) -> str:
    """`kNN, %` for an accuracy; a measure has no unit."""
    return f"{metric_text(metric)}, %" if metric in ACCURACIES else metric_text(metric)


def share_text(share: float) -> str:
    """`all labels`, `10 % of the labels`."""
    return "all labels" if share == 1 else f"{100 * share:g} % of the labels"


def accuracy_text(summary: Summary) -> str:
    """`61.75 ± 0.20 %, n = 3`."""
    spread = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
    return f"{100 * summary.mean:.2f}{spread} %, n = {summary.n}"


def mean_text(mean: float, std: float | None, metric: str) -> str:
    """`61.75 ± 0.20`: an accuracy in percent with two decimals.

    `20.2 ± 0.5`: a measure with three digits, but four decimals at most; its spread has as many.
    """
    scale, places = (100, 2) if metric in ACCURACIES else (1, decimals(mean))
    return f"{scale * mean:z.{places}f}" + ("" if std is None else f" ± {scale * std:.{places}f}")


def cell_text(cell: Cell, metric: str) -> str:
    """`61.75 ± 0.20 (3)`, and what became of the runs that are not sound."""
    ends = [
        f"{count} {name}"
        for name, count in (
            ("dimensional collapse", cell.dimensional),
            ("collapsed", cell.collapsed),
            ("diverged", cell.diverged),
            ("failed", cell.failed),
            ("missing", cell.missing),
        )
        if count
    ]
    after = f", {', '.join(ends)}" if ends else ""
    if cell.summary is None:
        return after.removeprefix(", ") or "no runs"
    mean, std, n = cell.summary
    return f"{mean_text(mean, std, metric)} ({n}){after}"


def difference_text(difference: float, metric: str) -> str:
    """`+1.20 points`."""
    if metric in ACCURACIES:
        return f"{100 * difference:+.2f} points"
    return f"{difference:+.3g}"


def p_text(p: float) -> str:
    """`p = 0.03`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def arms_text(arms: Sequence[str]) -> str:
    """`'a', 'b' and 'c'`."""
    named = [repr(arm) for arm in arms]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def correction_text(correction: Correction) -> str:
    """How tests were made."""
    after = {"none": "uncorrected", "bonferroni": "Bonferroni", "holm": "Holm"}[correction]
    return f"Welch's one-sided t-test at 5 %, {after}"
