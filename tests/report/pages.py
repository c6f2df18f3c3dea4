"""A run whose files a test writes by hand, and what stands on a page or in a chart."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from stopgrad.config import config_to_dict, preset
from stopgrad.evaluation import Record, to_line
from stopgrad.images import images_from_arrays
from stopgrad.report import NeighborPanel
from stopgrad.report.panels import ViewPanel
from stopgrad.report.style import inline_svg
from tests import factories
from tests.factories import MARKUP

NB = "\N{NO-BREAK SPACE}"
CLASSES = tuple("abcdefghij")
HEALTHY = {"state": "healthy", "reason": "z spans 12 directions", "advice": ""}
CONFIG = preset("tiny", **{"epochs": 3, "optimizer.alpha_h": 2 / 3})

# With what no file system takes in a name.
PAYLOADS = (*MARKUP, "a\x00<b>\x1b\udc80")


def record(**values: Any) -> Record:
    """Of the third epoch, with an accuracy for each class."""
    own = {"value": 0.5731, "top5": 0.9, "per_class": (0.5,) * len(CLASSES), "epoch": 3}
    return factories.record(**own | values)


RECORDS = [
    record(),
    record(of="untrained", value=0.3102, epoch=0),
    record(of="pixels", value=0.33958, epoch=0),
    record(labels=0.1, value=0.41, top5=0.81, protocol={"k": 100, "temperature": 0.1}),
    record(labels=0.1, of="untrained", value=0.25),
    record(metric="linear_accuracy", value=0.6, top5=0.95, protocol={"epochs": 90}),
]


def rows(count: int = 3) -> list[dict[str, Any]]:
    """What a run writes of so many epochs."""
    layer = {"participation_ratio": 5.0, "effective_rank": 12.0, "top_share": 0.25}
    layer |= {"correlation_strength": 0.05, "positive_minus_random": 0.6}
    layer |= {"output_std": 0.99, "centre_norm": None}
    found: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        found += [{"kind": "step", "step": 10 * number - 5, "loss": -0.1 * number, "lr": 0.1}]
        epoch = {"kind": "epoch", "epoch": number, "step": 10 * number, "loss": -0.1 * number}
        epoch |= {"lr": 0.1 / number, "predictor_lr": 0.2, "views_per_s": 320.0}
        epoch |= {"verdict": HEALTHY, "knn": 0.2 * number}
        found += [epoch | {"measures": {"features": layer, "before_bn": layer, "z": layer}}]
    return found


def write_run(
    run: Path,
    *,
    names: tuple[str, ...] = CLASSES,
    metrics: list[dict[str, Any]] | None = None,
    records: list[Record] | None = None,
    **changes: Any,
) -> Path:
    """A run of three epochs, unless `changes` of its config and the lists say else."""
    run.mkdir()
    data = {"spec": "toy", "name": "toy", "fingerprint": "f" * 64, "images": 320}
    values = {
        "format": 1,
        "config": config_to_dict(CONFIG),
        "data": data | {"class_names": list(names)},
        "normalization": {"mean": [0.5] * 3, "std": [0.25] * 3},
        "environment": {"threads": 2, "device": "cpu", "machine": "m", "torch": "2.11"},
    }
    text = [json.dumps(row) + "\n" for row in (rows() if metrics is None else metrics)]
    lines = [to_line(r) + "\n" for r in (RECORDS if records is None else records)]
    (run / "config.json").write_text(json.dumps(values | changes))
    (run / "metrics.jsonl").write_text("".join(text))
    (run / "records.jsonl").write_text("".join(lines))
    (run / "status.json").write_text(json.dumps({"state": "finished", "step": 30, "epoch": 3}))
    return run


def neighbor_panel(names: tuple[str, ...] = CLASSES) -> NeighborPanel:
    """Two images with two neighbours each; the second is a mistake."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    bank = images_from_arrays(pixels, labels=np.arange(8) % 6, class_names=names)
    index, similarity = np.array([[1, 2], [3, 4]]), np.array([[0.91, 0.8], [0.7, 0.6]])
    picked = bank.take(np.array([1, 5]))
    return NeighborPanel(picked, bank, index, similarity, np.array([1, 0]), rule="by hand")


def view_panel() -> ViewPanel:
    """Two images with two views each."""
    return ViewPanel(*np.random.default_rng(1).integers(0, 256, (3, 2, 4, 4, 3), dtype=np.uint8))


Skeleton = list[tuple[str, tuple[str, ...]]]  # (tag, names of attributes), in order


class Element(NamedTuple):
    """A start tag."""

    tag: str
    attributes: tuple[tuple[str, str | None], ...]


class Page(HTMLParser):
    """Elements in order, the text in each kind of element, and the cells of each table."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.texts: dict[str, list[str]] = {}
        self.of: dict[str, list[list[list[str]]]] = {}  # all tables of a kind
        self.in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, tuple(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag == "table":
            self.rows: list[list[str]] = []
            self.of.setdefault((dict(attrs)["class"] or "").split()[0], []).append(self.rows)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True
        self.open = tag

    def handle_data(self, data: str) -> None:
        if self.elements:
            self.texts[self.open][-1] += data
            if self.in_cell:
                self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.open = "body"
        self.in_cell = self.in_cell and tag not in ("td", "th")
        self.texts.setdefault("body", [""])

    @property
    def tables(self) -> dict[str, list[list[str]]]:
        """The only table of each kind."""
        return {kind: rows for kind, [rows] in self.of.items()}

    @property
    def skeleton(self) -> Skeleton:
        return [(e.tag, tuple(name for name, _ in e.attributes)) for e in self.elements]

    def attribute(self, name: str) -> list[str]:
        return [value or "" for e in self.elements for key, value in e.attributes if key == name]


def tips(chart: Any) -> list[str]:
    """What a chart says of each of its marks."""
    return re.findall(r'data-tip="([^"]*)"', inline_svg(chart, label="x"))


def rows_of(chart: Any, *needed: str) -> list[dict[str, Any]]:
    """All rows of a chart's data that have these fields, each once."""
    if isinstance(chart, dict):
        own = chart.get("data", {}).get("values", [])
        below = [row for key, part in chart.items() if key != "data" for row in rows_of(part)]
    else:
        own = [row for part in chart for row in rows_of(part)] if is_list(chart) else []
        below = []
    found = [row for row in [*own, *below] if all(name in row for name in needed)]
    return [row for place, row in enumerate(found) if row not in found[:place]]


def is_list(part: Any) -> bool:
    """A list in either of Python's kinds."""
    return isinstance(part, list | tuple)


def hindrances(page: Any, scheme: str) -> list[dict[str, Any]]:
    """What axe-core finds on an open page; in the dark, whose colours differ, of contrast alone."""
    package = pytest.importorskip("axe_playwright_python", reason="needs axe-core")
    page.evaluate((Path(package.__path__[0]) / "axe.min.js").read_text())
    rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
    return list(page.evaluate("rules => axe.run(rules)", rules)["violations"])
