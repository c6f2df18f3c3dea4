"""What a run still needs: the next command line, from what lies in its folder.

Nothing is remembered elsewhere, so a runner that was killed and a second one see the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from stopgrad.errors import DataError
from stopgrad.evaluation import FINETUNE, MEASURES, SUPERVISED, Key, Record, Subject, newest, read
from stopgrad.runs import read_status
from stopgrad.studies.definition import Arm, Split, Study, labels_of, metrics_of
from stopgrad.studies.directory import RunFolder
from stopgrad.studies.plan import PlannedRun

Stage = Literal["pretrain", "resume", "evaluate", "finetune", "supervised"]


class Step(NamedTuple):
    """One command of a run, and the numbers that it is to bring."""

    stage: Stage
    words: tuple[str, ...]
    brings: frozenset[Key] = frozenset()


def wanted_numbers(study: Study, arm: Arm, *, labels: float | None = None) -> frozenset[Key]:
    """The numbers that a study wants of each run of an arm.

    Args:
        study: The study.
        arm: One of its arms.
        labels: The share that a supervised run learns from.
    """
    protocol = study.protocol
    if labels is not None:
        return frozenset({Key(SUPERVISED, labels, "supervised", "test")})
    beside = protocol.beside if arm.name == study.baseline else ()
    subjects: tuple[Subject, ...] = ("encoder", *(of for of in beside if of != "chance"))
    return frozenset(
        number_key(metric, share, of=of, split=protocol.split)
        for of in subjects
        for metric in metrics_of(arm, protocol)
        if of == "encoder" or metric not in (*MEASURES, FINETUNE)
        for share in labels_of(metric, protocol)
    )


def number_key(metric: str, share: float, *, of: Subject, split: Split) -> Key:
    """Where the number of a metric stands among the records; measures are of training images."""
    return Key(metric, share, of, "train" if metric in MEASURES else split)


def on_test(numbers: Iterable[Key]) -> frozenset[Key]:
    """The same numbers of the encoder, on the test split."""
    return frozenset(
        key._replace(split="test")
        for key in numbers
        if key.of == "encoder" and key.split == "validation"
    )


def numbers_of(folder: RunFolder) -> Mapping[Key, Record]:
    """The newest record of each number that a run has.

    Raises:
        DataError: When its file is damaged.
    """
    path = folder.run / "records.jsonl"
    return newest(read(path)) if path.exists() else {}


def next_step(
    folder: RunFolder, run: PlannedRun, *, wanted: frozenset[Key], spec: str
) -> Step | None:
    """The next command of a run, or None when it has all the numbers that are wanted.

    Args:
        folder: Its folder.
        run: What it is.
        wanted: The numbers that studies want of it.
        spec: The images.

    Raises:
        DataError: When its records are damaged.
    """
    missing = wanted - numbers_of(folder).keys()
    settings = ("--config", str(folder.path / "settings.json"))
    if run.method == "supervised":
        where = ("--data", spec, "--out", str(folder.run), *settings)
        words = ("supervised", *where, "--labels", f"{run.labels!r}")
        return Step("supervised", words, frozenset(missing)) if missing else None
    if not (folder.run / "config.json").exists():
        return Step("pretrain", ("pretrain", "--data", spec, "--out", str(folder.run), *settings))
    if read_status(folder.run).get("state") != "finished":
        return Step("resume", ("resume", str(folder.run), "--data", spec))
    frozen = frozenset(key for key in missing if key.metric != FINETUNE)
    if frozen:
        return _evaluation(folder, frozen, spec=spec)
    return _finetuning(folder, frozenset(missing), spec=spec) if missing else None


def _evaluation(folder: RunFolder, missing: frozenset[Key], *, spec: str) -> Step:
    """The evaluation on one split, with the measures of collapse; what is known is left out."""
    split = min((key.split for key in missing if key.split != "train"), default="auto")
    chosen = frozenset(key for key in missing if key.split in (split, "train"))
    words = ["evaluate", str(folder.run), "--data", spec, "--missing", "--split", split]
    for flag, values in (
        ("--of", {key.of for key in chosen}),
        ("--metrics", {key.metric for key in chosen}),
        ("--labels", {repr(key.labels) for key in chosen}),
    ):
        words += [flag, *sorted(values)]
    return Step("evaluate", tuple(words), chosen)


def _finetuning(folder: RunFolder, missing: frozenset[Key], *, spec: str) -> Step:
    shares = [repr(share) for share in sorted({key.labels for key in missing})]
    words = ("finetune", str(folder.run), "--data", spec, "--labels", *shares)
    return Step("finetune", words, missing)


def unbrought(folder: RunFolder, step: Step) -> str:
    """What a command that ended well did not bring, in words; empty when it kept its promise."""
    try:
        missing = step.brings - numbers_of(folder).keys()
    except DataError as error:
        return str(error)
    return ", ".join(sorted(f"{key.metric} at {key.labels:g}" for key in missing))
