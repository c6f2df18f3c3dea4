"""Claims about `--log`: real trackers, offline, get what the run writes, and stop no run."""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stopgrad
from stopgrad.errors import ConfigError
from stopgrad.face.progress import Screen
from stopgrad.face.trackers import Mirror

KNOBS = {"preset": "tiny", "epochs": 2, "knn_every": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def data() -> Any:
    """Ninety images of three classes, twenty of them to test on."""
    generator = np.random.default_rng(0)
    labels = np.arange(110) % 3
    pixels = generator.integers(0, 200, (110, 12, 12, 3), dtype=np.uint8)
    return pixels, labels


def _trained(data: Any, out: Path, log: str | tuple[str, ...]) -> stopgrad.Run:
    pixels, labels = data
    return stopgrad.pretrain(
        stopgrad.load(pixels, labels=labels), out=out, log=log, batch=16, **KNOBS
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_every_number_of_the_epochs_and_the_images(
    data: Any, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = _trained(data, tmp_path / "run", "tensorboard")
    found = EventAccumulator(str(run.path / "tensorboard"))
    found.Reload()
    ranks = [(e.step, e.value) for e in found.Scalars("z/effective_rank")]
    assert ranks == [(r["step"], pytest.approx(r["z.effective_rank"])) for r in run.metrics]
    losses = [e.value for e in found.Scalars("loss")]
    assert losses[-1] == pytest.approx(run.metrics[-1]["loss"], rel=1e-5)
    assert set(found.Tags()["images"]) == {"views", "neighbors"}
    assert any(
        "views.size" in e.tensor_proto.string_val[0].decode()
        for e in found.Tensors("config/text_summary")
    )


def test_mlflow_holds_numbers_parameters_and_images_and_a_resumed_run_stays_one(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    run = _trained(data, tmp_path / "run", "mlflow")
    run.resume(extend=3, log="mlflow")
    (found,) = mlflow.search_runs(experiment_names=["stopgrad"], output_format="list")
    client = mlflow.MlflowClient()
    ranks = client.get_metric_history(found.info.run_id, "z.effective_rank")
    assert [(m.step, m.value) for m in sorted(ranks, key=lambda m: m.step)] == [
        (r["step"], r["z.effective_rank"]) for r in run.metrics
    ]
    assert found.data.params["views.size"] == "16"
    assert {a.path for a in client.list_artifacts(found.info.run_id)} == {
        "views.png",
        "neighbors.png",
    }


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_take_the_lines_offline(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_X_SERVICE_WAIT", "200")  # s; its 30 are too few on a loaded machine
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip(name)
    run = _trained(data, tmp_path / "run", name)
    assert len(run.metrics) == 2
    written = [p for p in tmp_path.rglob("*") if p.is_file() and run.path not in p.parents]
    assert written
    everything = b"".join(p.read_bytes() for p in written)
    # Of three layers and two epochs; a file in blocks may cut a name in two.
    assert everything.count(b"effective_rank") >= 4


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tracker that keeps what it gets, in `logged`."""
    module: Any = types.ModuleType("trackio")
    module.__spec__ = importlib.machinery.ModuleSpec("trackio", None)
    module.begun, module.logged = [], []
    module.init = lambda **of: module.begun.append(of)
    module.log = lambda values, step: module.logged.append((step, values))
    module.Image = lambda image: image
    module.finish = lambda: None
    monkeypatch.setitem(sys.modules, "trackio", module)
    return module


@pytest.mark.parametrize(
    ("part", "lacking"),
    [
        ("stopgrad.report.neighbor_examples", "images"),
        ("stopgrad.face.trackers.Mirror._new_rows", "metrics"),
    ],
)
def test_what_cannot_be_read_or_drawn_for_trackers_is_said_and_the_run_ends_well(
    data: Any,
    tmp_path: Path,
    trackio: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: str,
    lacking: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(part, fail)
    assert len(_trained(data, tmp_path / "run", "trackio").metrics) == 2
    assert f"trackers lack {lacking}: no room; the run goes on" in capsys.readouterr().err
    steps = {step for step, values in trackio.logged if "loss" in values}
    images = [name for _, values in trackio.logged for name in values.keys() & {"views"}]
    assert (bool(steps), images) == (lacking == "images", ["views"])


def test_a_finished_run_that_is_resumed_starts_no_tracker(
    data: Any, tmp_path: Path, trackio: Any
) -> None:
    run = _trained(data, tmp_path / "run", ())
    run.resume(log="trackio")
    assert (trackio.begun, trackio.logged) == ([], [])
    run.resume(log="trackio", extend=3)
    assert len(trackio.begun) == 1


def test_a_tracker_that_fails_is_said_and_the_run_ends_well(
    data: Any, tmp_path: Path, trackio: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(**_: Any) -> None:
        raise SystemError("no disk\nfor you")

    trackio.init = init
    run = _trained(data, tmp_path / "run", "trackio")
    assert len(run.metrics) == 2
    assert "trackio is left out: no disk; the run goes on" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "said"), [("nothing", "nothing"), ("mlfow", "mlflow")])
def test_an_unknown_tracker_is_refused_before_training(
    data: Any, tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        _trained(data, tmp_path / "run", name)
    assert not (tmp_path / "run").exists()


def test_lines_that_a_resumed_run_has_cut_and_written_again_are_logged_from_whole_lines_on(
    tmp_path: Path,
) -> None:
    rows = [json.dumps({"kind": "step", "step": step, "loss": 0.5}) + "\n" for step in range(6)]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(rows[:4]))
    mirror = Mirror((), tmp_path, Screen())
    longer = rows[2].replace("0.5", "0.123456")  # steps 2 and on are taken again
    file.write_text("".join([*rows[:2], longer, *rows[3:]]))
    assert [row["step"] for row in mirror._new_rows()] == [4, 5]
    assert mirror._new_rows() == []
    file.write_text(rows[0])
    assert mirror._new_rows() == []
