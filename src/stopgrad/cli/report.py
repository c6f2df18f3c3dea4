"""The command `report`: a page, a poster and figures of runs and studies."""

from __future__ import annotations

import argparse
from pathlib import Path

from stopgrad.cli.show import Screen, print_line
from stopgrad.errors import ConfigError
from stopgrad.report import (
    Evidence,
    StudyEvidence,
    read_studies,
    write_figures,
    write_page,
    write_poster,
)


def report(options: argparse.Namespace) -> None:
    """Writes what the options ask for about runs and studies."""
    screen = Screen()
    chapters = [
        chapter for path in options.directories for chapter in _chapters(path, options.data, screen)
    ]
    single = len(options.directories) == 1
    folder = options.directories[0] if single else Path()
    print_line(f"report: {write_page(chapters, out=options.out or folder / 'report.html')}")
    if options.poster:
        print_line(f"poster: {write_poster(chapters, out=options.poster)}")
    if options.figures:
        count = len(write_figures(chapters, folder=options.figures))
        print_line(f"figures: {count} files in {options.figures}")


def _chapters(path: Path, data: str | None, screen: Screen) -> list[Evidence | StudyEvidence]:
    """A run, with pictures, or every study of a directory."""
    if (path / "studies").is_dir() and not (path / "config.json").exists():
        return list(read_studies(path))
    if not path.is_dir():
        raise ConfigError(
            f"{path} is no directory",
            expected="a run, or a directory of studies",
            hint="check the path",
        )
    from stopgrad.cli.commands import run_evidence  # needs torch, which a study does not

    return [run_evidence(path, data, screen)]
