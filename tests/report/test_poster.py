"""The poster: all numbers of its tables, read column after column, nothing beyond its edges."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from stopgrad.report.tables import Cell, Table, finding_table, score_tables

from stopgrad.report import ShownRun, StudyEvidence, read_evidence, read_studies
from stopgrad.report.figures.scores import scores
from stopgrad.report.page import render
from stopgrad.report.poster import GAP, HEIGHT, MARGIN, WIDTH, _balanced, _in_columns, poster_svg
from stopgrad.report.poster_cards import Card, pieces_of
from stopgrad.report.poster_tables import findings_svg, table_svg
from stopgrad.report.poster_text import length, wrapped
from stopgrad.report.study_charts import score_figures
from tests.report.test_report import neighbor_panel, view_panel, write_run
from tests.studies.factories import make_study

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyEvidence:
    out = tmp_path_factory.mktemp("poster") / "s"
    make_study(out, "weight-decay", seeds=(0, 1, 2), epochs=5)
    [only] = read_studies(out)
    return only


@pytest.fixture(scope="module")
def sheet(study: StudyEvidence) -> ET.Element:
    return ET.fromstring(poster_svg([study]))


def words_of(root: ET.Element) -> list[str]:
    found = ("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    return [text.replace("\xa0", " ") for text in found]


def test_the_tables_of_a_poster_hold_every_mean_of_every_accuracy(
    study: StudyEvidence, sheet: ET.Element
) -> None:
    texts = words_of(sheet)
    means = [s for s in scores(study.results) if s.metric.endswith("_accuracy")]
    assert len(means) == 2 * (2 * 5 * 3 + 3)  # ours and published, then the untrained encoder
    for score in means:
        assert any(text.startswith(f"{score.mean:.2f} ±") for text in texts), score


def test_every_finding_stands_on_the_poster_with_its_answer(
    study: StudyEvidence, sheet: ET.Element
) -> None:
    told = " ".join(words_of(sheet))
    rows = finding_table(study).rows
    assert len(rows) == 3
    for says, answer, _ in rows:
        assert says.text in told
        assert answer.text in told


def test_nothing_stands_beyond_the_margins(sheet: ET.Element) -> None:
    cards = [
        (float(x), float(y), float(rect.attrib["width"]), float(rect.attrib["height"]))
        for group in sheet.findall(f"{SVG}g")
        for x, y in re.findall(r"translate\(([\d.]+) ([\d.]+)\)", group.get("transform", ""))
        if (rect := group.find(f"{SVG}rect")) is not None
    ]
    assert len(cards) >= 8
    for x, y, width, height in cards:
        assert x >= MARGIN - 0.1
        assert x + width <= WIDTH - MARGIN + 0.1
        assert y + height <= HEIGHT - MARGIN


@pytest.mark.parametrize(
    ("heights", "count", "longest"),
    [((4, 3, 2, 1), 2, 6), ((1, 1, 1, 9), 2, 9), ((5, 5, 5), 3, 5), ((2, 9, 2), 2, 11)],
)
def test_columns_keep_the_order_and_the_longest_is_as_short_as_can_be(
    heights: tuple[int, ...], count: int, longest: int
) -> None:
    cards = [Card(str(place), height - GAP) for place, height in enumerate(heights)]
    columns = _balanced(cards, count)
    assert [card for column in columns for card in column] == cards
    assert max(sum(card.height + GAP for card in column) for column in columns) == longest


def test_a_published_number_stands_under_ours_and_a_shared_count_in_the_head() -> None:
    row = (Cell("a"), Cell("50.00 ± 1.00 (3)", number=True, note="1 collapsed"), Cell("90.00"))
    table = Table("scores", "", ("kNN, %", "all labels", "published"), (row,))
    root = ET.fromstring(
        f'<svg xmlns="{SVG[1:-1]}">{table_svg(table, width=400, size=20).svg}</svg>'
    )
    texts = {"".join(e.itertext()): float(e.attrib["y"]) for e in root.iter(f"{SVG}text")}
    assert list(texts) == [
        "kNN, %, n = 3",
        "all labels",
        "a",
        "50.00 ± 1.00",
        "1 collapsed",
        "90.00",
    ]
    assert texts["a"] == texts["50.00 ± 1.00"] < texts["1 collapsed"] < texts["90.00"]


def test_counts_that_differ_stay_beside_their_means() -> None:
    rows = tuple((Cell(name), Cell(f"50.00 ± 1.00 ({name})")) for name in ("2", "3"))
    made = table_svg(Table("scores", "", ("kNN, %", "all labels"), rows), width=400, size=20).svg
    assert "(2)" in made
    assert "(3)" in made
    assert "n = " not in made


def test_wide_tables_shrink_until_their_numbers_fit() -> None:
    columns = ("kNN, %", *(f"{n} labels" for n in range(5)))
    rows = ((Cell("a"), *(Cell("50.00 ± 1.00"),) * 5),)
    made = table_svg(Table("scores", "", columns, rows), width=400, size=20).svg
    size = float(re.findall(r'font-size="([\d.]+)"[^>]*>50.00', made)[0])
    assert size < 20
    assert length("50.00 ± 1.00", size=size) * 5 < 400


def test_an_answer_has_the_colour_of_its_tone() -> None:
    rows = ((Cell("x helps"), Cell("shows", mark="good"), Cell("p = 0.01")),)
    made = findings_svg(Table("findings", "", ("a", "b", "c"), rows), width=400, size=20).svg
    assert re.search(r'fill="#0a7a55"><text[^>]*>shows<', made)


def test_long_words_break_and_no_letter_is_lost() -> None:
    text = "optimizer.predictor_schedule constant"
    lines = wrapped(text, width=120, size=20)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(length(line, size=20) <= 120 for line in lines)
    assert lines[0] == "optimizer."


def test_a_study_shows_the_pictures_of_one_run_and_says_of_which(
    study: StudyEvidence, tmp_path: Path
) -> None:
    run = read_evidence(write_run(tmp_path / "run"), neighbors=neighbor_panel(), views=view_panel())
    text = render(study._replace(shown=ShownRun(run, "1.5e-4", 2)))
    assert "By the encoder of &#39;1.5e-4&#39;, seed 2." in text
    links = re.findall(r'<li><a href="#([^"]+)"', text)
    assert links[-3:] == ["neighbors", "views", "done"]
    assert 'id="neighbors"' not in render(study)
    with_pictures = poster_svg([study._replace(shown=ShownRun(run, "1.5e-4", 2))])
    assert with_pictures.count("<image ") == poster_svg([study]).count("<image ") + 2
    assert "By the encoder of '1.5e-4', seed 2." in words_of(ET.fromstring(with_pictures))


def test_every_row_of_a_table_stands_on_the_poster() -> None:
    rows = tuple((Cell(f"arm {n}"), Cell(f"{n}.00 (3)", number=True)) for n in range(30))
    made = table_svg(Table("scores", "", ("kNN, %", "all labels"), rows), width=400, size=20).svg
    assert [n for n in range(30) if f">{n}.00<" not in made] == []


def test_a_card_higher_than_the_page_leaves_out_none_but_itself() -> None:
    cards = [Card(name, height) for name, height in (("a", 50.0), ("b", 900.0), ("c", 50.0))]
    placed = _in_columns(cards, 2, 100.0, top=0.0, bottom=500.0).placed
    assert [place.card.svg for place in placed] == ["a", "c"]


def test_every_card_of_several_chapters_says_of_which_it_is(
    study: StudyEvidence, tmp_path: Path
) -> None:
    run = read_evidence(write_run(tmp_path / "a-run"))
    shared, *pieces = pieces_of([study, run])
    assert shared.title == "How it learns without labels"
    names = [piece.text.split(".")[0] for piece in pieces]
    assert {*names} == {"weight-decay", "a-run"}
    assert not any("weight-decay" in piece.text for piece in pieces_of([study]))


def test_a_metric_that_no_arm_has_makes_no_table(tmp_path: Path) -> None:
    metrics = ["knn_accuracy", "supervised_accuracy"]
    values = {
        "question": "Does it learn?",
        "baseline": "as it is",
        "settings": {"validation": 0.2},
        "arms": {"as it is": {}},
        "protocol": {"split": "validation", "metrics": metrics, "beside": ["chance"]},
    }
    make_study(tmp_path / "s", "own", values=values, seeds=(0,), epochs=1)
    [only] = read_studies(tmp_path / "s")
    assert [table.columns[0] for table in score_tables(only)] == ["kNN, %"]
    assert "as it is" in words_of(ET.fromstring(poster_svg([only])))


def test_a_caption_explains_only_marks_that_are_drawn(tmp_path: Path, study: StudyEvidence) -> None:
    arms = {name: {"optimizer.weight_decay": float(name)} for name in ("1e-4", "1e-3", "1e-2")}
    values = {
        "question": "How much?",
        "baseline": "1e-3",
        "settings": {"validation": 0.2},
        "arms": arms,
        "protocol": {"split": "validation", "metrics": ["knn_accuracy"]},
    }
    make_study(tmp_path / "s", "own", values=values, seeds=(0, 1), epochs=1)
    [plain] = read_studies(tmp_path / "s")
    captions = [score_figures(each)[0].caption for each in (plain, study)]
    assert ["hollow: published" in caption for caption in captions] == [False, True]
    assert ["red cross" in caption for caption in captions] == [False, True]
