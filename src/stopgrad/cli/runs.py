"""The commands about a run that is there: go on with it, make it longer, check its files."""

from __future__ import annotations

import argparse
import json

from stopgrad.cli.commands import load_images, show_training
from stopgrad.cli.show import Screen, TrainingBar, print_line
from stopgrad.cli.store import check_store
from stopgrad.errors import CheckpointError
from stopgrad.images import is_store
from stopgrad.runs import RunInfo, read_run, verify_run
from stopgrad.storage import Finding
from stopgrad.training import check_resume, continue_run


def resume(options: argparse.Namespace) -> None:
    """Goes on with a run, with the threads that it was begun with; --extend makes it longer."""
    # Before any image is touched: a run of somebody else is not to be trusted.
    found = check_resume(options.run, changes=options.changes, extend=options.extend)
    info, screen = found.info, Screen()
    if found.finished:
        screen.line(f"{options.run} is finished; make it longer with --extend EPOCHS")
        return
    if options.extend not in (None, read_run(options.run).config.epochs):
        screen.line(_extension_line(info))
    spec = options.data or info.data["spec"]
    dataset = load_images(spec, screen, config=info.config, changed="tell")
    bar = TrainingBar(screen, options.run)
    show_training(continue_run(found, dataset, spec=spec, track=bar.track), bar)


def verify(options: argparse.Namespace) -> None:
    """Checks every file of a run or of a packed store, a line each.

    Raises:
        CheckpointError: When one of a run is not as it should be.
        DataError: When one of a store is not.
    """
    if is_store(options.run):
        for finding in check_store(options.run):
            _tell(finding, json_wanted=options.json)
        return
    findings = []
    for finding in verify_run(options.run):
        findings.append(finding)
        _tell(finding, json_wanted=options.json)
    wrong = [finding.file for finding in findings if not finding.ok]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"{len(wrong)} of {len(findings)} files of {options.run} are not as they should be: "
            f"{', '.join(wrong[:3])}{more}",
            expected="the files that stopgrad wrote",
            hint="resume goes on from the newest checkpoint that is whole",
        )


def _extension_line(info: RunInfo) -> str:
    """What the newest extension of a run does, and what it does not."""
    change = info.extensions[-1]
    return (
        f"extended at step {change.step} from {change.old} to {change.new} epochs: the learning "
        f"rates follow the new length from here on, so the result is not that of a run of "
        f"{change.new} epochs from the start"
    )


def _tell(finding: Finding, *, json_wanted: bool) -> None:
    """Whether a file is whole, its name, and what is to be said of it."""
    note = f": {finding.note}" if finding.note else ""
    line = f"{'ok ' if finding.ok else 'BAD'}  {finding.file}{note}"
    print_line(json.dumps(finding._asdict()) if json_wanted else line)
