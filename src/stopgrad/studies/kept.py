"""A study that is kept without its runs: what its table and its report need, in four files.

DIR/
  studies/NAME.json   as in a study directory
  runs.json           the config of the first run and the fields that all records share, once; then
                      each run: the knobs that differ from that config, state, attempts and costs
  records.jsonl       {"run": ID, ...}: what a record does not share with all others
  epochs.jsonl        {"run": ID, ...}: the epochs of pretrainings

Left out are weights, logs, the rows of single steps and the paths of the machine. Runs cannot go
on from it.
"""

from __future__ import annotations

import copy
import functools
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import key_paths
from stopgrad.errors import DataError
from stopgrad.evaluation import Costs, Key, Record, from_values, newest, to_line
from stopgrad.runs import check_row
from stopgrad.storage import read_json, read_lines, typed
from stopgrad.studies.folder import EpochRow, RunAttempt, RunCard, RunFolder, RunState

FORMAT = 1
HINT = "restore the file, or keep the study again"


class _Parts(NamedTuple):
    """A run in runs.json."""

    card: dict[str, Any]
    knobs: dict[str, Any]  # that differ from the first config, by key path
    state: dict[str, Any]
    attempts: list[dict[str, Any]]
    costs: dict[str, Any] | None


class _Runs(NamedTuple):
    """What runs.json holds."""

    format: int
    config: dict[str, Any]  # of the first run
    record: dict[str, Any]  # fields that all records share
    runs: dict[str, dict[str, Any]]


class KeptRun:
    """What was kept of a run; its methods are those by which a `RunFolder` is read."""

    def __init__(self, parts: _Parts, *, config: Mapping[str, Any]) -> None:
        own = copy.deepcopy(dict(config))
        for key, value in parts.knobs.items():
            *sections, knob = key.split(".")
            functools.reduce(operator.getitem, sections, own)[knob] = value
        self._card = typed(RunCard, parts.card | {"config": own})
        self._state = typed(RunState, parts.state)
        self._attempts = [typed(RunAttempt, attempt) for attempt in parts.attempts]
        self._costs = None if parts.costs is None else typed(Costs, parts.costs)
        self._records: list[Record] = []
        self._epochs: list[EpochRow] = []

    def is_claimed(self) -> bool:
        return False

    def card(self) -> RunCard:
        return self._card

    def state(self) -> RunState:
        return self._state

    def attempts(self) -> list[RunAttempt]:
        return self._attempts

    def costs(self) -> Costs | None:
        return self._costs

    def numbers(self) -> Mapping[Key, Record]:
        return newest(self._records)

    def epoch_rows(self) -> list[EpochRow]:
        return self._epochs

    def add_record(self, values: dict[str, Any]) -> None:
        """Adds a record; its config is that of the run where it has none of its own."""
        self._records.append(from_values({"config": self._card.config, **values}))

    def add_epoch(self, row: EpochRow) -> None:
        """Adds an epoch, which `check_row` may refuse."""
        check_row(row)
        self._epochs.append(row)


def is_kept(path: Path) -> bool:
    """Whether a directory holds studies without their runs."""
    return (path / "runs.json").is_file()


def read_kept(path: Path) -> dict[str, KeptRun]:
    """What was kept of each run.

    Raises:
        DataError: When a file is missing or damaged.
    """
    shared, runs = _read_runs(path / "runs.json")

    def add_record(line: dict[str, Any]) -> None:
        runs[line.pop("run")].add_record(shared | line)

    def add_epoch(line: dict[str, Any]) -> None:
        runs[line.pop("run")].add_epoch(line)

    read_lines(path / "records.jsonl", add_record, what="a record of a run", hint=HINT)
    read_lines(path / "epochs.jsonl", add_epoch, what="an epoch of a run", hint=HINT)
    return runs


def _read_runs(path: Path) -> tuple[dict[str, Any], dict[str, KeptRun]]:
    """What all records share, and the runs without their lines."""
    try:
        values = typed(_Runs, read_json(path))
        if values.format != FORMAT:
            raise ValueError(f"format {values.format}, not {FORMAT}")
        return values.record, {
            name: KeptRun(typed(_Parts, parts), config=values.config)
            for name, parts in values.runs.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            expected="the runs of a study that was kept",
            hint=HINT,
        ) from error


def kept_files(out: Path, runs: Mapping[str, RunFolder | KeptRun]) -> dict[Path, str]:
    """The files of what is kept of runs, by path.

    Args:
        out: The folder that they will stand in.
        runs: By address.

    Raises:
        DataError: When a file of a run is damaged.
    """
    cards = {name: run.card() for name, run in runs.items()}
    records = [
        (name, _record(record, cards[name]))
        for name, run in runs.items()
        for record in run.numbers().values()
    ]
    config = next((card.config for card in cards.values()), {})
    shared = _shared([values for _, values in records])
    kept = _Runs(FORMAT, config, shared, {n: _parts(r, config) for n, r in runs.items()})
    own = ({"run": name} | _without(values, shared) for name, values in records)
    rows = ({"run": name, **row} for name, run in runs.items() for row in run.epoch_rows())
    return {
        out / "runs.json": json.dumps(kept._asdict(), indent=1, allow_nan=False) + "\n",
        out / "records.jsonl": "".join(json.dumps(v, allow_nan=False) + "\n" for v in own),
        out / "epochs.jsonl": "".join(json.dumps(v, allow_nan=False) + "\n" for v in rows),
    }


def _parts(run: RunFolder | KeptRun, config: Mapping[str, Any]) -> dict[str, Any]:
    card, costs = run.card(), run.costs()
    return _Parts(
        card={key: value for key, value in card._asdict().items() if key != "config"},
        knobs=_without(key_paths(card.config), key_paths(config)),
        state=run.state()._asdict(),
        attempts=[attempt._asdict() for attempt in run.attempts()],
        costs=costs and costs._asdict(),
    )._asdict()


def _record(record: Record, card: RunCard) -> dict[str, Any]:
    """A record without the config, where that is the one of its run."""
    values: dict[str, Any] = json.loads(to_line(record))
    return _without(values, {"config": card.config})


def _shared(items: list[dict[str, Any]]) -> dict[str, Any]:
    """What all items have in common, to the letter: 1 is not 1.0."""
    first = items[0] if items else {}
    return {k: v for k, v in first.items() if not any(_without({k: v}, item) for item in items)}


def _without(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not those known."""
    return {k: v for k, v in values.items() if k not in known or repr(known[k]) != repr(v)}
