"""A run's newest measures of collapse -> records."""

from __future__ import annotations

from collections.abc import Iterator

from stopgrad.evaluation.records import MEASURES, Record
from stopgrad.evaluation.scoring import cost_of, labelled_record
from stopgrad.method import training_flops
from stopgrad.runs import MetricsRow, TrainedRun, read_metrics

MEASURED = 1024  # images whose two views are measured; fixed for a run


def measured(run: TrainedRun, *, metrics: tuple[str, ...], name: str) -> Iterator[Record]:
    """A record for each measure of z, from the last epoch that was measured.

    Args:
        run: The run.
        metrics: Names; those that are no measures are left out.
        name: Of the data set.
    """
    row = newest_measures(run)
    measures, verdict = row.get("measures"), row.get("verdict")
    if not measures or not verdict:
        return
    views = 2 * run.info.config.batch * row["step"]
    for metric in (metric for metric in metrics if metric in MEASURES):
        value = measures.get("z", {}).get(metric)
        if value is not None:
            yield labelled_record(
                run.info,
                metric=metric,
                value=value,
                of="encoder",
                split="train",
                images_scored=min(MEASURED, run.info.data["images"]),
                protocol={"evaluator": "collapse", "layer": "z", "views": "two of each image"},
                name=name,
                epoch=row["epoch"],
                verdict=verdict.get("state"),
                wall_s=0.0,
                views=views,
                flops=training_flops(run.info.config) * views,
                **cost_of(run.path),
            )


def newest_measures(run: TrainedRun) -> MetricsRow:
    """The last epoch's row with measures, up to the checkpoint that is scored; empty before one."""
    rows = [row for row in read_metrics(run.path) if row.get("measures") is not None]
    return next((row for row in reversed(rows) if row["step"] <= run.step), MetricsRow())
