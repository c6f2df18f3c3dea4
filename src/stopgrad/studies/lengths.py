"""How far the pretrainings of a study went, beside how far the published ones did."""

from __future__ import annotations

from stopgrad.errors import ConfigError
from stopgrad.evaluation import record_extent
from stopgrad.method import PUBLISHED_IMAGES, Extent, extent
from stopgrad.studies.plan import Choices, arm_configs
from stopgrad.studies.results import Results


def arm_extents(results: Results) -> dict[str, Extent]:
    """How far the first scored pretraining of each arm has come; arms without one are left out."""
    found = dict[str, Extent]()
    for slot in results.stored.slots:
        records = [r for r in results.runs[slot.run].numbers.values() if r.of == "encoder"]
        reach = record_extent(records[0]) if records and slot.arm not in found else None
        found |= {} if reach is None else {slot.arm: reach}
    return {arm.name: found[arm.name] for arm in results.stored.study.arms if arm.name in found}


def published_extents(results: Results) -> dict[str, Extent]:
    """How far the same arms go by the published preset on CIFAR-10; none without a published study.

    Arms that the published preset cannot take were never published.
    """
    stored = results.stored
    if stored.study.published is None:
        return {}
    try:
        configs = arm_configs(stored.source, Choices("cifar", {}, (0,)))
    except ConfigError:
        return {}
    images = {arm: round(PUBLISHED_IMAGES * (1 - c.validation)) for arm, c in configs.items()}
    arms = [arm.name for arm in stored.study.arms if arm.method == "simsiam"]
    return {arm: extent(configs[arm], images=images[arm]) for arm in arms}
