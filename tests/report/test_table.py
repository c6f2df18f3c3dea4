"""One table in four ways: what stands in a cell is the same, and no text of it is obeyed."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

import pytest
from rich.console import Console

from stopgrad.report import (
    Column,
    Table,
    TableCell,
    as_html,
    as_lines,
    as_markdown,
)
from stopgrad.report.table import as_csv, as_print, as_rich
from stopgrad.storage import printable
from tests.report.pages import NB, PAYLOADS

COLUMNS = (
    Column("kNN, %"),
    Column("all labels", "right"),
    Column("published", "right", published=True),
)
ROWS = (
    (
        TableCell("good"),
        TableCell("64.33 ± 1.53", 0.6433, runs=3, emphasis="strong"),
        TableCell("81.00 ± 1.50", 81.0),
    ),
    (
        TableCell("bad"),
        TableCell("10.00 ± 0.00", 0.1, runs=3, note="3 collapsed"),
        TableCell("", -1),
    ),
    (TableCell("lost"), TableCell(note="3 missing"), TableCell()),
)
TABLE = Table("scores", COLUMNS, ROWS, "kNN: mean ± standard deviation")


class Cells(HTMLParser):
    """The tags in order with their attributes, and the text of each cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.cells: list[str] = []
        self.sorts: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
            self.sorts.append(dict(attrs).get("data-sort"))

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data.strip("\n").replace("\xa0", " ")


def test_markdown_has_a_line_for_each_row_and_strong_cells_in_bold() -> None:
    assert as_markdown(TABLE).splitlines() == [
        "| kNN, % | all labels | published |",
        "|---|---|---|",
        "| good | **64.33 ± 1.53 (3)** | 81.00 ± 1.50 |",
        "| bad | 10.00 ± 0.00 (3), 3 collapsed |  |",
        "| lost | 3 missing |  |",
    ]


def test_html_has_the_same_cells_and_the_numbers_that_they_are_sorted_by() -> None:
    found = Cells(as_html(TABLE))
    lines = list(as_lines(TABLE))[1:]
    assert found.cells == [cell for line in lines for cell in line.split("\t")]
    assert found.sorts[3:9] == [None, "0.6433", "81.0", None, "0.1", "-1"]


def test_csv_reads_back_as_the_cells() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(TABLE))))
    assert [row[1] for row in rows[1:]] == [
        "64.33 ± 1.53 (3)",
        "10.00 ± 0.00 (3), 3 collapsed",
        "3 missing",
    ]


def test_in_print_the_published_number_joins_ours_and_a_shared_count_the_head() -> None:
    made = as_print(TABLE)
    assert [column["name"] for column in made["columns"]] == ["kNN, %, n = 3", "all labels"]
    assert made["rows"][0][1] == {
        "text": "64.33 ± 1.53",
        "emphasis": "strong",
        "note": "",
        "published": "81.00 ± 1.50",
    }
    assert made["rows"][1][1]["note"] == "3 collapsed"


def test_in_print_counts_that_differ_stay_beside_their_means() -> None:
    rows = tuple((TableCell("a"), TableCell("50.00", runs=runs), TableCell()) for runs in (2, 3))
    made = as_print(Table("scores", COLUMNS, rows))
    assert made["columns"][0]["name"] == "kNN, %"
    assert [row[1]["text"] for row in made["rows"]] == ["50.00 (2)", "50.00 (3)"]


def test_columns_that_hold_nothing_can_be_left_out() -> None:
    rows = tuple((name, TableCell("1"), TableCell("", -1)) for name, *_ in ROWS)
    assert Table("scores", COLUMNS, rows).without_empty_columns().heads == ["kNN, %", "all labels"]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_of_a_table_is_obeyed(payload: str) -> None:
    def table(text: str) -> Table:
        cell = TableCell(text, note=text)
        return Table("scores", (Column(text), Column(text)), ((cell, cell),), text)

    assert Cells(as_html(table(payload))).tags == Cells(as_html(table("a"))).tags
    assert len(as_markdown(table(f"{payload}\n|")).splitlines()) == 3
    screen = Console(file=io.StringIO(), width=400, color_system=None)
    screen.print(as_rich(table(f"[bold]{payload}")))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]" in shown
    assert printable(shown) == shown


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_word_of_a_table_breaks_on_a_terminal_and_nothing_is_cut(columns: int) -> None:
    heads = ["arm", *["of the labels", "published"] * 3]
    rows = [["untrained encoder", *["20.25 ± 0.18 (2)", "41.95 ± 4.00"] * 3]]
    table = Table(
        "t",
        tuple(Column(head, "right") for head in heads),
        tuple(tuple(map(TableCell, row)) for row in rows),
    )
    console = Console(file=io.StringIO(), width=columns, force_terminal=True, color_system=None)
    with console.capture() as shown:
        console.print(table)
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    for word in {"untrained", "published", "labels", "20.25", "41.95", "(2)"}:
        assert words.count(word) == (1 if word == "untrained" else 3), lines


def on_terminal(table: Table, columns: int) -> str:
    console = Console(file=io.StringIO(), width=columns, force_terminal=True, color_system=None)
    with console.capture() as shown:
        console.print(table)
    assert max(map(len, shown.get().splitlines())) <= columns
    return shown.get().replace(NB, " ")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_a_number_stays_with_its_spread_and_count(columns: int) -> None:
    heads = [Column("kNN, %")]
    for labels in ("1 % of the labels", "10 % of the labels", "all labels"):
        heads += [Column(labels, "right"), Column("published", "right", published=True)]
    rows = [
        [TableCell(f"weight decay {arm}")]
        + [TableCell(f"{arm}{n}.25 ± 0.18", runs=3, note="3 collapsed") for n in range(10, 16)]
        for arm in range(1, 6)
    ]
    caption = "kNN: mean ± standard deviation (number of runs); published: report, n = 5"
    table = Table("scores", tuple(heads), tuple(map(tuple, rows)), caption)
    text = on_terminal(table, columns)
    numbers = {cell.counted for row in rows for cell in row[1:]}
    assert {number: text.count(number) for number in numbers} == dict.fromkeys(numbers, 1)
    assert text.count("3 collapsed") == len(numbers) == 30
    assert "n = 5" in text


def test_a_table_that_is_too_wide_has_a_row_for_each_cell() -> None:
    scores = TABLE.listed()
    assert scores.heads == ["kNN, %", "", "here", "published"]
    assert [[cell.written for cell in row] for row in scores.rows] == [
        ["good", "all labels", "64.33 ± 1.53 (3)", "81.00 ± 1.50"],
        ["bad", "all labels", "10.00 ± 0.00 (3), 3 collapsed", ""],
        ["lost", "all labels", "3 missing", ""],
    ]
    columns = tuple(map(Column, ("arm", "done", "failed")))
    counts = Table("t", columns, (tuple(map(TableCell, "a12")),))
    assert [[cell.written for cell in row] for row in counts.listed().rows] == [
        ["a", "done", "1"],
        ["", "failed", "2"],
    ]
