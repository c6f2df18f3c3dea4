"""Counts of what each class is taken for -> a matrix, dark where many are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.evaluation import SPACE, class_name, count
from stopgrad.report.figures.panels import ConfusionPanel
from stopgrad.report.figures.style import drawn_from, layered, light, styled

if TYPE_CHECKING:
    import altair as alt

CELL = 36  # px from one class to the next
MOST_CLASSES = 20  # beyond that, those that take most part in mistakes are drawn
DARKEST = 0.5  # opacity of a full cell: ink on it keeps its contrast, on either paper


class Confusion(NamedTuple):
    """One class taken for another."""

    true: str
    taken_for: str
    images: int
    of: int  # images of the class


def confusion_chart(panel: ConfusionPanel) -> alt.LayerChart:
    """A row for each class: of its images, how many per cent kNN takes for each class.

    Of more than 20 classes those that take most part in mistakes are drawn, in their order.
    """
    shown = drawn_classes(panel)
    names = [class_name(panel.class_names, index) for index in shown]
    cells = [_cell(panel, row, column) for row in shown for column in shown]
    data = drawn_from([cell for cell in cells if cell["images"] or cell["row"] == cell["column"]])
    order = [str(index) for index in shown]
    data = data.encode(
        x=_axis("column:N", order, names, title="taken for", angle=_angle(names)),
        y=_axis("row:N", order, names, title="is", angle=0),
    )
    rects = data.mark_rect(color=light("first"), cornerRadius=3).encode(
        opacity=_opacity(), description="text:N"
    )
    words = data.mark_text(fontSize=12, color=light("ink"), aria=False).encode(text="label:N")
    size = CELL * len(shown)
    title = "What each class is taken for, % of its images"
    return styled(layered(rects, words, title=title, width=size, height=size))


def confusions(panel: ConfusionPanel) -> list[Confusion]:
    """Every mistake there is, the most frequent first; of equals the first class first."""
    wrong = mistakes(panel.counts)
    flat = np.argsort(-wrong, axis=None, kind="stable")
    rows, columns = np.unravel_index(flat[: int(np.count_nonzero(wrong))], wrong.shape)
    names = panel.class_names
    return [
        Confusion(
            class_name(names, row),
            class_name(names, column),
            int(wrong[row, column]),
            int(panel.counts[row].sum()),
        )
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]


def drawn_classes(panel: ConfusionPanel) -> list[int]:
    """The classes that the chart shows, in their order."""
    wrong = mistakes(panel.counts)
    busy = wrong.sum(axis=0) + wrong.sum(axis=1)
    return sorted(np.argsort(-busy, kind="stable")[:MOST_CLASSES].tolist())


def mistakes(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The counts (C, C) without their diagonal."""
    return counts - np.diag(np.diag(counts))


def _cell(panel: ConfusionPanel, row: int, column: int) -> dict[str, Any]:
    images, whole = int(panel.counts[row, column]), int(panel.counts[row].sum())
    share = images / whole if whole else 0.0
    true, taken = (class_name(panel.class_names, index) for index in (row, column))
    verdict = "correct" if row == column else f"taken for {taken}"
    percent = f"{100 * share:.0f}" if share >= 0.005 else ("<1" if images else "0")
    return {
        "row": str(row),
        "column": str(column),
        "images": images,
        "opacity": DARKEST * share**0.5,
        "label": percent,
        "text": f"{true}, {verdict}: {count(images)} of {count(whole)} ({percent}{SPACE}%)",
    }


def _opacity() -> alt.Opacity:
    import altair as alt

    return alt.Opacity("opacity:Q", scale=None, legend=None)


def _angle(names: list[str]) -> int:
    return 0 if max(map(len, names)) <= 3 else -45


def _axis(field: str, order: list[str], names: list[str], *, title: str, angle: int) -> Any:
    """Classes in order, known by their number, because two may have one name."""
    import altair as alt

    texts = json.dumps(dict(zip(order, names, strict=True)))
    axis = alt.Axis(
        labelExpr=f"{texts}[datum.value]",
        labelAngle=angle,
        labelLimit=110,
        labelOverlap=False,
        grid=False,
        orient="top" if field.startswith("column") else "left",
    )
    kind = alt.X if field.startswith("column") else alt.Y
    scale = alt.Scale(domain=order, paddingInner=0.06)
    return kind(field, title=title, sort=order, axis=axis, scale=scale)
