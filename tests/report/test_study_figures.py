"""Figures of studies and of spectra: their data are the numbers given, their scales hold them."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from stopgrad.config import preset
from stopgrad.evaluation import Summary
from stopgrad.report.accuracy import architecture_svg
from stopgrad.report.arms import ArmScore, Axis, arms_chart, knob_chart, labels_chart
from stopgrad.report.curves import exponent, predictor_chart, spectrum_chart, spectrum_figures
from stopgrad.report.over_time import MOST_POINTS, arms_over_time
from stopgrad.report.study_charts import curve_rows, ended
from stopgrad.report.style import CROSS, inline_svg, light, plain_svg
from stopgrad.studies import CurvePoint
from tests.report.pages import NB, is_list, rows_of, tips


def score(arm: str, mean: float, **values: Any) -> ArmScore:
    usual: dict[str, Any] = {"metric": "knn_accuracy", "labels": 1.0, "std": 0.5, "n": 3}
    return ArmScore(arm=arm, mean=mean, **usual | values)


def encodings(specification: Any, channel: str) -> list[dict[str, Any]]:
    """What every mark of a chart says of one channel."""
    if is_list(specification):
        return [one for part in specification for one in encodings(part, channel)]
    if not isinstance(specification, dict):
        return []
    own = specification.get("encoding", {}).get(channel)
    below = [one for part in specification.values() for one in encodings(part, channel)]
    return ([own] if own else []) + below


def test_each_arm_has_its_mean_its_spread_and_a_dot_per_run() -> None:
    found = [
        score("a", 61.75, values=(61.25, 61.75, 62.25)),
        score("b", 40.0, std=None, n=1, collapsed=1, values=(40.0,)),
        score("a", 90.0, published=True),
        score("other", 50.0, labels=0.1),
    ]
    chart = arms_chart(found, "knn_accuracy", chance=10.0)
    means = rows_of(chart, "low", "high", "kind")
    assert [(r["arm"], r["low"], r["value"], r["high"], r["kind"]) for r in means] == [
        ("a", 61.25, 61.75, 62.25, "ours"),
        ("b", 40.0, 40.0, 40.0, "with collapsed runs"),
        ("a", 89.5, 90.0, 90.5, "published"),
    ]
    runs = [row for row in rows_of(chart, "value", "arm") if "low" not in row]
    assert [row["value"] for row in runs] == [61.25, 61.75, 62.25]  # one run is its own mean
    assert {"datum": 10.0} in encodings(chart, "x")
    assert f"a, kNN, all labels: 61.75 ± 0.50{NB}% (n = 3)" in tips(chart)


def test_arms_that_were_scored_with_few_labels_alone_have_their_means() -> None:
    found = [score("a", 30.0, labels=0.1), score("b", 35.0, labels=0.1)]
    chart = str(arms_chart(found, "knn_accuracy"))
    assert "30.00" in chart
    assert "35.00" in chart


def test_the_ends_of_curves_are_compared_at_an_epoch_that_all_arms_have() -> None:
    far = [("a", 1, 0.30), ("a", 30, 0.51), ("b", 1, 0.31)]
    points = [CurvePoint(arm, epoch, Summary(mean, None, 1)) for arm, epoch, mean in far]
    said = ended(points, percent=True)
    assert (
        said
        == f"At epoch 1, the last that all arms have: from 30.00{NB}% ('a') to 31.00{NB}% ('b')."
    )


def test_fractions_of_the_labels_stand_in_their_order_with_a_line_for_each_metric() -> None:
    found = [
        score("a", 60.0),
        score("a", 40.0, labels=0.01),
        score("a", 50.0, labels=0.1),
        score("a", 55.0, labels=0.1, metric="linear_accuracy"),
        score("untrained encoder", 30.0, baseline=True),
        score("a", 0.3, metric="correlation_strength"),
    ]
    chart = labels_chart(found)
    assert encodings(chart, "x")[0]["sort"] == ["1 %", "10 %", "100 %"]
    drawn = [
        (row["name"], row["fraction"], row["value"]) for row in rows_of(chart, "fraction", "text")
    ]
    assert drawn == [
        ("kNN", "100 %", 60.0),
        ("kNN", "1 %", 40.0),
        ("kNN", "10 %", 50.0),
        ("linear probe", "10 %", 55.0),
    ]


def test_several_arms_are_named_beside_their_metric() -> None:
    chart = labels_chart([score("a", 60.0), score("b", 50.0)])
    assert [row["name"] for row in rows_of(chart, "fraction", "text")] == ["a, kNN", "b, kNN"]


def test_accuracy_stands_at_the_knob_of_its_arm_on_one_scale() -> None:
    places = {"small": 1e-4, "usual": 1e-3, "large": 1e-2}
    axis = Axis("optimizer.weight_decay", places, dict.fromkeys(places, ""))
    found = [score(arm, 10.0 * n + 22, std=1.0) for n, arm in enumerate(places)]
    found += [score(arm, 44.0, labels=0.1) for arm in places]
    chart = knob_chart(found, axis, chance=10.0)
    drawn = [(row["place"], row["value"]) for row in rows_of(chart, "place")]
    assert drawn[:3] == [(1e-4, 22.0), (1e-3, 32.0), (1e-2, 42.0)]
    assert len(chart["concat"]) == 2  # a row for each share of the labels
    x = encodings(chart, "x")[-1]
    y = [one["scale"]["domain"] for one in encodings(chart, "y") if "scale" in one]
    assert x["scale"]["type"] == "log"
    assert x["title"] == "weight_decay"
    assert x["axis"]["values"] == [1e-4, 1e-3, 1e-2]
    assert {tuple(domain) for domain in y} == {(10.0, 50.0)}


def test_a_spread_beyond_guessing_and_beyond_certainty_ends_at_both() -> None:
    axis = Axis("optimizer.weight_decay", {"a": 1e-4, "b": 1e-3}, {"a": "", "b": ""})
    of_one_collapsed_run = score("a", 52.4, std=60.2)  # of 9.8 and 95 %: -7.8 to 112.6
    chart = knob_chart([of_one_collapsed_run, score("b", 50.0)], axis, chance=10.0)
    scales = [one["scale"] for one in encodings(chart, "y") if "scale" in one]
    assert {(*scale["domain"], scale["clamp"]) for scale in scales} == {(0.0, 100.0, True)}


def test_a_knob_of_zero_has_its_name_on_the_axis() -> None:
    axis = Axis("optimizer.weight_decay", {"none": 0.0, "some": 1e-4}, {"none": "", "some": ""})
    chart = knob_chart([score(arm, 50.0) for arm in axis.places], axis, chance=10.0)
    expression = encodings(chart, "x")[-1]["axis"]["labelExpr"]
    assert expression.startswith("abs(datum.value - 0.0) <= 0.0 ? '0' : ")


def points(arm: str, values: list[float], *, std: float | None = 0.1) -> list[CurvePoint]:
    return [CurvePoint(arm, e, Summary(v, std, 3)) for e, v in enumerate(values, start=1)]


def test_a_band_is_one_deviation_around_the_mean_in_percent_where_asked() -> None:
    [first, last] = curve_rows(points("a", [0.25, 0.5]), percent=True)
    assert (first["epoch"], first["value"]) == (1, 25.0)
    assert (first["low"], first["high"]) == pytest.approx((15.0, 35.0))
    assert last["text"] == f"a, epoch 2: 50.00 ± 10.00{NB}% (n = 3)"
    [single] = curve_rows(points("a", [0.25], std=None))
    assert (single["low"], single["high"]) == (0.25, 0.25)


def test_of_a_long_curve_some_points_are_left_out_but_never_the_last() -> None:
    rows = curve_rows(points("a", [float(n) for n in range(1, 101)]))
    assert len(rows) <= MOST_POINTS
    assert rows[-1]["epoch"] == 100
    assert {b["epoch"] - a["epoch"] for a, b in itertools.pairwise(rows)} == {3}


def over_time(**arms: list[float]) -> list[dict[str, Any]]:
    return curve_rows([point for arm, values in arms.items() for point in points(arm, values)])


def colours_of(chart: Any) -> dict[str, str]:
    """The colour of each name of the legend."""
    [scale] = [one["scale"] for one in encodings(chart, "color")]
    return dict(zip(scale["domain"], scale["range"], strict=False))


@pytest.mark.parametrize(("arms", "bands"), [(3, 3), (4, 0)])
def test_up_to_three_arms_have_a_band(arms: int, bands: int) -> None:
    found = over_time(**{f"arm {n}": [0.1 * n, 0.2 * n] for n in range(arms)})
    chart = arms_over_time(found, first="arm 0", title="loss")
    assert [m["mark"]["type"] for m in chart["layer"]].count("area") == bands
    assert len(colours_of(chart)) == arms


def test_collapsed_arms_keep_their_colours_and_dashes_and_end_in_a_cross() -> None:
    found = over_time(a=[1.0, 2.0], b=[1.0, 1.5], c=[1.0, 1.0])
    chart = arms_over_time(found, first="a", collapsed=["b", "c"], title="rank")
    own = {"b (collapsed)": light("second"), "c (collapsed)": light("third")}
    assert colours_of(chart) == {"a": light("first"), **own}
    [dash] = encodings(chart, "strokeDash")
    assert len({*map(tuple, dash["scale"]["range"][:3])}) == 3
    crosses = [layer for layer in chart["layer"] if layer["mark"].get("shape") == CROSS]
    assert [layer["mark"]["color"] for layer in crosses] == [*own.values()]
    ends = [(row["epoch"], row["value"]) for layer in crosses for row in layer["data"]["values"]]
    assert ends == [(2, 1.5), (2, 1.0)]


def test_of_many_arms_the_baseline_and_those_at_either_end_are_named() -> None:
    found = over_time(**{f"{n}": [0.0, float(n)] for n in range(20)})
    chart = arms_over_time(found, first="9", title="rank")
    assert list(colours_of(chart)) == ["0", "1", "2", "3", "9", "15", "16", "17", "18", "19"]
    grey = chart["layer"][0]
    assert {row["arm"] for row in grey["data"]["values"]} == {
        *"45678",
        "10",
        "11",
        "12",
        "13",
        "14",
    }


def spectra_row(number: int, predictor: list[float]) -> dict[str, Any]:
    spectra = {"ranks": [1, 10, 100], "representation": [0.04, 0.01, 0.0025]}
    return {"kind": "epoch", "epoch": number, "step": number} | {
        "spectra": spectra | {"predictor": predictor}
    }


def test_the_spectrum_draws_each_eigenvalue_at_its_rank() -> None:
    chart = spectrum_chart([spectra_row(n, [1.0, 0.5, 0.25]) for n in range(1, 10)])
    drawn = rows_of(chart, "rank")
    assert {row["name"] for row in drawn} == {f"epoch {n}" for n in (1, 3, 5, 7, 9)}
    last = [(row["rank"], row["value"]) for row in drawn if row["name"] == "epoch 9"]
    assert last == [(1, 0.04), (10, 0.01), (100, 0.0025)]
    shades = re.findall(r'stroke-width="2.2" opacity="([\d.]+)"', plain_svg(chart))
    assert shades == ["0.25", "0.4375", "0.625", "0.8125", "1"]  # the newest is the darkest


def test_figures_of_one_run_of_several_say_which_it_is() -> None:
    row = spectra_row(1, [0.9, 0.6, 0.2])
    named = spectrum_figures([row], of="'a', seed 3")
    assert [figure.caption[:17] for figure in named] == ["Of 'a', seed 3. H"] * 2
    assert not any(figure.caption.startswith("Of ") for figure in spectrum_figures([row]))


def test_the_predictor_stands_against_the_variance_between_images() -> None:
    row = spectra_row(1, [0.9, 0.81, 0.45])
    row["spectra"]["between"] = [0.8, 0.72, 0.48]
    drawn = rows_of(predictor_chart([row]), "along")
    dots = [(r["along"], r["value"]) for r in drawn if "text" in r]
    assert dots == [pytest.approx(pair) for pair in ((1, 1), (0.9, 0.9), (0.6, 0.5))]
    line = [(r["along"], r["value"]) for r in drawn if "text" not in r]
    assert line == [pytest.approx(pair) for pair in ((0.6, 0.6), (1, 1))]


def test_an_older_run_shows_the_predictor_against_the_root_of_the_eigenvalue() -> None:
    row = spectra_row(1, [0.9, 0.6, 0.2])
    drawn = rows_of(predictor_chart([row]), "along")
    assert [r["along"] for r in drawn if "text" in r] == pytest.approx([1, 0.5, 0.25])
    caption = spectrum_figures([row])[1].caption
    assert "did not record" in caption
    assert "up to 1,024" in spectrum_figures([row])[0].caption


def test_the_exponent_is_that_of_the_power_law_and_none_without_one() -> None:
    weights = [0.04, 0.01, 0.0025]
    law = [3 * weight**0.1 for weight in weights]
    assert exponent({"representation": weights, "predictor": law}) == pytest.approx(0.1)
    assert exponent({"representation": weights, "predictor": [0.5, -1, 0]}) is None
    assert exponent({"representation": [1, 1, 1], "predictor": [1, 2, 3]}) is None


def test_a_predictor_without_a_gain_is_not_drawn() -> None:
    assert len(spectrum_figures([spectra_row(1, [0.0, 0.1, 0.2])])) == 1
    assert "to the power 0.50" in spectrum_figures([spectra_row(1, [0.4, 0.2, 0.1])])[1].caption


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stop_gradient": False}, "stop-gradient removed"),
        ({"predictor.enabled": False}, "removed"),
        ({"predictor.enabled": False}, "p1 = z1"),
        ({"projector.output_bn": False}, "output BN of g removed"),
        ({"projector.hidden_bn": False}, "hidden BN of g removed"),
        ({"predictor.hidden_bn": False}, "hidden BN of h removed"),
    ],
)
def test_each_part_that_is_left_out_is_said_in_the_drawing(
    changes: dict[str, Any], said: str
) -> None:
    whole, less = (architecture_svg(preset("cifar", **c)) for c in ({}, changes))
    assert f">{said}</text>" in less
    assert said not in whole
    assert "the gradient stops here" in whole
    # Dashes are for what is missing alone.
    assert "stroke-dasharray" in less
    assert "stroke-dasharray" not in whole


def test_the_drawing_names_the_widths_and_takes_its_colours_from_the_page() -> None:
    changes = {"projector.hidden": 96, "projector.out": 48, "predictor.hidden": 12}
    drawing = architecture_svg(preset("tiny", **changes))
    texts = re.findall(r">([^<>]+)</text>", drawing)
    assert texts.count("96 → 48") == 2  # a projector in either branch
    assert texts.count("48 → 12 → 48") == 1
    themed = inline_svg(drawing, label='a "label" <b>')
    assert 'aria-label="a &quot;label&quot; &lt;b&gt;"' in themed
    assert not re.search(r"#[0-9a-f]{6}\b|http|xmlns", themed)
    assert themed.count("<path") == drawing.count("<path")  # every arrow keeps its head


@pytest.mark.parametrize(
    ("stop_gradient", "blue"),
    # From the encoder to the loss through g and h, and without the bars through the other g too.
    [(True, {"M206,44", "M338,44", "M490,44"}), (False, {"M206,186", "M338,186"})],
)
def test_the_gradient_is_blue_where_it_flows(stop_gradient: bool, blue: set[str]) -> None:
    drawing = architecture_svg(preset("tiny", stop_gradient=stop_gradient))
    arrows = re.findall(
        r'd="(M\d+,\d+)L[^"]*" fill="none" stroke="([^"]*)" stroke-width="2"', drawing
    )
    assert len(arrows) == 7
    branches = {"M206,44", "M338,44", "M490,44"} | blue
    assert {start for start, colour in arrows if colour == light("first")} == branches
