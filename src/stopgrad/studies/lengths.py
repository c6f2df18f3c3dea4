"""How far the pretrainings of a study went, and how far the published ones did."""

from __future__ import annotations

from stopgrad.config import Config
from stopgrad.errors import ConfigError
from stopgrad.evaluation import record_extent
from stopgrad.method import PUBLISHED_IMAGES, Extent, extent
from stopgrad.studies.definition import Published
from stopgrad.studies.plan import Choices, arm_configs
from stopgrad.studies.results import Results


def arm_extents(results: Results) -> dict[str, Extent]:
    """How far the first scored pretraining of each arm has come; arms without one are left out."""
    found = dict[str, Extent]()
    for slot in results.stored.slots:
        records = [r for r in results.runs[slot.run].numbers.values() if r.of == "encoder"]
        records.sort(key=lambda record: record.extent is None)  # records that state it come first
        reach = record_extent(records[0]) if records and slot.arm not in found else None
        found |= {} if reach is None else {slot.arm: reach}
    return {arm.name: found[arm.name] for arm in results.stored.study.arms if arm.name in found}


def is_of_report(published: Published) -> bool:
    """Whether the numbers are the report's; another source says its scale itself."""
    return published.source.startswith("report")


def published_configs(results: Results) -> dict[str, Config]:
    """The arms of a study that the report has, with its preset; another source has its own.

    Arms that the published preset cannot take were never published.
    """
    stored, published = results.stored, results.stored.study.published
    if published is None or not is_of_report(published):
        return {}
    try:
        configs = arm_configs(stored.source, Choices("cifar", {}, (0,)))
    except ConfigError:
        return {}
    known = {place.arm for place in published.values}
    names = [a.name for a in stored.study.arms if a.method == "simsiam" and a.name in known]
    return {name: configs[name] for name in names}


def published_images(config: Config) -> int:
    """How many images of CIFAR-10 such a pretraining learns from."""
    return round(PUBLISHED_IMAGES * (1 - config.validation))


def published_extents(results: Results) -> dict[str, Extent]:
    """How far the arms of `published_configs` go on CIFAR-10."""
    configs = published_configs(results)
    return {arm: extent(c, images=published_images(c)) for arm, c in configs.items()}
