"""Claims about a study directory: what it takes up, what it refuses, and how its runs stand."""

import json
from pathlib import Path
from typing import Any

import pytest

from stopgrad.errors import ConfigError, DataError
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.folder import RunFolder
from tests.studies.instant import STUDY, InstantExecutor, conduct, prepare, run_of


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a single run"):
        prepare(tmp_path)
    (tmp_path / "config.json").rename(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match=r"holds notes\.txt"):
        prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_study_with_a_link_among_its_folders_is_not_even_looked_at(tmp_path: Path) -> None:
    begun = prepare(tmp_path / "study")
    name = begun.study.name
    (tmp_path / "study" / "runs").rename(tmp_path / "elsewhere")
    (tmp_path / "study" / "runs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="runs is a link or not a regular file"):
        StudyDirectory(tmp_path / "study").read(name)
    with pytest.raises(DataError, match="runs is a link or not a regular file"):
        StudyDirectory(tmp_path / "study").read_all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overrides": {"batch": "9"}}, 'overrides.batch nothing -> "9"'),
        ({"preset": "digits"}, 'preset "tiny" -> "digits"'),
        ({"values": STUDY | {"arms": {"a": {}, "b": {"epochs": 5}}}}, "arms.b.epochs 2 -> 5"),
        ({"values": STUDY | {"settings": {"validation": 0.1}}}, "settings.validation 0.2 -> 0.1"),
        ({"values": STUDY | {"arms": {"a": {}, "b": {"epochs": 5}}}, "seeds": (7,)}, "2 -> 5"),
        (
            {"values": STUDY | {"protocol": STUDY["protocol"] | {"split": "test"}}},
            "protocol.split validation -> test",
        ),
    ],
)
def test_a_study_does_not_go_on_with_other_settings(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    prepared = prepare(tmp_path / "s")
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path / "s", **changes)
    assert said in str(caught.value)
    assert prepared.directory.read("mine").preset == "tiny"


EDITED: list[tuple[dict[str, Any], list[str]]] = [
    ({"question": "Who?"}, ['question: "Which?" -> "Who?"']),
    (
        {"protocol": STUDY["protocol"] | {"correction": "none"}},
        ['protocol.correction: nothing -> "none"'],
    ),
    (
        {"findings": [{"says": "a wins", "higher": "a", "than": "b"}]},
        ['findings.a wins: nothing -> {"higher": "a", "than": "b"}'],
    ),
    (
        {"published": {"source": "s", "values": {"a": {"knn_accuracy": [[9.5]]}}}},
        [
            'published.source: nothing -> "s"',
            "published.values.a.knn_accuracy: nothing -> [[9.5]]",
        ],
    ),
    ({"arms": {"a": {}}}, ["arms.b.epochs: 2 -> nothing"]),
]


@pytest.mark.parametrize(("edited", "told"), EDITED)
def test_an_edit_of_how_a_study_is_read_is_taken_up_and_told(
    tmp_path: Path, edited: dict[str, Any], told: list[str]
) -> None:
    assert prepare(tmp_path / "s").changes == ()
    assert prepare(tmp_path / "s").changes == ()
    prepared = prepare(tmp_path / "s", STUDY | edited)
    assert list(prepared.changes) == told
    assert prepared.directory.read("mine").source.values == STUDY | edited
    assert prepare(tmp_path / "s", STUDY | edited).changes == ()


def test_a_finding_that_is_added_before_others_is_the_only_one_told(tmp_path: Path) -> None:
    first, second = ({"says": s, "higher": s, "than": "a"} for s in ("b", "a"))
    prepare(tmp_path / "s", STUDY | {"findings": [second]})
    prepared = prepare(tmp_path / "s", STUDY | {"findings": [first, second]})
    assert [line.split(":")[0] for line in prepared.changes] == ["findings.b"]


def test_a_metric_that_is_added_is_told_and_scored_for_finished_runs(tmp_path: Path) -> None:
    executor = InstantExecutor()
    conduct(prepare(tmp_path / "s"), executor)
    executor.started.clear()
    protocol = STUDY["protocol"] | {"metrics": ["knn_accuracy", "effective_rank"]}
    prepared = prepare(tmp_path / "s", STUDY | {"protocol": protocol})
    assert list(prepared.changes) == [
        'protocol.metrics: ["knn_accuracy"] -> ["knn_accuracy", "effective_rank"]',
        "finished runs are scored for the numbers that it now asks for",
    ]
    conduct(prepared, executor)
    assert [stage for _, stage in executor.started] == ["evaluate"] * 4


def test_an_arm_whose_test_split_was_scored_stays(tmp_path: Path) -> None:
    values = STUDY | {"protocol": STUDY["protocol"] | {"final_test": True}}
    prepared = prepare(tmp_path / "s", values)
    prepared.directory.select("mine", "b")
    with pytest.raises(ConfigError, match="scored on the test split, 'b', that is"):
        prepare(tmp_path / "s", values | {"arms": {"a": {}}})


def test_an_arm_that_left_comes_back_with_its_runs(tmp_path: Path) -> None:
    executor = InstantExecutor()
    conduct(prepare(tmp_path / "s"), executor)
    without = prepare(tmp_path / "s", STUDY | {"arms": {"a": {}}})
    assert {slot.arm for slot in without.directory.read("mine").slots} == {"a"}
    executor.started.clear()
    again = prepare(tmp_path / "s")
    assert conduct(again, executor) == {}
    assert executor.started == []


def test_another_number_for_a_path_and_a_device_is_told_and_runs_stay(tmp_path: Path) -> None:
    prepare(tmp_path / "s", overrides={"device": "cpu"})
    prepared = prepare(tmp_path / "s", overrides={"device": "auto", "threads": "2"})
    assert list(prepared.changes) == [
        'overrides.device: "cpu" -> "auto"',
        'overrides.threads: nothing -> "2"',
    ]


def test_another_arm_may_join_a_study(tmp_path: Path) -> None:
    prepare(tmp_path / "s")
    prepared = prepare(tmp_path / "s", STUDY | {"arms": STUDY["arms"] | {"c": {"epochs": 7}}})
    assert len(prepared.directory.read("mine").slots) == 6


def test_an_address_that_holds_another_run_is_refused(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "s", seeds=(0,))
    card = prepared.directory.folder(run_of(prepared, "a", 0)).path / "card.json"
    values = json.loads(card.read_text())
    values["config"]["epochs"] = 99
    card.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="describes another run"):
        prepare(tmp_path / "s", seeds=(0,))


def test_a_supervised_run_is_as_far_as_the_folder_of_its_label_fraction_says(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path)
    fraction = folder.run / "supervised" / "share-0.1"
    fraction.mkdir(parents=True)
    assert folder.state().phase == "waiting"
    (fraction / "config.json").write_text("{}")
    (fraction / "status.json").write_text('{"state": "interrupted", "epoch": 3}')
    assert folder.state()[:2] == ("interrupted", 3)
    (fraction / "status.json").write_text('{"state": "finished", "epoch": 5}')
    assert folder.state()[:2] == ("trained", 5)


def test_the_last_error_is_that_of_the_newest_command(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.last_error() == ""
    folder.log.write_text("$ stopgrad pretrain\nstopgrad: no room on the disk\n")
    assert folder.last_error() == "no room on the disk"
    with folder.open_log() as log:
        log.write(b"$ stopgrad resume\nepoch 1\n")
    assert folder.last_error() == ""


def test_the_newest_knn_is_known_however_many_steps_came_after_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.run.mkdir()
    (folder.run / "status.json").write_text('{"state": "running", "epoch": 12, "knn": 0.5}')
    assert folder.state().knn == 0.5


@pytest.mark.parametrize(
    "status", ['{"epoch": "3x"}', '{"epoch": 2, "verdict": "healthy"}', '{"epoch": [1]}', "[]", "{"]
)
def test_an_odd_status_is_no_traceback(tmp_path: Path, status: str) -> None:
    folder = RunFolder(tmp_path)
    folder.run.mkdir()
    (folder.run / "status.json").write_text(status)
    found = folder.state()
    assert found.phase == "waiting"
    assert found.verdict is None


@pytest.mark.parametrize("card", ["{", "[]", '{"config": 3}', "{}"])
def test_a_damaged_card_is_said(tmp_path: Path, card: str) -> None:
    prepared = prepare(tmp_path / "s")
    run = run_of(prepared, "a", 0)
    (prepared.directory.folder(run).path / "card.json").write_text(card)
    with pytest.raises(DataError, match=r"card\.json is damaged"):
        prepare(tmp_path / "s")


def test_a_folder_with_the_name_of_a_study_is_not_taken_for_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`study run mine.yaml --out mine`: the printed command names the study `mine`."""
    from stopgrad.studies.study import _source

    prepared = prepare(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert _source("mine", prepared.directory).study == prepared.study
