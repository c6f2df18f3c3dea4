"""A poster: all numbers of its tables, read column after column, nothing beyond its edges."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from stopgrad.errors import ConfigError
from stopgrad.report import Heading, ShownRun, StudyEvidence, read_evidence, read_studies
from stopgrad.report.arms import scores
from stopgrad.report.page import render
from stopgrad.report.poster import poster_data, poster_pdf, printed
from stopgrad.report.study_scores import key_figures
from stopgrad.report.study_tables import finding_table, score_tables
from stopgrad.report.style import PALETTE
from stopgrad.report.table import Column, Emphasis, Table, TableCell, as_print
from tests.report.pages import neighbor_panel, record, view_panel, write_run
from tests.studies.factories import make_study

typst = pytest.importorskip("typst", reason="needs the extra `pdf`")
needs_poppler = pytest.mark.skipif(
    shutil.which("pdftotext") is None, reason="needs pdftotext of poppler-utils"
)
pytestmark = needs_poppler

WIDTH, HEIGHT, EDGE = 1684.0, 2384.0, 64.0  # A1 and its margin, pt
EMPTY: dict[str, Any] = {
    "chapter": "",
    "title": "",
    "rank": 0,
    "texts": [],
    "figure": None,
    "multiples": [],
    "table": None,
    "findings": [],
    "images": None,
    "facts": [],
}
SQUARE = "<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'>{}</svg>"
PAYLOADS = (
    '#read("/etc/passwd")',
    "#panic()",
    "$x^2$",
    "*bold* _it_",
    "@reference",
    "<label>",
    "\\ `raw` ~",
    "= Heading",
    '"]#let x = 1',
    "<image href='file:///etc/passwd'/>",
)


class Word(NamedTuple):
    """A word on the sheet, pt from its top left."""

    x: float
    y: float
    x2: float
    y2: float
    text: str


def words_of(pdf: bytes, folder: Path) -> list[Word]:
    file = folder / "words.pdf"
    file.write_bytes(pdf)
    told = subprocess.run(
        ["pdftotext", "-bbox", str(file), "-"], capture_output=True, text=True, check=True
    ).stdout
    assert told.count("<page ") == 1
    pattern = r'<word xMin="(.*?)" yMin="(.*?)" xMax="(.*?)" yMax="(.*?)">(.*?)</word>'
    found = re.findall(pattern, told)
    return [Word(*map(float, places), html.unescape(text)) for *places, text in found]


def packed(text: str) -> str:
    """Text without what a line break may take or give."""
    return re.sub(r"[\s\u200b\xa0]", "", text)


def text_of(pdf: bytes, folder: Path) -> str:
    return packed("".join(word.text for word in words_of(pdf, folder)))


def data_of(*parts: dict[str, Any]) -> dict[str, Any]:
    """The data of a poster of parts of one's own."""
    tones = {role: tone.light for role, tone in PALETTE.items()}
    frame = {"title": "Title", "people": [], "lead": "lead", "code": None, "foot": ["foot"]}
    frame |= {"enlarged": 1.0, "tones": tones, "hero": None}
    return frame | {"parts": printed([EMPTY | part for part in parts])}


def sheet_of(*parts: dict[str, Any]) -> bytes:
    """A poster of parts of one's own."""
    return poster_pdf(data_of(*parts))


def template() -> str:
    return files("stopgrad.report").joinpath("poster.typ").read_text(encoding="utf-8")


def table_of(*rows: tuple[TableCell, ...], columns: tuple[str, ...]) -> dict[str, Any]:
    heads = tuple(Column(name, "right", published=name == "published") for name in columns)
    return {"table": as_print(Table("scores", heads, rows))}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyEvidence:
    out = tmp_path_factory.mktemp("poster") / "s"
    make_study(out, "weight-decay", seeds=(0, 1, 2), epochs=5)
    [only] = read_studies(out)
    return only


@pytest.fixture(scope="module")
def words(study: StudyEvidence, tmp_path_factory: pytest.TempPathFactory) -> list[Word]:
    return words_of(poster_pdf(poster_data([study])), tmp_path_factory.mktemp("pdf"))


@pytest.fixture(scope="module")
def text(words: list[Word]) -> str:
    return packed("".join(word.text for word in words))


def test_the_table_of_a_poster_holds_every_mean_of_the_first_accuracy(
    study: StudyEvidence, words: list[Word]
) -> None:
    means = [s for s in scores(study.results) if s.metric == "knn_accuracy"]
    assert len(means) == 2 * 5 * 3 + 3  # ours and published, then the untrained encoder
    printed = {word.text for word, sign in itertools.pairwise(words) if sign.text == "±"}
    assert [score for score in means if f"{score.mean:.2f}" not in printed] == []


def test_every_finding_stands_on_the_poster_with_its_answer(
    study: StudyEvidence, text: str
) -> None:
    rows = finding_table(study.results).rows
    assert len(rows) == 3
    for says, answer, _ in rows:
        assert packed(says.text) in text
        assert packed(answer.text) in text


def test_a_poster_has_its_sections_and_no_title_twice(words: list[Word], text: str) -> None:
    for title in ("Introduction", "Model", "Results", "Takeaways", "Discussion", "References"):
        large = [word for word in words if word.text == title and word.y2 - word.y > 36]
        assert len(large) == 1, title
    assert "ExploringSimpleSiameseRepresentationLearning" in text
    assert "±" in text
    assert "−" in text


def test_nothing_stands_beyond_the_margins(words: list[Word]) -> None:
    assert len(words) > 300
    for word in words:
        assert word.x >= EDGE - 1, word
        assert word.x2 <= WIDTH - EDGE + 1, word
        assert word.y >= 0, word
        assert word.y2 <= HEIGHT - 20, word


def test_columns_are_filled_in_reading_order_and_none_is_left_empty(words: list[Word]) -> None:
    titles = ["Introduction", "Model", "Results", "References"]
    places = [next(w for w in words if w.text == t and w.y2 - w.y > 36) for t in titles]
    order = [(word.x > WIDTH / 2, word.y) for word in places]
    assert order == sorted(order)
    for left in (True, False):
        column = [w for w in words if (w.x2 < WIDTH / 2) is left and w.y2 < HEIGHT - 120]
        assert max(word.y2 for word in column) > 0.75 * HEIGHT


@pytest.mark.parametrize(
    ("heights", "count", "longest"),
    [((4, 3, 2, 1), 2, 6), ((1, 1, 1, 9), 2, 9), ((5, 5, 5), 3, 5), ((2, 9, 2), 2, 11)],
)
def test_columns_keep_the_order_and_the_longest_is_as_short_as_can_be(
    heights: tuple[int, ...], count: int, longest: int
) -> None:
    rooms = "".join(f"{100 * height}pt - gap, " for height in heights)  # each with the gap below
    functions = template().partition("#place(top")[0]
    sheet = f"{functions}#metadata(divided(({rooms})).last()) <ends>"
    data = json.dumps(data_of({"chapter": "one of several" if count == 3 else ""}))
    inputs = {"poster": data}
    found = typst.query(sheet.encode(), "<ends>", field="value", one=True, sys_inputs=inputs)
    ends = json.loads(found)
    assert (len(ends), ends[-1]) == (count, len(heights))
    assert max(sum(heights[start:end]) for start, end in itertools.pairwise([0, *ends])) == longest


def test_text_of_the_body_is_large_enough_to_be_read_from_a_distance(words: list[Word]) -> None:
    # The box of a word in Libertinus is about 1.2 times as high as its letters are large.
    [first] = [word for word in words if word.text == "momentum"]
    assert first.y2 - first.y >= 24


def test_a_published_number_stands_under_ours_and_a_shared_count_in_the_head(
    study: StudyEvidence, tmp_path: Path
) -> None:
    row = (
        TableCell("a"),
        TableCell("50.00 ± 1.00", runs=3, note="1 collapsed"),
        TableCell("90.00"),
    )
    columns = ("kNN, %", "all labels", "published")
    found = words_of(sheet_of(table_of(row, columns=columns)), tmp_path)
    own = {word.text: word.y for word in found if word.y > 200}
    assert "n = 3" in " ".join(word.text.replace("\xa0", " ") for word in found)
    assert "(3)" not in own
    assert abs(own["50.00"] - own["a"]) < 3
    assert own["50.00"] < own["collapsed"] < own["90.00"]
    assert own["90.00"] < own["Grey,"]  # the key


def test_counts_that_differ_stay_beside_their_means(tmp_path: Path) -> None:
    rows = tuple((TableCell(f"arm{n}"), TableCell("50.00 ± 1.00", runs=n)) for n in (2, 3))
    told = text_of(sheet_of(table_of(*rows, columns=("kNN, %", "all labels"))), tmp_path)
    assert "50.00±1.00(2)" in told
    assert "50.00±1.00(3)" in told
    assert "n=" not in told
    assert "published" not in told  # no key without a number


def test_wide_tables_shrink_until_their_numbers_fit(study: StudyEvidence, tmp_path: Path) -> None:
    columns = ("kNN, %", *(f"{n} labels" for n in range(9)))
    row = (TableCell("a"), *(TableCell(f"5{n}.00 ± 1.00") for n in range(9)))
    found = words_of(sheet_of(table_of(row, columns=columns)), tmp_path)
    numbers = [next(w for w in found if w.text.startswith(f"5{n}.00")) for n in range(9)]
    ends = [next(w for w in found if w.x2 > n.x2 and w.text == "1.00") for n in numbers]
    assert all(before.x2 < after.x for before, after in zip(ends, numbers[1:], strict=False))
    assert ends[-1].x2 <= WIDTH / 2
    assert numbers[0].y2 - numbers[0].y < 24


@pytest.mark.parametrize(("tone", "color"), [("good", "#0a7a55"), ("wrong", "#b3261e")])
def test_an_answer_has_the_colour_of_its_tone(
    study: StudyEvidence, tone: Emphasis, color: str
) -> None:
    row = (TableCell("x helps"), TableCell("shows", emphasis=tone), TableCell("p = 0.01"))
    table = Table("findings", (Column("a"), Column("b"), Column("c")), (row,))
    part = EMPTY | {"findings": as_print(table)["rows"]}
    data = json.dumps(poster_data([study]) | {"parts": [part], "hero": None})
    svg = typst.compile(template().encode(), format="svg", sys_inputs={"poster": data})
    assert {c for c in (b"#0a7a55", b"#b3261e") if c in svg} == {color.encode()}


def test_long_words_break_and_no_letter_is_lost(study: StudyEvidence, tmp_path: Path) -> None:
    name = "optimizer.predictor_schedule/" + "w" * 300
    row = (TableCell(name), TableCell("50.00"))
    parts = [{"title": name, "texts": [name]}, table_of(row, columns=(name, "all"))]
    found = words_of(sheet_of(*parts, {"facts": [[name, name]]}), tmp_path)
    told = packed("".join(word.text for word in found))
    assert name in told
    assert told.count("w") == 6 * 300
    assert all(word.x2 <= WIDTH - EDGE + 1 for word in found)
    assert printed("optimizer.predictor_schedule").split("\N{ZERO WIDTH SPACE}") == [
        "optimizer.",
        "predictor_",
        "schedule",
    ]


def test_a_study_shows_the_images_of_one_run_and_says_of_which(
    study: StudyEvidence, tmp_path: Path
) -> None:
    run = read_evidence(write_run(tmp_path / "run"), neighbors=neighbor_panel(), views=view_panel())
    shown = study._replace(shown=ShownRun(run, "1.5e-4", 2))
    page = render(shown)
    assert "By the encoder of &#39;1.5e-4&#39;, seed 2." in page
    links = re.findall(r'<li><a href="#([^"]+)"', page)
    assert links[-3:] == ["neighbors", "views", "done"]
    assert 'id="neighbors"' not in render(study)
    plain, data = (poster_data([each]) for each in (study, shown))
    grids = [[p for p in each["parts"] if p["images"]] for each in (plain, data)]
    assert [[part["title"] for part in parts] for parts in grids] == [
        [],
        ["Augmentation", "Nearest neighbours"],
    ]
    told = text_of(poster_pdf(data | {"parts": grids[1]}), tmp_path)
    assert packed("By the encoder of '1.5e-4', seed 2.") in told


def test_a_run_shows_its_images_its_accuracy_and_its_verdict(tmp_path: Path) -> None:
    run = read_evidence(write_run(tmp_path / "run"), neighbors=neighbor_panel(), views=view_panel())
    told = text_of(poster_pdf(poster_data([run])), tmp_path)
    for words in (
        "SimSiam: run",
        "57.31 %",
        "Augmentation",
        "view 1",
        "Nearest neighbours",
        "0.91",
        "Takeaways",
        "z spans 12 directions",
        "healthy",
        "stopgrad pretrain --data toy",
    ):
        assert packed(words) in told, words


def test_a_run_that_gained_nothing_has_not_the_colour_of_a_collapse(tmp_path: Path) -> None:
    scores = [record(value=0.31), record(of="untrained", value=0.31, epoch=0)]
    run = read_evidence(write_run(tmp_path / "run", records=scores))
    [found] = [t for t in poster_data([run])["hero"]["takeaways"] if t["answer"]]
    assert (found["answer"][:13], found["tone"]) == ("not collapsed", "muted")


def test_every_row_of_a_table_stands_on_the_poster(study: StudyEvidence, tmp_path: Path) -> None:
    rows = tuple((TableCell(f"arm{n}"), TableCell(f"{n}.00", runs=3)) for n in range(30))
    part = table_of(*rows, columns=("kNN, %", "all labels"))
    found = {word.text for word in words_of(sheet_of(part), tmp_path)}
    assert [n for n in range(30) if f"{n}.00" not in found] == []


def test_a_part_higher_than_the_page_leaves_out_none_but_itself(
    study: StudyEvidence, tmp_path: Path
) -> None:
    rows = tuple((TableCell(f"arm{n}"), TableCell("1.00")) for n in range(300))
    high = table_of(*rows, columns=("kNN, %", "all labels"))
    told = text_of(sheet_of({"texts": ["before"]}, high, {"texts": ["after"]}), tmp_path)
    assert "before" in told
    assert "after" in told
    assert "arm7" not in told


def test_the_least_telling_parts_are_left_out_first(study: StudyEvidence, tmp_path: Path) -> None:
    long = [" ".join(["word"] * 600)]
    parts = [{"texts": [f"rank{rank}", *long], "rank": rank} for rank in (3, 1, 4, 2)]
    told = text_of(sheet_of(*parts), tmp_path)
    kept = [rank for rank in (1, 2, 3, 4) if f"rank{rank}" in told]
    assert kept == [1, 2, 3, 4][: len(kept)]
    assert 1 <= len(kept) < 4


def test_every_part_of_several_chapters_says_of_which_it_is(
    study: StudyEvidence, tmp_path: Path
) -> None:
    run = read_evidence(write_run(tmp_path / "a-run"))
    data = poster_data([study, run])
    parts = data["parts"]
    shared = [part["title"] for part in parts if not part["chapter"]]
    assert shared == ["Introduction", "Model", "References"]
    names = [part["chapter"].split(":")[0] for part in parts if part["chapter"]]
    assert {*names} == {"weight-decay", "a-run"}
    assert not any(part["chapter"] for part in poster_data([run])["parts"])
    told = text_of(poster_pdf(data), tmp_path)
    assert packed("1 study, 15 runs, mean and standard deviation over seeds; 1 more") in told
    assert packed("weight-decay: Takeaways") in told


def test_no_name_is_read_as_markup(tmp_path: Path) -> None:
    rows = tuple((TableCell(p), TableCell(p, note=p)) for p in PAYLOADS)
    findings = [[{"text": p, "emphasis": ""} for _ in range(3)] for p in PAYLOADS]
    figure = {"svg": SQUARE.format(""), "aspect": 1.0}
    parts = [
        {"texts": PAYLOADS, "facts": [[p, p] for p in PAYLOADS]},
        table_of(*rows, columns=(PAYLOADS[0], PAYLOADS[1])),
        {"title": PAYLOADS[0], "chapter": PAYLOADS[1]},
        {"findings": findings},
        {"multiples": [figure | {"caption": p} for p in PAYLOADS]},
    ]
    told = "".join(text_of(sheet_of(part), tmp_path) for part in parts)
    assert [(p, told.count(packed(p))) for p in PAYLOADS if told.count(packed(p)) < 6] == []
    frame = {"title": PAYLOADS[0], "lead": PAYLOADS[1], "foot": PAYLOADS}
    told += text_of(poster_pdf(data_of() | frame), tmp_path)
    assert "root:" not in told


def test_a_drawing_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9), "red").save("secret.png")
    for place in ("secret.png", f"{tmp_path}/secret.png", f"file://{tmp_path}/secret.png"):
        drawing = SQUARE.format(f"<image href='{place}' width='9' height='9'/>")
        part = {"figure": {"svg": drawing, "aspect": 1.0, "caption": ""}}
        with pytest.raises(RuntimeError, match="failed to load linked image"):
            sheet_of(part)


def test_a_poster_is_one_page_of_a1_whatever_its_title_is(
    study: StudyEvidence, tmp_path: Path
) -> None:
    results = study.results
    asked = results.stored.study._replace(question="Why \x00\udc80 " + "so long, " * 400)
    stored = results.stored._replace(source=results.stored.source._replace(study=asked))
    data = poster_data([study._replace(results=results._replace(stored=stored))])
    out = tmp_path / "poster.pdf"
    out.write_bytes(poster_pdf(data))
    told = subprocess.run(["pdfinfo", str(out)], capture_output=True, text=True, check=True).stdout
    assert re.search(r"Pages:\s+1\n", told)
    assert re.search(r"Page size:\s+1684 x 2384 pts", told)
    assert data["title"].endswith("\N{HORIZONTAL ELLIPSIS}")


def test_a_poster_names_its_people_and_its_code_leads_to_the_address(
    study: StudyEvidence, tmp_path: Path
) -> None:
    pytest.importorskip("segno", reason="needs the extra `pdf`")
    heading = Heading("My title", "A. Author", "An Institute", "https://example.org/it", "A0")
    data = poster_data([study], heading)
    out = tmp_path / "poster.pdf"
    out.write_bytes(poster_pdf(data))
    told = subprocess.run(["pdfinfo", str(out)], capture_output=True, text=True, check=True).stdout
    width, height = map(float, re.findall(r"Page size:\s+([\d.]+) x ([\d.]+)", told)[0])
    assert (width / WIDTH, height / HEIGHT) == pytest.approx((2**0.5, 2**0.5), rel=1e-2)
    words = text_of(out.read_bytes(), tmp_path)
    for text in ("My title", "A. Author", "An Institute"):
        assert words.count(packed(text)) == 1
    other = poster_data([study], heading._replace(address="https://example.org/other"))
    assert data["code"]["svg"] != other["code"]["svg"]
    assert poster_data([study])["code"] is None


def test_the_text_of_a_poster_has_24_pt_or_more(tmp_path: Path) -> None:
    # The box of a word in Libertinus is 1.2 times as high as its letters are large.
    part = {"title": "Title", "texts": ["text"], "facts": [["name", "value"]]}
    part |= table_of((TableCell("arm"), TableCell("50.00")), columns=("kNN", "all"))
    found = words_of(sheet_of(part, {"texts": [" ".join(["word"] * 300)]}), tmp_path)
    assert {"text", "name", "value", "arm", "50.00", "foot"} <= {word.text for word in found}
    assert min(word.y2 - word.y for word in found) >= 24


def test_without_typst_a_poster_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[pdf\]'"):
        poster_pdf({})


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
    assert [table.heads[0] for table in score_tables(only.results)] == ["kNN, %"]
    assert "asitis" in text_of(poster_pdf(poster_data([only])), tmp_path)


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
    captions = [key_figures(each)[0].caption for each in (plain, study)]
    assert [len(key_figures(each)) for each in (plain, study)] == [1, 2]  # with the published
    assert ["red cross" in caption for caption in captions] == [False, True]
