"""`stopgrad neighbors`: the nearest training images of any picture, as a table, JSON or PNG.

With --json a line per query: query (its file, or null), class and taken_for (null where unknown),
neighbors (index in the training images, file, class, similarity; the nearest first), protocol.
"""

from __future__ import annotations

import argparse
import io
import json
from typing import Any

from stopgrad.cli.commands import load_images, tell_state
from stopgrad.cli.show import Screen, print_line
from stopgrad.evaluation import count
from stopgrad.images import Dataset, load_image_files
from stopgrad.method import use_threads
from stopgrad.report import (
    NeighborPanel,
    Query,
    neighbor_examples,
    neighbor_grid,
    neighbors_of,
    queries,
)
from stopgrad.runs import TrainedRun, check_same_data, load_run, read_run
from stopgrad.storage import write_atomically


def neighbors(options: argparse.Namespace) -> None:
    """Finds the neighbours of the pictures asked for, or of examples chosen by rule."""
    screen, info = Screen(), read_run(options.run)
    use_threads(info.config.threads)
    spec = options.data or info.data["spec"]
    dataset = load_images(spec, screen, config=info.config, changed="tell")
    check_same_data(info, dataset)
    run = load_run(options.run)
    tell_state(run, screen)
    panel = _panel(run, dataset, screen, options)
    if options.json:
        for line in as_json(panel):
            print_line(json.dumps(line, allow_nan=False))
    else:
        print_neighbors(panel)
    if options.out is not None:
        picture = io.BytesIO()
        neighbor_grid(panel).save(picture, format="PNG")
        write_atomically(options.out, picture.getvalue())
        screen.line(f"done: {options.out}")


def _panel(
    run: TrainedRun, dataset: Dataset, screen: Screen, options: argparse.Namespace
) -> NeighborPanel:
    if options.query is None:
        with screen.progress():
            return neighbor_examples(run, dataset, track=screen.track)
    pictures = load_image_files(options.query, like=dataset.train)
    with screen.progress():
        return neighbors_of(run, dataset.train, pictures, track=screen.track)


def as_json(panel: NeighborPanel) -> list[dict[str, Any]]:
    """Everything about each query, ready for JSON."""
    return [
        {
            "query": query.source or None,
            "class": query.class_name or None,
            "taken_for": query.predicted or None,
            "neighbors": [
                {
                    "index": int(index),
                    "file": near.source or None,
                    "class": near.class_name or None,
                    "similarity": near.similarity,
                }
                for index, near in zip(row, query.neighbors, strict=True)
            ],
            "protocol": {"bank_images": len(panel.bank), "distance": "cosine", **panel.protocol},
        }
        for query, row in zip(queries(panel), panel.index, strict=True)
    ]


def print_neighbors(panel: NeighborPanel) -> None:
    """A row per query: what it is, what it is taken for, and its neighbours by similarity."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = f"{panel.index.shape[1]} nearest of {count(len(panel.bank))} training images"
    table = Table(title=title, title_justify="left", caption=_caption(panel))
    found = queries(panel)
    classes = any(query.class_name for query in found)
    votes = any(query.predicted for query in found)
    for name, wanted in (("query", True), ("is", classes), ("taken for", votes)):
        if wanted:
            table.add_column(name, overflow="fold")
    table.add_column("nearest, by cosine similarity", overflow="fold")
    for number, query in enumerate(found, start=1):
        cells = [Text(query.source or f"{number}")]
        cells += [Text(query.class_name)] if classes else []
        cells += [_taken_for(query)] if votes else []
        near = [f"{n.class_name or n.source or '-'} {n.similarity:.3f}" for n in query.neighbors]
        table.add_row(*cells, Text(", ".join(near)))
    Console(highlight=False).print(table)


def _taken_for(query: Query) -> Any:
    from rich.text import Text

    wrong = query.correct is False
    return Text(f"x {query.predicted}" if wrong else query.predicted, style="red" if wrong else "")


def _caption(panel: NeighborPanel) -> str:
    parts = [f"Queries: {panel.rule}."] if panel.rule else []
    if panel.protocol:
        k, temperature = panel.protocol["k"], panel.protocol["temperature"]
        parts.append(f"Votes: k = {k}, T = {temperature:g}, cosine.")
    return " ".join(parts)
