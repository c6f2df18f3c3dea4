"""Claims about `stopgrad study` on the command line, and about what images must offer a study."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from stopgrad.cli import main
from stopgrad.cli.screen import print_line
from stopgrad.config import preset
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluation import Key, Selection, append_cost, evaluate_run
from stopgrad.evaluation.costs import Spent
from stopgrad.evaluation.evaluate import score_run
from stopgrad.evaluation.records import key_of
from stopgrad.face.progress import Screen
from stopgrad.face.several import ArmsTable, StudyWatch, time_left
from stopgrad.images import Dataset, images_from_arrays
from stopgrad.runs import RunWriter, describe_run, load_run, prepare, read_metrics
from stopgrad.studies import ArmState, Choices, Overview, prepare_study, run_study
from stopgrad.studies.folder import RunAttempt, RunFolder
from stopgrad.studies.parse import parse_study
from stopgrad.studies.results import _training_share
from stopgrad.studies.study import check_data
from stopgrad.training import pretrain_epochs
from tests import factories
from tests.studies import instant
from tests.studies.instant import STUDY


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """300 real digits to learn from and 60 to score."""
    return factories.digits(300, 60)


def _fails(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["study", *map(str, words)])
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return code, error


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["list", "lables"], 2, "did you mean labels"),
        (["run", "lables", "--data", "mnist5k", "--out", "x"], 2, "did you mean labels"),
        (["run", "labels", "--data", "mnist5kk", "--out", "x"], 3, "mnist5k"),
        (["run", "labels", "--data", "mnist5k", "--out", "x", "--seeds", "0"], 2, "--seeds 0"),
        (
            ["run", "labels", "--data", "mnist5k", "--out", "x", "--seeds", "1", "1", "2"],
            2,
            "twice",
        ),
        (["run", "labels", "--data", "mnist5k", "--out", "x", "--jobs", "0"], 2, "--jobs 0"),
        (["run", "labels", "--data", "mnist5k", "--out", "x", "--preset", "cpux"], 2, "cpu?"),
        (["run", "labels", "--data", "mnist5k", "--out", "x", "--bach", "8"], 2, "batch?"),
        (["run", "labels", "--data", "mnist5k", "--out", "x", "--batch", "9999"], 3, "9999"),
        (["run", "labels", "--data", "mnist5k", "--out", "x", "--device", "tpu"], 2, "tpu"),
        (["run", "labels", "--data", "mnist5k", "--out", "x", "extra"], 2, "'extra'"),
        (["status", "nowhere"], 3, "holds no study"),
        (["table", "nowhere"], 3, "holds no study"),
        (["table", "nowhere", "--study", "labels"], 3, "no study 'labels'"),
        (["table", "nowhere", "--format", "html"], 2, "html"),
        (["tabel", "nowhere"], 2, "tabel"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_begun(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, error = _fails(capsys, *words)
    assert found == code, error
    assert said in error
    assert list(tmp_path.iterdir()) == []


def test_a_users_file_is_checked_wholly_before_anything_starts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    arms = {"a": {}, "b": {}, "c": {"encoder.name": "resnet18", "batch": "many"}}
    file.write_text(yaml.safe_dump(STUDY | {"arms": arms, "bassline": "a"}))
    words = ("run", file, "--data", "mnist5k", "--out", tmp_path / "s", "--preset", "tiny")
    code, error = _fails(capsys, *words)
    assert code == 2
    assert "unknown field bassline (did you mean baseline?)" in error
    assert "arm 'b' changes nothing" in error
    assert "batch = 'many'" in error
    assert not (tmp_path / "s").exists()


def test_an_encoder_that_does_not_exist_is_found_before_the_first_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(STUDY | {"arms": {"a": {}, "b": {"encoder.name": "resnet19"}}}))
    words = ("run", file, "--data", "mnist5k", "--out", tmp_path / "s", "--preset", "tiny")
    code, error = _fails(capsys, *words)
    assert code == 2
    assert "arm 'b': " in error
    assert not (tmp_path / "s").exists()


def test_the_file_of_a_study_is_a_start_for_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "list", "components"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert parse_study(values, name="mine").problems == ()


def test_time_left_is_told_by_the_work_of_this_session() -> None:
    assert time_left(60.0, began=0.5, now=0.6).replace("\xa0", " ") == "about 4 min left"
    least = time_left(60.0, began=0.5, now=0.6, least=True).replace("\xa0", " ")
    assert least == "at least 4 min left"
    assert time_left(60.0, began=0.5, now=0.5) == "time left not known yet"
    assert time_left(60.0, began=0.5, now=1.0) == "done"


def test_training_that_went_on_after_a_kill_is_training(tmp_path: Path) -> None:
    ended = RunFolder(tmp_path)
    for stage, wall_s in (("pretrain", 10.0), ("resume", 20.0), ("evaluate", 10.0)):
        ended.keep_attempt(RunAttempt(stage, 0, "", "", wall_s, [], 1))
    assert _training_share([ended.read()]) == 0.75


# What images must offer


def _checked(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any] = STUDY
) -> Any:
    monkeypatch.setattr("stopgrad.studies.study.load_dataset", lambda *_, **__: digits)
    _, study, problems = parse_study(values, name="mine")
    assert problems == ()
    configs = {arm.name: preset("tiny", validation=0.2) for arm in study.arms}
    return check_data(study, configs, spec="mnist5k")


def test_images_that_suit_a_study_are_known_by_their_fingerprint(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _checked(digits, monkeypatch)
    assert found.classes == 10
    assert dict(found.fingerprints) == dict.fromkeys("ab", digits.train.fingerprint)


def test_a_study_that_needs_labels_refuses_images_without(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Dataset("bare", images_from_arrays(digits.train.pixels), None)
    with pytest.raises(DataError, match="bare without labels"):
        _checked(bare, monkeypatch)


def test_a_study_on_the_test_split_refuses_images_without_one(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digits._replace(test=None)
    assert _checked(whole, monkeypatch).classes == 10
    for protocol in ({"split": "test"}, {"split": "validation", "final_test": True}):
        with pytest.raises(DataError, match="without a test split"):
            _checked(whole, monkeypatch, STUDY | {"protocol": protocol})
        bare = digits._replace(test=images_from_arrays(digits.train.pixels))
        with pytest.raises(DataError, match="without test labels"):
            _checked(bare, monkeypatch, STUDY | {"protocol": protocol})


def test_one_label_per_class_is_too_few_for_a_tuned_probe(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = {"split": "test", "labels": [0.01, 1], "metrics": ["linear_lars_accuracy"]}
    with pytest.raises(DataError, match=r"arm 'a': one label per class with 0\.01"):
        _checked(digits, monkeypatch, STUDY | {"protocol": protocol})


# What evaluation gives a study


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of one epoch with images held out."""
    path = tmp_path_factory.mktemp("run")
    config = preset("tiny", epochs=1, validation=0.2)
    with RunWriter.create(path, describe_run(digits, config, spec="digits")) as writer:
        list(pretrain_epochs(prepare(digits, config), config, writer=writer))
    append_cost(path, Spent(36.0, None, "", "cpu", threads=1))
    return path


def test_evaluation_gives_the_numbers_that_were_chosen_and_no_others(
    run: Path, digits: Dataset
) -> None:
    metrics = ("knn_accuracy", "correlation_strength")
    select = Selection("validation", ("encoder", "untrained"), metrics)
    records = list(evaluate_run(load_run(run), digits, labels=(0.5, 1.0), select=select))
    assert {key_of(record) for record in records} == {
        Key("correlation_strength", 1.0, "encoder", "train"),
        *(
            Key("knn_accuracy", labels, of, "validation")
            for labels in (0.5, 1.0)
            for of in ("encoder", "untrained")
        ),
    }
    assert {r.images_scored for r in records if r.split == "validation"} == {60}  # of 300, a fifth
    [left] = score_run(load_run(run), digits, labels=(0.5, 1.0), select=select, known=records[:-1])
    assert (key_of(left), left.value) == (key_of(records[-1]), records[-1].value)


def test_a_measure_is_that_of_z_at_the_checkpoint_that_is_scored(
    run: Path, digits: Dataset, tmp_path: Path
) -> None:
    def scored(path: Path) -> tuple[float, int, object]:
        select = Selection(of=("encoder",), metrics=("effective_rank",))
        [record] = evaluate_run(load_run(path), digits, select=select)
        how = record.protocol
        return record.value, record.images_scored, how.get("images", how.get("views"))

    *_, row = (row for row in read_metrics(run) if row["kind"] == "epoch")
    assert scored(run) == (row["clean"]["effective_rank"], row["clean_images"], "not augmented")
    older = tmp_path / "older"  # its version measured two augmented views alone
    shutil.copytree(run, older)
    lines = [json.loads(line) for line in (older / "metrics.jsonl").read_text().splitlines()]
    lines[-1] = {k: v for k, v in lines[-1].items() if not k.startswith("clean")}
    later = lines[-1] | {"step": row["step"] + 1, "epoch": row["epoch"] + 1}
    later["measures"] = {"z": dict.fromkeys(row["measures"]["z"], 1.5)}
    text = "".join(f"{json.dumps(line)}\n" for line in (*lines, later))
    (older / "metrics.jsonl").write_text(text)
    of_views = (row["measures"]["z"]["effective_rank"], row["measured"], "two of each image")
    assert scored(older) == of_views


def test_on_a_terminal_a_study_is_a_table_that_says_how_far_it_is(tmp_path: Path) -> None:
    prepared, screen, text = instant.prepare(tmp_path / "s"), Screen(), io.StringIO()
    screen.console = Console(file=text, force_terminal=True, width=100, highlight=False)
    watch = StudyWatch(prepared, screen, jobs=2)
    with watch.shown():
        watch.tick()
        assert "mine, time left not known yet" in text.getvalue()
        run_study(prepared, instant.InstantExecutor(), watch=watch)
        watch._next = 0.0
        watch.tick()
    said = text.getvalue()
    assert "mine: 4 runs, 2 at once" in said
    assert re.search(r"mine, (done|about|at least)", said)
    assert re.search(r"b.*2/2", said)


def test_a_record_says_what_the_pretraining_came_to_and_what_it_cost(
    run: Path, digits: Dataset
) -> None:
    select = Selection(of=("encoder", "pixels"), metrics=("knn_accuracy",))
    encoder, pixels = evaluate_run(load_run(run), digits, select=select)
    assert encoder.verdict in ("healthy", "dimensional collapse", "complete collapse")
    assert encoder.train_s == 36.0
    assert encoder.energy is not None
    assert encoder.energy["kwh"] == pytest.approx(10 * 36 / 3.6e6)  # 10 W
    assert encoder.energy["source"] == "estimate"
    assert encoder.embed_s is not None
    assert 0 < encoder.embed_s < encoder.wall_s
    assert (pixels.verdict, pixels.train_s, pixels.energy) == (None, None, None)


def test_a_split_that_is_not_there_is_refused(run: Path, digits: Dataset) -> None:
    with pytest.raises(DataError, match="no images of digits to score"):
        list(
            evaluate_run(load_run(run), digits._replace(test=None), select=Selection(split="test"))
        )


def test_a_study_of_ones_own_goes_on_by_name_from_the_copy_in_its_directory(
    tmp_path: Path,
) -> None:
    file, out = tmp_path / "mine.yaml", tmp_path / "s"
    file.write_text(yaml.safe_dump(STUDY))
    choices = Choices("tiny", {}, (0,))
    first = prepare_study(str(file), choices, spec="mnist5k", out=out)
    file.unlink()
    again = prepare_study("mine", choices, spec="mnist5k", out=out)
    assert again.plan.runs == first.plan.runs
    assert again.changes == ()
    with pytest.raises(ConfigError, match="no study 'yours'"):
        prepare_study("yours", choices, spec="mnist5k", out=out)


def test_names_of_arms_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31m[red]x[/red]"
    print_line(f"arm {name}")
    Screen().line(f"arm {name}")
    printed = capsys.readouterr()
    assert printed.out == "arm \N{REPLACEMENT CHARACTER}[31m[red]x[/red]\n"
    assert printed.err[len("12:00:00  ") :] == printed.out
    text = io.StringIO()
    found = Overview((ArmState(name, 1, 1, 0, 0, 3, 1, None),), 1.0, ())
    Console(file=text, width=100).print(ArmsTable(name, found))
    assert "\x1b" not in text.getvalue()
    assert "[red]x[/red]" in text.getvalue()
    assert "3 (1 diverged)" in text.getvalue().replace("\N{NO-BREAK SPACE}", " ")
