"""What a page lets one explore: the data are the panels', and no name becomes markup."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.images import images_from_arrays
from stopgrad.report import NeighborPanel, read_evidence
from stopgrad.report.gallery import Sheet, gallery, sheet
from stopgrad.report.maps import (
    MOST_CONFUSED,
    SIDE,
    coloured_classes,
    confusion_chart,
    confusion_finding,
    confusions,
    drawn_classes,
    map_chart,
    map_finding,
)
from stopgrad.report.page import render
from stopgrad.report.panels import ConfusionPanel, Exploration, MapPanel
from stopgrad.report.style import inline_svg
from stopgrad.storage import printable
from tests.report.pages import CLASSES, NB, PAYLOADS, Page, Skeleton, write_run

COUNTS = np.array([[8, 2, 0], [0, 9, 1], [4, 0, 6]])


def exploration(names: tuple[str, ...] = CLASSES, *, labelled: bool = True) -> Exploration:
    """Six queries, three neighbours each of eight images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
    labels = np.arange(8) % 6 if labelled else None
    bank = images_from_arrays(pixels, labels=labels, class_names=names if labelled else ())
    index = np.array([[1, 2, 7], [3, 4, 7], [0, 6, 2], [5, 1, 0], [2, 3, 4], [7, 6, 5]])
    similarity = 0.9 - 0.1 * np.arange(18).reshape(6, 3) / 7
    predicted = np.array([0, 1, 2, 0, 4, 5]) if labelled else None
    queries = bank.take(np.arange(6))
    panel = NeighborPanel(queries, bank, index, similarity, predicted, "by hand", {"k": 5})
    points = rng.normal(size=(9, 2)).astype(np.float32)
    marks = np.arange(9) % 6 if labelled else None
    plane = MapPanel(points, marks, names, 6, "PCA", (0.25, 0.125), 100, (0.5, 0.75))
    counts = np.pad(COUNTS, ((0, 7), (0, 7)))
    confusion = ConfusionPanel(counts, names, {"k": 5, "temperature": 0.1}) if labelled else None
    return Exploration(panel, panel, plane, confusion)


def page(folder: Path, explored: Exploration | None, *, names: tuple[str, ...] = CLASSES) -> str:
    run = write_run(folder / "run", names=names, metrics=[], records=[])
    examples = None if explored is None else explored.examples
    evidence = read_evidence(run, neighbors=examples)
    return render(evidence._replace(exploration=explored))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(tmp_path_factory.mktemp("page"), exploration())


def data_of(text: str) -> dict[str, Any]:
    [found] = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    data: dict[str, Any] = json.loads(found)
    return data


def tile(source: str, data: dict[str, Any], number: int) -> np.ndarray:
    """A tile of a sheet, as the script cuts it out."""
    canvas = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    top, left = (data["cell"] * place for place in divmod(number, data["columns"]))
    size = data["tile"]
    return np.asarray(canvas)[top : top + size["height"], left : left + size["width"]]


def test_the_data_on_the_page_are_the_neighbours(text: str) -> None:
    panel, data = exploration().gallery, data_of(text)
    [source] = [v for v in Page(text).attribute("src") if v.startswith("data:image/webp")]
    assert data["names"] == list(CLASSES)
    assert [image[:2] for image in data["images"]] == [[i, [0, 1, 2, 0, 4, 5][i]] for i in range(6)]
    for number, (_, _, near) in enumerate(data["images"]):
        np.testing.assert_array_equal(tile(source, data, number), panel.queries.pixels[number])
        for place, (which, label, similarity) in enumerate(near):
            row = panel.index[number, place]
            np.testing.assert_array_equal(tile(source, data, which), panel.bank.pixels[row])
            assert label == row % 6
            assert similarity == pytest.approx(panel.similarity[number, place], abs=5e-4)


def test_the_chosen_examples_stand_on_the_page_without_script(text: str) -> None:
    assert '<div id="explorer" class="explorer" hidden>' in text
    assert "Classified correctly" in text
    assert text.count('class="query"') == 1 + 6  # the explorer's empty one, and the examples


def test_without_labels_nothing_is_said_of_classes_or_mistakes(tmp_path: Path) -> None:
    text = page(tmp_path, exploration(labelled=False), names=())
    assert {(image[0], image[1]) for image in data_of(text)["images"]} == {(None, None)}
    ids = set(Page(text).attribute("id"))
    assert {"explorer", "map"} <= ids
    assert "confusion" not in ids
    assert "<select" not in text


def test_without_an_exploration_the_page_is_as_before(tmp_path: Path) -> None:
    text = page(tmp_path, None)
    assert not {"explorer", "map", "confusion"} & set(Page(text).attribute("id"))


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Skeleton:
    names = tuple("qrstuvwxyz")
    folder = tmp_path_factory.mktemp("harmless")
    return Page(page(folder, exploration(names), names=names)).skeleton


@pytest.mark.parametrize("start", [0, 10, 20])
def test_no_class_name_adds_an_element_or_an_attribute(
    tmp_path: Path, harmless: Skeleton, start: int
) -> None:
    names = tuple(PAYLOADS[start : start + 10])
    text = page(tmp_path, exploration(names), names=names)
    assert Page(text).skeleton == harmless
    # What stands in the data is the names as they are printed, whatever they try to end.
    assert data_of(text)["names"] == [printable(name) for name in names]


def test_a_sheet_keeps_small_pictures_bit_by_bit_and_reduces_what_is_too_large() -> None:
    rng = np.random.default_rng(0)
    noise = list(rng.integers(0, 256, (12, 20, 20, 3), dtype=np.uint8))
    whole = sheet(noise)
    assert whole.lossless
    assert (whole.width, whole.cell, whole.columns) == (20, 32, 4)
    np.testing.assert_array_equal(tile(whole.source, as_data(whole), 9), noise[9])
    lossy = sheet(noise, most_bytes=9_000)
    assert not lossy.lossless
    assert len(lossy.source) <= 12_000 + 40
    large = sheet(list(rng.integers(0, 256, (3, 60, 90, 3), dtype=np.uint8)))
    assert (large.width, large.height) == (48, 32)


def as_data(made: Sheet) -> dict[str, Any]:
    size = {"width": made.width, "height": made.height}
    return {"cell": made.cell, "columns": made.columns, "tile": size}


def test_a_full_gallery_of_noise_stays_within_its_budget() -> None:
    # Nothing compresses worse: 300 queries with 8 neighbours of 32 px, all different.
    pixels = np.random.default_rng(0).integers(0, 256, (2700, 32, 32, 3), dtype=np.uint8)
    bank = images_from_arrays(pixels)
    index = np.arange(300, 2700).reshape(300, 8)
    made = gallery(NeighborPanel(bank.take(np.arange(300)), bank, index, index / 2700))
    assert len(made.source) + len(json.dumps(made.data)) < 1_500_000
    assert "reduced" in made.caption


def test_the_matrix_shows_shares_of_each_row() -> None:
    panel = ConfusionPanel(COUNTS, ("a", "b", "c"))
    svg = inline_svg(confusion_chart(panel), label="x")
    tips = re.findall(r'data-tip="([^"]*)"', svg)
    assert f"a, taken for b: 2 of 10 (20{NB}%)" in tips
    assert f"c, correct: 6 of 10 (60{NB}%)" in tips
    assert len(tips) == 6  # empty cells stay empty
    words = re.findall(r">([^<>]+)</text>", svg)
    assert {"80", "20", "90", "10", "40", "60"} <= set(words)


def test_the_finding_names_the_most_frequent_mistake() -> None:
    panel = ConfusionPanel(COUNTS, ("a", "b", "c"))
    assert confusion_finding(panel) == (
        "7 of 30 images are taken for another class, most often c for a (4 of 10)."
    )
    assert [(m.true, m.taken_for, m.images) for m in confusions(panel)] == [
        ("c", "a", 4),
        ("a", "b", 2),
        ("b", "c", 1),
    ]
    perfect = ConfusionPanel(np.diag([3, 4]), ("a", "b"))
    assert confusion_finding(perfect) == "None of 7 images is taken for another class."


def test_of_many_classes_those_with_mistakes_are_drawn() -> None:
    counts = np.diag(np.full(50, 9))
    counts[47, 3] = 5
    drawn = drawn_classes(ConfusionPanel(counts, ()))
    assert len(drawn) == MOST_CONFUSED
    assert {3, 47} <= set(drawn)
    assert drawn == sorted(drawn)


def test_points_of_the_map_lie_where_they_should_on_one_scale() -> None:
    points = np.array([[0, 0], [4, 0], [4, 2], [1, 1]], dtype=np.float32)
    panel = MapPanel(points, np.array([0, 1, 0, 1]), ("a", "b"), 3, "PCA", (0.5, 0.25))
    svg = inline_svg(map_chart(panel), label="x")
    marks = re.findall(r'<path transform="translate\(([\d.]+),([\d.]+)\)"[^>]*data-tip="(\w)', svg)
    assert [name for *_, name in marks] == ["a", "b", "a"]  # in order: the page counts on it
    (x0, y0), (x1, y1), (x2, y2) = ([float(v) for v in mark[:2]] for mark in marks)
    assert (x1 - x0) / 4 == pytest.approx((y1 - y2) / 2, rel=0.01)
    assert y0 == y1
    assert x1 == x2
    assert SIDE / 1.1 < x1 - x0 < SIDE


def test_too_many_classes_have_no_colours_of_their_own() -> None:
    panel = exploration().map
    assert coloured_classes(panel) == [0, 1, 2, 3, 4, 5]
    assert coloured_classes(replace(panel, labels=np.arange(21), points=np.zeros((21, 2)))) == []


def test_the_finding_of_the_map_is_computed() -> None:
    assert map_finding(exploration().map) == (
        f"The plane holds 37.5{NB}% of the variance; the nearest image on the map has the same "
        f"class for 50{NB}% of the images, the nearest by all features for 75{NB}%."
    )
