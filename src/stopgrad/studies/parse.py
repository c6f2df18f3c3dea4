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
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.evaluation import ACCURACIES, MEASURES, Correction
from stopgrad.storage import user_path
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
Read = Callable[[Any], Any]
"""Gives the value that a field stands for, or raises a `MisfitError`."""

FOLDER = Path(__file__).parent
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""Numbers that YAML 1.1 takes for text, such as 1e-3; YAML 1.2.2, section 10.3.2."""


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
    return parse_study(_read_yaml(path), name=path.stem)


def _no_study(name: str, also: str = "") -> ConfigError:
    known = built_in_studies()
    return ConfigError(
        f"no study {name!r}{did_you_mean(name, known)}",
        expected=f"one of {', '.join(known)}{also}",
        hint="see them with: stopgrad study list",
    )


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Takes a key as it is written, 1.0e-3 and yes too, because keys are names.

        Refuses a key that stands twice, of which YAML would silently keep the last.
        """

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            if twice := [name for name in names if names.count(name) > 1]:
                raise yaml.YAMLError(f"{twice[0]!r} stands twice,{node.start_mark}")
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
    try:
        values = Loader(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path} cannot be read ({' '.join(str(error).split())})",
            expected="a YAML file with the fields of a study",
            hint="see one with: stopgrad study list weight-decay",
        ) from error
    return values if isinstance(values, Mapping) else {"(contents)": values}


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
    """Reads one of these; a number is the one name that says it, 5e-4 for instance."""

    def read(value: object) -> T:
        named = [choice for choice in known if _stands_for(value, choice)]
        if len(named) != 1:
            names = [str(choice) for choice in named or known]
            near = did_you_mean(str(value), names)
            raise MisfitError(value, f"one of {', '.join(names)}", near)
        return named[0]

    return read


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise MisfitError(value, "true or false")
    return value


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
    "baseline": _as_it_is,
    "settings": _mapping,
    "arms": _mapping,
    "protocol": _mapping,
    "findings": _listed,
    "published": _mapping,
}
PROTOCOL: dict[str, Read] = {
    "split": _choice(get_args(Split)),
    "labels": _several(_number(lambda labels: 0 < labels <= 1)),
    "metrics": _several(_choice((*ACCURACIES, *MEASURES))),
    "beside": _several(_choice(get_args(Beside))),
    "final_test": _flag,
    "correction": _choice(get_args(Correction)),
}


def parse_study(values: Mapping[str, Any], *, name: str) -> StudyFile:
    """A study and a clause for each field that is wrong; those fields are left empty.

    Args:
        values: What the YAML file holds.
        name: The study's name, that of the file.
    """
    wrong: list[str] = []
    found = _fields(values, "", FILE, wrong, needed=NEEDED)
    arms = tuple(_arm(arm, value, wrong) for arm, value in found.get("arms", {}).items())
    baseline = _choice([arm.name for arm in arms])
    study = Study(
        name=name,
        question=found.get("question", ""),
        baseline=_value(found.get("baseline"), "baseline", baseline, wrong) or "",
        settings=found.get("settings", {}),
        arms=arms,
        protocol=_protocol(found.get("protocol"), wrong),
        findings=(),
        published=None,
    )
    items = enumerate(found.get("findings", []), start=1)
    findings = [_finding(item, f"findings.{number}", study, wrong) for number, item in items]
    published = _published(found["published"], study, wrong) if "published" in found else None
    study = study._replace(findings=tuple(findings), published=published)
    return StudyFile(values, study, tuple(wrong))


def _fields(
    value: object,
    path: str,
    known: Mapping[str, Read],
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


def _arm(name: str, value: object, wrong: list[str]) -> Arm:
    changes = _value(value, f"arms.{name}", _mapping, wrong) or {}
    methods: tuple[Method, ...] = get_args(Method)
    method = _value(changes.pop("method", None), f"arms.{name}.method", _choice(methods), wrong)
    return Arm(name, method or "simsiam", changes)


def _protocol(value: object, wrong: list[str]) -> Protocol:
    needed = ["split"] if value else []
    protocol = Protocol(**_fields(value, "protocol", PROTOCOL, wrong, needed=needed))
    if list(protocol.labels) != sorted(protocol.labels):
        wrong.append(f"protocol.labels = {list(protocol.labels)} (expected rising fractions)")
    if protocol.final_test and protocol.split == "test":
        wrong.append("protocol.final_test = True (expected false where split is test)")
    return protocol


def _finding(value: object, path: str, study: Study, wrong: list[str]) -> PublishedFinding:
    arms = _several(_choice([arm.name for arm in study.arms]))
    known: dict[str, Read] = {"says": _text, "margin": _number(lambda margin: margin >= 0)}
    known |= {"higher": _as_it_is, "than": _as_it_is, "collapses": arms, "survives": arms}
    found = _fields(value, path, known, wrong, needed=["says"])
    higher, than = (
        _place(found.get(key), f"{path}.{key}", study, wrong) for key in ("higher", "than")
    )
    collapses = found.get("collapses", ())
    if (higher is None) != (than is None) or (higher is None and not collapses):
        wrong.append(f"{path} has neither higher and than nor collapses")
    unit = 100 if higher is not None and higher.metric in ACCURACIES else 1
    margin = found.get("margin", 0.0) / unit
    says, survives = found.get("says", ""), found.get("survives", ())
    return PublishedFinding(says, higher, than, margin, collapses, survives)


def _place(value: object, path: str, study: Study, wrong: list[str]) -> Place | None:
    """An arm with its first metric and all labels, or with those that are named."""
    if value is None:
        return None
    value = value if isinstance(value, Mapping) else {"arm": value}
    known: dict[str, Read] = {"arm": _choice([arm.name for arm in study.arms])}
    known |= {"metric": _as_it_is, "labels": _as_it_is}
    found = _fields(value, path, known, wrong, needed=["arm"])
    if "arm" not in found:
        return None
    arm, metrics = found["arm"], metrics_of(study.arm(found["arm"]), study.protocol)
    if not metrics:
        wrong.append(f"{path}.arm = {arm!r} (expected an arm that one of protocol.metrics scores)")
        return None
    metric = _value(found.get("metric"), f"{path}.metric", _choice(metrics), wrong) or metrics[0]
    fractions = labels_of(metric, study.protocol)
    labels = _value(found.get("labels"), f"{path}.labels", _choice(fractions), wrong)
    return Place(arm, metric, labels or fractions[-1])


def _published(value: object, study: Study, wrong: list[str]) -> Published:
    known: dict[str, Read] = {"source": _text, "values": _mapping}
    known["seeds"] = _number(lambda seeds: seeds >= 1 and seeds == int(seeds))
    found = _fields(value, "published", known, wrong, needed=["source"])
    fractions = {metric: labels_of(metric, study.protocol) for metric in study.protocol.metrics}
    pairs: dict[str, Read] = {m: _pairs(len(labels)) for m, labels in fractions.items()}
    arms: dict[str, Read] = {arm.name: _mapping for arm in study.arms}
    values = {
        Place(arm, metric, labels): value
        for arm, row in _fields(found.get("values"), "published.values", arms, wrong).items()
        for metric, cells in _fields(row, f"published.values.{arm}", pairs, wrong).items()
        for labels, value in zip(fractions[metric], cells, strict=True)
    }
    return Published(found.get("source", ""), int(found.get("seeds", 1)), values)
