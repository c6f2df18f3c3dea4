"""`stopgrad compare`: runs ranked without labels, and what labels say of that."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from stopgrad.cli.commands import images_of, tell_state
from stopgrad.cli.show import Screen, print_line
from stopgrad.config import Config
from stopgrad.errors import DataError
from stopgrad.evaluation import (
    ABSENT,
    COMPARED,
    LABEL_FREE,
    MEASURE_NAMES,
    SIGNIFICANCE,
    Agreement,
    Comparison,
    Kendall,
    Row,
    compare_runs,
    count,
    metric_text,
    number,
    percent,
    same_data,
)
from stopgrad.images import Dataset
from stopgrad.method import use_threads
from stopgrad.runs import TrainedRun, load_run
from stopgrad.storage import printable

TITLES = {"lidar": "LiDAR", "rankme": "RankMe"}


def compare(options: argparse.Namespace) -> None:
    """Ranks runs by measures that need no labels.

    Raises:
        DataError: When the runs learned from different images and none are named.
    """
    screen = Screen()
    runs = [load_run(path) for path in options.runs]
    for run in runs:
        tell_state(run, screen)
    use_threads(runs[0].info.config.threads)
    datasets = _datasets(runs, options.data, screen)
    with screen.progress():
        found = compare_runs(
            runs,
            datasets,
            by=options.by,
            layer=options.layer,
            score=options.score,
            track=screen.track,
        )
    if options.json:
        for line in as_json(found):
            print_line(json.dumps(line, allow_nan=False))
    else:
        _print(found)


def _datasets(runs: Sequence[TrainedRun], data: str | None, screen: Screen) -> list[Dataset]:
    """The images to measure on, as each run stores them.

    Without `data` they are what all runs learned from: the same pixels, or those that the one
    place of all runs gives each of them at its own size.
    """
    specs = {run.info.data["spec"] for run in runs}
    if data is None and not same_data(runs) and len(specs) > 1:
        raise _different(runs)
    spec = data or runs[0].info.data["spec"]
    stored: dict[tuple[object, ...], Dataset] = {}
    for run in runs:
        config = replace(run.info.config, bad_images=runs[0].info.config.bad_images)
        key = _storing(config)
        if key not in stored:
            stored[key] = images_of(run.info, spec, screen, config=config)
        found = stored[key].train.fingerprint
        if data is None and not same_data(runs) and found != run.info.data["fingerprint"]:
            raise _different(runs, f"; {spec} gives {run.path} now {found[:12]}")
    return [stored[_storing(run.info.config)] for run in runs]


def _storing(config: Config) -> tuple[object, ...]:
    """All of a config that decides how images are stored and seen whole."""
    return (config.image_side, config.views.size, config.encoder)


def _different(runs: Sequence[TrainedRun], why: str = "") -> DataError:
    data = {run.info.data["fingerprint"]: run.info.data for run in runs}
    named = ", ".join(
        f"{printable(card['name'])} {mark[:12]} of {printable(card['spec'])}"
        for mark, card in data.items()
    )
    return DataError(
        f"runs that learned from different images ({named}{why})",
        expected="runs that learned from the same images",
        hint="name the images to measure all of them on with --data",
    )


def as_json(found: Comparison) -> Iterator[dict[str, Any]]:
    """A line per run, best first, then one per measure and accuracy."""
    for place, row in enumerate(found.rows, start=1):
        yield {
            "kind": "run",
            "place": place,
            "by": found.by,
            "run": str(row.run.path),
            "epoch": row.run.epoch,
            "seed": row.run.info.config.seed,
            "view_size": row.run.info.config.views.size,
            "measures": {
                name: value if math.isfinite(value) else None
                for name, value in row.measures._asdict().items()
            },
            "ranks": row.ranks,
            "accuracies": row.accuracies,
            "notes": row.notes,
            "protocol": found.protocol,
        }
    for agreement in found.agreements:
        kendall = agreement.kendall._asdict() if agreement.kendall else None
        yield {"kind": "agreement", **agreement._asdict(), "kendall": kendall}
    for note in found.notes:
        yield {"kind": "note", "note": note}


def _print(found: Comparison) -> None:
    """Tables on a terminal, plain lines with tabs elsewhere; then what to make of them."""
    console = Console(highlight=False, markup=False, emoji=False)
    tables = [_runs_table(found), *([_agreement_table(found)] if found.agreements else [])]
    for table in tables:
        if sys.stdout.isatty():
            console.print(table)
        else:
            for line in _plain(table):
                print_line(line)
            print_line("")
    for line in [finding(found), *found.notes]:
        console.print(line, soft_wrap=True)


def _plain(table: Table) -> Iterator[str]:
    yield str(table.title)
    yield "\t".join(" ".join(str(column.header).split()) for column in table.columns)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        yield "\t".join(map(str, row))


def _runs_table(found: Comparison) -> Table:
    """A row per run: its measures with their ranks, and its accuracies."""
    how = found.protocol
    data = printable(how["data"]["name"])
    table = Table(
        title=f"{how['layer']} of {count(how['images'])} images of {data}, {how['views']} views "
        "each; rank in brackets",
        title_justify="left",
    )
    table.add_column("run", overflow="fold")
    for name in LABEL_FREE:
        table.add_column(title(name), justify="right", style="bold" if name == found.by else "")
    known = [m for m in COMPARED if any(m in row.accuracies for row in found.rows)]
    for metric in known:
        table.add_column(metric_text(metric), justify="right")
    noted = any(row.notes for row in found.rows)
    if noted:
        table.add_column("note")
    for row in found.rows:
        scores = [
            percent(row.accuracies.get(metric), images=how["images_scored"]) for metric in known
        ]
        notes = [printable("; ".join(row.notes))] if noted else []
        table.add_row(printable(str(row.run.path)), *_measures(row), *scores, *notes)
    return table


def _measures(row: Row) -> Iterator[str]:
    for name, value in row.measures._asdict().items():
        rank = row.ranks[name]
        yield "not finite" if rank is None else f"{number(value)} ({rank})"


def _agreement_table(found: Comparison) -> Table:
    """A row per measure, a column per accuracy: Kendall's tau, p, n."""
    metrics = list(dict.fromkeys(agreement.accuracy for agreement in found.agreements))
    table = Table(title="Kendall's tau with the order by labels", title_justify="left")
    table.add_column("measure")
    for metric in metrics:
        table.add_column(metric_text(metric), justify="right")
    cells = {(a.measure, a.accuracy): a for a in found.agreements}
    for name in LABEL_FREE:
        table.add_row(title(name), *(_tau(cells[name, metric]) for metric in metrics))
    return table


def _tau(agreement: Agreement) -> str:
    if agreement.kendall is None:
        return ABSENT
    tau, p, n = agreement.kendall
    return f"{tau:+.2f} (p = {p:.2g}, n = {n})"


def title(measure: str) -> str:
    """`LiDAR`, `effective rank`."""
    return TITLES.get(measure) or MEASURE_NAMES[measure].title


def finding(found: Comparison) -> str:
    """One sentence: the first run, and what its rank is worth."""
    first, by = found.rows[0], title(found.by)
    if len(found.rows) == 1:
        return "One run: there is nothing to rank."
    best = f"By {by}, {printable(str(first.run.path))} is first of {len(found.rows)} runs"
    taus = {a.accuracy: a.kendall for a in found.agreements if a.measure == found.by and a.kendall}
    if not taus:
        return f"{best}; no labels say whether that order is right."
    words = " and ".join(
        f"{kendall.tau:+.2f} with {metric_text(metric)}" for metric, kendall in taus.items()
    )
    return f"{best}; Kendall's tau of that order is {words}{_worth(list(taus.values()))}."


def _worth(taus: Sequence[Kendall]) -> str:
    """What so few runs can tell."""
    n = min(kendall.n for kendall in taus)
    if n == 2:
        return " (n = 2: it can only be +1 or -1, which says little)"
    if min(kendall.smallest_p for kendall in taus) > SIGNIFICANCE:
        return f" (n = {n}: no order of so few runs could be told from chance at 5 %)"
    return f" (n = {n})"
