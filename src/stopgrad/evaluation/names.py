"""What things are called in figures and on pages: metrics, subjects, layers, measures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from stopgrad.evaluation.records.record import Subject

SUBJECTS: dict[Subject, str] = {
    "encoder": "pretrained",
    "untrained": "untrained",
    "pixels": "raw pixels",
    "supervised": "supervised",
}
METRICS = {
    "knn_accuracy": "kNN",
    "linear_accuracy": "linear probe (SGD)",
    "linear_lars_accuracy": "linear probe (LARS)",
    "finetune_accuracy": "fine-tuning",
    "supervised_accuracy": "from scratch",
}
LAYERS = {"z": "z", "before_bn": "before its BN", "features": "features"}


class Measure(NamedTuple):
    """A measure of collapse as a reader meets it."""

    title: str
    healthy: str
    collapsed: str
    meaning: str


# REFERENCE, section 5.
MEASURE_NAMES: dict[str, Measure] = {
    "participation_ratio": Measure(
        "participation ratio", "high", "1", "directions that carry the variance"
    ),
    "effective_rank": Measure(
        "effective rank", "high", "1", "directions in use, small ones counted in"
    ),
    "correlation_strength": Measure(
        "correlation strength",
        "low (published: 0.05)",
        "near 1 on one line (published: 0.89 and 1.00), but 0 where z is constant",
        "how much channels repeat each other",
    ),
    "positive_minus_random": Measure(
        "positive minus random cosine", "high", "0", "how far two views of one image stand out"
    ),
    "top_share": Measure("top share", "low", "1", "share of the variance on one direction"),
    "output_std": Measure(
        "output std \N{MULTIPLICATION SIGN} \N{SQUARE ROOT}D",
        "1",
        "0",
        "a low value is an alarm; a high one proves nothing",
    ),
    "centre_norm": Measure("centre norm", "0", "1", "how much all outputs point one way"),
}
CHARTED = tuple(MEASURE_NAMES)[:4]

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def metric_name(metric: str) -> str:
    """`kNN` for knn_accuracy; an unknown metric by its own name, in words."""
    return METRICS.get(metric, printable(metric.removesuffix("_accuracy").replace("_", " ")))


def printable(text: str) -> str:
    """Text that XML and UTF-8 can hold, and that no terminal obeys.

    Control characters and halves of pairs, which names of files may have, are replaced; newlines
    and tabs stay.
    """
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def class_name(names: Sequence[str], index: int) -> str:
    """The name of a class, or its number where it has none."""
    return printable(names[index]) if index < len(names) else f"class {index}"
