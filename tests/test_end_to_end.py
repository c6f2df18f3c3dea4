"""From pictures in a folder to a report, through the command line."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from stopgrad.evaluation import SPACE
from tests.factories import write_digits
from tests.promises.process import Done, run_forked


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 real digits as PNG files: train/CLASS/*.png and test/CLASS/*.png."""
    return write_digits(tmp_path_factory.mktemp("pictures"), train=320, test=80)


def _run(*words: object) -> Done:
    done = run_forked(*words)
    assert done.code == 0, done.err
    assert not done.crashed
    return done


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    _run("pretrain", "--preset", "tiny", "--data", pictures, "--out", out)
    return out


def test_pictures_become_an_encoder_with_scores_and_a_report(whole: Path) -> None:
    done = _run("evaluate", whole, "--metrics", "knn_accuracy")
    assert "top-1 accuracy on 80 test images" in done.out
    assert "the pretrained encoder reaches" in done.out
    records = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    knn = {record["of"]: record["value"] for record in records}
    assert knn.keys() == {"encoder", "untrained", "pixels"}
    assert knn["pixels"] > 0.5  # digits are told apart by their pixels; chance is 0.1
    page = Path(_run("report", whole).out.removeprefix("report: ").strip()).read_text()
    assert f"{100 * knn['encoder']:.0f}{SPACE}%" in page  # 80 images: no decimals
    assert "digit 7" in page


def test_scores_on_other_pictures_are_kept_apart(whole: Path) -> None:
    words = ("--of", "pixels", "--metrics", "knn_accuracy")
    done = _run("evaluate", whole, "--data", "mnist5k", *words)
    [folder] = (whole / "elsewhere").iterdir()
    assert f"records go to {folder}" in done.err
    [line] = (folder / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["data"]["name"] == "mnist5k"
    own = whole / "records.jsonl"
    assert not own.exists() or "mnist5k" not in own.read_text()


def test_views_are_drawn(pictures: Path, tmp_path: Path) -> None:
    _run("views", "--data", pictures, "--out", tmp_path / "views.png", "--count", 3)
    with Image.open(tmp_path / "views.png") as picture:
        assert len(picture.getcolors(1 << 24) or []) > 50


def test_the_readmes_python_runs_as_it_stands(pictures: Path, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    code = code.replace('"mnist5k"', repr(str(pictures))).replace("epochs=5", "epochs=1")
    code += "first = scores[0]\n"
    code += 'print([run.metrics[-1]["knn"], first.metric, first.of, first.value, len(scores)])'
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1  loss -0." in done.stderr
    assert "top-1 accuracy on 80 test images" in done.stdout
    *_, last = done.stdout.splitlines()
    watched, metric, of, value, count = ast.literal_eval(last)
    assert (metric, of) == ("knn_accuracy", "encoder")
    assert watched == value  # the loop's own kNN
    lines = (tmp_path / "runs" / "digits" / "records.jsonl").read_text().splitlines()
    assert len(lines) == count >= 15  # 10 labels are too few for a probe with LARS
