"""An edited study against the one that a directory holds: refused, or taken up.

An edit is refused when it would mix two things in one table: other runs behind an arm, the other
split, or a table without the arm whose test score stands. Other edits only change how the runs are
read: metrics, fractions of the labels, correction, findings, published numbers, texts, arms that
come or go. They are taken up and reported as old -> new, and numbers that finished runs lack are
scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stopgrad.config import key_paths
from stopgrad.errors import ConfigError
from stopgrad.studies.plan import StudyPlan, address
from stopgrad.studies.stored import StoredStudy

LONGEST = 100  # characters of a value that is reported
SCORED = ("protocol.metrics", "protocol.labels", "protocol.beside", "baseline")
"""Fields that ask for other numbers of runs that are finished."""


def check_same(old: StoredStudy, new: StoredStudy, plan: StudyPlan, *, path: Path) -> None:
    """Refuses to mix runs of two settings in one table, or two splits.

    Args:
        old: As the directory holds it.
        new: As it would hold it.
        plan: What is to be run.
        path: The directory.

    Raises:
        ConfigError: With old -> new.
    """
    was, now = old.study.protocol.split, new.study.protocol.split
    if _trains_otherwise(old, new, plan):
        found = f"other settings: {'; '.join(_decisive(old, new)) or 'another version of stopgrad'}"
    elif was != now:
        found = f"another split: protocol.split {was} -> {now}"
    elif old.selected and old.selected not in [arm.name for arm in new.study.arms]:
        found = f"an arm that is not in it now, {old.selected!r}, whose test split was scored"
    else:
        return
    raise ConfigError(
        f"{path} holds {old.study.name} with {found}",
        expected="the settings that it was begun with",
        hint="repeat them, or give the file another name: a directory holds several studies, and "
        "the runs that they share are trained once",
    )


def changes(old: StoredStudy, new: StoredStudy) -> list[str]:
    """What was edited in a study that is taken up, a line each: `path: old -> new`."""
    lines = [f"{where}: {was} -> {now}" for where, was, now in _differences(old, new)]
    if any(line.startswith(SCORED) for line in lines):
        lines.append("numbers that it asks for now and finished runs lack are scored")
    return lines


def _trains_otherwise(old: StoredStudy, new: StoredStudy, plan: StudyPlan) -> bool:
    """Whether an arm would have another run at a seed that it has, asked for now or not."""
    runs = {(slot.arm, slot.labels): plan.runs[slot.run] for slot in plan.slots}
    for slot in old.slots:
        run = runs.get((slot.arm, slot.labels))
        if run is None:
            continue
        same = run._replace(config=replace(run.config, seed=slot.seed))
        if address(same, fingerprint=new.data["fingerprints"][slot.arm]) != slot.run:
            return True
    return False


def _decisive(old: StoredStudy, new: StoredStudy) -> list[str]:
    """The differences that can decide what is trained."""
    kinds = ("preset", "overrides", "images", "settings", "arms", "protocol.labels")
    return [
        f"{where} {was} -> {now}"
        for where, was, now in _differences(old, new)
        if where.startswith(kinds)
    ]


def _differences(old: StoredStudy, new: StoredStudy) -> Iterator[tuple[str, str, str]]:
    """(where, old, new) of every value that is another, in the order of the new file."""
    before, after = dict(_all_values(old)), dict(_all_values(new))
    for where in dict.fromkeys([*after, *before]):
        was, now = before.get(where), after.get(where)
        if _number(was) != _number(now):
            yield where, _text(before, where), _text(after, where)


def _all_values(stored: StoredStudy) -> Iterator[tuple[str, Any]]:
    yield "preset", stored.preset
    yield from _values(stored.overrides, "overrides.")
    yield "images", sorted({mark[:12] for mark in stored.data["fingerprints"].values()})
    yield from _values({k: v for k, v in stored.data.items() if k != "fingerprints"}, "data.")
    yield from _values({k: v for k, v in stored.values.items() if k != "findings"}, "")
    found = stored.values.get("findings") or []
    for number, item in enumerate(found if isinstance(found, list) else [found], start=1):
        values = dict(item)  # by its text, so that one that is added moves no other
        yield f"findings.{values.pop('says', number)}", values


def _values(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Every value by its key path; an empty mapping is a value, as of an arm without changes."""
    for path, value in key_paths(values, is_value=lambda value: not value).items():
        yield prefix + path, value


def _number(value: Any) -> Any:
    """A number in text as a number: older versions read 5e-4 in YAML as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _text(values: Mapping[str, Any], where: str) -> str:
    if where not in values:
        return "nothing"
    text = json.dumps(values[where], ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
