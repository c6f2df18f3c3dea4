"""A study's file -> a `Study`, with a clause for everything in it that is wrong.

Fields, of which question, baseline, arms and protocol are needed:

    question    one sentence
    baseline    the name of an arm
    settings    KEY: VALUE, knobs that all arms share
    arms        NAME: {KEY: VALUE}; a value {times: X} multiplies the study's own; the key
                `method: supervised` makes an arm the network trained with labels from scratch
    protocol    split (validation or test), labels (shares, rising), metrics, beside (chance,
                untrained, pixels), final_test (true or false), correction (none, bonferroni, holm)
    findings    list of {says, higher, than, margin} or {says, collapses, survives}; `higher` and
                `than` are an arm (first metric, all labels) or {arm, metric, labels}; a margin is
                in the unit of the published numbers
    published   source, seeds, values: {ARM: {METRIC: [[mean, std], ...]}}, one pair per share
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args

from stopgrad.errors import did_you_mean
from stopgrad.evaluation import ACCURACIES, MEASURES, Correction
from stopgrad.studies.definition import (
    Arm,
    Beside,
    Finding,
    Method,
    Place,
    Protocol,
    Published,
    Split,
    Study,
    Value,
    labels_of,
    metrics_of,
)

T = TypeVar("T")
METRICS = (*ACCURACIES, *MEASURES)
NEEDED = ("question", "baseline", "arms", "protocol")


class Reader:
    """Reads fields and keeps a clause for each that is wrong, under the path that leads to it."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, path: str, found: object, expected: str) -> None:
        """Keeps a clause."""
        self.problems.append(f"{path} = {found!r} (expected {expected})")

    def fields(self, value: object, path: str, *, known: Sequence[str]) -> Mapping[str, Any]:
        """A mapping without unknown keys."""
        found = self.mapping(value, path)
        for key in found:
            if key not in known:
                where = f"{path}.{key}" if path else key
                self.problems.append(f"unknown field {where}{did_you_mean(key, known)}")
        return found

    def mapping(self, value: object, path: str) -> Mapping[str, Any]:
        """A mapping with its keys as text; empty when it is something else."""
        if isinstance(value, Mapping):
            return {str(key): part for key, part in value.items()}
        if value is not None:
            self.wrong(path or "the file", value, "KEY: VALUE lines")
        return {}

    def one_of(self, value: object, path: str, *, known: Sequence[T], default: T) -> T:
        """One of the known values; a number is the one arm whose name says it, 5e-4 say."""
        named = [choice for choice in known if _stands_for(value, choice)]
        if len(named) == 1:
            return named[0]
        if value is not None:
            names = [str(choice) for choice in named or known if choice is not None]
            near = did_you_mean(str(value), names)
            self.problems.append(f"{path} = {value!r} (expected one of {', '.join(names)}){near}")
        return default

    def several(self, value: object, path: str, *, known: Sequence[T]) -> tuple[T, ...]:
        """Different ones of the known values."""
        items = value if isinstance(value, list) else [value]
        found = [self._known(item, path, known) for item in items if value is not None]
        chosen = tuple(item for item in found if item is not None)
        if len(set(chosen)) < len(chosen):
            self.wrong(path, value, "each of them once")
        return tuple(dict.fromkeys(chosen))

    def _known(self, item: object, path: str, known: Sequence[T]) -> T | None:
        return self.one_of(item, path, known=[*known, None], default=None)

    def text(self, value: object, path: str) -> str:
        """Text that is not empty."""
        if isinstance(value, str | int | float) and str(value).strip():
            return str(value).strip()
        self.wrong(path, value, "text")
        return ""

    def number(self, value: object, path: str, *, fits: Callable[[float], bool]) -> float:
        """A number that fits."""
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if isinstance(value, bool) or not math.isfinite(number) or not fits(number):
            self.wrong(path, value, "a number that fits there")
            return 0.0
        return number


def _stands_for(value: object, choice: object) -> bool:
    """Whether a value of YAML is a choice; a name in quotes is that name alone."""
    if isinstance(choice, str) and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(choice) == value
        except ValueError:
            return False
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


def parse_study(values: object, *, name: str) -> tuple[Study, list[str]]:
    """A study and a clause for each field that is wrong; those fields are left empty.

    Args:
        values: What the YAML file holds.
        name: The study's name, that of the file.
    """
    read = Reader()
    known = (*NEEDED, "settings", "findings", "published")
    fields = read.fields(values, "", known=known)
    read.problems += [f"{key} is missing" for key in NEEDED if fields.get(key) is None]
    arms = tuple(
        _arm(read, arm, changes)
        for arm, changes in read.mapping(fields.get("arms"), "arms").items()
    )
    names = [arm.name for arm in arms]
    baseline = read.one_of(fields.get("baseline"), "baseline", known=names, default="")
    study = Study(
        name=name,
        question=read.text(fields.get("question", "?"), "question"),
        baseline=baseline,
        settings=read.mapping(fields.get("settings"), "settings"),
        arms=arms,
        protocol=_protocol(read, fields.get("protocol")),
        findings=(),
        published=None,
    )
    study = study._replace(
        findings=tuple(_findings(read, fields.get("findings"), study)),
        published=_published(read, fields.get("published"), study),
    )
    return study, read.problems


def _arm(read: Reader, name: str, value: object) -> Arm:
    changes = dict(read.mapping(value, f"arms.{name}"))
    methods: tuple[Method, ...] = get_args(Method)
    method = read.one_of(
        changes.pop("method", None), f"arms.{name}.method", known=methods, default="simsiam"
    )
    return Arm(name, method, changes)


def _protocol(read: Reader, value: object) -> Protocol:
    known = Protocol._fields
    fields = read.fields(value, "protocol", known=known)
    splits: tuple[Split, ...] = get_args(Split)
    if value is not None and "split" not in fields:
        read.problems.append("protocol.split is missing")
    beside: tuple[Beside, ...] = get_args(Beside)
    corrections: tuple[Correction, ...] = get_args(Correction)
    final = fields.get("final_test", False)
    split = read.one_of(fields.get("split"), "protocol.split", known=splits, default="validation")
    if not isinstance(final, bool) or (final and split == "test"):
        read.wrong("protocol.final_test", final, "true or false; false where split is test")
    metrics = read.several(fields.get("metrics"), "protocol.metrics", known=METRICS)
    return Protocol(
        split=split,
        labels=_labels(read, fields.get("labels", [1])),
        metrics=metrics or ("knn_accuracy", "linear_accuracy"),
        beside=read.several(fields.get("beside"), "protocol.beside", known=beside),
        final_test=final is True,
        correction=read.one_of(
            fields.get("correction"), "protocol.correction", known=corrections, default="holm"
        ),
    )


def _labels(read: Reader, value: object) -> tuple[float, ...]:
    items = value if isinstance(value, list) else [value]
    labels = tuple(
        read.number(item, "protocol.labels", fits=lambda share: 0 < share <= 1) for item in items
    )
    if list(labels) != sorted(set(labels)):
        read.wrong("protocol.labels", value, "rising shares, each once")
    return labels or (1.0,)


def _findings(read: Reader, value: object, study: Study) -> Iterable[Finding]:
    known = ("says", "higher", "than", "margin", "collapses", "survives")
    items = value if isinstance(value, list) else [value]
    for number, item in enumerate(items if value is not None else [], start=1):
        path = f"findings.{number}"
        fields = read.fields(item, path, known=known)
        pair = [_place(read, fields.get(key), f"{path}.{key}", study) for key in ("higher", "than")]
        arms = [_arms(read, fields.get(key), f"{path}.{key}", study) for key in known[4:]]
        if (pair[0] is None) != (pair[1] is None) or (pair[0] is None and not arms[0]):
            read.problems.append(f"{path} has neither higher and than nor collapses")
        margin = read.number(fields.get("margin", 0), f"{path}.margin", fits=lambda x: x >= 0)
        unit = 100 if pair[0] is not None and pair[0].metric in ACCURACIES else 1
        says = read.text(fields.get("says"), f"{path}.says")
        yield Finding(says, pair[0], pair[1], margin / unit, arms[0], arms[1])


def _arms(read: Reader, value: object, path: str, study: Study) -> tuple[str, ...]:
    return read.several(value, path, known=[arm.name for arm in study.arms])


def _place(read: Reader, value: object, path: str, study: Study) -> Place | None:
    """An arm with its first metric and all labels, or with those that are named."""
    if value is None or not study.arms:
        return None
    if not isinstance(value, Mapping):
        value = {"arm": value}
    fields = read.fields(value, path, known=Place._fields)
    names = [arm.name for arm in study.arms]
    arm = read.one_of(fields.get("arm"), f"{path}.arm", known=names, default=names[0])
    metrics = metrics_of(study.arm(arm), study.protocol)
    if not metrics:
        read.wrong(f"{path}.arm", arm, "an arm that one of protocol.metrics scores")
        return None
    metric = read.one_of(fields.get("metric"), f"{path}.metric", known=metrics, default=metrics[0])
    shares = labels_of(metric, study.protocol)
    share = read.one_of(fields.get("labels"), f"{path}.labels", known=shares, default=shares[-1])
    return Place(arm, metric, share)


def _published(read: Reader, value: object, study: Study) -> Published | None:
    if value is None:
        return None
    fields = read.fields(value, "published", known=Published._fields)
    seeds = read.number(
        fields.get("seeds", 1), "published.seeds", fits=lambda n: 1 <= n < math.inf and n == int(n)
    )
    values: dict[Place, Value] = {}
    names = [arm.name for arm in study.arms]
    for arm, row in read.fields(fields.get("values"), "published.values", known=names).items():
        path = f"published.values.{arm}"
        for metric, cells in read.fields(row, path, known=study.protocol.metrics).items():
            values |= _row(read, cells, f"{path}.{metric}", study, place=(arm, metric))
    return Published(read.text(fields.get("source"), "published.source"), int(seeds), values)


def _row(
    read: Reader, cells: object, path: str, study: Study, *, place: tuple[str, str]
) -> dict[Place, Value]:
    """One published mean and std for each share of the labels."""
    shares = labels_of(place[1], study.protocol)
    pairs = cells if isinstance(cells, list) else []
    if len(pairs) != len(shares) or not all(
        isinstance(pair, list) and 1 <= len(pair) <= 2 for pair in pairs
    ):
        read.wrong(path, cells, f"{len(shares)} pairs [mean, std], one for each share of labels")
        return {}
    found = {}
    for share, pair in zip(shares, pairs, strict=True):
        mean, *std = [read.number(part, path, fits=lambda x: x == x) for part in pair]
        found[Place(*place, share)] = Value(mean, std[0] if std else None)
    return found
