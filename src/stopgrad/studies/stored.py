"""A study as its directory holds it: what was asked for, and where the runs stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stopgrad.evaluation import ACCURACIES
from stopgrad.storage import typed
from stopgrad.studies.data import StudyData
from stopgrad.studies.definition import Study
from stopgrad.studies.parse import parse_study
from stopgrad.studies.plan import Slot, StudyPlan

FORMAT = 1


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


class StoredStudy(NamedTuple):
    """A study as its directory holds it."""

    study: Study
    values: Mapping[str, Any]  # its file
    preset: str
    overrides: Mapping[str, Any]
    data: Mapping[str, Any]  # spec, name, classes, fingerprints
    seeds: tuple[int, ...]
    slots: tuple[Slot, ...]
    selected: str | None  # the arm that the validation split chose for the test split


def stored_study(plan: StudyPlan, data: StudyData, old: StoredStudy | None) -> StoredStudy:
    """A plan as its directory will hold it, with the seeds and the choice that are there.

    An arm or a fraction that the study has lost since leaves it; its runs stay in the directory.
    """
    before = old.slots if old is not None else ()
    known, wanted = {slot[:3] for slot in plan.slots}, {(s.arm, s.labels) for s in plan.slots}
    kept = [s for s in before if s[:3] not in known and (s.arm, s.labels) in wanted]
    slots = (*kept, *plan.slots)
    return StoredStudy(
        study=plan.source.study,
        values=plan.source.values,
        preset=plan.choices.preset,
        overrides=plan.choices.overrides,
        data=data._asdict() | {"fingerprints": dict(data.fingerprints)},
        seeds=tuple(sorted({slot.seed for slot in slots})),
        slots=tuple(sorted(slots, key=lambda slot: slot.seed)),
        selected=old.selected if old is not None else None,
    )


def encode(stored: StoredStudy) -> dict[str, Any]:
    """As JSON can hold it."""
    return _File(
        format=FORMAT,
        study=dict(stored.values),
        preset=stored.preset,
        overrides=dict(stored.overrides),
        data=dict(stored.data),
        seeds=list(stored.seeds),
        slots=[slot._asdict() for slot in stored.slots],
        selected=stored.selected,
    )._asdict()


def decode(values: Any, *, name: str) -> StoredStudy:
    """What `encode` made.

    Raises:
        ValueError: For another format, or a study that is none.
        KeyError, TypeError: When something is missing or of another type.
    """
    if not isinstance(values, dict) or values["format"] != FORMAT:
        raise ValueError(f"no study of format {FORMAT}")
    file = typed(_File, values)
    study, problems = parse_study(file.study, name=name)
    if problems:
        raise ValueError("; ".join(problems))
    data = typed(StudyData, file.data)
    if data.classes < 1 and set(study.protocol.metrics) & set(ACCURACIES):
        raise ValueError(f"data.classes is {data.classes}, for a study of accuracies")
    return StoredStudy(
        study=study,
        values=file.study,
        preset=file.preset,
        overrides=file.overrides,
        data=file.data,
        seeds=tuple(file.seeds),
        slots=tuple(typed(Slot, slot) for slot in file.slots),
        selected=file.selected,
    )
