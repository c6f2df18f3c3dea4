"""A study's results -> rows that its figures draw: a mean with its spread, ours or published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.evaluation import ACCURACIES, labels_text, mean_and_spread, metric_text
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.studies import Results


class Score(NamedTuple):
    """One mean of a study; accuracies in percent."""

    arm: str
    metric: str  # as records name it
    labels: float
    mean: float
    std: float | None
    n: int
    collapsed: int = 0  # of the n runs, wholly or to a few dimensions
    values: tuple[float, ...] = ()  # a run each
    published: bool = False
    baseline: bool = False  # an untrained encoder or raw pixels

    @property
    def title(self) -> str:
        """`kNN, 10 % of the labels`."""
        if self.metric not in ACCURACIES:
            return metric_text(self.metric)
        return f"{metric_text(self.metric)}, {labels_text(self.labels)}"

    @property
    def written(self) -> str:
        """`61.75 ± 0.20 % (n = 3)`."""
        found = mean_and_spread(self.mean, self.std, percent=self.metric in ACCURACIES)
        after = f", {self.collapsed} collapsed" if self.collapsed else ""
        return f"{found} (n = {self.n}{after})"


def scores(results: Results) -> list[Score]:
    """Every mean of a study with what was published beside it; final test scores are left out."""
    rows = []
    for row in results.rows:
        if row.final or row.cell.summary is None:
            continue
        scale = 100 if row.place.metric in ACCURACIES else 1
        mean, std, n = row.cell.summary
        rows.append(
            Score(
                arm={"untrained": "untrained encoder", "pixels": "raw pixels"}.get(
                    row.of, printable(row.place.arm)
                ),
                metric=row.place.metric,
                labels=row.place.labels,
                mean=scale * mean,
                std=None if std is None else scale * std,
                n=n,
                collapsed=row.cell.collapsed + row.cell.dimensional,
                values=tuple(scale * value for value in row.cell.values if value is not None),
                baseline=row.of in ("untrained", "pixels"),
            )
        )
    return rows + _published(results)


def of_metric(found: Sequence[Score], metric: str) -> list[Score]:
    """The scores of one metric."""
    return [score for score in found if score.metric == metric]


def as_row(score: Score, **more: Any) -> dict[str, Any]:
    """A score as a chart takes it, with the sentence that stands under the pointer."""
    spread = score.std or 0.0
    source = "published, " if score.published else ""
    return {
        "value": score.mean,
        "low": score.mean - spread,
        "high": score.mean + spread,
        "arm": score.arm,
        "text": f"{score.arm}, {source}{score.title}: {score.written}",
        **more,
    }


def _published(results: Results) -> list[Score]:
    published = results.stored.study.published
    if published is None:
        return []
    return [
        Score(
            printable(place.arm),
            place.metric,
            place.labels,
            value.mean,
            value.std,
            published.seeds,
            published=True,
        )
        for place, value in published.values.items()
    ]
