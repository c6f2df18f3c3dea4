"""The files and folders of a run, and paths that are mistaken for a run."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import NamedTuple

from stopgrad.errors import CheckpointError
from stopgrad.images import is_store
from stopgrad.storage import as_text, odd_entry, refuse_links

FILES = ("config.json", "status.json", "metrics.jsonl", "records.jsonl", "report.html", "lock")
FOLDERS = ("checkpoints", "labels")
OTHERS = {"costs.jsonl": "file"} | dict.fromkeys(("supervised", "finetune", "elsewhere"), "folder")


class Mistaken(NamedTuple):
    """What a mistaken path really is, and what to do with it."""

    what: str  # the end of a sentence that says what it is not
    hint: str


def mistaken(path: Path) -> Mistaken:
    """Tells what a path that was mistaken for something else really is."""
    name, above = quote(str(path)), quote(str(path.parent))
    table = "see the studies with: stopgrad study table"
    if not path.exists():
        return Mistaken(": it does not exist", "check the path")
    if path.is_file():
        return Mistaken(", but a file", "name the directory of the run, not a file in it")
    if (path / "config.json").exists():
        return Mistaken(", but a run", f"look at it with: stopgrad report {name}")
    if (path / "studies").is_dir():
        hint = f"{table} {name}; their runs are {name}/runs/ID/run"
        return Mistaken(", but a directory of studies", hint)
    if is_store(path):
        return Mistaken(", but a packed store", f"it is images: name it by --data {name}")
    if next((path.parent / "studies").glob("*.json"), None):
        return Mistaken(", but part of a directory of studies", f"{table} {above}")
    if run := next(path.glob("*/config.json"), None):
        return Mistaken(", but a folder", f"it holds runs; name them, such as {run.parent}")
    return Mistaken(", but a folder", "check the path; a folder of images is named by --data")


def refuse_odd_files(path: Path) -> None:
    """Refuses, by a CheckpointError, a run with a link, pipe or device; later links too."""
    refuse_links(path)
    own = {**dict.fromkeys(FILES, "file"), **dict.fromkeys(FOLDERS, "folder"), **OTHERS}
    odd = odd_entry(path, own)
    if odd is not None:
        raise CheckpointError(
            f"{as_text(odd)} is a link or not a regular file",
            expected="files and folders of the run's own",
            hint="do not use this run, or put the real files there",
        )
