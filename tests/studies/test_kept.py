"""Claims about a study that is kept without its runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stopgrad.errors import ConfigError, DataError
from stopgrad.report import read_studies, study_table
from stopgrad.studies import StudyDirectory, study_overview
from tests.studies.factories import make_study

FILES = ["epochs.jsonl", "records.jsonl", "runs.json", "studies/components.json"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of each arm, of which the last was not begun."""
    out = tmp_path_factory.mktemp("made") / "study"
    make_study(out, "components", seeds=(0, 1), leave_out=1, epochs=3)
    return out


@pytest.fixture(scope="module")
def kept(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is kept of it."""
    out = tmp_path_factory.mktemp("kept") / "study"
    StudyDirectory(made).keep(out)
    return out


def _files(path: Path) -> list[str]:
    return sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())


def test_what_is_kept_reads_as_the_study_itself(made: Path, kept: Path) -> None:
    assert _files(kept) == FILES
    for form in ("markdown", "csv", "json"):
        tables = [study_table(StudyDirectory(p), "components", form=form) for p in (made, kept)]
        assert tables[0] == tables[1]
    [whole], [small] = read_studies(made), read_studies(kept)
    assert repr(small._replace(path=whole.path)) == repr(whole)
    assert len(small.epochs["no predictor"][0]) == 3


def test_how_the_runs_stood_is_kept(made: Path, kept: Path) -> None:
    found = [
        study_overview(StudyDirectory(path), StudyDirectory(path).read("components"))
        for path in (made, kept)
    ]
    assert found[0].arms == found[1].arms
    assert sum(arm.runs - arm.done for arm in found[1].arms) == 1


def test_each_knob_and_each_field_that_all_share_stands_once(made: Path, kept: Path) -> None:
    runs = json.loads((kept / "runs.json").read_text())
    differing = {key for run in runs["runs"].values() for key in run["knobs"]}
    assert "seed" in differing
    assert "views.size" not in differing
    assert runs["record"]["versions"] == {"python": "3.11", "torch": "2.15"}
    assert "versions" not in (kept / "records.jsonl").read_text()


def test_to_keep_what_is_kept_changes_no_byte(kept: Path, tmp_path: Path) -> None:
    StudyDirectory(kept).keep(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (kept / name).read_bytes()


def test_a_path_of_this_machine_is_replaced_by_a_name(made: Path, tmp_path: Path) -> None:
    StudyDirectory(made).keep(tmp_path / "a", names={"toy": "/home/zoë"})
    assert StudyDirectory(tmp_path / "a").read("components").data.spec == "/home/zoë"
    StudyDirectory(tmp_path / "a").keep(tmp_path / "b", names={"/home/zoë": "IMAGES"})
    assert StudyDirectory(tmp_path / "b").read("components").data.spec == "IMAGES"


def test_a_card_of_a_version_without_a_section_does_not_hide_the_others(
    kept: Path, tmp_path: Path
) -> None:
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    runs = json.loads((kept / "runs.json").read_text())
    section = runs["config"].pop("finetune")
    name, own = next(iter(runs["runs"].items()))
    own["knobs"] |= {f"finetune.{key}": value for key, value in section.items()}
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    card = StudyDirectory(tmp_path).run(name).card
    assert card is not None
    assert card.config["finetune"] == section


def test_runs_cannot_go_on_from_what_is_kept(kept: Path) -> None:
    with pytest.raises(ConfigError, match="saved without its runs"):
        StudyDirectory(kept).check_ours()


def test_a_run_that_was_not_kept_is_one_error(kept: Path) -> None:
    with pytest.raises(DataError, match="saved without the run 0123"):
        StudyDirectory(kept).run("0123")


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("records.jsonl", "{}\n", "records.jsonl, line 1"),
        ("epochs.jsonl", '{"run": "x"}\n', "epochs.jsonl, line 1"),
        ("epochs.jsonl", None, "epochs.jsonl"),
        ("runs.json", "[]", "cannot be read"),
        ("runs.json", '{"format": 2, "config": {}, "record": {}, "runs": {}}', "format 2, not 1"),
    ],
)
def test_damage_is_one_error_that_names_the_file(
    kept: Path, tmp_path: Path, name: str, contents: Any, said: str
) -> None:
    StudyDirectory(kept).keep(tmp_path)
    (tmp_path / name).unlink()
    if contents is not None:
        (tmp_path / name).write_text(contents)
    with pytest.raises(DataError, match=said):
        study_table(StudyDirectory(tmp_path), "components", form="csv")
