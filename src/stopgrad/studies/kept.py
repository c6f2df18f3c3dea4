"""A study that is kept without its runs: what its table and report need.

DIR/
  studies/NAME.json   as in a study directory
  runs.json           the config of the first run and the fields that all records share, once; then
                      each run: the knobs that differ from that config, state, attempts and costs
  records.jsonl       {"run": ID, ...}: what a record does not share with all others
  epochs.jsonl        {"run": ID, ...}: the epochs of pretrainings

Left out are weights, logs, the rows of single steps and the paths of the machine. Runs cannot be
resumed from it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import key_paths
from stopgrad.errors import DataError
from stopgrad.evaluation import Costs, Record, from_values, newest, to_line
from stopgrad.runs import check_row
from stopgrad.storage import read_json, read_lines, typed
from stopgrad.studies.folder import EpochRow, RunAttempt, RunCard, RunState, StudyRun

FORMAT = 1
HINT = "restore the file, or write it again with bench/keep_study.py"


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


class Kept(NamedTuple):
    """What was kept of runs, by address."""

    runs: Mapping[str, StudyRun]
    epochs: Mapping[str, list[EpochRow]]


def is_kept(path: Path) -> bool:
    """Whether a directory holds studies without their runs."""
    return (path / "runs.json").is_file()


def read_kept(path: Path) -> Kept:
    """What was kept of each run; DataError when a file is missing or damaged."""
    shared, runs = _read_runs(path / "runs.json")
    records: dict[str, list[Record]] = {name: [] for name in runs}
    epochs: dict[str, list[EpochRow]] = {name: [] for name in runs}

    def add_record(line: dict[str, Any]) -> None:
        name = line.pop("run")
        card = runs[name].card
        assert card is not None
        records[name].append(from_values({"config": card.config, **shared, **line}))

    def add_epoch(line: dict[str, Any]) -> None:
        epochs[line.pop("run")].append(check_row(line))

    read_lines(path / "records.jsonl", add_record, what="a record of a run", hint=HINT)
    read_lines(path / "epochs.jsonl", add_epoch, what="an epoch of a run", hint=HINT)
    known = {name: run._replace(numbers=newest(records[name])) for name, run in runs.items()}
    return Kept(known, epochs)


def _read_runs(path: Path) -> tuple[dict[str, Any], dict[str, StudyRun]]:
    """What all records share, and the runs without their lines."""
    try:
        file = typed(_Runs, read_json(path))
        if file.format != FORMAT:
            raise ValueError(f"format {file.format}, not {FORMAT}")
        runs = {n: _run(typed(_Parts, parts), file.config) for n, parts in file.runs.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            expected="the runs of a saved study",
            hint=HINT,
        ) from error
    return file.record, runs


def _run(parts: _Parts, config: Mapping[str, Any]) -> StudyRun:
    """A run without its numbers; its knobs are those of the config, except for its own."""
    own = copy.deepcopy(dict(config))
    for key, value in parts.knobs.items():
        *sections, knob = key.split(".")
        at = own
        for section in sections:
            at = at.setdefault(section, {})  # which a card of an older version may lack
        at[knob] = value
    return StudyRun(
        card=typed(RunCard, parts.card | {"config": own}),
        state=typed(RunState, parts.state),
        claimed=False,
        numbers={},
        attempts=[typed(RunAttempt, attempt) for attempt in parts.attempts],
        costs=None if parts.costs is None else typed(Costs, parts.costs),
    )


def kept_files(out: Path, kept: Kept) -> dict[Path, str]:
    """The text of each file that keeps the runs, by its path in `out`.

    Raises:
        DataError: When a file of a run is damaged.
    """
    cards = {name: _card(run) for name, run in kept.runs.items()}
    records = [
        (name, _without(json.loads(to_line(record)), {"config": cards[name].config}))
        for name, run in kept.runs.items()
        for record in run.numbers.values()
    ]
    config = next((card.config for card in cards.values()), {})
    shared = _shared([values for _, values in records])
    runs = {name: _parts(run, cards[name], config) for name, run in kept.runs.items()}
    own = ({"run": name} | _without(values, shared) for name, values in records)
    rows = ({"run": name, **row} for name, found in kept.epochs.items() for row in found)
    file = _Runs(FORMAT, config, shared, runs)._asdict()
    return {
        out / "runs.json": json.dumps(file, indent=1, allow_nan=False) + "\n",
        out / "records.jsonl": "".join(json.dumps(v, allow_nan=False) + "\n" for v in own),
        out / "epochs.jsonl": "".join(json.dumps(v, allow_nan=False) + "\n" for v in rows),
    }


def _card(run: StudyRun) -> RunCard:
    """The card of a run, or its DataError if a file of it is damaged."""
    if run.damage is not None:
        raise run.damage
    assert run.card is not None
    return run.card


def _parts(run: StudyRun, card: RunCard, config: Mapping[str, Any]) -> dict[str, Any]:
    return _Parts(
        card={key: value for key, value in card._asdict().items() if key != "config"},
        knobs=_without(key_paths(card.config), key_paths(config)),
        state=run.state._asdict(),
        attempts=[attempt._asdict() for attempt in run.attempts],
        costs=run.costs and run.costs._asdict(),
    )._asdict()


def _shared(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The values that all items share, to the letter: 1 is not 1.0."""
    first = items[0] if items else {}
    return {k: v for k, v in first.items() if not any(_without({k: v}, item) for item in items)}


def _without(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The values that `known` lacks or has otherwise."""
    return {k: v for k, v in values.items() if k not in known or repr(known[k]) != repr(v)}
