"""What a run still needs: the numbers that studies want of it, and its next task.

Nothing is remembered elsewhere, so a runner that was killed and a second one see the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from stopgrad.config import SplitName, config_to_dict
from stopgrad.evaluation import FINETUNE, MEASURES, SUPERVISED, Key, Subject
from stopgrad.runs import read_status
from stopgrad.studies.definition import Arm, Split, Study, labels_of, metrics_of
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.plan import PlannedRun, StudyPlan
from stopgrad.studies.task import Stage, StudyTask


def wanted_of_runs(plan: StudyPlan) -> dict[str, frozenset[Key]]:
    """The numbers that a plan wants of each of its runs; arms that share a run add up."""
    study, wanted = plan.source.study, dict[str, frozenset[Key]]()
    for slot in plan.slots:
        numbers = wanted_numbers(study, study.arm(slot.arm), labels=slot.labels)
        wanted[slot.run] = wanted.get(slot.run, frozenset()) | numbers
    return wanted


def wanted_numbers(study: Study, arm: Arm, *, labels: float | None = None) -> frozenset[Key]:
    """The numbers that a study wants of each run of an arm.

    Args:
        study: The study.
        arm: One of its arms.
        labels: The fraction of the labels that a supervised run learns from.
    """
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


def number_key(metric: str, labels: float, *, of: Subject, split: Split) -> Key:
    """Where the number of a metric stands among the records; measures are of training images."""
    return Key(metric, labels, of, "train" if metric in MEASURES else split)


def on_test(numbers: Iterable[Key]) -> frozenset[Key]:
    """The same numbers of the encoder, on the test split."""
    return frozenset(
        key._replace(split="test")
        for key in numbers
        if key.of == "encoder" and key.split == "validation"
    )


def next_task(
    folder: RunFolder, run: PlannedRun, *, wanted: frozenset[Key], spec: str
) -> StudyTask | None:
    """The next task of a run, or None when it has all the numbers that are wanted.

    Args:
        folder: Its folder.
        run: What it is.
        wanted: The numbers that studies want of it.
        spec: The images.

    Raises:
        DataError: When its records are damaged.
    """
    missing = wanted - folder.numbers().keys()
    config = config_to_dict(run.config)
    begin = StudyTask(stage="pretrain", folder=str(folder.path), spec=spec, config=config)
    go_on = replace(begin, stage="resume", config=None)
    if run.method == "supervised":
        return _scoring(begin, "supervised", missing) if missing else None
    if not (folder.run / "config.json").exists():
        return begin
    if read_status(folder.run).get("state") != "finished":
        return go_on
    if frozen := frozenset(key for key in missing if key.metric != FINETUNE):
        return _scoring(go_on, "evaluate", frozen)
    return _scoring(go_on, "finetune", missing) if missing else None


def _scoring(task: StudyTask, stage: Stage, numbers: frozenset[Key]) -> StudyTask:
    """The task that gives these numbers: those on one split, with the measures of collapse."""
    splits: set[Any] = {key.split for key in numbers} - {"train"}
    split: SplitName = min(splits) if splits else "auto"
    chosen = [key for key in numbers if key.split in (split, "train")]
    return replace(
        task,
        stage=stage,
        labels=sorted({key.labels for key in chosen}),
        metrics=sorted({key.metric for key in chosen}),
        subjects=sorted({key.of for key in chosen}),
        split=split,
    )
