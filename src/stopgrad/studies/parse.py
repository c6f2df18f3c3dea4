"""A study's file -> a `Study`, with a clause for everything in it that is wrong.

The file is in the package, by name, or a user's own YAML, by path. Its fields, of which question,
baseline, arms and protocol are needed:

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
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.evaluation import ACCURACIES, MEASURES, Correction
from stopgrad.storage import read_yaml, user_path
from stopgrad.studies.definition import (
    Arm,
    BaselineName,
    Method,
    Place,
    Protocol,
    Published,
    PublishedFinding,
    ScoredSplit,
    Study,
    Value,
    labels_of,
    metrics_of,
)

T = TypeVar("T")
Read = Callable[[Any], Any]
"""Reads the value that a field stands for, or raises a `MisfitError`."""

FOLDER = Path(__file__).parent
MOST_ARMS = 1000


class StudyFile(NamedTuple):
    """A study as it was read."""

    values: Mapping[str, Any]
    study: Study  # fields that are wrong are left empty
    problems: tuple[str, ...]  # a clause for each of them


class MisfitError(ValueError):
    """A value that does not fit, and what was expected."""

    def __init__(self, value: object, expected: str, near: str = "") -> None:
        super().__init__(f"{value!r} (expected {expected}){near}")


def built_in_studies() -> list[str]:
    """The names of the studies that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def study_file(name: str) -> str:
    """The YAML of a study of the package.

    Raises:
        ConfigError: For an unknown name.
    """
    if name not in built_in_studies():
        raise _no_study(name)
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def read_study(name: str) -> StudyFile:
    """A study of the package by name, or one from a YAML file by path.

    Raises:
        ConfigError: For an unknown name, or a file that cannot be read as YAML.
    """
    known = name in built_in_studies()
    path = FOLDER / f"{name}.yaml" if known else user_path(name)
    if not (known or path.exists()):
        raise _no_study(name, ", or the path of a YAML file")
    values = read_yaml(
        path,
        expected="a YAML file with the fields of a study",
        hint="see one with: stopgrad study list weight-decay",
    )
    values = values if isinstance(values, Mapping) else {"(contents)": values}
    return parse_study(values, name=path.stem)


def _no_study(name: str, also: str = "") -> ConfigError:
    known = built_in_studies()
    return ConfigError(
        f"no study {name!r}{did_you_mean(name, known)}",
        expected=f"one of {', '.join(known)}{also}",
        hint="see them with: stopgrad study list",
    )


def _any(value: object) -> object:
    return value


def _of_type(kind: type[T], expected: str) -> Callable[[object], T]:
    def read(value: object) -> T:
        if not isinstance(value, kind):
            raise MisfitError(value, expected)
        return value

    return read


_flag = _of_type(bool, "true or false")
_mapping: Read = _of_type(dict, "KEY: VALUE lines")


def _arms(value: Any) -> Any:
    if len(_mapping(value)) > MOST_ARMS:
        raise MisfitError(f"{len(value):,} arms", f"at most {MOST_ARMS:,}")
    return value


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: object) -> str:
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise MisfitError(value, "text")
    return str(value).strip()


def _number(fits: Callable[[float], bool]) -> Callable[[Any], float]:
    """Reads a finite number that fits."""

    def read(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number) or not fits(number):
            raise MisfitError(value, "a number in its range")
        return number

    return read


def _choice(known: Sequence[T]) -> Callable[[object], T]:
    """Reads one of these; a number means the one name that spells it, such as 5e-4."""

    def read(value: object) -> T:
        named = [choice for choice in known if _stands_for(value, choice)]
        if len(named) != 1:
            names = [str(choice) for choice in named or known]
            near = did_you_mean(str(value), names)
            raise MisfitError(value, f"one of {', '.join(names)}", near)
        return named[0]

    return read


def _stands_for(value: object, choice: object) -> bool:
    """Whether a YAML value means a choice; a quoted name means that name only."""
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


def _pairs(count: int) -> Callable[[object], list[Value]]:
    """Reads a published mean and standard deviation for each fraction of the labels."""
    number = _number(lambda x: True)

    def read(value: object) -> list[Value]:
        pairs = value if isinstance(value, list) else []
        fit = all(isinstance(pair, list) and 1 <= len(pair) <= 2 for pair in pairs)
        if len(pairs) != count or not fit:
            expected = f"{count} pairs [mean, std], one for each fraction of the labels"
            raise MisfitError(value, expected)
        return [Value(number(p[0]), number(p[1]) if len(p) == 2 else None) for p in pairs]

    return read


NEEDED = ("question", "baseline", "arms", "protocol")
FILE: dict[str, Read] = {
    "question": _text,
    "baseline": _any,
    "settings": _mapping,
    "arms": _arms,
    "protocol": _mapping,
    "findings": _listed,
    "published": _mapping,
}
PROTOCOL: dict[str, Read] = {
    "split": _choice(get_args(ScoredSplit)),
    "labels": _several(_number(lambda labels: 0 < labels <= 1)),
    "metrics": _several(_choice((*ACCURACIES, *MEASURES))),
    "beside": _several(_choice(get_args(BaselineName))),
    "final_test": _flag,
    "correction": _choice(get_args(Correction)),
}


def parse_study(values: Mapping[str, Any], *, name: str) -> StudyFile:
    """The study of this name and a clause for each field that is wrong, which is left empty."""
    parser = _Parser(name)
    study = parser.study_of(values)
    return StudyFile(values, study, tuple(parser.wrong))


class _Parser:
    """Reads a study part by part, and notes in `wrong` what is wrong with each."""

    def __init__(self, name: str) -> None:
        self.wrong: list[str] = []
        self.study = Study(name, "", "", {}, (), Protocol(), (), None)  # as far as it was read

    def study_of(self, values: Mapping[str, Any]) -> Study:
        """All parts in turn; later ones name arms and metrics of earlier ones."""
        found = self._fields(values, "", FILE, needed=NEEDED)
        arms = tuple(self._arm(name, value) for name, value in found.get("arms", {}).items())
        self.study = self.study._replace(
            question=found.get("question", ""),
            settings=found.get("settings", {}),
            arms=arms,
            protocol=self._protocol(found.get("protocol")),
        )
        baseline = self._value(found.get("baseline"), "baseline", self._one_arm())
        items = enumerate(found.get("findings", []), start=1)
        return self.study._replace(
            baseline=baseline or "",
            findings=tuple(self._finding(item, f"findings.{number}") for number, item in items),
            published=self._published(found["published"]) if "published" in found else None,
        )

    def _one_arm(self) -> Callable[[object], str]:
        return _choice([arm.name for arm in self.study.arms])

    def _fields(
        self, value: object, path: str, known: Mapping[str, Read], *, needed: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The fields of a mapping that are present and fit; notes a clause for each other one."""
        found = self._value(value, path or "the file", _mapping) or {}
        where = {key: f"{path}.{key}" if path else key for key in (*found, *needed)}
        unknown = [key for key in found if key not in known]
        self.wrong += [f"unknown field {where[key]}{did_you_mean(key, known)}" for key in unknown]
        self.wrong += [f"{where[key]} is missing" for key in needed if found.get(key) is None]
        read = {k: self._value(found[k], where[k], known[k]) for k in found if k in known}
        return {key: part for key, part in read.items() if part is not None}

    def _value(self, value: object, path: str, read: Callable[[Any], T]) -> T | None:
        """The value as read; None if it is empty or, with a clause, does not fit."""
        try:
            return None if value is None else read(value)
        except MisfitError as error:
            self.wrong.append(f"{path} = {error}")
            return None

    def _arm(self, name: str, value: object) -> Arm:
        changes = dict(self._value(value, f"arms.{name}", _mapping) or {})
        methods: tuple[Method, ...] = get_args(Method)
        method = self._value(changes.pop("method", None), f"arms.{name}.method", _choice(methods))
        return Arm(name, method or "simsiam", changes)

    def _protocol(self, value: object) -> Protocol:
        needed = ["split"] if value else []
        protocol = Protocol(**self._fields(value, "protocol", PROTOCOL, needed=needed))
        labels = list(protocol.labels)
        if labels != sorted(labels):
            self.wrong.append(f"protocol.labels = {labels} (expected rising fractions)")
        if protocol.final_test and protocol.split == "test":
            self.wrong.append("protocol.final_test = True (expected false where split is test)")
        return protocol

    def _finding(self, value: object, path: str) -> PublishedFinding:
        arms = _several(self._one_arm())
        known: dict[str, Read] = {"says": _text, "margin": _number(lambda margin: margin >= 0)}
        known |= {"higher": _any, "than": _any, "collapses": arms, "survives": arms}
        found = self._fields(value, path, known, needed=["says"])
        higher, than = (self._place(found.get(k), f"{path}.{k}") for k in ("higher", "than"))
        collapses, survives = found.get("collapses", ()), found.get("survives", ())
        if (higher is None) != (than is None) or (higher is None and not collapses):
            self.wrong.append(f"{path} has neither higher and than nor collapses")
        unit = 100 if higher is not None and higher.metric in ACCURACIES else 1
        margin = found.get("margin", 0.0) / unit
        return PublishedFinding(found.get("says", ""), higher, than, margin, collapses, survives)

    def _place(self, value: object, path: str) -> Place | None:
        """An arm with its first metric and all labels, or with those named."""
        if value is None:
            return None
        value = value if isinstance(value, Mapping) else {"arm": value}
        known: dict[str, Read] = {"arm": self._one_arm(), "metric": _any, "labels": _any}
        found = self._fields(value, path, known, needed=["arm"])
        if "arm" not in found:
            return None
        arm, protocol = found["arm"], self.study.protocol
        metrics = metrics_of(self.study.arm(arm), protocol)
        if not metrics:
            expected = "an arm that one of protocol.metrics scores"
            self.wrong.append(f"{path}.arm = {arm!r} (expected {expected})")
            return None
        metric = self._value(found.get("metric"), f"{path}.metric", _choice(metrics))
        fractions = labels_of(metric or metrics[0], protocol)
        labels = self._value(found.get("labels"), f"{path}.labels", _choice(fractions))
        return Place(arm, metric or metrics[0], labels or fractions[-1])

    def _published(self, value: object) -> Published:
        known: dict[str, Read] = {"source": _text, "values": _mapping}
        known["seeds"] = _number(lambda seeds: seeds >= 1 and seeds == int(seeds))
        found = self._fields(value, "published", known, needed=["source"])
        protocol, path = self.study.protocol, "published.values"
        fractions = {metric: labels_of(metric, protocol) for metric in protocol.metrics}
        pairs: dict[str, Read] = {m: _pairs(len(labels)) for m, labels in fractions.items()}
        arms: dict[str, Read] = {arm.name: _mapping for arm in self.study.arms}
        values = {
            Place(arm, metric, labels): value
            for arm, row in self._fields(found.get("values"), path, arms).items()
            for metric, cells in self._fields(row, f"{path}.{arm}", pairs).items()
            for labels, value in zip(fractions[metric], cells, strict=True)
        }
        return Published(found.get("source", ""), int(found.get("seeds", 1)), values)
