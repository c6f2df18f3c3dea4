"""A study, a preset, overrides, seeds and data -> the runs to make and the numbers to take.

The address of a run is a hash of all that decides its result, so arms and studies that want the
same run share it. Everything that no run could use is found here, before anything starts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from stopgrad.config import Config, config_from_dict, key_paths, knob_values
from stopgrad.errors import ConfigError
from stopgrad.evaluation import FINETUNE, MEASURES, SUPERVISED, Key, Subject
from stopgrad.storage import fits
from stopgrad.studies.definition import Arm, Method, ScoredSplit, Study, labels_of, metrics_of
from stopgrad.studies.parse import StudyFile

HOW_NOT_WHAT = ("device", "threads", "process_timeout", "seed")
"""Knobs that do not decide what a run is, only how it is made; the seed is stored separately."""


class Choices(NamedTuple):
    """What a user adds to a study."""

    preset: str
    overrides: Mapping[str, Any]  # knobs of all arms, by key path
    seeds: tuple[int, ...]


class PlannedRun(NamedTuple):
    """One training."""

    id: str
    method: Method
    config: Config
    labels: float | None  # fraction that a supervised network learns from

    @property
    def epochs(self) -> int:
        """How long it trains."""
        return self.config.length("pretrain" if self.method == "simsiam" else "supervised").epochs


class Slot(NamedTuple):
    """The place of a run in a study; a supervised arm has one for each fraction of the labels."""

    arm: str
    seed: int
    labels: float | None
    run: str


class StudyPlan(NamedTuple):
    """All runs of a study: their slots, and what they are; seed by seed."""

    source: StudyFile
    choices: Choices
    slots: tuple[Slot, ...]
    runs: Mapping[str, PlannedRun]


def arm_configs(source: StudyFile, choices: Choices) -> dict[str, Config]:
    """The config of each arm, at the first seed.

    Raises:
        ConfigError: For everything that is wrong in the study, in the choices or in their
            combination, in one line.
    """
    study = source.study
    wrong = [*source.problems, *_misfits(study, choices)]
    base = _base(study, choices, wrong)
    made = {}
    for arm in study.arms:
        changes = _multiplied(arm.changes, base.values, f"arms.{arm.name}", wrong)
        try:
            made[arm.name] = config_from_dict({**base.changes, **changes}, preset=base.preset)
        except ConfigError as error:
            wrong.append(f"arms.{arm.name}: {error.found}")
    wrong += [
        f"arm {arm.name!r}: measure_every = 0, so no collapse would be seen"
        for arm in study.arms
        if arm.method != "supervised" and arm.name in made and made[arm.name].measure_every == 0
    ]
    wrong += [
        f"arm {name!r}: stop_on_collapse, which would leave a collapsed run without scores"
        for name, config in made.items()
        if config.stop_on_collapse
    ]
    wrong += _doubles(study, made)
    wrong += _unscorable(study, made)
    if wrong:
        raise ConfigError(
            "; ".join(wrong),
            expected="fields and arms that a run can use",
            hint="correct what is named; knobs are listed by: stopgrad pretrain --help-all",
        )
    return made


def _misfits(study: Study, choices: Choices) -> list[str]:
    """Seeds and overrides that the study cannot be run with."""
    duplicate = sorted({seed for seed in choices.seeds if choices.seeds.count(seed) > 1})
    wrong = [f"seed {seed} twice" for seed in duplicate]
    wrong += [f"seed {seed} (expected 0 or more)" for seed in choices.seeds if seed < 0]
    varied = {
        key
        for arm in study.arms
        for key, value in by_path(arm.changes).items()
        if not isinstance(value, Mapping)  # which multiplies what the user gives
    }
    wrong += [f"{key} is what the arms differ in" for key in choices.overrides if key in varied]
    named = {*choices.overrides, *by_path(study.settings), *varied}
    return wrong + ["seed is given by the seeds"] * ("seed" in named)


def plan_runs(
    source: StudyFile,
    choices: Choices,
    configs: Mapping[str, Config],
    *,
    fingerprints: Mapping[str, str],
) -> StudyPlan:
    """Every run of a study, seed by seed, so that half of a study is half of each arm.

    Each arm has its config, from `arm_configs`, and the fingerprint of its training images.
    """
    slots, runs = list[Slot](), dict[str, PlannedRun]()
    for seed, arm in itertools.product(choices.seeds, source.study.arms):
        config = replace(configs[arm.name], seed=seed)
        fractions = source.study.protocol.labels if arm.method == "supervised" else (None,)
        for labels in fractions:
            run = PlannedRun("", arm.method, config, labels)
            run = run._replace(id=address(run, fingerprint=fingerprints[arm.name]))
            slots.append(Slot(arm.name, seed, labels, run.id))
            runs[run.id] = run
    return StudyPlan(source, choices, tuple(slots), runs)


def wanted_of_runs(plan: StudyPlan) -> dict[str, frozenset[Key]]:
    """The numbers that a plan wants of each of its runs; arms that share a run add up."""
    study, wanted = plan.source.study, dict[str, frozenset[Key]]()
    for slot in plan.slots:
        numbers = wanted_numbers(study, study.arm(slot.arm), labels=slot.labels)
        wanted[slot.run] = wanted.get(slot.run, frozenset()) | numbers
    return wanted


def wanted_numbers(study: Study, arm: Arm, *, labels: float | None = None) -> frozenset[Key]:
    """The numbers that a study wants of each run of an arm, at the fraction that it learns from."""
    protocol = study.protocol
    if labels is not None:
        return frozenset({Key(SUPERVISED, labels, "supervised", "test")})
    beside = protocol.beside if arm.name == study.baseline else ()
    subjects: tuple[Subject, ...] = ("encoder", *(of for of in beside if of != "chance"))
    return frozenset(
        number_key(metric, fraction, of=of, split=protocol.split)
        for of in subjects
        for metric in metrics_of(arm, protocol)
        if of == "encoder" or metric not in (*MEASURES, FINETUNE)
        for fraction in labels_of(metric, protocol)
    )


def number_key(metric: str, labels: float, *, of: Subject, split: ScoredSplit) -> Key:
    """The key of a metric's number among the records; measures are of training images."""
    return Key(metric, labels, of, "train" if metric in MEASURES else split)


def on_test(numbers: Iterable[Key]) -> frozenset[Key]:
    """The keys of the encoder's validation numbers, moved to the test split."""
    return frozenset(
        key._replace(split="test")
        for key in numbers
        if key.of == "encoder" and key.split == "validation"
    )


def address(run: PlannedRun, *, fingerprint: str) -> str:
    """16 hexadecimal digits that are a function of all that decides a run.

    Knobs at their default are left out, so that a knob that a later version adds changes nothing.
    """
    default = knob_values(Config())
    decisive = {k: v for k, v in decisive_knobs(run).items() if v != default[k]}
    parts = [run.method, run.config.seed, fingerprint, run.labels, sorted(decisive.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def decisive_knobs(run: PlannedRun) -> dict[str, Any]:
    """The knobs that decide a run, by key path; a pretraining ignores those of the baseline."""
    knobs = {
        key: value for key, value in knob_values(run.config).items() if key not in HOW_NOT_WHAT
    }
    if run.method == "supervised":
        return knobs
    return {key: value for key, value in knobs.items() if not key.startswith("supervised.")}


def by_path(values: Mapping[str, Any]) -> dict[str, Any]:
    """Changes by key path; {times: X} is a value."""
    return key_paths(values, is_value=lambda value: set(value) == {"times"})


class _Base(NamedTuple):
    """The knobs that all arms share."""

    preset: str | None
    changes: dict[str, Any]  # to the preset
    values: dict[str, Any]  # of every knob


def _base(study: Study, choices: Choices, wrong: list[str]) -> _Base:
    """The preset's knobs, then the study's, then the user's.

    Wrong settings are left out, so that the arms can still be checked.
    """
    base = _Base(None, {}, knob_values(Config()))
    try:
        values = knob_values(config_from_dict({}, preset=choices.preset))
        base = _Base(choices.preset, {}, values)
    except ConfigError as error:
        wrong.append(error.found)
    settings = _multiplied(study.settings, base.values, "settings", wrong)
    for where, changes in (("settings: ", settings), ("", by_path(choices.overrides))):
        try:
            config = config_from_dict({**base.changes, **changes}, preset=base.preset)
            base = _Base(base.preset, {**base.changes, **changes}, knob_values(config))
        except ConfigError as error:
            wrong.append(where + error.found)
    return base


def _multiplied(
    changes: Mapping[str, Any], base: Mapping[str, Any], where: str, wrong: list[str]
) -> dict[str, Any]:
    """Changes by key path, with {times: X} worked out; whole numbers stay whole."""
    found = {}
    for key, value in by_path(changes).items():
        if not isinstance(value, Mapping):
            found[key] = value
            continue
        old, factor = base.get(key), value["times"]
        if not (fits(old, float) and fits(factor, float)):
            wrong.append(f"{where}.{key} = {dict(value)!r} (expected a number times a number)")
            continue
        product = float(old) * factor  # type: ignore[arg-type]
        found[key] = max(1, round(product)) if isinstance(old, int) else product
    return found


def _doubles(study: Study, configs: Mapping[str, Config]) -> Iterator[str]:
    """Arms that equal another arm under a different name."""
    first: dict[tuple[Method, frozenset[tuple[str, Any]]], str] = {}
    order = sorted(study.arms, key=lambda arm: arm.name != study.baseline)
    for arm in (arm for arm in order if arm.name in configs):
        decisive = decisive_knobs(PlannedRun("", arm.method, configs[arm.name], None))
        same = first.setdefault((arm.method, frozenset(decisive.items())), arm.name)
        if same == study.baseline and same != arm.name:
            yield f"arm {arm.name!r} changes nothing (it equals the baseline {same!r})"
        elif same != arm.name:
            yield f"arms {same!r} and {arm.name!r} are equal"


def _unscorable(study: Study, configs: Mapping[str, Config]) -> Iterator[str]:
    """Arms that the protocol cannot score."""
    for arm in (arm for arm in study.arms if arm.name in configs):
        metrics = metrics_of(arm, study.protocol)
        if not metrics:
            own = SUPERVISED if arm.method == "supervised" else "a metric of an encoder"
            yield f"arm {arm.name!r} has nothing to be scored by (add {own} to protocol.metrics)"
        if study.protocol.split == "test" or (metrics and not {*metrics} - {*MEASURES}):
            continue
        if configs[arm.name].validation == 0:
            yield f"arm {arm.name!r} holds out no images (set validation in settings, say to 0.2)"
        labelled = {FINETUNE, SUPERVISED} & set(metrics) or arm.method == "supervised"
        if labelled:
            yield (
                f"arm {arm.name!r}: supervised networks and fine-tuning are scored only on the "
                "test split"
            )
