"""The report of a study: its numbers are the records', cell by cell, and no name becomes markup."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stopgrad.cli.parser import parse
from stopgrad.report import StudyEvidence, read_studies, study_table, write_figures, write_poster
from stopgrad.report.arms import knob_axis, scores
from stopgrad.report.facts import place_text
from stopgrad.report.page import render
from stopgrad.report.study_charts import collapsed_arms, curve_figures
from stopgrad.report.study_page import missing_lines, study_command
from stopgrad.report.study_scores import key_figures, score_figures
from stopgrad.studies import StudyDirectory, load_results
from tests.report.pages import PAYLOADS, Page, Skeleton, rows_of
from tests.studies.factories import make_study

MINE: dict[str, Any] = {
    "question": "Which batch?",
    "baseline": "64",
    "arms": {"32": {"batch": 32}, "64": {"batch": 64}, "128": {"batch": 128}},
    "protocol": {
        "split": "test",
        "labels": [0.1, 1],
        "metrics": ["knn_accuracy", "correlation_strength"],
        "beside": ["chance", "untrained"],
    },
}


def tables_of(page: Page, kind: str) -> list[list[list[str]]]:
    """All tables of a kind as lists of rows, with plain spaces."""
    found = page.of.get(kind, [])
    return [[[cell.replace("\xa0", " ") for cell in row] for row in rows] for rows in found]


def links_of(page: Page) -> list[str]:
    return [*page.attribute("href"), *page.attribute("src")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studies") / "s"
    make_study(out, "weight-decay", seeds=(0, 1, 2), epochs=5, leave_out=1)
    return out


@pytest.fixture(scope="module")
def study(folder: Path) -> StudyEvidence:
    [only] = read_studies(folder)
    return only


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> StudyEvidence:
    """A small study of one's own."""
    out = tmp_path_factory.mktemp("own") / "s"
    make_study(out, "mine", values=MINE, seeds=(0, 1), epochs=5)
    [only] = read_studies(out)
    return only


@pytest.fixture(scope="module")
def text(study: StudyEvidence) -> str:
    return render(study)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_every_cell_of_the_page_is_that_of_the_study_table(folder: Path, page: Page) -> None:
    table = study_table(StudyDirectory(folder), "weight-decay", form="markdown")
    lines = [line for line in table.splitlines() if line.startswith("|") and "---" not in line]
    printed = [[c.strip(" *") for c in line.strip("|").split("|")] for line in lines]
    shown = [row for rows in tables_of(page, "scores") for row in rows]
    assert len(shown) == 3 * (1 + 5 + 2) + 1 + 5  # three accuracies, one measure without published
    for row in shown:
        mine = [cell.strip() for cell in row]
        known = [
            [c for c in line if c not in ("", "published")]
            for line in printed
            if line[0] == mine[0]
        ]
        if mine[0] == "effective rank":
            assert mine == ["effective rank", "here"]
        else:
            whole = [c for c in mine if c not in ("", "published")]
            assert any(whole == line[: len(whole)] for line in known), mine


def test_the_csv_is_that_of_the_command(folder: Path, page: Page) -> None:
    uri = next(link for link in links_of(page) if link.startswith("data:text/csv"))
    found = base64.b64decode(uri.split(",", 1)[1]).decode()
    assert found.rstrip("\n") == study_table(StudyDirectory(folder), "weight-decay", form="csv")
    assert len(list(csv.DictReader(io.StringIO(found)))) == 5 * 3 * 3 + 5 + 3 * 3


def test_a_half_finished_study_says_what_is_missing(text: str) -> None:
    assert "Incomplete: 1 of 15 runs lack numbers." in text
    assert "5e-3, seed 2: not begun" in text
    assert "stopgrad study run weight-decay --data toy" in text


def test_a_study_of_one_seed_is_repeated_with_that_seed(tmp_path: Path) -> None:
    make_study(tmp_path / "s", "mine", values=MINE, seeds=(3,), epochs=3, leave_out=2)
    [mine] = read_studies(tmp_path / "s")
    words = shlex.split(study_command(mine))
    options = parse(words[1:])
    assert options.seeds == [3, 3]  # of one number alone it is how many


def test_the_way_on_names_retry_where_the_same_command_would_do_nothing(tmp_path: Path) -> None:
    make_study(tmp_path / "s", "mine", values=MINE, seeds=(0,), epochs=3, leave_out=2)
    attempt = {"stage": "pretrain", "exit_code": 1, "reason": "a bad disk", "words": []}
    attempt |= {"began": "2026-01-01T00:00:00+00:00", "wall_s": 1.0, "process": 1}
    directory = StudyDirectory(tmp_path / "s")
    first, second = directory.read("mine").slots[1:]

    def way_on() -> str:
        [mine] = read_studies(tmp_path / "s")
        return missing_lines(mine)[0]

    assert "--retry" not in way_on()
    (directory.folder(first.run).path / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")
    assert way_on().endswith("--seeds 1 (add --retry for the 1 that ended badly)")
    (directory.folder(second.run).path / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")
    assert way_on().endswith("--seeds 1 --retry")
    diverged = json.dumps(attempt | {"exit_code": 4, "reason": "not finite"})
    for slot in (first, second):
        (directory.folder(slot.run).path / "attempts.jsonl").write_text(diverged + "\n")
    assert way_on() == "2 of 3 runs diverged, and would again."


def test_collapsed_runs_are_marked_in_figure_and_table(study: StudyEvidence, text: str) -> None:
    assert collapsed_arms(study) == ["5e-3"]
    assert "2 collapsed" in text
    crosses = re.findall(r'stroke="var\(--wrong\)"[^>]* data-tip="5e-3, [^"]*2 collapsed', text)
    assert len(crosses) == 3 * 3  # panels: metrics by label fractions
    captions = re.findall(r"<figcaption>[^<]*A cross ends the lines of collapsed arms", text)
    assert text.count("5e-3 (collapsed)</text>") == len(captions) == 6


def test_the_figures_draw_the_means_of_the_records(study: StudyEvidence) -> None:
    ours = [s for s in scores(study.results) if not s.published and s.metric == "knn_accuracy"]
    assert len(ours) == 5 * 3 + 3
    figures = [*key_figures(study), *score_figures(study)]
    drawn = [row for figure in figures for row in rows_of(figure.chart, "arm", "text", "low")]
    for score in (s for s in ours if not s.baseline):
        assert score.mean == pytest.approx(sum(score.values) / len(score.values))
        of_arm = [r for r in drawn if r["text"].startswith(f"{score.arm}, {score.title}: ")]
        assert of_arm
        for row in of_arm:
            assert (row["value"], row["low"]) == (score.mean, score.mean - (score.std or 0))


def test_the_page_loads_nothing_and_numbers_of_runs_are_listed(text: str, page: Page) -> None:
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert all(link.startswith(("#", "data:text/csv;base64,")) for link in links_of(page))
    assert len(tables_of(page, "runs")[0]) == 1 + 15
    assert len(text) < 900_000


def test_the_axis_is_found_in_the_configs_alone() -> None:
    lr = {str(x): {"a.lr": x, "seed": 0, "kind": "x"} for x in (0.1, 0.2, 0.4)}
    axis = knob_axis(lr)
    assert axis is not None
    assert (axis.knob, axis.logarithmic) == ("a.lr", False)
    assert knob_axis({k: v for k, v in lr.items() if k != "0.4"}) is None
    assert knob_axis(lr | {"other": {"a.lr": 0.1, "seed": 0, "kind": "y", "b": 2}}) is None
    assert knob_axis(lr | {"same": {"a.lr": 0.1, "seed": 0, "kind": "x"}}) is None


def test_places_are_written_as_a_person_would() -> None:
    values = (1 / 3, 2 / 3, 1.0, 5e-4, 1.5e-3, 0.05, 10.0)
    assert [place_text(v) for v in values] == ["1/3", "2/3", "1", "5e-4", "1.5e-3", "0.05", "10"]


def test_several_studies_make_one_page_with_anchors_of_their_own(own: StudyEvidence) -> None:
    text = render(own, own)
    assert "kNN, all labels: highest at" in text
    assert "Which parts prevent a collapse" in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert {"part-1-numbers", "part-2-numbers"} <= set(ids)
    anchors = [name for name in ids if name.startswith("part-")]
    assert len(anchors) == len(set(anchors))
    assert "<h1>2 studies</h1>" in text


def test_a_poster_is_one_page_of_a1_and_figures_are_files(
    tmp_path: Path, own: StudyEvidence
) -> None:
    pytest.importorskip("typst", reason="needs the extra `pdf`")
    poster = write_poster([own], out=tmp_path / "poster.pdf").read_bytes()
    assert poster.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", poster)) == 1
    assert re.search(rb"/MediaBox\s*\[\s*0 0 1684 2384\s*\]", poster)
    files = write_figures([own], folder=tmp_path / "figures")
    assert {path.suffix for path in files} == {".svg", ".png"}
    drawing = (tmp_path / "figures" / "batch.svg").read_text()
    box = re.search(r'width="(\d+)" height="(\d+)" viewBox="-(\d+) 0 (\d+) (\d+)"', drawing)
    assert box is not None  # with room beside it for fonts that are wider than those of Vega
    width, height, room, *whole = map(int, box.groups())
    assert (whole, room) == ([width, height], round(0.07 * (width - 2 * room)))
    assert drawing.count('font-family="Arial') == drawing.count("font-family") > 5
    assert {"architecture.svg", "batch.svg", "knn-epochs.png"} <= {p.name for p in files}
    assert all(path.stat().st_size > 500 for path in files)


def test_no_name_of_a_study_adds_an_element(tmp_path: Path) -> None:
    # Promise R20: arms, question, findings and the data carry payloads.
    def elements(number: int, words: list[str]) -> Skeleton:
        first, second, third, fourth = (word.replace("\x00", "").strip() for word in words)
        arms = {first: {"batch": 32}, second: {"batch": 64}, third: {"batch": 128}}
        values = MINE | {"arms": arms, "baseline": first, "question": fourth}
        values |= {"findings": [{"says": fourth, "higher": second, "than": first}]}
        make_study(
            tmp_path / str(number),
            "mine",
            values=values,
            seeds=(0, 1),
            epochs=3,
            sick=(third,),
            data_name=fourth,
        )
        [mine] = read_studies(tmp_path / str(number))
        return Page(render(mine)).skeleton

    harmless = elements(0, ["a", "b", "c", "d"])
    for number, start in enumerate((0, 8), start=1):
        assert elements(number, PAYLOADS[start : start + 4]) == harmless


def test_reporting_a_study_takes_no_torch(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from stopgrad.cli import main\n"
        f"main(['report', {str(folder)!r}, '--out', {str(tmp_path / 'r.html')!r}])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.html").exists()


def test_the_means_of_the_page_are_those_of_load_results(folder: Path, page: Page) -> None:
    results = load_results(StudyDirectory(folder), StudyDirectory(folder).read("weight-decay"))
    row = next(r for r in results.rows if r.place[:3] == ("5e-4", "knn_accuracy", 1.0))
    assert row.cell.summary is not None
    written = f"{100 * row.cell.summary.mean:.2f} ± {100 * (row.cell.summary.std or 0):.2f} (3)"
    knn = tables_of(page, "scores")[0]
    assert next(line for line in knn if line[0] == "5e-4")[5] == written


def test_several_studies_are_first_seen_at_a_glance(
    study: StudyEvidence, own: StudyEvidence
) -> None:
    [*glance] = tables_of(Page(render(study, own)), "studies")[0]
    assert [row[0] for row in glance] == ["study", "weight-decay", "mine"]
    assert glance[2][1] == "Which batch?"
    assert glance[2][3:] == ["", "6 of 6"]  # no findings; three arms with two seeds
    shows = sum(row[1] == "shows" for row in tables_of(Page(render(study)), "findings")[0])
    assert glance[1][3:] == [f"{shows} of 3", "14 of 15"]


def test_a_page_says_at_which_scale_ours_and_the_published_numbers_were_measured(
    own: StudyEvidence,
) -> None:
    [kept] = read_studies(Path(__file__).parents[2] / "results" / "2026-11-26-weight-decay")
    told = render(kept).replace("\xa0", " ")
    assert "Here: cifar_resnet8, 8 epochs, 40,000 images, 3 seeds, N = 0.25 to 25.0." in told
    # 40,000 images in batches of 512 are 78 steps an epoch; 1.25 times 800 epochs.
    assert "Published: ResNet-18, 1,000 epochs, 40,000 images, 5 seeds, N = 1.2 to 117.0" in told
    assert "github.com/tillaczel/simsiam" in told
    assert "arxiv.org/abs/2011.10566" in told
    assert 'class="scale"' not in render(own)  # nothing was published of it


def test_the_key_figure_comes_first_and_the_published_stand_on_an_axis_of_their_own(
    study: StudyEvidence, own: StudyEvidence
) -> None:
    ours, published = key_figures(study)
    values = [
        {row["value"] for row in rows_of(figure.chart, "text")} for figure in (ours, published)
    ]
    known = [s for s in scores(study.results) if s.metric == "knn_accuracy" and s.labels == 1]
    assert values[0] == {s.mean for s in known if not s.published and not s.baseline}
    assert values[1] == {80.03, 88.04, 88.91, 54.55, 9.86}
    assert [figure.name for figure in key_figures(own)] == ["batch"]
    assert render(study).index("figures key") < render(study).index("All numbers")


def test_fewer_than_five_epochs_make_no_curve_and_the_page_says_so(tmp_path: Path) -> None:
    make_study(tmp_path / "s", "mine", values=MINE, seeds=(0,), epochs=4)
    [short] = read_studies(tmp_path / "s")
    assert "the runs have 4 measured epochs, and a curve needs 5" in render(short)
    assert curve_figures(short) == []
