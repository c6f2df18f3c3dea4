"""The commands that hand on what a run has learned: `export` and `embed`."""

from __future__ import annotations

import argparse
from dataclasses import replace

from stopgrad.cli.commands import images_of
from stopgrad.cli.show import Screen, print_line
from stopgrad.export import check_out, embed_dataset, export_run, run_condition
from stopgrad.method import use_threads
from stopgrad.runs import TrainedRun, load_run


def export(options: argparse.Namespace) -> None:
    """Writes the encoder of a run for another tool, and says how to load it there."""
    screen, run = Screen(), load_run(options.run)
    use_threads(run.info.config.threads)
    _tell(run, screen)
    made = export_run(run, name=options.format, out=options.out)
    checked = made.card.get("checked", "stopgrad")
    if made.difference is None:
        screen.line(f"not compared: {options.format} is not installed")
    else:
        but = f" but for {made.difference:.1g} of the largest" if made.difference else ""
        screen.line(f"compared: {checked} gives the same features{but}")
    screen.line(f"done: {', '.join(str(path) for path in made.files)}; load it with:")
    for line in made.lines:
        print_line(line)


def embed(options: argparse.Namespace) -> None:
    """Writes the features of all pictures of a data set."""
    check_out(options.out)  # before anything is read
    screen, run = Screen(), load_run(options.run)
    use_threads(run.info.config.threads)
    _tell(run, screen)
    config = replace(run.info.config, bad_images=options.bad_images or run.info.config.bad_images)
    dataset = images_of(run.info, options.data, screen, config=config)
    with screen.progress():
        made = embed_dataset(run, dataset, out=options.out, layer=options.layer, track=screen.track)
    if made.kept:
        screen.line(f"{made.kept:,} pictures had been done before")
    screen.line(f"done: {made.rows:,} pictures, {made.width} numbers each")
    for path in made.files:
        print_line(str(path))


def _tell(run: TrainedRun, screen: Screen) -> None:
    """What a user of the features should know of the run."""
    for line in run.damaged:
        screen.line(f"passed over: {line}")
    for line in run_condition(run):
        screen.line(line)
