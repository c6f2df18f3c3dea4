"""The command `report`: a page, a poster and figures of runs and studies."""

from __future__ import annotations

import argparse
from pathlib import Path

from stopgrad.cli.show import Screen, print_line
from stopgrad.errors import ConfigError
from stopgrad.report import (
    Evidence,
    ShownRun,
    StudyEvidence,
    read_studies,
    write_figures,
    write_page,
    write_poster,
)
from stopgrad.storage import printable
from stopgrad.studies import StudyDirectory


def report(options: argparse.Namespace) -> None:
    """Writes what the options ask for about runs and studies."""
    screen = Screen()
    chapters = [
        chapter for path in options.directories for chapter in _chapters(path, options, screen)
    ]
    single = len(options.directories) == 1
    folder = options.directories[0] if single else Path()
    print_line(f"report: {write_page(chapters, out=options.out or folder / 'report.html')}")
    if options.poster:
        print_line(f"poster: {write_poster(chapters, out=options.poster)}")
    if options.figures:
        count = len(write_figures(chapters, folder=options.figures))
        print_line(f"figures: {count} files in {options.figures}")


def _chapters(
    path: Path, options: argparse.Namespace, screen: Screen
) -> list[Evidence | StudyEvidence]:
    """A run, with pictures, or every study of a directory."""
    if (path / "studies").is_dir() and not (path / "config.json").exists():
        studies = read_studies(path)
        if options.pictures is None:
            return list(studies)
        return [_with_pictures(study, options, screen) for study in studies]
    if not path.is_dir():
        raise ConfigError(
            f"{path} is no directory",
            expected="a run, or a directory of studies",
            hint="check the path",
        )
    from stopgrad.cli.commands import run_evidence

    return [run_evidence(path, options.data, screen)]


def _with_pictures(
    study: StudyEvidence, options: argparse.Namespace, screen: Screen
) -> StudyEvidence:
    """A study with the pictures of one run: of the arm that was named, chosen, or the baseline."""
    from stopgrad.cli.commands import run_evidence

    stored = study.results.stored
    arm = options.pictures or stored.selected or stored.study.baseline
    folder = StudyDirectory(Path(study.path)).folder
    slots = [slot for slot in stored.slots if slot.arm == arm]
    for slot in slots:
        run = folder(slot.run).run
        if any((run / "checkpoints").glob("*/model.safetensors")):
            found = run_evidence(run, options.data or str(stored.data["spec"]), screen)
            return study._replace(shown=ShownRun(found, printable(arm), slot.seed))
    names = ", ".join(each.name for each in stored.study.arms)
    raise ConfigError(
        f"--pictures {arm}" + (": no run of it has its weights" if slots else ": no such arm"),
        expected=f"an arm of {stored.study.name} with weights, of {names}",
        hint="name another arm, or leave --pictures out",
    )
