"""A study: one question, arms that differ in a few knobs, a protocol, published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from stopgrad.evaluation import MEASURES, SUPERVISED, Correction

Method = Literal["simsiam", "supervised"]
ScoredSplit = Literal["validation", "test"]
BaselineName = Literal["chance", "untrained", "pixels"]


class Arm(NamedTuple):
    """One setting of a study."""

    name: str
    method: Method
    changes: Mapping[str, Any]  # by key path; {"times": x} multiplies the study's own value


class Protocol(NamedTuple):
    """How the runs of a study are scored."""

    split: ScoredSplit = "validation"
    labels: tuple[float, ...] = (1.0,)  # fractions of the training labels, rising
    metrics: tuple[str, ...] = ("knn_accuracy", "linear_accuracy")
    beside: tuple[BaselineName, ...] = ()  # baselines, scored once per seed with the baseline arm
    final_test: bool = False  # the arm that validation chose is scored on the test split
    correction: Correction = "holm"  # where several tests are made


class Place(NamedTuple):
    """One cell of a study's table."""

    arm: str
    metric: str
    labels: float


class PublishedFinding(NamedTuple):
    """A published finding, in a form that our numbers can show or not.

    Either a comparison (`higher` lies above `than`, less a margin) or a statement about collapse
    (every run of `collapses` does, none of `survives`).
    """

    says: str
    higher: Place | None
    than: Place | None
    margin: float  # in the unit of the metric, accuracies as fractions
    collapses: tuple[str, ...]
    survives: tuple[str, ...]


class Value(NamedTuple):
    """A published mean and standard deviation, as printed; accuracies in percent."""

    mean: float
    std: float | None


class Published(NamedTuple):
    """The published numbers that ours are compared with."""

    source: str
    seeds: int
    values: Mapping[Place, Value]


class Study(NamedTuple):
    """One investigation, as its file states it."""

    name: str
    question: str
    baseline: str
    settings: Mapping[str, Any]  # of every arm, by key path
    arms: tuple[Arm, ...]
    protocol: Protocol
    findings: tuple[PublishedFinding, ...]
    published: Published | None

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)


class StudyData(NamedTuple):
    """What identifies the images of a study."""

    spec: str  # valid from any directory
    name: str
    classes: int
    fingerprints: dict[str, str]  # of the training images that each arm sees


def metrics_of(arm: Arm, protocol: Protocol) -> tuple[str, ...]:
    """The metrics that an arm can have: a supervised network has only its own."""
    own = arm.method == "supervised"
    return tuple(metric for metric in protocol.metrics if (metric == SUPERVISED) == own)


def labels_of(metric: str, protocol: Protocol) -> tuple[float, ...]:
    """The fractions of the labels at which a metric is scored; measures of collapse need none."""
    return (1.0,) if metric in MEASURES else protocol.labels


def places(study: Study) -> list[Place]:
    """Every cell of a study, by metric, arm and fraction."""
    protocol = study.protocol
    return [
        Place(arm.name, metric, labels)
        for metric in protocol.metrics
        for arm in study.arms
        if metric in metrics_of(arm, protocol)
        for labels in labels_of(metric, protocol)
    ]
