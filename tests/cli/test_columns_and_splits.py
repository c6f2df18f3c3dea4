"""Columns that the user names and splits that the data have, from the data set to the record."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stopgrad
from stopgrad.cli import main
from tests.images.factories import TARGETS, cells


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits: 60 to learn from, a test split without labels, two others with some."""
    root = tmp_path_factory.mktemp("digits")
    splits = {"train": (0, 60), "test": (60, 70), "val": (70, 90), "contrast": (90, 120)}
    for name, (start, stop) in splits.items():
        digits = [-1] * 10 if name == "test" else [int(TARGETS[row]) for row in range(start, stop)]
        columns = {"image": cells(range(start, stop)), "label": digits}
        odd = pa.array([None if name == "test" else digit % 2 == 1 for digit in digits])
        table = pa.table({**columns, "is odd": odd, "thumbnail": cells(range(start, stop))})
        pq.write_table(table, root / f"{name}-00000-of-00001.parquet")
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["--preset", "tiny", "--epochs", "1", "--label-column", "is odd"]
    assert main(["pretrain", "--data", str(root), "--out", str(out), *words]) == 0
    return out


def scores(capsys: pytest.CaptureFixture[str], run: Path, *words: str) -> list[tuple[str, int]]:
    capsys.readouterr()
    chosen = ("--of", "encoder", "--metrics", "knn_accuracy", "--json")
    assert main(["evaluate", str(run), *chosen, *words]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(len(record["per_class"]) == 2 for record in records)
    return [(record["split"], record["images_scored"]) for record in records]


@pytest.mark.input("command", what="--label-column NAME", happens="stored in the run")
def test_a_run_keeps_the_columns_that_were_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((run / "config.json").read_bytes())
    assert config["config"]["label_column"] == "is odd"
    assert config["data"]["class_names"] == ["False", "True"]
    assert scores(capsys, run) == [("validation", 20)]
    assert main(["resume", str(run), "--extend", "2"]) == 0
    assert main(["resume", str(run), "--extend", "3", "--label-column", "label"]) == 3
    assert "data.fingerprint" in capsys.readouterr().err


def test_any_split_of_the_data_is_scored_and_recorded_by_its_name(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scores(capsys, run, "--split", "validation") == [("validation", 20)]
    assert scores(capsys, run, "--split", "val") == [("val", 20)]
    assert scores(capsys, run, "--split", "contrast") == [("contrast", 30)]
    assert scores(capsys, run, "--split", "contrast", "--missing") == []


@pytest.mark.parametrize(
    ("split", "code", "said"),
    [
        ("test", 3, "{} without labels on the test split (the labels of test are all hidden"),
        ("train", 2, "split = 'train', which is trained on; expected one of auto, test, valid"),
        ("contrasts", 2, "split = 'contrasts' (did you mean contrast?); expected one of auto, "),
    ],
)
def test_a_split_that_cannot_be_scored_is_refused_with_the_reason(
    root: Path, run: Path, capsys: pytest.CaptureFixture[str], split: str, code: int, said: str
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--split", split]) == code
    assert said.format(root.name) in capsys.readouterr().err


def test_images_that_a_run_holds_out_are_its_validation_images(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    knobs = {"validation": 0.25, "label_column": "is odd", "preset": "tiny", "epochs": 1}
    found = stopgrad.pretrain(root, out=tmp_path / "run", **knobs)
    assert scores(capsys, found.path, "--split", "validation") == [("validation", 15)]
    assert scores(capsys, found.path) == [("test", 20)]


def test_data_loaded_by_a_column_are_learned_from_by_it(root: Path, tmp_path: Path) -> None:
    data = stopgrad.load(root, label_column="is odd", image_column="thumbnail")
    assert data.dataset.train.class_names == ("False", "True")
    config = stopgrad.pretrain(data, out=tmp_path / "run", preset="tiny", epochs=1).config
    assert (config.label_column, config.image_column) == ("is odd", "thumbnail")
    assert stopgrad.Run(tmp_path / "run").evaluate(of="encoder", metrics="knn_accuracy").rows


def test_other_images_are_scored_by_the_column_that_they_were_loaded_by(
    root: Path, run: Path, tmp_path: Path
) -> None:
    data = stopgrad.load(root, label_column="label")  # the run's is 'is odd'
    found = stopgrad.Run(run).evaluate(data=data, of="encoder", metrics="knn_accuracy")
    assert [len(record.per_class) for record in found] == [10]
    [tuned] = stopgrad.Run(run).finetune(
        0.5, data=data, out=tmp_path, finetune={"epochs": 1, "batch": 32}
    )
    assert tuned.config["label_column"] == "label"
    assert len(tuned.per_class) == 10


def test_what_was_said_of_data_holds_for_every_run_of_a_study_on_them(root: Path) -> None:
    data = stopgrad.load(root, label_column="is odd", image_column="thumbnail")
    assert data.reading_knobs == {"label_column": "is odd", "image_column": "thumbnail"}
    assert stopgrad.load(root).reading_knobs == {}


def test_a_store_keeps_the_labels_of_the_column_that_was_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pack", str(root), "--out", str(tmp_path / "store"), "--side", "8"]
    assert main([*words, "--label-column", "is odd"]) == 0
    assert main([*words, "--label-column", "label"]) == 3  # the store of other labels
    assert stopgrad.load(tmp_path / "store").dataset.train.class_names == ("False", "True")


def test_check_data_names_every_image_and_label_that_is_not_used(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["check-data", str(root), "--preset", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == {"train": 60, "test": 20}
    names = [name for group in told["unused"] for name in group["names"]]
    assert len(names) == 40
    assert "test-00000-of-00001.parquet:9" in names
    assert "'val' is scored, as no label of 'test' can be used" in told["remarks"]
    assert "--image-column takes 'thumbnail' instead" in told["remarks"][0]


def test_embed_says_which_images_it_leaves_out(
    root: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for more in ((), ("--data", str(root))):
        assert main(["embed", str(run), "--out", str(tmp_path / "features.npy"), *more]) == 0
        err = capsys.readouterr().err
        assert "done: 80 images" in err  # train and val
        assert "not used: 30 images" in err
        assert "in split 'contrast', which is neither trained on nor scored" in err
