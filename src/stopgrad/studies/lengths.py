"""How far the pretrainings of a study went, beside how far the published ones did."""

from __future__ import annotations

from stopgrad.config import config_from_dict
from stopgrad.errors import ConfigError
from stopgrad.method import PUBLISHED_IMAGES, Extent, extent
from stopgrad.studies.folder import StudyRun
from stopgrad.studies.plan import Choices, arm_configs
from stopgrad.studies.results import Results


def arm_extents(results: Results) -> dict[str, Extent]:
    """How far the first scored pretraining of each arm has come; arms without one are left out."""
    found = dict[str, Extent]()
    for slot in results.stored.slots:
        run = results.runs[slot.run]
        if slot.arm not in found and (of_run := _extent(run)) is not None:
            found[slot.arm] = of_run
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


def _extent(run: StudyRun) -> Extent | None:
    """From the views that its encoder had seen; None before a record, or where it is damaged."""
    scored = [r for r in run.numbers.values() if r.of == "encoder" and r.views and r.epoch]
    if run.card is None or not scored:
        return None
    try:
        config = config_from_dict(run.card.config)
    except ConfigError:
        return None  # damaged, or of another version
    steps, epochs = (scored[0].views or 0) // (2 * config.batch), scored[0].epoch or 1
    return extent(config, images=max(1, steps // epochs) * config.batch, steps=steps)
