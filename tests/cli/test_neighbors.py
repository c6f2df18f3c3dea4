"""Claims about `stopgrad neighbors`: of any picture, with and without labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.cli import main
from stopgrad.images import load_dataset
from stopgrad.runs import load_run
from tests.report.factories import brute_force, digits


def _saved(folder: Path, *, labelled: bool) -> Path:
    """80 digits as files, in folders of their class or all in one."""
    images = digits(train=80).train
    assert images.labels is not None
    for number, label in enumerate(images.labels.tolist()):
        place = folder / f"digit {label}" if labelled else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.pixels[number]).save(place / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A run of one epoch on labelled digits, and one on the same without labels."""
    folder, found = tmp_path_factory.mktemp("neighbors"), {}
    for labelled in (True, False):
        data = _saved(folder / f"data-{labelled}", labelled=labelled)
        out = folder / f"run-{labelled}"
        words = ["pretrain", "--preset", "tiny", "--epochs", "1", "--precision", "fp32"]
        words += ["--data", str(data), "--out", str(out)]
        assert main(words) == 0
        found[labelled] = out
    return found


def _json(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["neighbors", *map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_neighbours_of_files_are_those_of_a_full_sort(
    runs: dict[bool, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(runs[True])
    bank = load_dataset(run.info.data["spec"], side=run.info.config.image_side).train
    names = [bank.sources[3], bank.sources[60]]
    files = [Path(run.info.data["spec"]) / name for name in names]
    lines = _json(capsys, runs[True], "--query", *files)
    expected = brute_force(run, bank, bank.take(np.array([3, 60])))
    assert bank.labels is not None
    for line, file, name, near, index in zip(lines, files, names, *expected[:2], strict=True):
        assert (line["query"], line["class"]) == (str(file), None)
        assert line["neighbors"][0]["file"] == name  # the picture is in the bank itself
        found = {key: [one[key] for one in line["neighbors"]] for key in ("similarity", "index")}
        np.testing.assert_allclose(found["similarity"], near, atol=2e-5)
        assert sorted(found["index"]) == sorted(index.tolist())
        labels = [bank.class_names[label] for label in bank.labels[found["index"]]]
        assert [one["class"] for one in line["neighbors"]] == labels
        assert line["taken_for"] in bank.class_names


def test_a_picture_of_another_size_and_kind_is_decoded_as_data_are(
    runs: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = Path(load_run(runs[True]).info.data["spec"])
    small = next(iter(sorted(spec.rglob("*.png"))))
    with Image.open(small) as image:
        large = image.convert("L").resize((2 * image.width, 2 * image.height), 0)
        large.save(tmp_path / "large.tif")
    [line] = _json(capsys, runs[True], "--query", tmp_path / "large.tif")
    assert line["neighbors"][0]["file"] == str(small.relative_to(spec))


def test_without_labels_the_pictures_are_known_by_their_files(
    runs: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _json(capsys, runs[False], "--out", tmp_path / "grid.png")
    assert len(lines) == 20
    for line in lines:
        assert line["class"] is line["taken_for"] is None
        assert line["query"] not in [near["file"] for near in line["neighbors"]]
        assert len(line["neighbors"]) == 8
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.height > 20 * 96


def test_the_table_names_query_vote_and_neighbours(
    runs: dict[bool, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    query = next(iter(sorted(Path(load_run(runs[True]).info.data["spec"]).rglob("*.png"))))
    capsys.readouterr()
    assert main(["neighbors", str(runs[True]), "--query", str(query)]) == 0
    text = capsys.readouterr().out
    assert "8 nearest of 80 training images" in text
    assert "taken for" in text
    assert "1.000" in text  # the picture itself
    assert "k = 80" in text  # 200 asked for, 80 there


def test_what_is_no_picture_is_named_in_one_line(
    runs: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    query = ["--query", str(tmp_path / "text.png"), str(tmp_path / "missing.png"), str(tmp_path)]
    capsys.readouterr()
    assert main(["neighbors", str(runs[True]), *query]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in ("3 of 3 images", "text.png", "missing.png"))
    other = tmp_path / "other"
    shutil.copytree(load_run(runs[False]).info.data["spec"], other)
    next(iter(other.glob("*.png"))).unlink()
    assert main(["neighbors", str(runs[False]), "--data", str(other)]) == 3
    assert "fingerprint" in capsys.readouterr().err
