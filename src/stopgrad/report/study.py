"""A study in a directory -> all that its part of a page shows, read once; half done or whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import Config, config_from_dict, key_paths
from stopgrad.errors import ConfigError, DataError
from stopgrad.report.evidence import Evidence
from stopgrad.studies import COLLAPSE, Epochs, Results, StudyDirectory, load_results, read_epochs


class ShownRun(NamedTuple):
    """The run whose pictures stand for those of its study."""

    run: Evidence
    arm: str
    seed: int

    @property
    def words(self) -> str:
        """`'as it is', seed 0`."""
        return f"{self.arm!r}, seed {self.seed}"


class StudyEvidence(NamedTuple):
    """What a report tells of a study. Curves, configs of some arms and pictures may be missing."""

    path: str  # as the user named its directory
    results: Results
    epochs: Epochs
    config: Config | None  # of the baseline arm
    knobs: Mapping[str, Mapping[str, Any]]  # by key path, by arm
    shown: ShownRun | None = None

    @property
    def name(self) -> str:
        """The study's name."""
        return self.results.stored.study.name

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
        first = {slot.arm: slot.run for slot in reversed(stored.slots)}
        cards = {arm: _card(directory, run) for arm, run in first.items()}
        found.append(
            StudyEvidence(
                path=str(path),
                results=load_results(directory, stored),
                epochs=read_epochs(directory, stored),
                config=_config(cards.get(stored.study.baseline)),
                knobs={arm: key_paths(card) for arm, card in cards.items() if card is not None},
            )
        )
    return found


def _card(directory: StudyDirectory, run: str) -> dict[str, Any] | None:
    """The knobs of a run; None where its card is damaged."""
    try:
        return directory.run(run).card().config
    except DataError:
        return None


def _config(card: dict[str, Any] | None) -> Config | None:
    """A card as a config; None where it is damaged or of another version."""
    try:
        return None if card is None else config_from_dict(card)
    except ConfigError:
        return None
