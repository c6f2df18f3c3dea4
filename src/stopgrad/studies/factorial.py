"""A study whose arms are a grid of knobs, read as a factorial: the effect of each step of a knob.

Arms that differ in that step alone are compared at each seed and at each setting of the other
knobs, so that every run counts for every knob. No direction is expected: p is two-sided.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stopgrad.config import knob_values
from stopgrad.errors import ConfigError
from stopgrad.evaluation import Paired, Pairs, corrected, paired
from stopgrad.studies.definition import Place, labels_of
from stopgrad.studies.plan import Choices, arm_configs, by_path
from stopgrad.studies.results import Results
from stopgrad.studies.stored import StoredStudy


class Effect(NamedTuple):
    """What one step of a knob changes in a metric, with the most labels."""

    metric: str
    knob: str  # its key path
    low: Any  # from this value
    high: Any  # to this one
    test: Paired  # of the numbers at `high` above those at `low`
    p: float  # two-sided, corrected for the steps that were tested by that metric


def grid(stored: StoredStudy) -> dict[str, Mapping[str, Any]]:
    """The knob values of each arm; none unless the arms are a full grid of two or more knobs."""
    study, choices = stored.study, Choices(stored.preset, stored.overrides, stored.seeds)
    keys = {key for arm in study.arms for key in by_path(arm.changes)}
    try:
        configs = arm_configs(stored.source, choices) if len(keys) > 1 else {}
    except ConfigError:  # by a rule that is younger than the study
        return {}
    found = {arm: knob_values(config) for arm, config in configs.items()}
    levels = {key: {str(values[key]) for values in found.values()} for key in keys}
    varied = sorted(key for key, values in levels.items() if len(values) > 1)
    spots = {tuple(str(values[key]) for key in varied) for values in found.values()}
    whole = len(found) == len(spots) == math.prod(len(levels[key]) for key in varied)
    if len(varied) < 2 or not whole or len({arm.method for arm in study.arms}) > 1:
        return {}
    return {arm: {key: values[key] for key in varied} for arm, values in found.items()}


def read_factorial(results: Results) -> list[Effect]:
    """The effect of each step of each knob on each metric; empty where a study is no grid."""
    study, arms = results.stored.study, grid(results.stored)
    found = list[Effect]()
    for metric in study.protocol.metrics if arms else ():
        labels = max(labels_of(metric, study.protocol))
        scores = {arm: results.pairs.get(Place(arm, metric, labels), {}) for arm in arms}
        effects = list(_effects(metric, arms, scores))
        p = corrected([each.test.two_sided for each in effects], study.protocol.correction)
        found += [effect._replace(p=own) for effect, own in zip(effects, p, strict=True)]
    return found


def _effects(
    metric: str, arms: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Pairs]
) -> Iterator[Effect]:
    for knob in next(iter(arms.values())):
        levels = list(dict.fromkeys(values[knob] for values in arms.values()))
        for low, high in itertools.pairwise(levels):
            below, above = (_at(knob, level, arms, scores) for level in (low, high))
            if (test := paired(above, below)) is not None:
                yield Effect(metric, knob, low, high, test, test.two_sided)


def _at(
    knob: str, level: Any, arms: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Pairs]
) -> Pairs:
    """The numbers at one value of a knob, by seed and by the values of the other knobs."""
    chosen = {arm: values for arm, values in arms.items() if values[knob] == level}
    return {
        (seed, *(str(value) for key, value in values.items() if key != knob)): score
        for arm, values in chosen.items()
        for seed, score in scores[arm].items()
    }
