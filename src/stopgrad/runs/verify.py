"""Every file of a run, checked: what is whole, what is not, and what a crash has left.

Nothing is written and no lock is taken, so that a run may be verified while it trains.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stopgrad.config import torch_generator
from stopgrad.errors import CheckpointError, ConfigError, StopgradError, UnreadableError
from stopgrad.method import build_encoder
from stopgrad.runs.changes import check_changes
from stopgrad.runs.checkpoint import (
    INFO,
    MANIFEST,
    NAMES,
    STATE,
    CheckpointManifest,
    checkpoint_folders,
    decode_state,
    decode_tensor_file,
    newest_step,
    read_info,
    read_manifest,
    read_part,
    step_folders,
)
from stopgrad.runs.directory import MetricsRow, read_rows
from stopgrad.runs.entries import FILES, FOLDERS, OTHERS, mistaken, refuse_odd_files
from stopgrad.runs.info import RunInfo, info_from_dict, mapping, whole_number
from stopgrad.storage import Finding, as_text, fits, in_short, read_file, read_json, read_lines

LARGEST_PAGE = 1 << 30  # bytes


class _Run(NamedTuple):
    path: Path
    info: RunInfo | None  # None: config.json cannot be read

    @property
    def newest(self) -> int:
        """Step of the newest checkpoint on disk, at this moment."""
        return newest_step(self.path)


def verify_run(path: Path) -> Iterator[Finding]:
    """A finding for each file of a run, in reading order.

    Raises:
        CheckpointError: When it is not a run.
        ConfigError: For a run whose encoder was given in Python and is not given again.
    """
    if not (path / "config.json").exists() and not step_folders(path):
        found = mistaken(path)
        raise CheckpointError(
            f"{as_text(path)} is not a run{found.what}",
            expected="a directory made by `stopgrad pretrain`",
            hint=found.hint,
        )
    try:
        refuse_odd_files(path)
    except CheckpointError as error:
        yield Finding(".", ok=False, note=error.found)
        return
    run = _Run(path, None)
    with suppress(OSError, ValueError, KeyError, TypeError, ConfigError):
        run = _Run(path, info_from_dict(read_json(path / "config.json")))
    if run.info is not None and run.info.config.encoder.is_given:
        build_encoder(run.info.config.encoder, torch_generator(0, "encoder"))  # it must be given
    for name, check in _FILES.items():
        if (path / name).exists() or name == "config.json":
            yield _finding(name, check, run)
        elif run.newest > 0 and name in ("status.json", "metrics.jsonl"):
            yield Finding(name, ok=False, note="is missing")
    for draw in sorted((path / "labels").glob("*.json")):
        yield _finding(f"labels/{draw.name}", _draw, draw, run)
    yield from _checkpoints(run)
    yield from _others(path)


def _finding(name: str, check: Callable[..., str], *checked: object) -> Finding:
    """The finding of a check: its note, or the error it raised."""
    try:
        return Finding(name, ok=True, note=check(*checked))
    except UnreadableError:  # which says nothing about the file
        raise
    except StopgradError as error:
        return Finding(name, ok=False, note=error.found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        kind = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else in_short(error)
        return Finding(name, ok=False, note=kind)


def _config(run: _Run) -> str:
    info = info_from_dict(read_json(run.path / "config.json"))
    for folder in reversed(checkpoint_folders(run.path)):
        try:
            begun = read_info(read_manifest(folder))
        except CheckpointError:
            continue  # has its own finding
        check_changes(begun, info)
        break
    return "; ".join(
        f"{change.key}: {as_text(change.old)} -> {as_text(change.new)} at step {change.step}"
        for change in info.changes
    )


def _status(run: _Run) -> str:
    status = read_json(run.path / "status.json")
    newest = run.newest  # after the status, which is written after the checkpoint
    state = status["state"]
    step = whole_number(status["step"]) if "step" in status else None
    ends = {newest}  # a run ends at these steps, or did until it was extended
    if run.info is not None:
        ends = {run.info.steps, *(change.step for change in run.info.extensions)}
    wrong = {
        "finished": step != newest or newest not in ends,
        "interrupted": step != newest,
        "collapsed": step != newest,
        "diverged": step is None or step < newest,
        "running": False,  # between two checkpoints
        "failed": False,
    }
    if state not in wrong:
        raise ValueError(f"state {as_text(state)}")
    if wrong[state]:
        raise ValueError(f"{state} at step {step}, the newest checkpoint is of step {newest}")
    return f"{state}" if step is None else f"{state} at step {step}"


def _metrics(run: _Run) -> str:
    newest = run.newest  # before the rows, which are written before the checkpoint
    rows, torn = read_rows(run.path)
    steps = [row["step"] for row in rows if row.get("kind") == "step"]
    _once_each(steps, name="step", least=newest)
    epochs = _epoch_rows(run, rows, newest=newest)
    after = sum(step > newest for step in steps)
    notes = [f"{len(steps)} steps, {epochs} epochs"]
    if after:
        notes.append(f"{after} steps after the newest checkpoint, which resume repeats")
    return "; ".join(notes + _torn(torn))


def _once_each(numbers: list[int], *, name: str, least: int) -> None:
    """Raises a ValueError unless numbers count 1, 2, 3 to `least` or beyond."""
    for wanted, number in enumerate(numbers, start=1):
        if number != wanted:
            times = Counter(numbers)[number]
            reason = f"{name} {number} {times} times" if times > 1 else f"{name} {wanted} missing"
            raise ValueError(f"{reason}, in row {wanted} of the {name}s")
    if len(numbers) < least:
        raise ValueError(f"{name}s 1 to {len(numbers)}, of {least}")


def _epoch_rows(run: _Run, rows: list[MetricsRow], *, newest: int) -> int:
    """The number of epochs that have their row, each once and at its step."""
    found = [row for row in rows if row.get("kind") == "epoch"]
    if run.info is None:
        return len(found)
    steps = run.info.steps_per_epoch
    # The row of an epoch that has just ended may still be missing: it is measured on resume.
    least = (newest - 1) // steps if newest else 0
    _once_each([whole_number(row["epoch"]) for row in found], name="epoch", least=least)
    for row in found:
        if row["step"] != row["epoch"] * steps:
            raise ValueError(f"epoch {row['epoch']} at step {row['step']}")
    return len(found)


def _records(run: _Run) -> str:
    rows, torn = read_lines(
        run.path / "records.jsonl", dict, what="a record", hint="restore the file"
    )
    for number, row in enumerate(rows, start=1):
        missing = {"metric", "value", "split", "images_scored", "protocol", "data"} - row.keys()
        if missing:
            raise ValueError(f"line {number} lacks {', '.join(sorted(missing))}")
        if not fits(row["value"], float):
            raise ValueError(f"line {number} holds no number")
        mark = mapping(row["data"]).get("fingerprint")
        if run.info is not None and mark != run.info.data["fingerprint"]:
            raise ValueError(f"line {number} was scored on other images, {as_text(mark)[:12]}")
    return "; ".join([f"{len(rows)} records", *_torn(torn)])


def _report(run: _Run) -> str:
    page = read_file(run.path / "report.html", most=LARGEST_PAGE).decode()
    if not page.rstrip().endswith("</html>"):
        raise ValueError("the page is cut off")
    return ""


_FILES: dict[str, Callable[[_Run], str]] = {
    "config.json": _config,
    "status.json": _status,
    "metrics.jsonl": _metrics,
    "records.jsonl": _records,
    "report.html": _report,
}


def _draw(path: Path, run: _Run) -> str:
    """A draw of labels: indices of training images, ascending, under the seed of the run."""
    indices = [whole_number(index) for index in read_json(path)]
    if not indices or indices != sorted(set(indices)):
        raise ValueError("no ascending indices of images")
    named = re.fullmatch(r"share-[\d.e-]+-seed-(\d+)\.json", path.name, re.ASCII)
    if run.info is not None and named is not None:
        if indices[-1] >= run.info.data["images"]:
            raise ValueError(f"index {indices[-1]} of {run.info.data['images']} images")
        if int(named[1]) != run.info.config.seed:
            raise ValueError(f"seed {named[1]}, the run's is {run.info.config.seed}")
    return f"{len(indices)} images"


def _checkpoints(run: _Run) -> Iterator[Finding]:
    complete = checkpoint_folders(run.path)
    for folder in step_folders(run.path):
        name = f"checkpoints/{folder.name}"
        if folder not in complete:
            yield Finding(name, ok=True, note="unfinished, removed at the next checkpoint")
            continue
        findings = list(_checkpoint(folder, run))
        if (folder / MANIFEST).exists():  # else a run that is training has just removed it
            yield from findings
    if not complete:
        yield Finding("checkpoints", ok=run.newest == 0, note="none yet")


def _checkpoint(folder: Path, run: _Run) -> Iterator[Finding]:
    name = f"checkpoints/{folder.name}"
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        yield Finding(f"{name}/{MANIFEST}", ok=False, note=error.found)
        return
    yield Finding(f"{name}/{MANIFEST}", ok=True, note="")
    for part in NAMES:
        yield _finding(f"{name}/{part}", _part, manifest, part, run)


def _part(manifest: CheckpointManifest, name: str, run: _Run) -> str:
    """Reads one file of a checkpoint as a resumed run would."""
    if name == INFO:
        read_info(manifest)
        return ""
    info = run.info or read_info(manifest)
    data = read_part(manifest, name, info=info)
    if name == STATE:
        decode_state(data, manifest, info=info)
    else:
        decode_tensor_file(data, manifest, name, info=info)
    return ""


def _others(path: Path) -> Iterator[Finding]:
    """Files other than those of a run, which are left alone."""
    for entry in sorted(path.iterdir()):
        if entry.name not in (*FILES, *FOLDERS):
            left = entry.name.startswith(".") and entry.name.endswith(".tmp")
            other = "not checked" if entry.name in OTHERS else "not a file of the run, not checked"
            note = "left by a crash, not used" if left else other
            yield Finding(as_text(entry.name), ok=True, note=note)


def _torn(torn: bytes) -> list[str]:
    return [f"a torn last line of {len(torn)} bytes, which is not read"] if torn else []
