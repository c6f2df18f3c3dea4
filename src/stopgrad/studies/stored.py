"""A study as its directory holds it, compared with an edited one: refused, or accepted.

An edit is refused when it would mix two things in one table: other runs behind an arm, the other
split, or a table without the arm whose test score stands. Other edits only change how the runs are
read: metrics, fractions of the labels, correction, findings, published numbers, texts, arms that
come or go. They are accepted and reported as old -> new, and numbers that finished runs lack are
scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import key_paths
from stopgrad.errors import ConfigError
from stopgrad.evaluation import ACCURACIES
from stopgrad.storage import typed
from stopgrad.studies.definition import Study, StudyData
from stopgrad.studies.parse import StudyFile, parse_study
from stopgrad.studies.plan import Slot, StudyPlan, address

FORMAT = 1
LONGEST = 100  # characters of a value that is reported
SCORED = ("protocol.metrics", "protocol.labels", "protocol.beside", "baseline")
"""Fields that can ask for other numbers of finished runs."""

TRAINED = ("preset", "overrides", "images", "settings", "arms", "protocol.labels")
"""Values that can decide what is trained."""


class StoredStudy(NamedTuple):
    """A study as its directory holds it: what was asked for, and where the runs stand."""

    source: StudyFile
    preset: str
    overrides: Mapping[str, Any]
    data: StudyData
    seeds: tuple[int, ...]
    slots: tuple[Slot, ...]
    selected: str | None  # the arm that the validation split chose for the test split

    @property
    def study(self) -> Study:
        """The study itself."""
        return self.source.study


class _File(NamedTuple):
    """What studies/NAME.json holds."""

    format: int
    study: dict[str, Any]
    preset: str
    overrides: dict[str, Any]
    data: dict[str, Any]
    seeds: list[int]
    slots: list[dict[str, Any]]
    selected: str | None


def stored_study(plan: StudyPlan, data: StudyData, old: StoredStudy | None) -> StoredStudy:
    """A plan as its directory will hold it, with the seeds and the choice already there.

    Arms and label fractions that the study no longer has are dropped; their runs stay on disk.
    """
    before = old.slots if old is not None else ()
    known, wanted = {slot[:3] for slot in plan.slots}, {(s.arm, s.labels) for s in plan.slots}
    kept = [s for s in before if s[:3] not in known and (s.arm, s.labels) in wanted]
    slots = sorted((*kept, *plan.slots), key=lambda slot: slot.seed)
    return StoredStudy(
        source=plan.source,
        preset=plan.choices.preset,
        overrides=plan.choices.overrides,
        data=data,
        seeds=tuple(sorted({slot.seed for slot in slots})),
        slots=tuple(slots),
        selected=old.selected if old is not None else None,
    )


def encode(stored: StoredStudy) -> dict[str, Any]:
    """A stored study as JSON can hold it."""
    return _File(
        format=FORMAT,
        study=dict(stored.source.values),
        preset=stored.preset,
        overrides=dict(stored.overrides),
        data=stored.data._asdict(),
        seeds=list(stored.seeds),
        slots=[slot._asdict() for slot in stored.slots],
        selected=stored.selected,
    )._asdict()


def decode(values: Any, *, name: str) -> StoredStudy:
    """The stored study that `encode` was given.

    Raises:
        ValueError: For another format, or a study with errors.
        KeyError, TypeError: When something is missing or of another type.
    """
    if not isinstance(values, dict) or values["format"] != FORMAT:
        raise ValueError(f"it is not a study of format {FORMAT}")
    file = typed(_File, values)
    source, data = parse_study(file.study, name=name), typed(StudyData, file.data)
    if source.problems:
        raise ValueError("; ".join(source.problems))
    if data.classes < 1 and set(source.study.protocol.metrics) & set(ACCURACIES):
        raise ValueError(f"data.classes is {data.classes}, for a study of accuracies")
    slots = tuple(typed(Slot, slot) for slot in file.slots)
    asked = file.preset, file.overrides, data, tuple(file.seeds)
    return StoredStudy(source, *asked, slots, file.selected)


def check_same(old: StoredStudy, new: StoredStudy, plan: StudyPlan, *, path: Path) -> None:
    """Refuses to mix runs of two settings, or two splits, in one table.

    Raises:
        ConfigError: With old -> new.
    """
    split, new_split = old.study.protocol.split, new.study.protocol.split
    if _trains_otherwise(old, new, plan):
        differing = _differences(old, new)
        lines = [f"{key} {was} -> {now}" for key, was, now in differing if key.startswith(TRAINED)]
        found = f"other settings: {'; '.join(lines) or 'another version of stopgrad'}"
    elif split != new_split:
        found = f"another split: protocol.split {split} -> {new_split}"
    elif old.selected and old.selected not in [arm.name for arm in new.study.arms]:
        found = f"an arm scored on the test split, {old.selected!r}, that is no longer in it"
    else:
        return
    raise ConfigError(
        f"{path} holds {old.study.name} with {found}",
        expected="the settings that it was begun with",
        hint="repeat them, or give the file another name: a directory holds several studies, and "
        "the runs that they share are trained once",
    )


def changes(old: StoredStudy, new: StoredStudy) -> list[str]:
    """The edits of a study that is accepted, a line each: `path: old -> new`."""
    lines = [f"{where}: {was} -> {now}" for where, was, now in _differences(old, new)]
    if any(line.startswith(SCORED) for line in lines):
        lines.append("finished runs are scored for the numbers that it now asks for")
    return lines


def _trains_otherwise(old: StoredStudy, new: StoredStudy, plan: StudyPlan) -> bool:
    """Whether an arm would have another run at a seed it already has, asked for now or not."""
    runs = {(slot.arm, slot.labels): plan.runs[slot.run] for slot in plan.slots}
    for slot in (slot for slot in old.slots if (slot.arm, slot.labels) in runs):
        run = runs[slot.arm, slot.labels]
        same = run._replace(config=replace(run.config, seed=slot.seed))
        if address(same, fingerprint=new.data.fingerprints[slot.arm]) != slot.run:
            return True
    return False


def _differences(old: StoredStudy, new: StoredStudy) -> Iterator[tuple[str, str, str]]:
    """(where, old, new) of every value that differs, in the order of the new file."""
    before, after = dict(_all_values(old)), dict(_all_values(new))
    for where in dict.fromkeys([*after, *before]):
        if _number(before.get(where)) != _number(after.get(where)):
            yield where, _text(before, where), _text(after, where)


def _all_values(stored: StoredStudy) -> Iterator[tuple[str, Any]]:
    """Every value by its key path; a finding by its text, so that an added one moves no other.

    An empty mapping is a value, as of an arm without changes.
    """
    values, data = dict(stored.source.values), stored.data._asdict()
    findings = values.pop("findings", None) or []
    images = sorted({mark[:12] for mark in data.pop("fingerprints").values()})
    overrides = {"overrides": stored.overrides} if stored.overrides else {}
    outer = {"preset": stored.preset, **overrides, "images": images, "data": data}
    for tree in (outer, values):
        yield from key_paths(tree, is_value=lambda value: not value).items()
    for number, item in enumerate(findings if isinstance(findings, list) else [findings], start=1):
        rest = dict(item)
        yield f"findings.{rest.pop('says', number)}", rest


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
