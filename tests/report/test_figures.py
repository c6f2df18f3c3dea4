"""Figures: every point is where its number says, every picture where its caption says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stopgrad.evaluation import CHARTED, duration, number, percent, points, tied
from stopgrad.images import Normalization, images_from_arrays
from stopgrad.report import NeighborPanel, neighbor_grid, queries, view_grid
from stopgrad.report.accuracy import accuracy_chart, per_class_chart
from stopgrad.report.arms import series_marks
from stopgrad.report.curves import (
    epoch_axis,
    knn_chart,
    loss_chart,
    measure_chart,
    step_losses,
)
from stopgrad.report.evidence import images_measured
from stopgrad.report.files import CELL, GAP, LINE, SPACE
from stopgrad.report.panels import ViewPanel, view_panel
from stopgrad.report.style import PALETTE, css_variables, inline_svg, layered, light, numeric
from stopgrad.storage import printable
from tests.factories import record
from tests.report.pages import NB, tips

RED, GREEN, BLUE, GRAY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)


def epoch(number: int, **values: Any) -> dict[str, Any]:
    layer = {"participation_ratio": 2.0 * number, "effective_rank": 3.0 * number}
    layer |= {"correlation_strength": 0.1, "positive_minus_random": 0.4}
    row = {"kind": "epoch", "epoch": number, "step": 10 * number, "loss": -number / 10}
    row |= {"measures": {"features": layer, "before_bn": layer, "z": layer}, "knn": None}
    return row | values


def steps(count: int) -> list[dict[str, Any]]:
    return [{"kind": "step", "step": n, "loss": -n / 1000} for n in range(1, count + 1)]


def picture(color: tuple[int, int, int], side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), color, dtype=np.uint8)


def pictures(*colors: tuple[int, int, int]) -> np.ndarray:
    return np.stack([picture(color) for color in colors])


def panel(**values: Any) -> NeighborPanel:
    bank = images_from_arrays(
        pictures(RED, GREEN, BLUE), labels=np.array([0, 1, 1]), class_names=("a", "b")
    )
    query = images_from_arrays(pictures(GRAY), labels=np.array([1]), class_names=("a", "b"))
    usual = NeighborPanel(
        query, bank, np.array([[2, 0]]), np.array([[0.9, 0.5]]), predicted=np.array([0])
    )
    return replace(usual, **values)


def test_percentages_are_as_fine_as_the_images_tell() -> None:
    assert percent(0.57314, images=10_000) == f"57.31{NB}%"
    assert percent(0.57314, images=1_000) == f"57.3{NB}%"
    assert percent(0.57314, images=100) == f"57{NB}%"
    assert points(-0.0123, images=10_000) == f"1.23{NB}points"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.86712, "−0.867"), (1234.4, "1,234"), (0.00001, "1.00e−05"), (None, "–")],
)
def test_numbers_are_written_to_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (483.4, "8 min 3 s"), (3600, "1 h"), (86_521, "24 h 2 min")]
)
def test_times_are_written_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds).replace(NB, " ") == text


def test_every_color_can_carry_text_on_light_and_on_dark_paper() -> None:
    # WCAG 2.2, 1.4.3: contrast of at least 4.5 for text.
    for role, tone in PALETTE.items():
        if role not in ("paper", "grid"):
            assert contrast(tone.light, PALETTE["paper"].light) >= 4.5, role
            assert contrast(tone.dark, PALETTE["paper"].dark) >= 4.5, role


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_loss_has_a_point_per_epoch_with_its_value() -> None:
    rows = [*steps(30), epoch(1), epoch(2), epoch(3)]
    assert tips(loss_chart(rows)) == [f"epoch {n}: loss −0.{n}000" for n in (1, 2, 3)]
    chart = loss_chart(rows)
    values = chart["layer"][2]["data"]["values"]
    # A mean over an epoch stands in the middle of it.
    assert [(row["epoch"], row["value"]) for row in values] == [
        (0.5, -0.1),
        (1.5, -0.2),
        (2.5, -0.3),
    ]


def test_many_steps_are_averaged_in_order_and_placed_in_epochs() -> None:
    found = step_losses([*steps(601), epoch(60, step=600)])
    assert len(found) == 201
    assert found[0] == pytest.approx((2 / 10, -0.002))
    assert found[-1] == pytest.approx((601 / 10, -0.601))


def test_epochs_without_knn_have_no_point_and_values_that_are_null_are_left_out() -> None:
    rows = [epoch(1), epoch(2, knn=0.4), epoch(3), epoch(4, knn=0.5)]
    rows[0]["measures"]["z"] = {"participation_ratio": None}
    assert tips(knn_chart(rows)) == [f"epoch 2: kNN 40.0{NB}%", f"epoch 4: kNN 50.0{NB}%"]
    assert len(tips(measure_chart(rows, "participation_ratio"))) == 4 * 3 - 1


def test_the_level_lines_are_knn_with_all_labels_of_what_was_not_pretrained() -> None:
    records = [
        record(of="untrained", value=0.31),
        record(of="untrained", value=0.11, labels=0.01),
        record(of="untrained", value=0.12, metric="linear_accuracy"),
        record(of="pixels", value=0.33),
    ]
    chart = knn_chart([epoch(1, knn=0.4)], records)
    values = chart["layer"][0]["data"]["values"]
    levels = {row["name"]: row["value"] for row in values if row["name"] != "pretrained"}
    assert levels == {"untrained": 31.0, "raw pixels": 33.0}


def test_small_multiples_hold_four_measures_of_three_layers() -> None:
    assert (
        len([tip for m in CHARTED for tip in tips(measure_chart([epoch(1), epoch(2)], m))])
        == 4 * 3 * 2
    )


def test_bars_are_as_long_as_their_numbers_and_newer_records_win() -> None:
    records = [record(value=0.9), record(value=0.6), record(of="pixels", value=0.3)]
    svg = inline_svg(accuracy_chart(records), label="x")
    lengths = {
        tip: float(length)
        for length, tip in re.findall(r'd="M0,0h([\d.]+)[^"]*" fill[^>]*data-tip="([^"]*)"', svg)
    }
    assert list(lengths) == [
        f"pretrained, all labels: 60.00{NB}%",
        f"raw pixels, all labels: 30.00{NB}%",
    ]
    long, short = lengths.values()
    assert long == pytest.approx(2 * short)


def test_classes_stand_in_the_order_of_the_encoder_even_with_equal_names() -> None:
    records = [
        record(per_class=(0.2, 0.9, 0.1, None)),
        record(of="pixels", value=0.3, per_class=(0.5, 0.1, 0.2, None)),
    ]
    svg = inline_svg(per_class_chart(records, ("twin", "twin", "last", "none")), label="x")
    assert re.findall(r">(twin|last|none)</text>", svg) == ["twin", "twin", "last"]
    assert len(re.findall("data-tip", svg)) == 6  # a class without images has no point


def test_of_a_hundred_classes_the_best_and_the_worst_fifteen_are_drawn() -> None:
    shares = tuple(np.linspace(0, 1, 100))
    found = tips(per_class_chart([record(per_class=shares)], [f"c{n}" for n in range(100)]))
    drawn = [int(re.findall(r"c(\d+)", tip)[0]) for tip in found]
    assert sorted(drawn) == [*range(15), *range(85, 100)]


def test_svg_takes_its_colors_from_the_page_and_loads_nothing() -> None:
    svg = inline_svg(accuracy_chart([record()], chance=0.1), label='a "label" <b>')
    assert 'aria-label="a &quot;label&quot; &lt;b&gt;"' in svg
    assert "var(--first)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b|http|xmlns|style=|<script", svg)
    for role in re.findall(r"var\(--(\w+)\)", svg):
        assert css_variables().count(f"--{role}:") == 2  # light and dark


def test_names_inside_one_page_differ_between_charts() -> None:
    one = inline_svg(accuracy_chart([record(value=0.5)]), label="x")
    two = inline_svg(accuracy_chart([record(value=0.6)]), label="x")
    names = [re.findall(r'id="([^"]+)"', svg) for svg in (one, two)]
    assert "<clipPath" in one
    assert not re.search(r"<clipPath[^>]*/>", one)  # an empty one hides what it clips
    assert not set(names[0]) & set(names[1])
    assert set(re.findall(r"url\(#([^)]+)\)", one)) == set(names[0])


def test_control_characters_of_a_class_name_do_not_break_a_chart() -> None:
    name = "a\x00\x1b\udc80]]>"
    assert printable(name) == "a\ufffd\ufffd\ufffd]]>"
    found = tips(per_class_chart([record(per_class=(0.5,))], (name,)))
    assert found[0].startswith("a\ufffd\ufffd\ufffd]]&gt;, pretrained")


def test_views_come_back_from_normalised_values_to_the_same_pixels() -> None:
    rng = np.random.default_rng(0)
    originals, x1, x2 = rng.integers(0, 256, (3, 2, 5, 5, 3), dtype=np.uint8)
    normalization = Normalization((0.1, 0.2, 0.3), (0.2, 0.3, 0.4))

    def seen(pixels: np.ndarray) -> np.ndarray:
        shares = (pixels / 255 - normalization.mean) / normalization.std
        return shares.transpose(0, 3, 1, 2).astype(np.float32)

    found = view_panel(originals, seen(x1), seen(x2), normalization=normalization)
    np.testing.assert_array_equal(found.originals, originals)
    np.testing.assert_array_equal(found.x1, x1)
    np.testing.assert_array_equal(found.x2, x2)


def test_the_view_grid_shows_original_then_view_1_then_view_2() -> None:
    grid = view_grid(
        ViewPanel(pictures(RED, GRAY), pictures(GREEN, GRAY), pictures(BLUE, GRAY)), columns=1
    )
    top = SPACE + LINE + GAP + CELL // 2
    row = [grid.getpixel((SPACE + n * (CELL + GAP) + CELL // 2, top)) for n in range(3)]
    assert row == [RED, GREEN, BLUE]
    assert grid.getpixel((SPACE + CELL // 2, top + CELL + 2 * GAP)) == GRAY


def test_queries_know_what_is_right_and_which_neighbors_agree() -> None:
    [query] = queries(panel())
    assert (query.class_name, query.predicted, query.correct) == ("b", "a", False)
    assert [(n.class_name, n.similarity, n.agrees) for n in query.neighbors] == [
        ("b", 0.9, True),
        ("a", 0.5, False),
    ]


def test_without_labels_nothing_is_called_right_or_wrong() -> None:
    bare = images_from_arrays(pictures(RED, GREEN, BLUE))
    [query] = queries(panel(bank=bare, queries=bare.take(np.array([0])), predicted=None))
    assert (query.class_name, query.predicted, query.correct) == ("", "", None)
    assert [neighbor.agrees for neighbor in query.neighbors] == [None, None]


def test_the_neighbor_grid_shows_neighbors_in_order_with_solid_and_dashed_frames() -> None:
    grid = neighbor_grid(panel())
    found = [color for color, _ in itertools.groupby(middle_row(grid.getpixel, grid.width))]
    assert [c for c in found if c in (GRAY, RED, GREEN, BLUE)] == [GRAY, BLUE, RED]
    pixels = np.asarray(grid)
    # Of the two neighbours the first has the query's class.
    first, second = np.split(pixels[:, SPACE + CELL + 190 - GAP :][:, : 2 * (CELL + 2 * GAP)], 2, 1)
    good, wrong = count_color(first, light("good")), count_color(second, light("wrong"))
    assert good > 3 * 4 * CELL - 40  # all the way round
    assert 0.3 * good < wrong < 0.7 * good  # in dashes


def middle_row(pixel: Callable[..., Any], width: int) -> list[Any]:
    return [pixel((x, SPACE + LINE + CELL // 2)) for x in range(width)]


def count_color(pixels: np.ndarray, color: str) -> int:
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels == wanted).all(axis=2).sum())


def test_numbers_stay_with_their_signs_and_units() -> None:
    text = "reaches 47.35 ± 1.09 % (n = 3), p < 0.001, of 10 % = more"
    glued = "reaches 47.35~±~1.09~% (n~=~3), p~<~0.001, of 10~% = more"
    assert tied(text) == glued.replace("~", "\N{NO-BREAK SPACE}")
    assert tied(3) == 3


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [
        (1, 3, [1, 2, 3]),
        (5, 8, [5, 6, 7, 8]),
        (0, 8, [0, 2, 4, 6, 8]),
        (1, 800, [200, 400, 600, 800]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 1, [0, 1]),
    ],
)
def test_the_time_axis_has_whole_epochs_and_each_once(
    first: int, last: int, ticks: list[int]
) -> None:
    axis = epoch_axis(last, first=first)
    assert axis["axis"]["values"] == ticks
    assert axis["scale"]["domain"] == [first, last]


def test_a_collapsed_mean_is_a_cross_and_no_dot_but_can_be_pointed_at() -> None:
    rows = [
        {"x": place, "value": value, "low": value, "high": value, "name": "a", "text": text}
        | {"published": False, "collapsed": collapsed}
        for place, value, collapsed, text in ((0, 50.0, 0, "sound"), (1, 10.0, 3, "gone"))
    ]
    x, y = numeric("x"), numeric("value")
    svg = inline_svg(layered(*series_marks(rows, ["a"]), x=x, y=y), label="")
    marks = re.findall(r'<path[^>]*data-tip="(\w+)"[^>]*>', svg)
    assert marks == ["sound", "gone"]
    [gone] = re.findall(r'<path[^>]*data-tip="gone"[^>]*>', svg)
    assert "var(--wrong)" in gone


def test_a_caption_says_how_many_images_the_last_measured_row_was_of() -> None:
    rows = [epoch(1, measured=512), epoch(2, measured=280), epoch(3)]
    assert images_measured(rows) == "two views of 280 training images"
    older = [epoch(1)]  # which do not say
    assert images_measured(older) == "two views of up to 1,024 training images"
