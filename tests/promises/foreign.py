"""R31, R35, R36: stores, names and records of somebody else are read as data, or refused.

Each attack is sealed as the product would seal it, so that only the check of values can refuse it.
A store that is cut while it is read ends the process with a line, not by SIGBUS.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.promises import state
from tests.promises.lab import Lab, draw_picture, seconds_until
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done

DATA, STORAGE, CHECKPOINT = 3, 5, 7
STORE = "stopgrad-store.json"
Edit = Callable[[dict[str, Any]], object]
ESCAPE = "\x1b]0;evil\x07"


def _train(values: dict[str, Any]) -> dict[str, Any]:
    split: dict[str, Any] = values["splits"]["train"]
    return split


STORES: dict[str, Edit] = {
    "a shard above": lambda v: _train(v)["shards"][0].update(file="../id_rsa"),
    "a shard from the root": lambda v: _train(v)["shards"][0].update(file="/etc/passwd"),
    "a table as shard": lambda v: _train(v)["shards"][0].update(file="pictures.parquet"),
    "a height of text": lambda v: v.update(height="28"),
    "no width": lambda v: v.update(width=0),
    "no shards": lambda v: _train(v).update(shards=[]),
    "images below none": lambda v: _train(v)["shards"][0].update(pictures=-1),
    "another split": lambda v: v["splits"].update(evil=_train(v)),
    "a name of numbers": lambda v: v.update(name=[1]),
    "a table that is a list": lambda v: v.update(tables=[]),
    "splits of a list": lambda v: v.update(splits=[1]),
    "an unknown key": lambda v: v.update(evil=1),
}


def stores(lab: Lab, tries: int) -> Outcome:
    """So many manifests with one value changed; then a shard that is cut under a run."""
    kinds, failures = list(STORES.items()), list[str]()
    for number in lab.numbers(tries):
        what, edit = kinds[number % len(kinds)]
        failures += [f"{what}: {x}" for x in _opened(lab, edit)]
    controls: tuple[Control, ...] = ()
    if lab.is_first:
        failures += [f"cut: {x}" for x in _cut(lab, size=4096)]
        controls = (
            control("a store of our own", _opened(lab, lambda v: None), sees="exit code 0"),
            control("a store that is left whole", _cut(lab, size=None), sees="exit code 0"),
        )
    return Outcome(tries, tuple(failures), controls)


def _packed(lab: Lab) -> Path:
    store = lab.place("store")
    done = lab.run("pack", "--data", lab.pictures, "--out", store, "--side", 24)
    assert done.code == 0, done.err
    return store


def _opened(lab: Lab, edit: Edit) -> list[str]:
    store = _packed(lab)
    values = json.loads((store / STORE).read_text())
    del values["seal"]
    edit(values)
    text = json.dumps(values, sort_keys=True)
    seal = hashlib.sha256(text.encode()).hexdigest()
    (store / STORE).write_text(json.dumps({**values, "seal": seal}))
    done = lab.run(*_training(lab, store, lab.place("trained")), "--epochs", 1)
    wrong = _refused(done, DATA)
    return wrong or ([] if "is damaged" in done.last_line else [done.last_line])


def _training(lab: Lab, store: Path, run: Path) -> list[object]:
    return [store if word == lab.pictures else word for word in lab.pretraining(run)]


def _refused(done: Done, code: int) -> list[str]:
    wrong = [done.crashed] if done.crashed else []
    if done.code != code:
        wrong.append(f"exit code {done.code}: {done.last_line}")
    if not done.last_line.startswith("stopgrad: ") or "; expected " not in done.last_line:
        wrong.append(f"not one line: {done.err[-300:]!r}")
    return wrong


def _cut(lab: Lab, *, size: int | None) -> list[str]:
    """A shard is cut to so many bytes while a run reads it."""
    store, run = _packed(lab), lab.place("cut")
    running = lab.start(*_training(lab, store, run), fresh=True)
    seconds_until(lambda: state.newest_step(run) >= 3, running)
    if size is not None:
        os.truncate(store / "train-00000.pixels", size)
    return _refused(running.wait(), STORAGE)


def text(lab: Lab, tries: int) -> Outcome:
    """Names that a terminal or a spreadsheet would obey, in each command that writes them."""
    folder = _named_badly(lab)
    failures: list[str] = []
    for number in lab.numbers(tries):
        failures += _said(lab, folder, number)
    failures += [f"CSV: {x}" for x in _computed(_table(lab, folder))]
    broken = [{"path": "=1+1", "class_name": ESCAPE}]
    controls = (
        control("names as they are", _computed(broken), sees="=1+1"),
        control("names with escapes", _obeyed(ESCAPE), sees="escape"),
    )
    return Outcome(tries, tuple(failures), controls if lab.is_first else ())


def _named_badly(lab: Lab) -> Path:
    """Two classes and a damaged image whose names are commands."""
    folder, chance = lab.place(f"named{ESCAPE}"), lab.chance("R35")
    for split, name, count in (
        *(("train", f"=1+1{ESCAPE}", 20), ("train", "@SUM(A1)", 20)),
        *(("test", f"=1+1{ESCAPE}", 4), ("test", "@SUM(A1)", 4)),
    ):
        place = folder / split / name
        place.mkdir(parents=True)
        for number in range(count):
            draw_picture(chance, tint=number % 3).save(place / f"{ESCAPE}{number}.png")
    (folder / "train" / "@SUM(A1)" / f"{ESCAPE}.png").write_text("no image")
    return folder


def _said(lab: Lab, folder: Path, number: int) -> list[str]:
    """What the terminal gets from one command."""
    run = lab.place(f"run{ESCAPE}")
    words: tuple[object, ...] = ("pretrain", "--data", folder, "--out", run, "--preset", "tiny")
    small = ("--batch", 8, "--epochs", 1, "--knn.k", 5, "--bad_images", "skip", "--device", "cpu")
    commands: tuple[tuple[object, ...], ...] = (
        ("check-data", folder),
        (*words, *small),
        ("verify", run),
        ("evaluate", run),
    )
    done = lab.run(*commands[number % len(commands)])
    return [f"{commands[number % len(commands)][0]}: {x}" for x in _obeyed(done.out + done.err)]


def _obeyed(text: str) -> list[str]:
    return [f"an escape sequence: {text[:200]!r}"] if "\x1b" in text or "\x07" in text else []


def _table(lab: Lab, folder: Path) -> list[dict[str, str]]:
    out = lab.place("table").with_suffix(".csv")
    run = lab.reference.run
    done = lab.run("embed", run, "--data", folder, "--out", out, "--bad-images", "skip")
    if done.code != 0:
        return [{"path": f"=not written: {done.last_line}", "class_name": ""}]
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def _computed(rows: Iterable[dict[str, str]]) -> list[str]:
    cells = [row[name] for row in rows for name in ("path", "class_name")]
    return [cell for cell in cells if cell[:1] in {*"=+-@\t\r"} or "\x1b" in cell]


RECORDS: dict[str, Edit] = {
    "no images": lambda r: r.update(images_scored=0),
    "a late epoch": lambda r: r.update(epoch=10**15),
    "accuracies of a million classes": lambda r: r.update(per_class=[0.5] * 1_000_000),
    "an accuracy of 2": lambda r: r.update(per_class=[2.0] * 4),
    "labels of 7": lambda r: r.update(labels=7),
    "images of text": lambda r: r.update(images_scored="20"),
}


def records(lab: Lab, tries: int) -> Outcome:
    """So many changed records; `report` and `verify` must say the same."""
    kinds, failures = list(RECORDS.items()), list[str]()
    scored = lab.copy(lab.reference.run, "scored")
    done = lab.run("evaluate", scored)
    assert done.code == 0, done.err
    for number in lab.numbers(tries):
        what, edit = kinds[number % len(kinds)]
        failures += [f"{what}: {x}" for x in _read(lab, scored, edit)]
    found = _read(lab, scored, lambda r: None) if lab.is_first else []
    controls = (control("records of our own", found, sees="exit code 0"),) if lab.is_first else ()
    return Outcome(tries, tuple(failures), controls)


def _read(lab: Lab, scored: Path, edit: Edit) -> list[str]:
    run = lab.copy(scored, "records")
    path = run / "records.jsonl"
    first, *others = path.read_text().splitlines()
    values = json.loads(first)
    edit(values)
    path.write_text("\n".join([json.dumps(values), *others, ""]))
    report = lab.run("report", run, "--out", lab.place("page").with_suffix(".html"))
    return [*_refused(report, DATA), *_refused(lab.run("verify", run), CHECKPOINT)]
