"""The page of studies in a real browser: no errors, no requests, nothing that hinders a reader."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stopgrad.report import read_studies, write_page
from tests.report.pages import hindrances
from tests.studies.factories import make_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    make_study(folder / "s", "components", seeds=(0, 1), epochs=5)
    return write_page(read_studies(folder / "s"), out=folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of two studies."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("components", "weight-decay"):
        make_study(folder / name, name, seeds=(0, 1), epochs=3)
    studies = [
        study for name in ("components", "weight-decay") for study in read_studies(folder / name)
    ]
    return write_page(studies, out=folder / "page.html").as_uri()


def opened(browser: Browser, address: str, **options: Any) -> tuple[Any, list[str]]:
    """A page, and all that went wrong or was asked for while it opened."""
    page, troubles = browser.new_page(**options), list[str]()
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: troubles.append(request.url))
    page.goto(address)
    return page, [trouble for trouble in troubles if trouble != address]


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_in_silence_and_nothing_is_cut_off(
    browser: Browser, address: str, width: int, scheme: Any
) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    page, troubles = opened(browser, address, **options)
    assert troubles == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    charts = page.locator("figure svg")
    assert charts.count() >= 1 + 4 + 2 + 4 + 2
    marks = "svg => svg.querySelectorAll('path, line, text').length"
    assert all(charts.nth(n).evaluate(marks) > 5 for n in range(charts.count()))
    page.close()


@pytest.mark.parametrize("pages", ["address", "two"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_hinders_a_reader(
    browser: Browser, request: pytest.FixtureRequest, pages: str, scheme: Any
) -> None:
    page, troubles = opened(browser, request.getfixturevalue(pages), color_scheme=scheme)
    found = hindrances(page, scheme)
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []
    assert troubles == []
    page.close()


def test_a_table_is_sorted_by_mouse_and_by_keyboard(browser: Browser, address: str) -> None:
    page, _ = opened(browser, address)
    table = page.locator("table.scores").first
    head = table.locator("thead button").nth(1)

    def numbers() -> list[float]:
        texts = table.locator("tbody td:nth-child(2)").all_inner_texts()
        return [float(text.split()[0]) for text in texts]

    before = numbers()
    head.click()
    assert numbers() == sorted(before, reverse=True) != before
    head.focus()
    page.keyboard.press("Enter")
    assert numbers() == sorted(before)
    assert table.locator("th[aria-sort=ascending]").count() == 1
    page.close()


def test_pointing_at_a_mean_tells_it(browser: Browser, address: str, tmp_path: Path) -> None:
    page, _ = opened(browser, address)
    mark = page.locator("figure svg [data-tip*='no predictor']").first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "no predictor" in page.locator(".tip").inner_text()
    with page.expect_download() as download:
        page.get_by_text("All numbers as CSV").click()
    download.value.save_as(tmp_path / "numbers.csv")
    assert (tmp_path / "numbers.csv").read_text().startswith("study,arm,of,metric")
    page.close()


def test_a_long_name_of_an_arm_leaves_its_numbers_in_sight(
    browser: Browser, tmp_path: Path
) -> None:
    values = {
        "question": "?",
        "baseline": "a",
        "arms": {"a": {}, "L" * 300: {"batch": 64}},
        "protocol": {"split": "test", "metrics": ["knn_accuracy"]},
    }
    make_study(tmp_path / "s", "mine", values=values, seeds=(0, 1), epochs=2)
    address = write_page(read_studies(tmp_path / "s"), out=tmp_path / "page.html").as_uri()
    page, _ = opened(browser, address, viewport={"width": 1280, "height": 800})
    box = page.locator("table.scores tbody td").first.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 1280
    page.close()
