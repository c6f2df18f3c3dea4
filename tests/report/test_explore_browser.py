"""The page in a real browser: picking shows the right neighbours, by mouse, keyboard and filter."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from stopgrad.report import NeighborPanel, explore, read_evidence, write_page
from tests.report.factories import Nearest, brute_force, digits, untrained_run, write_card
from tests.report.pages import hindrances


class Written(NamedTuple):
    """A page, what it was made of, and the neighbours by brute force."""

    address: str
    panel: NeighborPanel
    nearest: Nearest


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    dataset, folder = digits(), tmp_path_factory.mktemp("page")
    run = untrained_run(dataset)
    found = explore(run, dataset, count=40)
    card = write_card(folder / "run", run.info)
    out = write_page([read_evidence(card, exploration=found)], out=folder / "report.html")
    gallery = found.gallery
    nearest = brute_force(run, gallery.bank, gallery.queries)
    return Written(out.as_uri(), gallery, nearest)


class Opened(NamedTuple):
    """A page in a window, with what it complained of and asked for."""

    page: Any
    complaints: list[str]


def opened(browser: Any, written: Written, **context: Any) -> Opened:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(120_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto(written.address)
    page.wait_for_selector("#explorer [aria-selected=true]")
    own = [text for text in complaints if text == written.address or text.startswith("data:")]
    for text in own:
        complaints.remove(text)
    return Opened(page, complaints)


@pytest.fixture
def window(browser: Any, written: Written) -> Iterator[Opened]:
    """A desktop-sized window, which nothing may have complained of in the end."""
    found = opened(browser, written, viewport={"width": 1200, "height": 900})
    yield found
    assert found.complaints == []
    found.page.context.close()


def picked(page: Any) -> int:
    return int(page.locator("[role=option][aria-selected=true]").get_attribute("data-index"))


def shown_pixels(page: Any, selector: str) -> np.ndarray:
    """(M, H, W, 3), what stands on these canvases."""
    script = "all => all.map(canvas => canvas.toDataURL())"
    texts = page.locator(selector).evaluate_all(script)
    files = [io.BytesIO(base64.b64decode(text.split(",")[1])) for text in texts]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def assert_shows(page: Any, written: Written, index: int) -> None:
    """The picked image and its eight neighbours are those that numpy finds."""
    panel, nearest = written.panel, written.nearest
    assert picked(page) == index
    [query] = shown_pixels(page, ".picked .query canvas")
    np.testing.assert_array_equal(query, panel.queries.pixels[index])
    said = [float(text) for text in page.locator(".picked .similarity").all_inner_texts()]
    np.testing.assert_allclose(said, nearest.similarity[index], atol=6e-4)
    near = shown_pixels(page, ".picked ol canvas")
    np.testing.assert_array_equal(near, panel.bank.pixels[nearest.index[index]])
    assert panel.bank.labels is not None
    assert panel.queries.labels is not None
    labels = panel.bank.labels[nearest.index[index]]
    marks = page.locator(".picked li").evaluate_all("all => all.map(one => one.className)")
    own = panel.queries.labels[index]
    assert marks == ["agrees" if label == own else "differs" for label in labels]
    names = page.locator(".picked .name").all_inner_texts()
    assert [name.removeprefix("✗ ") for name in names] == [str(label) for label in labels]


def test_picking_shows_the_neighbours_of_a_brute_force_search(
    window: Opened, written: Written
) -> None:
    assert_shows(window.page, written, 0)
    for index in (17, 39):
        window.page.locator(f"[role=option][data-index='{index}']").click()
        assert_shows(window.page, written, index)


def test_the_keyboard_moves_through_the_images(window: Opened, written: Written) -> None:
    page = window.page
    page.locator("[role=option][tabindex='0']").focus()
    for key, index in (("ArrowRight", 1), ("End", 39), ("ArrowRight", 39), ("Home", 0)):
        page.keyboard.press(key)
        assert picked(page) == index
    page.keyboard.press("ArrowDown")
    below = picked(page)
    boxes = [page.locator(f"[data-index='{index}']").bounding_box() for index in (0, below)]
    assert boxes[0]["x"] == boxes[1]["x"]
    assert boxes[0]["y"] < boxes[1]["y"] < boxes[0]["y"] + 2 * boxes[0]["height"]
    assert page.evaluate("document.activeElement.dataset.index") == str(below)
    assert_shows(page, written, below)
    assert page.locator("[role=option][tabindex='0']").count() == 1


def test_a_class_or_only_mistakes_can_be_chosen(window: Opened, written: Written) -> None:
    page, panel = window.page, written.panel
    assert panel.queries.labels is not None
    wrong = np.flatnonzero(panel.queries.labels != panel.predicted)
    assert 0 < len(wrong) < 40
    page.select_option("[name=kind]", "wrong")
    assert options(page) == wrong.tolist()
    assert f"{len(wrong)} of 40 images" in page.locator(".tally").inner_text()
    assert_shows(page, written, int(wrong[0]))
    page.select_option("[name=kind]", "")
    page.select_option("[name=class]", "7")
    assert options(page) == np.flatnonzero(panel.queries.labels == 7).tolist()
    right = set(range(40)) - set(wrong.tolist())
    full = next(c for c in range(10) if not set(np.flatnonzero(panel.queries.labels == c)) <= right)
    page.select_option("[name=class]", str(full))
    page.select_option("[name=kind]", "right")
    assert set(options(page)) <= right


def options(page: Any) -> list[int]:
    script = "all => all.map(one => Number(one.dataset.index))"
    found: list[int] = page.locator("[role=option]").evaluate_all(script)
    return found


def test_a_point_of_the_map_shows_its_picture_and_picks_it(
    window: Opened, written: Written
) -> None:
    page = window.page
    page.locator("figure.map").scroll_into_view_if_needed()
    dots = page.locator("figure.map .dot")
    assert dots.count() == 40
    place = page.evaluate(FREE_DOT)
    page.mouse.move(place["x"], place["y"])
    [seen] = shown_pixels(page, ".map-tip canvas")
    pixels = [p for p in written.panel.queries.pixels if np.array_equal(p, seen)]
    assert len(pixels) == 1
    page.mouse.click(place["x"], place["y"])
    np.testing.assert_array_equal(written.panel.queries.pixels[picked(page)], seen)
    assert_shows(page, written, picked(page))


# The middle of a point that no other is near to: which of two is meant would be chance.
FREE_DOT = """() => {
  const boxes = [...document.querySelectorAll('figure.map .dot')].map(dot => {
    const box = dot.getBoundingClientRect();
    return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  }).filter(one => one.y > 20 && one.y < innerHeight - 20);
  const gap = one => Math.min(...boxes.filter(other => other !== one)
    .map(other => Math.hypot(other.x - one.x, other.y - one.y)));
  return boxes.reduce((a, b) => (gap(a) >= gap(b) ? a : b));
}"""


def test_without_script_the_chosen_examples_are_there(browser: Any, written: Written) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(written.address)
    assert not page.locator("#explorer").is_visible()
    assert page.locator(".queries li .query").first.is_visible()
    assert page.locator("figure.map svg").is_visible()
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_hinders_a_reader(browser: Any, written: Written, scheme: str, width: int) -> None:
    size = {"width": width, "height": 844}
    page, complaints = opened(browser, written, color_scheme=scheme, viewport=size)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = hindrances(page, scheme)
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"]) for v in serious] == []
    assert complaints == []
    page.emulate_media(media="print")
    assert not page.locator("#explorer").is_visible()
    assert page.locator(".queries li .query").first.is_visible()
    page.context.close()


def test_mistakes_between_classes_with_long_names_are_seen_whole(
    browser: Any, tmp_path: Path
) -> None:
    dataset = digits()
    run = untrained_run(dataset)
    found = explore(run, dataset, count=40)
    assert found.confusion is not None
    names = tuple(f"{name}_{'of_a_long_name_' * 4}" for name in found.confusion.class_names)
    named = found._replace(confusion=replace(found.confusion, class_names=names))
    evidence = read_evidence(write_card(tmp_path / "run", run.info), exploration=named)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(write_page([evidence], out=tmp_path / "report.html").as_uri())
    table = page.locator("table.mistakes")
    widths = "table => [table.scrollWidth, table.parentElement.clientWidth]"
    wide, room = table.evaluate(widths)
    assert wide <= room
    assert names[0] in table.locator("tbody").inner_text()
    page.close()
