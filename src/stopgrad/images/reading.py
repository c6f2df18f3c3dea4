"""A data set that was read -> a line that says how: what became classes, and what did not."""

from __future__ import annotations

from stopgrad.images.types import Dataset, Images

NAMED = 3  # classes that the line names


def how_it_was_read(dataset: Dataset) -> str:
    """One sentence without a full stop, so that no folder becomes a class unnoticed."""
    train, test = dataset.train, dataset.test
    height, width = train.pixels.shape[1:3]
    counts = f"{len(train):,} pictures to train on"
    if test is not None:
        counts += f", {len(test):,} to test on"
    return f"read {dataset.name}: {counts}, {width} x {height} px; {_labels(train)}"


def _labels(train: Images) -> str:
    if train.labels is None:
        folders = {name.rpartition("/")[0] for name in train.sources}
        nested = len(folders) > 1
        return f"no labels ({len(folders):,} folders are no classes)" if nested else "no labels"
    names = ", ".join(map(repr, train.class_names[:NAMED]))
    more = ", ..." if len(train.class_names) > NAMED else ""
    return (
        f"{len(train.class_names):,} classes ({names}{more}), which only watch: pretraining "
        "sees no label"
    )
