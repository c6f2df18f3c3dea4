"""Records -> whether pretraining has gained anything over the untrained encoder, also in words.

A verdict is based on outputs alone: a run that has not collapsed need not have learned anything.
Only a comparison with the accuracies of the untrained encoder tells. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from stopgrad.config import config_from_dict
from stopgrad.errors import ConfigError
from stopgrad.evaluation.format import folds_text
from stopgrad.evaluation.records import ACCURACIES, Record, newest
from stopgrad.method import Extent, extent

NO_BETTER = "not collapsed, but not yet useful"


def is_clear(one: Record, other: Record) -> bool:
    """Whether two accuracies differ by more than two standard errors of independent samples."""
    error = math.sqrt(sum(r.value * (1 - r.value) / r.images_scored for r in (one, other)))
    return abs(one.value - other.value) > 2 * error


def is_no_better(records: Iterable[Record], *, epoch: int) -> bool:
    """Whether no accuracy of the encoder at an epoch lies clearly above the untrained one's.

    Compares with the most labels of each metric and split; False if nothing can be compared.
    """
    known, pairs = newest(r for r in records if r.metric in ACCURACIES), {}
    for key in sorted(known, key=lambda key: key.labels):  # the most labels last, and kept
        beside = known.get(key._replace(of="untrained"))
        if key.of == "encoder" and known[key].epoch == epoch and beside is not None:
            pairs[key.metric, key.split] = known[key], beside
    better = [own.value > other.value and is_clear(own, other) for own, other in pairs.values()]
    return bool(better) and not any(better)


def record_extent(record: Record) -> Extent | None:
    """How far the run behind a record had come; None where the record does not tell.

    For older records it is computed as for a run never extended, on whole batches.
    """
    if record.extent is not None:
        steps, passes, folds = (record.extent[name] for name in Extent._fields)
        return Extent(steps, passes, math.nan if folds is None else folds)
    if record.config is None or not record.views or not record.epoch:
        return None
    try:
        config = config_from_dict(record.config)
    except ConfigError:
        return None  # damaged, or of another version
    steps = record.views // (2 * config.batch)
    images = max(1, steps // record.epoch) * config.batch
    return extent(config, images=images, steps=steps)


def state_text(state: str, records: Sequence[Record], *, epoch: int) -> str:
    """The state of a verdict; for a healthy run no better than untrained, it says that instead."""
    if state != "healthy" or not is_no_better(records, epoch=epoch):
        return state
    own = (r for r in records if r.of == "encoder" and r.epoch == epoch)
    reach = next(filter(None, map(record_extent, own)), None)
    return NO_BETTER if reach is None else f"{NO_BETTER} (N = {folds_text(reach.folds)})"
