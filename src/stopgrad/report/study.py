"""A study in a directory -> all that its part of a page shows, read once; half done or whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import Config, config_from_dict
from stopgrad.errors import ConfigError
from stopgrad.study import Results, StudyDirectory, load_results
from stopgrad.study.curves import Epochs, read_epochs
from stopgrad.study.plan import flat
from stopgrad.study.results import COLLAPSE


class StudyEvidence(NamedTuple):
    """What a report tells of a study. Curves and configs of some arms may be missing."""

    path: str  # as the user named its directory
    results: Results
    epochs: Epochs
    configs: Mapping[str, Config]  # by arm, with the seed of its first run

    @property
    def name(self) -> str:
        """The study's name."""
        return self.results.stored.study.name

    @property
    def knobs(self) -> Mapping[str, Mapping[str, Any]]:
        """Every knob by its key path, by arm."""
        return {arm: flat(config) for arm, config in self.configs.items()}

    @property
    def config(self) -> Config | None:
        """The config of the baseline arm."""
        return self.configs.get(self.results.stored.study.baseline)

    @property
    def collapsed(self) -> frozenset[str]:
        """The arms in which most runs collapsed, by the newest verdict of each."""
        stored, found = self.results.stored, set[str]()
        for arm in stored.study.arms:
            states = [
                self.results.runs[slot.run].state.verdict
                for slot in stored.slots
                if slot.arm == arm.name
            ]
            if sum(state in COLLAPSE for state in states) > len(states) / 2:
                found.add(arm.name)
        return frozenset(found)


def read_studies(path: Path) -> list[StudyEvidence]:
    """Every study of a directory.

    Raises:
        DataError: When it holds none, or the file of one is damaged.
    """
    directory = StudyDirectory(path)
    found = []
    for stored in directory.read_all():
        configs = {slot.arm: directory.folder(slot.run).path for slot in reversed(stored.slots)}
        read = {arm: _config(folder / "card.json") for arm, folder in configs.items()}
        found.append(
            StudyEvidence(
                path=str(path),
                results=load_results(directory, stored),
                epochs=read_epochs(directory, stored),
                configs={arm: config for arm, config in read.items() if config is not None},
            )
        )
    return found


def _config(card: Path) -> Config | None:
    """The config of a run's card; None where that is damaged or of another version."""
    try:
        return config_from_dict(json.loads(card.read_bytes())["config"])
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None
