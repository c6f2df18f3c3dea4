"""Claims about a study directory whose files were changed from outside, one value at a time."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from stopgrad.errors import DataError, StopgradError
from stopgrad.face.several import ArmsTable
from stopgrad.report import read_studies, study_table
from stopgrad.report.page import render
from stopgrad.report.study_text import Format
from stopgrad.studies import StudyDirectory, load_results, read_epochs, study_overview
from tests.studies.factories import make_study

STUDY: dict[str, Any] = {
    "question": "Which?",
    "baseline": "a",
    "settings": {"validation": 0.2},
    "arms": {"a": {}, "b": {"epochs": 2}},
    "protocol": {
        "split": "validation",
        "metrics": ["knn_accuracy", "correlation_strength"],
        "beside": ["chance", "untrained"],
    },
    "findings": [{"says": "a beats b", "higher": "a", "than": "b", "margin": 1}],
    "published": {"source": "s", "seeds": 2, "values": {"a": {"knn_accuracy": [[50.0, 1.0]]}}},
}
OTHERS = ("text", 7, -1, 1e300, None, [], [[1]], {}, {"a": {"b": 1}}, True, math.nan, ...)
"""What a value is replaced by; `...` takes it out."""

FORMS: tuple[Format, ...] = ("markdown", "json", "csv")
FEW = 5  # one in so many knobs of a card

RARE = 40  # the page, which takes long to make, is made of one change in so many


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms of two seeds, whole."""
    out = tmp_path_factory.mktemp("made") / "study"
    stored = make_study(out, "mine", values=STUDY, seeds=(0, 1), epochs=3)
    for slot in stored.slots:
        folder = StudyDirectory(out).folder(slot.run)
        attempt = {"stage": "pretrain", "exit_code": 0, "reason": "", "began": "2026"}
        attempt |= {"wall_s": 1.5, "words": ["pretrain"], "process": 7}
        (folder.path / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")
        status = {"state": "finished", "epoch": 3, "verdict": {"state": "healthy", "reason": ""}}
        (folder.run / "status.json").write_text(json.dumps(status))
        _with_energy(folder.run / "records.jsonl")
    return out


def _with_energy(path: Path) -> None:
    energy = {"kwh": 0.1, "co2_kg": 0.1, "source": "rapl", "watts": None, "kg_co2_per_kwh": 0.15}
    rows = [json.loads(line) | {"energy": energy} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _look(out: Path, *, form: Format, page: bool) -> None:
    """What `stopgrad study table`, `stopgrad study status` and `stopgrad report` do."""
    directory = StudyDirectory(out)
    for stored in directory.read_all():
        study_table(directory, stored.study.name, form=form)
        with redirect_stdout(io.StringIO()):
            ArmsTable("t", study_overview(directory, stored))
    if page:
        render(*read_studies(out))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every key of a value of JSON, at any depth; the first of a list's entries."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value[:1]):
            yield from _places(part, (*path, key))


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A value of JSON with another at the end of a way; `...` takes it out."""
    copy = value.copy()
    if len(path) > 1:
        copy[path[0]] = _with(value[path[0]], path[1:], new)
    elif new is ...:
        del copy[path[0]]
    else:
        copy[path[0]] = new
    return copy


def _lines(path: Path) -> list[str]:
    """A file as its values of JSON: a line each, or the whole."""
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _files(made: Path) -> list[Path]:
    """The study's file, and each kind of file once."""
    kept = (made / "runs.json").exists()
    runs = made.glob("*.json*") if kept else min((made / "runs").iterdir()).rglob("*.json*")
    files = [*made.glob("studies/*.json"), *runs]
    return sorted(path.relative_to(made) for path in files)


def _changes(made: Path) -> Iterator[tuple[Path, str]]:
    """(file, its text) with one value changed: the keys of every file, each type in turn."""
    turn = itertools.cycle(OTHERS)
    for file in _files(made):
        lines = _lines(made / file)
        value = json.loads(lines[-1])
        places = [*_places(value), ()]
        for place in places[:: FEW if file.name in ("card.json", "runs.json") else 1]:
            new = next(turn)
            if place or new is not ...:
                changed = _with(value, place, new) if place else new
                yield file, "\n".join([*lines[:-1], json.dumps(changed), ""])


@pytest.mark.parametrize("is_kept", [False, True])
def test_no_value_of_another_type_ends_in_a_traceback(
    made: Path, tmp_path: Path, is_kept: bool
) -> None:
    out = tmp_path / "study"
    if is_kept:
        StudyDirectory(made).keep(tmp_path / "kept")
        made = tmp_path / "kept"
    shutil.copytree(made, out)
    for number, (file, text) in enumerate(_changes(made)):
        (out / file).write_text(text)
        try:
            _look(out, form=FORMS[number % 3], page=number % RARE == 0)
        except StopgradError:
            pass
        except Exception as error:
            pytest.fail(f"{file}: {error!r} after {text[-300:]!r}")
        (out / file).write_text((made / file).read_text())
    assert number > (90 if is_kept else 150)
    _look(out, form="markdown", page=True)


def _change(made: Path, out: Path, pattern: str, **values: Any) -> Path:
    """A copy of the study with other values in the last line of the first file of a pattern."""
    shutil.copytree(made, out)
    path = min(out.glob(pattern))
    *before, last = _lines(path)
    path.write_text("\n".join([*before, json.dumps(json.loads(last) | values), ""]))
    return path


@pytest.mark.parametrize(
    ("pattern", "values", "said"),
    [
        ("run/records.jsonl", {"value": "0.5"}, "value is '0.5', not float"),
        ("run/records.jsonl", {"value": math.nan}, "JSON with NaN"),
        ("run/records.jsonl", {"metric": "knn_accuracy", "value": 71.2}, "not a fraction"),
        ("run/records.jsonl", {"energy": {"kwh": 1.0}}, "missing"),
        ("run/costs.jsonl", {"wall_s": "3600"}, "wall_s is '3600', not float"),
        ("attempts.jsonl", {"exit_code": None}, "exit_code is None, not int"),
    ],
)
def test_a_line_of_another_type_costs_its_run_alone_and_is_named(
    made: Path, tmp_path: Path, pattern: str, values: dict[str, Any], said: str
) -> None:
    path = _change(made, tmp_path / "study", f"runs/*/{pattern}", **values)
    directory = StudyDirectory(tmp_path / "study")
    results = load_results(directory, directory.read("mine"))
    [broken] = [run for run in results.runs.values() if run.state.phase == "failed"]
    line = len(path.read_text().splitlines())
    assert f"{path}, line {line}, is not a" in broken.state.reason
    assert said in broken.state.reason
    table = study_table(directory, "mine", form="markdown")
    assert said in table
    assert table.count("(2)") > 0  # the other arm has both of its runs


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seeds": "01"}, "seeds is '01', not list"),
        ({"overrides": []}, "overrides is []"),
        ({"data": {}}, "missing"),
        ({"selected": 3}, "selected is 3"),
        ({"study": {"question": "?"}}, "arms is missing"),
    ],
)
def test_a_studys_file_of_another_type_is_one_error(
    made: Path, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    path = _change(made, tmp_path / "study", "studies/*.json", **values)
    with pytest.raises(DataError) as caught:
        StudyDirectory(tmp_path / "study").read("mine")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_study_of_accuracies_has_classes(made: Path, tmp_path: Path) -> None:
    data = {"spec": "toy", "name": "toy", "classes": 0, "fingerprints": {}}
    _change(made, tmp_path / "study", "studies/*.json", data=data)
    with pytest.raises(DataError, match=r"data\.classes is 0"):
        StudyDirectory(tmp_path / "study").read("mine")


@pytest.mark.parametrize("values", [{"loss": "x"}, {"measures": 5}, {"epoch": "3"}])
def test_an_odd_row_of_metrics_costs_a_point_and_is_named(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, values: dict[str, Any]
) -> None:
    path = _change(made, tmp_path / "study", "runs/*/run/metrics.jsonl", **values)
    directory = StudyDirectory(tmp_path / "study")
    found = read_epochs(directory, directory.read("mine"))
    assert sorted(len(rows) for runs in found.values() for rows in runs.values()) == [2, 3, 3, 3]
    [said] = caplog.messages
    assert re.match(re.escape(f"{path}, line 6, is passed over ("), said)
