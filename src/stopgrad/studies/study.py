"""A study from its name to its last number: checked, begun, run, and scored on the test split.

Its images are checked before anything starts: labels, splits, batches, sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stopgrad.config import BadImages, Config, Reading
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluation import ACCURACIES
from stopgrad.images import Dataset, Track, load_dataset, no_progress
from stopgrad.studies.definition import Arm, Study, StudyData, metrics_of
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.executors import Executor
from stopgrad.studies.parse import StudyFile, built_in_studies, read_study
from stopgrad.studies.plan import (
    Choices,
    StudyPlan,
    arm_configs,
    on_test,
    plan_runs,
    wanted_of_runs,
)
from stopgrad.studies.results import best_arm, load_results
from stopgrad.studies.runner import Runner, Watch


class PreparedStudy(NamedTuple):
    """A study that was checked and recorded, before its first run."""

    directory: StudyDirectory
    plan: StudyPlan
    spec: str  # the images
    changes: tuple[str, ...] = ()  # of a study that was edited since it was begun

    @property
    def study(self) -> Study:
        """The study itself."""
        return self.plan.source.study


def prepare_study(
    name: str | StudyFile, choices: Choices, *, spec: str, out: Path, track: Track = no_progress
) -> PreparedStudy:
    """Reads a study, checks all of it, and begins or resumes it in a directory.

    Args:
        name: The name of a study of the package or of the directory, the path of a YAML file, or
            the study itself.
        choices: Preset, overrides and seeds.
        spec: The images, as `load_dataset` takes them.
        out: The study directory, which may hold other studies.
        track: Shows progress.

    Raises:
        ConfigError: With everything that is wrong in the study and in the choices.
        DataError: When the images do not suit the study.
        StorageError: When the directory cannot be written.
    """
    directory = StudyDirectory(out)
    source = name if isinstance(name, StudyFile) else _source(name, directory)
    configs = arm_configs(source, choices)
    directory.check_ours()
    data = check_data(source.study, configs, spec=spec, track=track)
    plan = plan_runs(source, choices, configs, fingerprints=data.fingerprints)
    changes = directory.begin(plan, data)
    return PreparedStudy(directory, plan, data.spec, tuple(changes))


def _source(name: str, directory: StudyDirectory) -> StudyFile:
    """A study by name or by path; a user's own from the directory if its file is missing."""
    if name in built_in_studies() or name not in directory.names() or Path(name).is_file():
        return read_study(name)
    return directory.read(name).source


def run_study(
    prepared: PreparedStudy, executor: Executor, *, watch: Watch, retry: bool = False
) -> Mapping[str, str]:
    """Runs what is left of a study; returns the failed runs, with the reason of each.

    Args:
        prepared: From `prepare_study`.
        executor: What carries out its tasks.
        watch: Follows it.
        retry: Also runs that failed before, whatever the reason was.

    Raises:
        InterruptedStudyError: After a signal, when every run has saved.
        StorageError: When the directory cannot be written.
    """
    directory, plan = prepared.directory, prepared.plan
    runner = Runner(directory, executor, spec=prepared.spec, watch=watch, retry=retry)
    wanted = wanted_of_runs(plan)
    runner.work(plan, wanted)
    if prepared.study.protocol.final_test:
        runner.work(plan, {run: on_test(wanted[run]) for run in _chosen_runs(prepared)})
    return runner.failed


def _chosen_runs(prepared: PreparedStudy) -> set[str]:
    """The runs of the arm that the validation split chose, now or before.

    Empty while a run has failed or is missing: the choice is made once, and from all of them.
    """
    directory, name = prepared.directory, prepared.study.name
    results = load_results(directory, directory.read(name))
    best = best_arm(results)
    if best is None or any(cell.failed or cell.missing for cell in results.cells.values()):
        return set()
    arm = directory.select(name, best)
    return {slot.run for slot in prepared.plan.slots if slot.arm == arm}


def check_data(
    study: Study, configs: Mapping[str, Config], *, spec: str, track: Track = no_progress
) -> StudyData:
    """Reads the images and tries what each arm would do with them, without a step of training.

    Raises:
        DataError: When labels, the test split or a batch of images are missing.
        ConfigError: For an encoder that does not exist or cannot take images of these sizes.
    """
    from stopgrad.runs import spec_to_keep

    @functools.cache
    def load(side: int, bad_images: BadImages, reading: Reading) -> Dataset:
        dataset = load_dataset(spec, side=side, bad_images=bad_images, reading=reading, track=track)
        _check_labels(study, dataset)
        return dataset

    fingerprints = {}
    for arm in study.arms:
        config = configs[arm.name]
        dataset = load(config.image_side, config.bad_images, config.reading)
        fingerprints[arm.name] = dataset.train.fingerprint
        try:
            _try_arm(study, arm, config, dataset)
        except (ConfigError, DataError) as error:
            found = f"arm {arm.name!r}: {error.found}"
            raise type(error)(found, expected=error.expected, hint=error.hint) from error
    classes = len(dataset.train.class_names)
    return StudyData(spec_to_keep(spec), dataset.name, classes, fingerprints)


def _check_labels(study: Study, dataset: Dataset) -> None:
    protocol = study.protocol
    needed = set(protocol.metrics) & set(ACCURACIES)
    if needed and dataset.train.labels is None:
        raise DataError(
            f"{dataset.name} without labels",
            expected=f"labels, which {', '.join(protocol.metrics)} need",
            hint="name a labelled data set, or ask for measures of collapse alone",
        )
    lacking = dataset.test is None or (needed and dataset.test.labels is None)
    if lacking and (protocol.split == "test" or protocol.final_test):
        raise DataError(
            f"{dataset.name} without {'a test split' if dataset.test is None else 'test labels'}",
            expected="a test split, on which this study is scored",
            hint="give the data a folder test/, or use a study with split: validation",
        )


def _try_arm(study: Study, arm: Arm, config: Config, dataset: Dataset) -> None:
    """Builds the network on no memory, and draws the splits."""
    from stopgrad.method import compute_for, training_flops
    from stopgrad.runs import check_sizes, prepare

    images = prepare(dataset, config)
    compute_for(config)
    training_flops(config)
    check_sizes(images.train, config)
    smallest = study.protocol.labels[0]
    if arm.method == "supervised":
        _try_supervised(dataset, config, labels=smallest)
    elif "linear_lars_accuracy" in metrics_of(arm, study.protocol):
        _check_tunable(dataset, labels=smallest, seed=config.seed)


def _try_supervised(dataset: Dataset, config: Config, *, labels: float) -> None:
    from stopgrad.training import check_recipe, draw_fraction, recipe_of

    assert dataset.test is not None
    train, test = dataset.train.labelled(), dataset.test.labelled()
    images = draw_fraction(train, test, fraction=labels, seed=config.seed)
    check_recipe(recipe_of(config, "supervised"), images)


def _check_tunable(dataset: Dataset, *, labels: float, seed: int) -> None:
    import numpy as np

    from stopgrad.images import label_subset

    train = dataset.train.labelled()
    assert train.labels is not None
    chosen = train.labels[label_subset(train, fraction=labels, seed=seed)]
    if np.bincount(chosen).max() < 2:
        raise DataError(
            f"one label per class with {labels:g} of the labels",
            expected="two, so that linear_lars_accuracy can choose its learning rate",
            hint="use a larger fraction, or linear_accuracy",
        )
