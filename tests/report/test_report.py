"""The report: its numbers are the records', it loads nothing, no name becomes markup."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stopgrad.config import config_from_dict, describe_knobs
from stopgrad.errors import CheckpointError, DataError
from stopgrad.report import Evidence, finding, read_evidence, write_page
from stopgrad.report.commands import broken, repeat_commands
from stopgrad.report.facts import facts, protocol_lines, training_seconds
from stopgrad.report.gallery import LARGEST, data_uri
from stopgrad.report.page import render
from tests.report.pages import (
    CLASSES,
    CONFIG,
    NB,
    PAYLOADS,
    RECORDS,
    Page,
    Skeleton,
    neighbor_panel,
    record,
    rows,
    view_panel,
    write_run,
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    run = write_run(folder / "run")
    evidence = read_evidence(run, neighbors=neighbor_panel(), views=view_panel())
    return write_page([evidence], out=folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_cells_of_the_table_are_the_records(page: Page) -> None:
    assert page.tables["results"] == [
        ["by", "labels", "pretrained", "untrained", "raw pixels", "top-5, pretrained"],
        ["kNN", f"100{NB}%", f"57.31{NB}%", f"31.02{NB}%", f"33.96{NB}%", f"90.00{NB}%"],
        ["kNN", f"10{NB}%", f"41.00{NB}%", f"25.00{NB}%", "", f"81.00{NB}%"],
        ["linear probe", f"100{NB}%", f"60.00{NB}%", "", "", f"95.00{NB}%"],
    ]


def test_the_numbers_of_each_epoch_are_the_metrics(page: Page) -> None:
    assert page.tables["epochs"][2] == [
        *("2", "−0.2000", "0.0500", "0.200", f"40.00{NB}%", "320", "healthy")
    ]
    assert len(page.tables["epochs"]) == 1 + 3


def test_the_measures_of_the_last_epoch_are_the_metrics(page: Page) -> None:
    cells = {row[0]: row[1:4] for row in page.tables["measures"]}
    assert cells["measure"] == ["z", "before its BN", "features"]
    assert cells["participation ratio"] == ["5.00"] * 3
    assert cells["centre norm"] == ["–"] * 3


def test_every_knob_is_listed_with_its_value_and_meaning(page: Page) -> None:
    listed = {row[0]: row[1:] for row in page.tables["knobs"][1:]}
    assert list(listed) == [knob.key for knob in describe_knobs()]
    assert listed["epochs"][:2] == ["3", "800"]
    assert listed["optimizer.momentum"][:2] == ["0.9", ""]
    assert listed["optimizer.alpha_h"][0] == "0.6666666666666666"


def test_the_finding_says_what_accuracy_hides_where_classes_are_uneven() -> None:
    assert "uneven" not in finding([record(value=0.9)])
    assert finding([record(value=0.9, majority=0.85, balanced=0.6)]).endswith(
        f"The classes are uneven: always naming the largest one would be right for 85.00{NB}%; "
        f"the balanced accuracy is 60.00{NB}%."
    )


def test_the_finding_says_what_pretraining_brought() -> None:
    assert finding(RECORDS) == (
        f"By kNN with all labels the pretrained encoder reaches 57.31{NB}%: "
        f"26.29{NB}points above the untrained one and 23.35{NB}points above raw pixels."
    )


def test_a_difference_within_the_sampling_error_is_called_none() -> None:
    # Two standard errors of 0.5 against 0.5 on 10,000 images each are 1.41 points.
    near, far = (finding([record(value=0.5), record(of="pixels", value=v)]) for v in (0.487, 0.485))
    assert "no clear difference from raw pixels" in near
    assert f"1.50{NB}points above raw pixels" in far


def test_an_encoder_below_a_baseline_is_said_to_be_below() -> None:
    assert f"10.00{NB}points below raw pixels" in finding(
        [record(value=0.4), record(of="pixels", value=0.5)]
    )


def test_protocols_name_what_is_shared_and_what_differs_between_shares() -> None:
    first = protocol_lines(RECORDS)[0]
    assert first == (
        "kNN: scored on 10,000 images of the test split, epoch 3; temperature 0.100; "
        "with all labels: k 200; with 10 % of the labels: k 100."
    )


def test_the_commands_lead_back_to_the_same_config(tmp_path: Path) -> None:
    commands = repeat_commands(read_evidence(write_run(tmp_path / "run")))
    words = shlex.split(commands[0])
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    assert (flags.pop("--data"), flags.pop("--out")) == ("toy", "run")
    changes = {key.removeprefix("--"): value for key, value in flags.items() if key != "--preset"}
    assert flags["--preset"] == "tiny"
    assert config_from_dict(changes, preset="tiny") == CONFIG
    assert commands[1] == "stopgrad evaluate run --labels 1 0.1"


def test_the_command_names_each_of_several_data_sets(tmp_path: Path) -> None:
    found = read_evidence(write_run(tmp_path / "run"))
    data = found.info.data | {"spec": '["cifar10", "/my pets"]'}
    command = repeat_commands(found._replace(info=found.info._replace(data=data)))[0]
    assert command.startswith("stopgrad pretrain --data cifar10 --data '/my pets' --preset ")


def test_a_long_command_is_broken_between_options_and_stays_the_same(tmp_path: Path) -> None:
    command = shlex.join(
        ["stopgrad", "pretrain", "--data", "my folder --x", "--out", "a" * 60, "--epochs", "3"]
    )
    lines = broken(command).split("\n")
    assert len(lines) == 2
    assert shlex.split(" ".join(line.removesuffix("\\") for line in lines)) == shlex.split(command)
    assert broken("stopgrad report x") == "stopgrad report x"


def test_training_time_is_views_over_their_speed(tmp_path: Path) -> None:
    # 30 steps of 32 images with two views each, at 320 views per second.
    evidence = read_evidence(write_run(tmp_path / "run"))
    assert training_seconds(evidence) == pytest.approx(6.0)
    rows = [{**row} for row in evidence.metrics]
    rows[-1]["views_per_s"] = 0.0  # a kill came between its last step and its measurement
    assert training_seconds(evidence._replace(metrics=rows)) == pytest.approx(6.0)


def test_what_a_run_took_is_not_what_its_baseline_took(tmp_path: Path) -> None:
    evidence = read_evidence(write_run(tmp_path / "run"))
    records = [record(flops=2e15), record(of="supervised", flops=9e15)]
    [cost] = (f for f in facts(evidence._replace(records=records)) if f.name == "Cost")
    assert cost.value.replace(NB, " ").endswith("; 2.00 PFLOP")


def test_the_page_asks_the_network_for_nothing(text: str, page: Page) -> None:
    assert not re.search(r"https?:|//\w+\.|@import|url\((?!#)", text)
    for name in ("src", "href", "action", "srcset", "xlink:href", "poster", "data"):
        assert all(value.startswith(("#", "data:image/")) for value in page.attribute(name))
    assert not page.attribute("style")
    assert not [name for _, names in page.skeleton for name in names if name.startswith("on")]


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(page: Page) -> None:
    policy = next(v for v in page.attribute("content") if "default-src" in v)
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert allowed["img-src"] == "data:"
    for tag in ("style", "script"):
        [content] = page.texts[tag]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_page_is_small(text: str) -> None:
    assert len(text) < 250_000


def test_every_picture_and_chart_has_words(page: Page) -> None:
    pictures = [dict(e.attributes) for e in page.elements if e.tag == "img"]
    charts = [dict(e.attributes) for e in page.elements if e.tag == "svg"]
    assert len(pictures) == 2 * (1 + 2) + 2 * 3
    assert all(picture.get("alt") for picture in pictures)
    assert len(charts) == 2 + 1 + 2 + 4 + 1  # the architecture comes last
    assert all(chart.get("aria-label") and chart.get("role") == "img" for chart in charts)


def test_headings_descend_by_one_and_links_lead_somewhere(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.skeleton if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    targets = {value.removeprefix("#") for value in page.attribute("href")}
    assert targets <= set(page.attribute("id"))
    assert {"results", "curves", "collapse", "neighbors", "views"} <= targets


def test_neighbors_are_shown_with_class_similarity_and_mark(text: str) -> None:
    shown = html.unescape(text)
    assert shown.index("Classified correctly") < shown.index("Mistakes")
    assert "✗ taken for a" in shown
    assert "Classified correctly: 1 of 2 neighbours have the class of their image." in shown
    pattern = r'<li class="(\w+)">.*?</span>(?:<span class="similarity">)?([\d.]+)</span></li>'
    marks, similarities = zip(*re.findall(pattern, shown), strict=True)
    assert marks == ("agrees", "differs", "differs", "differs")
    assert similarities == ("0.910", "0.800", "0.700", "0.600")


def test_sections_without_data_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", metrics=[], records=[], names=())
    (run / "records.jsonl").unlink()
    (run / "status.json").unlink()
    text = render(read_evidence(run))
    ids = set(Page(text).attribute("id"))
    assert {"done", "knobs"} <= ids
    assert not ids & {"results", "curves", "collapse", "neighbors", "views"}
    assert "Its images have no labels. Score it on others with: stopgrad" in text
    assert "0 of 3 epochs" in text


def test_torn_last_lines_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name in ("metrics.jsonl", "records.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"kind": "epo')
    evidence = read_evidence(run)
    assert len(Page(render(evidence)).tables["epochs"]) == 1 + 3
    assert len(evidence.records) == len(RECORDS)


def test_a_diverged_run_says_so_with_reason_and_advice(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    status = {"state": "diverged", "reason": "loss is nan at step 31"}
    (run / "status.json").write_text(json.dumps(status))
    text = render(read_evidence(run))
    assert "<strong>diverged</strong>: loss is nan at step 31." in text
    assert "lower optimizer.base_lr" in text
    assert "This run diverged (3 of 3 epochs), and would again." in text
    assert "stopgrad resume" not in text


def test_verdicts_are_told_stretch_by_stretch(tmp_path: Path) -> None:
    metrics = rows(4)
    metrics[1]["verdict"] = {"state": "complete collapse", "reason": "r", "advice": "a"}
    text = render(read_evidence(write_run(tmp_path / "run", metrics=metrics)))
    assert "Verdict: complete collapse in epoch 1; healthy in epochs 2–4." in text


def test_a_run_no_better_than_untrained_is_not_called_healthy(tmp_path: Path) -> None:
    scores = [record(value=0.31), record(of="untrained", value=0.31, epoch=0)]
    text = render(read_evidence(write_run(tmp_path / "run", records=scores)))
    assert "not collapsed, but not yet useful" in text
    assert "Verdict: not collapsed in epochs 1–3." in text
    assert "healthy</td>" not in text
    assert "healthy</strong>" not in text
    page = Page(text)
    words = [text for tag in ("strong", "dd", "td") for text in page.texts[tag]]
    assert any(text.startswith("not collapsed, but not yet useful") for text in words)
    assert not [text for text in words if text == "healthy"]
    assert '<p class="verdict "><strong>' in text  # neither good nor wrong


def test_n_stands_beside_that_of_the_published_run(tmp_path: Path) -> None:
    text = render(read_evidence(write_run(tmp_path / "run")))
    # 30 steps at a peak rate of .1: 5e-4 x .1 x 31 / 2 / .1 = .00775.
    assert re.search(r"N =\s0\.007[78], 30 steps, 3 passes over each image", text)
    assert "published: 11.6" in text


def test_of_two_evaluations_the_newer_epoch_is_shown(tmp_path: Path) -> None:
    records = [record(labels=0.01, epoch=1), record(epoch=1, value=0.1), record(epoch=3, value=0.2)]
    text = render(read_evidence(write_run(tmp_path / "run", records=records)))
    table = Page(text).tables["results"]
    assert [row[:3] for row in table[1:]] == [["kNN", f"100{NB}%", f"20.00{NB}%"]]


def test_what_is_no_run_is_refused_and_an_older_report_stays(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("older")
    with pytest.raises(CheckpointError):
        write_page([read_evidence(tmp_path)], out=out)
    run = write_run(tmp_path / "run")
    (run / "records.jsonl").write_text("[]\n")
    with pytest.raises(DataError):
        write_page([read_evidence(run)], out=out)
    assert out.read_text() == "older"


def test_small_pictures_are_embedded_bit_by_bit_and_large_ones_are_reduced() -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for side, kind, size in ((32, "png", 32), (300, "jpeg", LARGEST)):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        head, content = data_uri(pixels).split(",")
        assert head == f"data:image/{kind};base64"
        back = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        assert back.shape == (size, size, 3)
        if kind == "png":
            np.testing.assert_array_equal(back, pixels)


def hostile(tmp_path: Path, payloads: list[str]) -> Evidence:
    """A run in which every name that a stranger can choose is a payload."""
    names = tuple(payloads[: len(CLASSES)])
    first, second, third = payloads[0], payloads[1 % len(payloads)], payloads[2 % len(payloads)]
    metrics = rows()
    for row in metrics[1::2]:
        row["verdict"] = {"state": first, "reason": second, "advice": third}
    data = {"spec": third, "name": first, "fingerprint": second, "images": 320}
    environment = {"threads": 2, "device": second, "machine": third, "torch": first}
    run = write_run(
        tmp_path / "run",
        metrics=metrics,
        data=data | {"class_names": list(names)},
        environment=environment,
    )
    panel = neighbor_panel(names if len(names) == len(CLASSES) else CLASSES)
    evidence = read_evidence(run, neighbors=panel, views=view_panel())
    records = [r for r in evidence.records if r.labels == 1]
    records[0].protocol["k"] = first
    return evidence._replace(name=first, path=second, state=second, reason=third, records=records)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Skeleton:
    return skeleton(tmp_path_factory.mktemp("harmless"), list("qrstuvwxyz"))


def skeleton(folder: Path, names: list[str]) -> Skeleton:
    return Page(render(hostile(folder, names))).skeleton


@pytest.mark.parametrize("start", [0, 10, 20])
def test_no_name_adds_an_element_or_an_attribute(
    tmp_path: Path, harmless: Skeleton, start: int
) -> None:
    # Promise R20; the two tests below are its negative controls.
    assert len(PAYLOADS) == 30
    assert len(harmless) > 500
    assert skeleton(tmp_path, PAYLOADS[start : start + 10]) == harmless


def test_without_escaping_in_the_template_names_add_elements(
    tmp_path: Path, harmless: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jinja2

    class Unescaped(jinja2.Environment):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options | {"autoescape": False})

    monkeypatch.setattr(jinja2, "Environment", Unescaped)
    assert skeleton(tmp_path, PAYLOADS[:10]) != harmless


def test_without_escaping_in_the_charts_names_add_elements(
    tmp_path: Path, harmless: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stopgrad.report import style

    escaped: Callable[..., str] = style.inline_svg
    monkeypatch.setattr(style, "inline_svg", lambda *a, **k: html.unescape(escaped(*a, **k)))
    assert skeleton(tmp_path, PAYLOADS[:10]) != harmless


def test_a_page_of_a_run_loads_no_torch_and_nothing_of_studies(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "page.html"
    code = (
        "import sys; from pathlib import Path; "
        "from stopgrad.report import read_evidence, write_page; "
        f"write_page([read_evidence(Path({str(run)!r}))], out=Path({str(out)!r})); "
        "print([name for name in sys.modules if name == 'torch' or 'stopgrad.stud' in name "
        "or 'stopgrad.report.stud' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert out.exists()


def test_several_runs_stand_side_by_side_and_overlaid(tmp_path: Path) -> None:
    one = read_evidence(write_run(tmp_path / "one"))
    worse = [record(value=0.2), record(of="untrained", value=0.31, epoch=0)]
    two = read_evidence(write_run(tmp_path / "two", records=worse, metrics=rows(2)))
    text = render(one, two)
    [head, *body] = Page(text).of["side"][0]
    found = [dict(zip(head, row, strict=True)) for row in body]
    assert [row["run"] for row in found] == ["one", "two"]
    assert [row["kNN"] for row in found] == [f"57.31{NB}%", f"20.00{NB}%"]
    assert [row["epochs"] for row in found] == ["3", "2"]
    assert found[0]["verdict"] == "healthy"
    assert f"two, epoch 2: kNN 40.0{NB}%" not in text  # the overlay has words of its own
    for tip in (f"one, epoch 3: 60.00{NB}%", f"two, epoch 2: 40.00{NB}%", "two, epoch 2: −0.200"):
        assert f'data-tip="{tip}"' in text, tip
    assert "Runs side by side" not in render(one)


def test_runs_side_by_side_that_were_scored_on_other_splits_say_so(tmp_path: Path) -> None:
    one = read_evidence(write_run(tmp_path / "one"))
    other = [record(value=0.2, split="validation")]
    two = read_evidence(write_run(tmp_path / "two", records=other))
    [head, *body] = Page(render(one, two)).of["side"][0]
    kept = [dict(zip(head, row, strict=True))["kNN"] for row in body]
    assert kept[0].endswith("test split")
    assert kept[1].endswith("validation split")
    assert "They were watched on the test or the validation split." in render(one, two)


def test_the_newest_verdict_stands_though_the_last_epoch_was_not_measured(tmp_path: Path) -> None:
    measured = rows(3)
    for row in measured:
        if row.get("kind") == "epoch" and row["epoch"] == 3:
            del row["verdict"], row["measures"]
    found = read_evidence(write_run(tmp_path / "run", metrics=measured))
    assert found.judgement is not None
    assert found.judgement.state == "healthy"
    assert "Measures of epoch 2" in render(found)
