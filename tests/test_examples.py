"""The examples run as they stand, learn something, and do what the library does."""

import ast
import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

import stopgrad
from stopgrad.config import preset
from stopgrad.images import Images, load_dataset
from stopgrad.runs import prepare
from stopgrad.training import pretrain_epochs
from tests.factories import write_digits

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = runpy.run_path(str(EXAMPLES / "simsiam_on_one_page.py"))


@pytest.fixture(scope="module")
def digits() -> Images:
    """640 of the embedded digits: 20 steps of the preset tiny."""
    return load_dataset("mnist5k").train.take(np.arange(640))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 digits as PNG files: train/CLASS/*.png and test/CLASS/*.png."""
    return write_digits(tmp_path_factory.mktemp("digits"), train=320, test=80)


def _execute(notebook: Path, **settings: Any) -> list[Any]:
    """Runs the cells of a notebook in order; returns what each that ends in a value shows.

    The settings replace those that the first cell of code makes. A kernel would do the same with
    37 packages more (docs/log.md).
    """
    scope: dict[str, Any] = {}
    shown = []
    cells = json.loads(notebook.read_text())["cells"]
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, notebook.name, "exec"), scope)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), notebook.name, "eval"), scope))
        if number == 0:
            assert settings.keys() <= scope.keys()
            scope.update(settings)
    return shown


def _numbers(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, text)]


def test_simsiam_on_one_page_learns_to_tell_digits_apart(capsys: pytest.CaptureFixture) -> None:
    PAGE["main"](["--preset", "tiny", "--epochs", "2"])
    printed = capsys.readouterr().out
    first, last = _numbers(r"loss (-\d\.\d+)", printed)
    assert last < first - 0.1
    assert -0.6 < last < -0.4  # without the stop-gradient it is below -0.8
    [knn] = _numbers(r"digits: (\d+\.\d)%", printed)
    assert knn > 50  # chance is 10 %


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_page_takes_the_steps_of_the_library_bit_for_bit(
    digits: Images, stop_gradient: bool
) -> None:
    changes = {"epochs": 2, "precision": "fp32", "device": "cpu", "threads": 1}
    config = preset("tiny", stop_gradient=stop_gradient, **changes)
    model, losses = PAGE["train"](digits, config)
    dataset = load_dataset("mnist5k")._replace(train=digits)
    *_, last = epochs = list(pretrain_epochs(prepare(dataset, config), config))
    assert losses == [epoch.loss for epoch in epochs]
    theirs = last.model.state_dict()
    assert theirs.keys() == model.state_dict().keys()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


def test_own_images_become_features_neighbours_scores_and_a_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, query = tmp_path / "run", next(folder.glob("train/digit 7/*.png"))
    main = runpy.run_path(str(EXAMPLES / "own_images.py"))["main"]
    main(
        [str(folder), "--out", str(out), "--preset", "tiny", "--epochs", "3", "--query", str(query)]
    )
    printed = capsys.readouterr().out
    assert "320 images" in printed or "320 pictures" in printed

    run = stopgrad.Run(out)
    losses = [row["loss"] for row in run.metrics]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    table = parquet.read_table(out / "features.parquet")
    assert table.num_rows == 400
    features = np.stack(table["features"].to_numpy(zero_copy_only=False))
    np.testing.assert_array_equal(features, run.embed())
    assert "1.000" in printed  # the query is itself a training image
    knn = {row["of"]: row["value"] for row in run.records if row["metric"] == "knn_accuracy"}
    assert knn["encoder"] > 0.3  # of ten classes
    assert "<svg" in (out / "report.html").read_text()


def test_the_notebook_of_own_parts_ranks_what_it_trains(folder: Path, tmp_path: Path) -> None:
    settings = {"preset": "tiny", "epochs": 1, "knn_every": 0}
    notebook = EXAMPLES / "own_parts.ipynb"
    shape, states, ranking = _execute(
        notebook, DATA=str(folder), SETTINGS=settings, OUT=str(tmp_path)
    )
    assert shape == (2, 64)
    assert len(states) == 2
    found = {Path(row["run"]).name: row["measures"]["retrieval"] for row in ranking.rows}
    assert found.keys() == {"preset", "own"}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    config = stopgrad.Run(tmp_path / "own").config
    assert config.encoder.name.startswith("own:Plain:")
    assert config.views.own == "own:shifted_and_noisy"


def test_the_notebook_runs_and_shows_what_it_says(folder: Path, tmp_path: Path) -> None:
    notebook = EXAMPLES / "quickstart.ipynb"
    settings = {"preset": "tiny", "epochs": 2}
    shown = _execute(notebook, DATA=str(folder), SETTINGS=settings, OUT=str(tmp_path / "run"))
    data, run, verdict, rows, scores, features, near, page = shown
    assert len(data) == 400
    assert "epoch 2 of 2" in repr(run)
    assert verdict.state == rows[-1][2]
    assert [row[0] for row in rows] == [1, 2]
    assert rows[1][1] < rows[0][1] < 0
    assert len(scores) == 2 * 2 * 3  # fractions x metrics x subjects
    assert "kNN" in repr(scores)
    assert "kNN" in scores._repr_html_()
    assert max(r.value for r in scores if r.of == "encoder") > 0.3  # of ten classes
    assert features[0] == 400
    assert near.queries[0].neighbors[0].similarity > 0.5
    assert page.stat().st_size > 100_000


@pytest.mark.parametrize("name", ["quickstart", "own_parts"])
def test_the_notebooks_are_kept_without_output(name: str) -> None:
    cells = json.loads((EXAMPLES / f"{name}.ipynb").read_text())["cells"]
    assert [c["outputs"] for c in cells if c["cell_type"] == "code" and c["outputs"]] == []


def test_own_parts_train_and_become_a_graph_of_onnx(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = runpy.run_path(str(EXAMPLES / "own_parts.py"))
    out = tmp_path / "own"
    example["main"](["--out", str(out), "--preset", "tiny", "--epochs", "2"])
    printed = capsys.readouterr().out
    run = stopgrad.Run(out)
    losses = [row["loss"] for row in run.metrics]
    assert losses[1] < losses[0]
    assert f"after epoch 2: loss {losses[1]:.3f}" in printed
    assert run.config.encoder.name.startswith("own:SmallEncoder:")
    assert run.encoder(torch.zeros(2, 3, 32, 32)).shape == (2, 32)
    assert (out / "encoder.onnx").stat().st_size > 0
