"""A study's file -> a `Study`, with a clause for everything in it that is wrong.

Fields, of which question, baseline, arms and protocol are needed:

    question    one sentence
    baseline    the name of an arm
    settings    KEY: VALUE, knobs that all arms share
    arms        NAME: {KEY: VALUE}; a value {times: X} multiplies the study's own; the key
                `method: supervised` makes an arm the network trained with labels from scratch
    protocol    split (validation or test), labels (fractions, rising), metrics, beside (chance,
                untrained, pixels), final_test (true or false), correction (none, bonferroni, holm)
    findings    list of {says, higher, than, margin} or {says, collapses, survives}; `higher` and
                `than` are an arm (first metric, all labels) or {arm, metric, labels}; a margin is
                in the unit of the published numbers
    published   source, seeds, values: {ARM: {METRIC: [[mean, std], ...]}}, one pair per fraction
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args

from stopgrad.errors import did_you_mean
from stopgrad.evaluation import ACCURACIES, MEASURES, Correction
from stopgrad.studies.definition import (
    Arm,
    Beside,
    Method,
    Place,
    Protocol,
    Published,
    PublishedFinding,
    Split,
    Study,
    Value,
    labels_of,
    metrics_of,
)

T = TypeVar("T")
Reads = Callable[[Any], Any]  # gives the value that a field stands for, or raises a `MisfitError`

NEEDED = ("question", "baseline", "arms", "protocol")


class MisfitError(ValueError):
    """A value that does not fit: the value, what was expected, and perhaps what was meant."""

    def __init__(self, value: object, expected: str, near: str = "") -> None:
        super().__init__(f"{value!r} (expected {expected}){near}")


def parse_study(values: object, *, name: str) -> tuple[Study, list[str]]:
    """A study and a clause for each field that is wrong; those fields are left empty.

    Args:
        values: What the YAML file holds.
        name: The study's name, that of the file.
    """
    wrong: list[str] = []
    known: dict[str, Reads] = {"question": _text, "baseline": _as_it_is, "findings": _listed}
    known |= dict.fromkeys(("settings", "arms", "protocol", "published"), _mapping)
    fields = _fields(values, "", known, wrong, needed=NEEDED)
    arms = tuple(_arm(arm, value, wrong) for arm, value in fields.get("arms", {}).items())
    baseline = _choice([arm.name for arm in arms])
    study = Study(
        name=name,
        question=fields.get("question", ""),
        baseline=_value(fields.get("baseline"), "baseline", baseline, wrong) or "",
        settings=fields.get("settings", {}),
        arms=arms,
        protocol=_protocol(fields.get("protocol"), wrong),
        findings=(),
        published=None,
    )
    found = enumerate(fields.get("findings", []), start=1)
    findings = [_finding(item, f"findings.{number}", study, wrong) for number, item in found]
    published = fields.get("published")
    return study._replace(
        findings=tuple(findings),
        published=None if published is None else _published(published, study, wrong),
    ), wrong


def _fields(
    value: object,
    path: str,
    known: Mapping[str, Reads],
    wrong: list[str],
    *,
    needed: Sequence[str] = (),
) -> dict[str, Any]:
    """The fields of a mapping that are there and fit; a clause for each of the others."""
    found = _value(value, path or "the file", _mapping, wrong) or {}
    where = {key: f"{path}.{key}" if path else key for key in (*found, *needed)}
    unknown = [key for key in found if key not in known]
    wrong += [f"unknown field {where[key]}{did_you_mean(key, known)}" for key in unknown]
    wrong += [f"{where[key]} is missing" for key in needed if found.get(key) is None]
    read = {k: _value(found[k], where[k], known[k], wrong) for k in found if k in known}
    return {key: part for key, part in read.items() if part is not None}


def _value(value: object, path: str, read: Callable[[Any], T], wrong: list[str]) -> T | None:
    """What a value stands for; None where it is empty or, with a clause, where it does not fit."""
    try:
        return None if value is None else read(value)
    except MisfitError as error:
        wrong.append(f"{path} = {error}")
        return None


def _as_it_is(value: object) -> object:
    return value


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MisfitError(value, "KEY: VALUE lines")
    return {str(key): part for key, part in value.items()}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: object) -> str:
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise MisfitError(value, "text")
    return str(value).strip()


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise MisfitError(value, "true or false")
    return value


def _number(fits: Callable[[float], bool]) -> Callable[[Any], float]:
    """Reads a finite number that fits."""

    def read(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number) or not fits(number):
            raise MisfitError(value, "a number that fits there")
        return number

    return read


def _choice(known: Sequence[T]) -> Callable[[object], T]:
    """Reads one of these; a number is the one name that says it, 5e-4 for instance."""

    def read(value: object) -> T:
        named = [choice for choice in known if _stands_for(value, choice)]
        if len(named) != 1:
            names = [str(choice) for choice in named or known]
            near = did_you_mean(str(value), names)
            raise MisfitError(value, f"one of {', '.join(names)}", near)
        return named[0]

    return read


def _stands_for(value: object, choice: object) -> bool:
    """Whether a value of YAML is a choice; a name in quotes is that name alone."""
    if isinstance(choice, str) and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(choice) == value
        except ValueError:
            return False
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


def _several(read_one: Callable[[Any], T]) -> Callable[[object], tuple[T, ...] | None]:
    """Reads one value or a list of different ones; None for an empty list."""

    def read(value: object) -> tuple[T, ...] | None:
        chosen = tuple(read_one(item) for item in _listed(value) if item is not None)
        if len(set(chosen)) < len(chosen):
            raise MisfitError(value, "each of them once")
        return chosen or None

    return read


def _arm(name: str, value: object, wrong: list[str]) -> Arm:
    changes = _value(value, f"arms.{name}", _mapping, wrong) or {}
    methods: tuple[Method, ...] = get_args(Method)
    method = _value(changes.pop("method", None), f"arms.{name}.method", _choice(methods), wrong)
    return Arm(name, method or "simsiam", changes)


def _protocol(value: object, wrong: list[str]) -> Protocol:
    known: dict[str, Reads] = {
        "split": _choice(get_args(Split)),
        "labels": _several(_number(lambda labels: 0 < labels <= 1)),
        "metrics": _several(_choice((*ACCURACIES, *MEASURES))),
        "beside": _several(_choice(get_args(Beside))),
        "final_test": _flag,
        "correction": _choice(get_args(Correction)),
    }
    protocol = Protocol(
        **_fields(value, "protocol", known, wrong, needed=["split"] if value else ())
    )
    if list(protocol.labels) != sorted(protocol.labels):
        wrong.append(f"protocol.labels = {list(protocol.labels)} (expected rising fractions)")
    if protocol.final_test and protocol.split == "test":
        wrong.append("protocol.final_test = True (expected false where split is test)")
    return protocol


def _finding(value: object, path: str, study: Study, wrong: list[str]) -> PublishedFinding:
    arms = _several(_choice([arm.name for arm in study.arms]))
    known: dict[str, Reads] = {"says": _text, "margin": _number(lambda margin: margin >= 0)}
    known |= {"higher": _as_it_is, "than": _as_it_is, "collapses": arms, "survives": arms}
    fields = _fields(value, path, known, wrong, needed=["says"])
    higher, than = (
        _place(fields.get(key), f"{path}.{key}", study, wrong) for key in ("higher", "than")
    )
    collapses = fields.get("collapses", ())
    if (higher is None) != (than is None) or (higher is None and not collapses):
        wrong.append(f"{path} has neither higher and than nor collapses")
    unit = 100 if higher is not None and higher.metric in ACCURACIES else 1
    margin = fields.get("margin", 0.0) / unit
    says, survives = fields.get("says", ""), fields.get("survives", ())
    return PublishedFinding(says, higher, than, margin, collapses, survives)


def _place(value: object, path: str, study: Study, wrong: list[str]) -> Place | None:
    """An arm with its first metric and all labels, or with those that are named."""
    if value is None:
        return None
    fields = value if isinstance(value, Mapping) else {"arm": value}
    known: dict[str, Reads] = {"arm": _choice([arm.name for arm in study.arms])}
    known |= {"metric": _as_it_is, "labels": _as_it_is}
    fields = _fields(fields, path, known, wrong, needed=["arm"])
    if "arm" not in fields:
        return None
    arm, metrics = fields["arm"], metrics_of(study.arm(fields["arm"]), study.protocol)
    if not metrics:
        wrong.append(f"{path}.arm = {arm!r} (expected an arm that one of protocol.metrics scores)")
        return None
    metric = _value(fields.get("metric"), f"{path}.metric", _choice(metrics), wrong) or metrics[0]
    labels = labels_of(metric, study.protocol)
    found = _value(fields.get("labels"), f"{path}.labels", _choice(labels), wrong)
    return Place(arm, metric, found or labels[-1])


def _published(value: object, study: Study, wrong: list[str]) -> Published:
    known: dict[str, Reads] = {"source": _text, "values": _mapping}
    known["seeds"] = _number(lambda seeds: seeds >= 1 and seeds == int(seeds))
    fields = _fields(value, "published", known, wrong, needed=["source"])
    names: dict[str, Reads] = {arm.name: _mapping for arm in study.arms}
    values: dict[Place, Value] = {}
    rows = _fields(fields.get("values"), "published.values", names, wrong)
    for arm, row in rows.items():
        path = f"published.values.{arm}"
        metrics: dict[str, Reads] = dict.fromkeys(study.protocol.metrics, _as_it_is)
        for metric, cells in _fields(row, path, metrics, wrong).items():
            labels = labels_of(metric, study.protocol)
            found = _value(cells, f"{path}.{metric}", _row(len(labels)), wrong) or []
            values |= {Place(arm, metric, x): v for x, v in zip(labels, found, strict=False)}
    return Published(fields.get("source", ""), int(fields.get("seeds", 1)), values)


def _row(count: int) -> Callable[[Any], list[Value]]:
    """Reads one published mean and standard deviation for each fraction of the labels."""
    number = _number(lambda x: True)

    def read(value: Any) -> list[Value]:
        pairs = value if isinstance(value, list) else []
        fit = all(isinstance(pair, list) and 1 <= len(pair) <= 2 for pair in pairs)
        if len(pairs) != count or not fit:
            raise MisfitError(
                value, f"{count} pairs [mean, std], one for each fraction of the labels"
            )
        return [Value(number(p[0]), number(p[1]) if len(p) == 2 else None) for p in pairs]

    return read
