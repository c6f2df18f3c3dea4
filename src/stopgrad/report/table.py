"""One table, shown as Markdown, HTML and CSV, on a terminal, in a pipe and in print.

In: columns and cells whose parts are known: the text, the number that it is sorted by, the count
behind a mean, a note. Out: text, markup, a table of rich's, plain data for a poster. Every renderer
escapes what it must; none parses a printed number. No torch.
"""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from markupsafe import Markup, escape

from stopgrad.evaluation import SPACE, tied
from stopgrad.storage import cell_text, printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table as RichTable
    from rich.text import Text

Align = Literal["left", "right"]
Emphasis = Literal["", "strong", "good", "wrong"]

LONGEST_WORD = 30  # characters; a longer one, such as a path, may break
_COUNTED = re.compile(
    r"(?<=\d) (?=\(\d+\))|(?<=\d) (?=of \d)|(?<=\d of) (?=\d)"
    r"|(?<=\d) (?=collapsed|diverged|failed|missing)"
)
STYLES: dict[Emphasis, str] = {"": "", "strong": "bold", "good": "green", "wrong": "red"}


class Column(NamedTuple):
    """A column by its head."""

    name: str
    align: Align = "left"
    wraps: bool = False  # holds sentences
    published: bool = False  # holds what was published for the column on its left


class TableCell(NamedTuple):
    """One cell."""

    text: str = ""
    number: float | None = None  # the sort key; None: its text
    runs: int | None = None  # behind a mean
    note: str = ""  # how runs that are not sound ended
    emphasis: Emphasis = ""

    @property
    def written(self) -> str:
        """`61.75 ± 0.20 (3), 1 collapsed`."""
        return ", ".join(filter(None, (self.counted, self.note)))

    @property
    def counted(self) -> str:
        """`61.75 ± 0.20 (3)`."""
        return self.text if self.runs is None else f"{self.text} ({self.runs})"


@dataclass(frozen=True)
class Table:
    """A table with a head; the first cell of a row names it."""

    name: str  # one word: a class of the page and a part of file names
    columns: tuple[Column, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    caption: str = ""

    @property
    def heads(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    def without_empty_columns(self) -> Table:
        """The table with only the columns in which a row has text."""
        kept = [n for n in range(len(self.columns)) if any(row[n].written for row in self.rows)]
        return replace(
            self,
            columns=tuple(self.columns[n] for n in kept),
            rows=tuple(tuple(row[n] for n in kept) for row in self.rows),
        )

    def turned(self) -> Table:
        """The table transposed, with a column for each row."""
        heads = (Column(row[0].written, "right") for row in self.rows)
        rows = [
            (TableCell(column.name), *(row[n] for row in self.rows))
            for n, column in enumerate(self.columns)
        ]
        return replace(self, columns=(self.columns[0], *heads), rows=tuple(rows[1:]))

    def listed(self) -> Table:
        """The same with a row for each cell, and what was published beside it."""
        columns, rows = [*self.columns[1:], Column("")], []
        published = any(column.published for column in columns)
        for first, *cells in self.rows:
            name, cells = first, [*cells, TableCell()]
            for n, column in enumerate(columns[:-1]):
                beside = cells[n + 1] if columns[n + 1].published else TableCell()
                if not column.published and (cells[n].written or beside.written):
                    rows.append((name, TableCell(column.name), cells[n], beside))
                    name = TableCell()  # stands once
        align: Align = "left" if any(column.wraps for column in columns) else "right"
        heads = Column("here" if published else "", align), Column("published", "right")
        made = replace(self, columns=(self.columns[0], Column(""), *heads), rows=tuple(rows))
        return made if published else made.without_empty_columns()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        """The first form that has room for every word, a number with its spread being one."""
        forms = ((self, False), (self, True), (self.turned(), True), (self.listed(), True))
        for table, tight in forms:
            widths = _widths(table, room=console.width - _borders(table, tight=tight))
            if widths:
                break
        yield as_rich(table, tight=tight, widths=widths)

    def _repr_html_(self) -> str:
        return str(as_html(self))


def as_markdown(table: Table) -> str:
    """Markdown without the caption: every cell on its line, strong ones in bold."""
    lines = [[one_line(name) for name in table.heads]]
    lines += [[_marked(cell) for cell in row] for row in table.rows]
    head, *body = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([head, "|---" * len(table.columns) + "|", *body])


def one_line(text: str) -> str:
    """Text that stays on one line, and in one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def as_html(table: Table) -> Markup:
    """A `<table>`; the script of a page lets a click on a head sort it."""
    caption = Markup("<caption><span>{}</span></caption>\n").format(tied(table.caption))
    heads = (
        Markup('<th scope="col"{}>{}</th>').format(_classes(_align(column)), tied(column.name))
        for column in table.columns
    )
    head = caption if table.caption else Markup("")
    head += Markup("<thead><tr>{}</tr></thead>").format(Markup("").join(heads))
    rows = Markup("\n").join(Markup("<tr>{}</tr>").format(_html_row(table, r)) for r in table.rows)
    classes = _classes(table.name, "sortable")
    return Markup("<table{}>\n{}\n<tbody>\n{}\n</tbody>\n</table>").format(classes, head, rows)


def as_rich(table: Table, *, tight: bool = False, widths: Sequence[int] = ()) -> RichTable:
    """For a terminal; no name in it is markup or steers the terminal.

    `tight` leaves out the lines between columns. Lines are broken here where the widths of the
    columns are given: rich would break them at a no-break space too.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    made = RichTable(title_justify="left")
    if tight:
        made.box, made.padding, made.show_edge = SIMPLE_HEAD, (0, 1, 0, 0), False
    of = dict(enumerate(widths))
    for n, column in enumerate(table.columns):
        name = _broken(column.name, of.get(n))
        made.add_column(_plain(name), justify=column.align, overflow="fold", width=of.get(n))
    for row in table.rows:
        texts = (_broken(cell.written, of.get(n)) for n, cell in enumerate(row))
        styles = (STYLES[cell.emphasis] for cell in row)
        made.add_row(*(_plain(t, style=s) for t, s in zip(texts, styles, strict=True)))
    if table.caption:
        whole = sum(widths) + _borders(table, tight=tight) if widths else None
        made.title = _plain(_broken(table.caption, whole))
    return made


def _borders(table: Table, *, tight: bool) -> int:
    """How many characters of a line are borders and spaces, not text."""
    return 2 * len(table.columns) - 1 if tight else 3 * len(table.columns) + 1


def _widths(table: Table, *, room: int) -> list[int]:
    """At least the longest word of each column; empty where that needs more than the room.

    rich itself would narrow the widest column first, whatever the others hold.
    """
    from rich.cells import cell_len

    texts = [
        [_whole(text) for text in (column.name, *(row[n].written for row in table.rows))]
        for n, column in enumerate(table.columns)
    ]
    whole = [max(1, *map(cell_len, column)) for column in texts]
    words = [re.split(r"[ \t\n]+", " ".join(column)) for column in texts]
    widths = [min(LONGEST_WORD, max(1, *map(cell_len, column))) for column in words]
    spare = room - sum(widths)
    if spare < 0:
        return []
    for n in sorted(range(len(widths)), key=lambda n: whole[n] - widths[n]):  # nearly whole first
        more = min(spare, max(0, whole[n] - widths[n]))
        widths[n], spare = widths[n] + more, spare - more
    return widths


def _whole(text: str) -> str:
    """Text in which a number stays with its spread, its unit and its count."""
    return _COUNTED.sub(SPACE, str(tied(text)))


def _broken(text: str, width: int | None) -> str:
    """Text in lines of so many characters; as it is without a width."""
    if width is None:
        return text
    lines = _whole(text).splitlines()
    return "\n".join(textwrap.fill(line, width, break_on_hyphens=False) for line in lines)


def as_lines(table: Table) -> Iterator[str]:
    """For a pipe: the caption, the heads and each row, with tabs between the cells."""
    if table.caption:
        yield " ".join(table.caption.split())
    yield "\t".join(" ".join(name.split()) for name in table.heads)
    for row in table.rows:
        yield "\t".join(" ".join(cell.written.split()) for cell in row)


def as_csv(table: Table) -> str:
    """Comma-separated, as it is shown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(cell_text, table.heads))
    writer.writerows([cell_text(cell.written) for cell in row] for row in table.rows)
    return text.getvalue()


def as_print(table: Table) -> dict[str, Any]:
    """Plain data for a poster, where a published number shares the cell of ours.

    A count that all means share moves to the first column's head.

    Returns:
        `caption`; `columns` of `name` and `align`; `rows` of cells with `text`, `emphasis`, `note`
        and `published`, all of them text.
    """
    kept = [n for n, column in enumerate(table.columns) if not column.published]
    beside = [n for n, column in enumerate(table.columns) if column.published]
    counts = {cell.runs for row in table.rows for cell in row if cell.runs is not None}
    shared = len(counts) == 1
    columns = [{"name": table.columns[n].name, "align": table.columns[n].align} for n in kept]
    if shared:
        columns[0]["name"] += f", n = {counts.pop()}"
    rows = [
        [
            {
                "text": row[n].text if shared else row[n].counted,
                "emphasis": row[n].emphasis,
                "note": row[n].note,
                "published": row[n + 1].written if n + 1 in beside else "",
            }
            for n in kept
        ]
        for row in table.rows
    ]
    return {"caption": table.caption, "columns": columns, "rows": rows}


def _marked(cell: TableCell) -> str:
    text = one_line(cell.written)
    return f"**{text}**" if cell.emphasis == "strong" and text else text


def _html_row(table: Table, row: tuple[TableCell, ...]) -> Markup:
    first, *rest = zip(table.columns, row, strict=True)
    made = [Markup('<th scope="row"{}>{}</th>').format(*_html_cell(*first))]
    made += [Markup("<td{}>{}</td>").format(*_html_cell(*cell)) for cell in rest]
    return Markup("").join(made)


def _html_cell(column: Column, cell: TableCell) -> tuple[Markup, Markup]:
    """The attributes and the inside of a cell."""
    attributes = _classes(_align(column), "sentence" if column.wraps else "", cell.emphasis)
    if cell.number is not None:
        attributes += Markup(' data-sort="{}"').format(cell.number)
    text = escape(tied(cell.counted))
    if not cell.note:
        return attributes, text
    note = Markup('<span class="note">{}</span>').format(tied(cell.note))
    return attributes, text + Markup(", ") + note if text else note


def _classes(*names: str) -> Markup:
    found = " ".join(filter(None, names))
    return Markup(' class="{}"').format(found) if found else Markup("")


def _align(column: Column) -> str:
    return "number" if column.align == "right" else ""


def _plain(text: str, *, style: str = "") -> Text:
    from rich.text import Text

    return Text(printable(text), style=style)
