"""Claims about the public face: what Python gets is what the command line writes."""

import base64
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image
from rich.console import Console

import stopgrad
from stopgrad.cli import main
from stopgrad.cli.parser import parse
from stopgrad.config import config_from_dict, preset
from stopgrad.errors import CheckpointError, ConfigError, DataError, InterruptedRunError
from stopgrad.evaluation import SPACE, embed
from stopgrad.export import SimSiamEmbedder
from stopgrad.face.progress import Screen
from stopgrad.face.tables import Scores
from stopgrad.images import Dataset, images_from_arrays, load_dataset
from stopgrad.runs import read_run
from stopgrad.storage import Finding
from tests.factories import record, write_digits
from tests.report.pages import write_run
from tests.runs.factories import edit

SHORT = {"preset": "tiny", "epochs": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 real digits as PNG files: train/CLASS/*.png and test/CLASS/*.png."""
    return write_digits(tmp_path_factory.mktemp("pictures"), train=160, test=40)


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> stopgrad.Run:
    """A tiny run of two epochs, scored once."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    found = stopgrad.pretrain(stopgrad.load(pictures), out=out, **SHORT)
    found.evaluate([1, 0.5])
    return found


@pytest.mark.parametrize("of", ["encoder", "supervised"])
def test_scores_of_uneven_classes_show_the_balanced_accuracy(of: str) -> None:
    values = {"of": of, "images_scored": 100, "split": "test"}
    named = {"encoder": "knn_accuracy", "supervised": "supervised_accuracy"}[of]
    even = Scores([record(metric=named, value=0.9, **values)])
    assert [row[2].text for row in even.tables[0].rows] == [f"90{SPACE}%"]
    uneven = Scores([record(metric=named, value=0.9, balanced=0.55, majority=0.85, **values)])
    rows = [[cell.text for cell in row] for row in uneven.tables[0].rows]
    assert [row[1].partition(", ")[2] for row in rows] == ["", "balanced"]
    assert [row[2] for row in rows] == [f"90{SPACE}%", f"55{SPACE}%"]
    caption = "top-1 accuracy on 100 test images"
    assert even.tables[0].caption == caption
    assert uneven.tables[0].caption == f"{caption}, 85{SPACE}% of them in the largest class"
    assert not any(line == "" for line in uneven.lines)


def test_evaluating_other_images_says_what_became_of_their_labels(
    run: stopgrad.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_digits(tmp_path / "other", train=40, test=20)
    strange = sorted((other / "test").iterdir())[0]
    strange.rename(other / "test" / "strange")
    run.evaluate(data=other, out=tmp_path / "out", of="encoder", metrics="knn_accuracy")
    assert "'strange' is not in train" in capsys.readouterr().err


def test_importing_takes_no_torch_and_every_name_is_there() -> None:
    code = (
        "import stopgrad, sys\n"
        "assert not {'torch', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert all(callable(getattr(stopgrad, name)) for name in stopgrad.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_data_set_says_what_it_holds(pictures: Path) -> None:
    data = stopgrad.load(pictures)
    assert len(data) == 200
    assert repr(data).startswith(
        f"<Data {str(pictures)!r}: 160 images to train on, 40 to test on, 28 x 28 px; 10 classes "
        "('digit 0'"
    )


def test_images_that_no_size_changes_are_decoded_once(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = stopgrad.load(pictures)
    monkeypatch.setattr("stopgrad.images.load.find_source", None)  # nothing is read from here on
    assert data.dataset is stopgrad.load(data).dataset
    for name in ("tiny", "cifar", "imagenet"):
        dataset = data.stored_for(preset(name), None)  # type: ignore[arg-type]
        assert dataset.train is data.dataset.train


def test_images_that_training_wants_smaller_are_read_again(tmp_path: Path) -> None:
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (60, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    data = stopgrad.load(tmp_path)
    assert data.dataset.train.pixels.shape == (3, 60, 50, 3)
    stored = data.stored_for(preset("tiny"), Screen())
    wanted = load_dataset(str(tmp_path), side=preset("tiny").image_side)
    assert stored.train.pixels.shape == (3, 32, 32, 3)
    assert stored.train.fingerprint == wanted.train.fingerprint


@pytest.fixture(scope="module")
def other(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by the command line, not scored yet."""
    out = tmp_path_factory.mktemp("runs") / "other"
    words = ["pretrain", "--data", str(pictures), "--out", str(out)]
    assert main([*words, "--preset", "tiny", "--epochs", "2"]) == 0
    return out


def test_a_run_of_python_is_that_of_the_command_line(
    run: stopgrad.Run, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = run.records
    assert main(["evaluate", str(other), "--labels", "1", "0.5", "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    same = stopgrad.Run(other)
    assert same.records == printed
    assert [_lasting(row) for row in printed] == [_lasting(row) for row in scored]
    config = json.loads((run.path / "config.json").read_text())
    assert config == json.loads((other / "config.json").read_text())
    assert [row["loss"] for row in same.steps] == [row["loss"] for row in run.steps]


def _lasting(row: dict[str, object]) -> dict[str, object]:
    """A record without what another minute changes."""
    passing = ("time", "wall_s", "embed_s", "train_s", "energy")
    return {key: value for key, value in row.items() if key not in passing}


def test_records_are_the_lines_of_the_run_and_a_frame_of_pandas(run: stopgrad.Run) -> None:
    lines = (run.path / "records.jsonl").read_text().splitlines()
    assert json.loads(json.dumps(run.records)) == [json.loads(line) for line in lines]
    frame = pandas.DataFrame(run.records)
    assert len(frame) == 2 * 3 * 4
    assert frame.groupby("of")["value"].max()["pixels"] > 0.5  # digits are told by their pixels


def test_metrics_are_a_flat_row_per_epoch(run: stopgrad.Run) -> None:
    first, last = run.metrics
    assert (first["epoch"], last["epoch"]) == (1, 2)
    assert last["step"] == 10  # 2 epochs x 160 images / 32
    assert not any(isinstance(value, (dict, list)) for value in last.values())
    losses = [row["loss"] for row in run.steps]
    assert len(losses) == 10
    assert last["loss"] == pytest.approx(sum(losses[5:]) / 5)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert last["z.effective_rank"] == rows[-1]["measures"]["z"]["effective_rank"]
    assert run.verdict is not None
    assert run.verdict._asdict() == rows[-1]["verdict"]
    assert last["verdict"] == run.verdict.state


def test_rows_are_frames_of_polars_too(run: stopgrad.Run) -> None:
    polars = pytest.importorskip("polars")
    for rows in (run.records, run.metrics, run.steps):
        frame = polars.DataFrame(rows)
        assert frame.height == len(rows)
        assert set(frame.columns) == {key for row in rows for key in row}
    assert polars.DataFrame(run.metrics)["loss"].to_list() == [row["loss"] for row in run.metrics]


def test_a_run_that_a_callback_has_stopped_is_unlocked_while_its_error_is_kept(
    tmp_path: Path,
) -> None:
    """A notebook keeps the traceback, and with it all frames."""

    def stop(epoch: stopgrad.Epoch) -> None:
        raise RuntimeError("enough")

    knobs = {"preset": "tiny", "epochs": 2, "knn_every": 0}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="enough") as kept:
        stopgrad.pretrain("mnist5k", out=tmp_path / "run", on_epoch=stop, **knobs)
    assert signal.getsignal(signal.SIGINT) is before
    stopgrad.Run(tmp_path / "run").resume()
    assert len(stopgrad.Run(tmp_path / "run").metrics) == 2
    assert kept.value.args == ("enough",)


def test_a_report_on_other_images_than_the_runs_is_refused(run: stopgrad.Run) -> None:
    with pytest.raises(DataError, match="fingerprint"):
        run.report(data="mnist5k")


def test_a_signal_leaves_a_line_of_what_the_epoch_has_cost(tmp_path: Path) -> None:
    def stop(epoch: stopgrad.Epoch) -> None:
        signal.raise_signal(signal.SIGTERM)

    knobs = {"preset": "tiny", "epochs": 2, "knn_every": 0}
    with pytest.raises(InterruptedRunError):
        stopgrad.pretrain("mnist5k", out=tmp_path / "run", on_epoch=stop, **knobs)
    assert len((tmp_path / "run" / "costs.jsonl").read_text().splitlines()) == 2


def test_a_restart_goes_on_with_a_run_of_its_own_settings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun starts its processes anew when one fails, also where the place was taken."""

    def stop(epoch: stopgrad.Epoch) -> None:
        raise RuntimeError("enough")

    knobs = {"preset": "tiny", "epochs": 2, "knn_every": 0}
    with pytest.raises(RuntimeError, match="enough"):
        stopgrad.pretrain("mnist5k", out=tmp_path / "run", on_epoch=stop, **knobs)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(ConfigError, match="exists"):
        stopgrad.pretrain("mnist5k", out=tmp_path / "run", **(knobs | {"epochs": 3}))
    run = stopgrad.pretrain("mnist5k", out=tmp_path / "run", **knobs)
    assert [row["epoch"] for row in run.metrics] == [1, 2]


def test_a_place_that_is_taken_is_refused_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    monkeypatch.setattr("stopgrad.face.data.Data.stored_for", None)
    with pytest.raises(ConfigError, match="exists"):
        stopgrad.pretrain("mnist5k", out=tmp_path / "run", preset="tiny")


@pytest.mark.parametrize(
    "call",
    [
        lambda out: stopgrad.pretrain("mnist5k", out=out, preset="tiny", on_epoch=3),
        lambda out: stopgrad.pretrain("mnist5k", out=out, config={"epochs": 1}),
        lambda out: stopgrad.supervised("mnist5k", out=out, preset="tiny", labels="abc"),
        lambda out: stopgrad.load("mnist5k", bands=[4, 3, 2]),
        lambda out: stopgrad.load("mnist5k", white_level="abc"),
        lambda out: stopgrad.pack("mnist5k", out, bad_images="zz"),
        lambda out: stopgrad.study("labels", data="mnist5k", out=out, seeds=[]),
        lambda out: stopgrad.study("labels", data="mnist5k", out=out, seeds="ab"),
        lambda out: SimSiamEmbedder("tiny", config={"seed": 5}).fit(
            np.zeros((64, 16, 16, 3), "u1")
        ),
    ],
)
def test_arguments_of_another_kind_are_one_error_before_any_work(
    call: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        call(tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_numbers_of_numpy_and_sections_are_knobs() -> None:
    section = preset("cpu").optimizer
    found = config_from_dict(
        {"epochs": np.int64(3), "optimizer": section, "views.crop_min": np.float32(0.5)}
    )
    assert (found.epochs, found.optimizer, found.views.crop_min) == (3, section, 0.5)


def test_what_load_said_of_damaged_images_counts_for_training(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(70):
        pixels = chance.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "99.png").write_bytes((folder / "00.png").read_bytes()[:200])
    data = stopgrad.load(folder, bad_images="skip")
    run = stopgrad.pretrain(data, out=tmp_path / "run", preset="tiny", epochs=1)
    assert run.config.bad_images == "skip"
    assert len(stopgrad.pack(data, tmp_path / "store")) == 70
    assert data.reading_knobs == {"bad_images": "skip"}  # of a study too
    made = stopgrad.views(data, out=tmp_path / "new" / "views.png", count=2)
    assert made.exists()


def test_the_next_step_of_a_run_without_labels_is_commands_that_exist(tmp_path: Path) -> None:
    told = stopgrad.Run(write_run(tmp_path / "run", names=())).next_step
    commands = re.findall(r"with: (stopgrad .+)", told)
    found = [parse(shlex.split(command)[1:]).command.__module__ for command in commands]
    names = ("report", "neighbors", "embed", "compare", "evaluate")
    assert found == [f"stopgrad.cli.{name}" for name in names]


def test_scores_name_the_epoch_of_the_encoder_whatever_comes_first(run: stopgrad.Run) -> None:
    pixels, encoder = (
        next(record for record in run._records() if record.of == of) for of in ("pixels", "encoder")
    )
    assert Scores([pixels, encoder]).lines[-1].endswith("protocols: --json; epoch 2")
    assert Scores([pixels]).lines[-1].endswith("protocols: --json")


def test_bars_move_in_a_notebook_without_more_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Place:
        def update(self, bars: Any, raw: bool = False) -> None:
            shown.append(bars["text/plain"] if raw else bars._repr_mimebundle_([], [])["text/html"])

    notebook = types.ModuleType("IPython.display")
    notebook.display = lambda bars, display_id: Place()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    monkeypatch.setattr("stopgrad.face.progress.REDRAW", -1.0)
    screen = Screen()
    screen.console = Console(force_jupyter=True)
    with screen.progress():
        assert [*screen.track("abc", "letters", 3)] == ["a", "b", "c"]
    counts = [found[1] for page in shown if (found := re.search(r"(\d)/3", page))]
    assert [*dict.fromkeys(counts)] == ["0", "1", "2", "3"]
    assert "elapsed" in shown[0]
    assert shown[-1] == ""


def test_a_run_shows_itself_in_a_notebook_with_its_scores(run: stopgrad.Run) -> None:
    page = run._repr_html_()
    assert page.startswith("<p>&lt;Run ")
    assert "<table" in page
    assert stopgrad.Run(str(run.path))._repr_html_() == page


def test_a_run_shows_how_it_stands(run: stopgrad.Run) -> None:
    text = repr(stopgrad.Run(run.path))
    assert "finished, epoch 2 of 2, kNN " in text
    assert f"{len(run.records)} records" in text


def test_a_network_trained_with_labels_is_no_run_to_open(pictures: Path, tmp_path: Path) -> None:
    stopgrad.supervised(pictures, out=tmp_path, preset="tiny", epochs=1)
    with pytest.raises(CheckpointError, match="trained with labels"):
        stopgrad.Run(tmp_path / "supervised" / "share-1")


def test_scores_show_themselves_as_a_table(run: stopgrad.Run) -> None:
    scores = run.evaluate(of=["pixels"], metrics=["knn_accuracy"])
    (record,) = scores
    assert scores.rows == run.records[-1:]
    assert "top-1 accuracy on 40 test images" in repr(scores)
    assert f"{100 * record.value:.0f}" in repr(scores)
    assert scores._repr_html_().startswith("<table")
    assert run.evaluate(of=["pixels"], metrics=["knn_accuracy"], missing=True).rows == []


def test_each_record_is_on_disk_when_it_is_handed_over(run: stopgrad.Run) -> None:
    seen = []
    scores = run.evaluate(
        of=["pixels"], each=lambda record: seen.append((record, run.records[-1]["metric"]))
    )
    assert [(record, record.metric) for record in scores] == seen


def test_an_encoder_that_is_not_that_of_the_weights_is_never_built(
    run: stopgrad.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 4,000,000,000 parameters, as a run of somebody else may name it."""
    theirs = Path(shutil.copytree(run.path, tmp_path / "theirs"))
    for path in (theirs / "config.json", *theirs.glob("checkpoints/*/config.json")):
        edit(path, "config.encoder.name", "timm:eva02_enormous_patch14_clip_224")
    for path in theirs.glob("checkpoints/*/manifest.json"):  # sealed as ours is
        data = (path.parent / "config.json").read_bytes()
        sums = json.loads(path.read_text())["sha256"] | {"config.json": sha256(data).hexdigest()}
        edit(path, "sha256", sums)
    monkeypatch.setattr("stopgrad.runs.setup.size_problems", None)
    for use in (lambda: stopgrad.Run(theirs).evaluate(), lambda: stopgrad.Run(theirs).neighbors()):
        with pytest.raises(CheckpointError, match="does not fit the run"):
            use()


def test_features_come_back_or_go_to_a_file(run: stopgrad.Run, tmp_path: Path) -> None:
    features = run.embed()
    made = run.embed(out=tmp_path / "features.npy")
    assert made.rows == 200
    assert np.array_equal(features, np.load(tmp_path / "features.npy"))
    trained, images = run.trained(), run.own_images(None, Screen())
    own = embed(
        run.encoder,
        images.train,
        normalization=trained.info.normalization,
        compute=trained.compute._replace(precision="fp32"),
    )
    assert np.allclose(features[:160], own.values.numpy(), atol=1e-5)


def test_the_nearest_of_a_training_image_is_itself(run: stopgrad.Run, pictures: Path) -> None:
    file = sorted((pictures / "train" / "digit 3").iterdir())[0]
    found = run.neighbors(file)
    (row,) = found.rows
    assert row["query"] == str(file)
    assert row["neighbors"][0]["file"] == f"digit 3/{file.name}"
    assert row["neighbors"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert "nearest of 160 training images" in repr(found)
    assert found._repr_png_().startswith(b"\x89PNG")
    drawing, table = found._repr_html_().split("\n", maxsplit=1)
    assert base64.b64encode(found._repr_png_()).decode() in drawing
    assert table.startswith("<table")


def test_whatever_takes_the_path_of_a_run_takes_a_run(run: stopgrad.Run, tmp_path: Path) -> None:
    assert stopgrad.Run(run).path == run.path
    assert stopgrad.verify(run) == stopgrad.verify(run.path) == run.verify()
    for runs in (run, [run], str(run.path)):
        assert stopgrad.write_report(runs, out=tmp_path / "page.html").page.stat().st_size > 1000
        assert [row["run"] for row in stopgrad.compare(runs).rows] == [str(run.path)]


def test_every_finding_is_handed_over_before_damage_is_an_error(
    run: stopgrad.Run, tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    next((damaged / "checkpoints").glob("*/model.safetensors")).write_bytes(b"no")
    seen: list[Finding] = []
    with pytest.raises(CheckpointError, match=f"1 of {len(stopgrad.verify(run))} files"):
        stopgrad.verify(damaged, each=seen.append)
    assert [finding.file.rpartition("/")[2] for finding in seen if not finding.ok] == [
        "model.safetensors"
    ]


def test_a_choice_that_does_not_exist_is_refused_before_anything_is_read(
    run: stopgrad.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stopgrad.images.load.find_source", None)
    calls: dict[str, Callable[[], object]] = {
        "of = 'me'": lambda: run.evaluate(of="me"),
        "metrics = 'knn'": lambda: run.evaluate(metrics="knn"),
        "layer = 'p'": lambda: run.embed(layer="p"),
        "bad_images = 'no'": lambda: stopgrad.load("mnist5k", bad_images="no"),
        "format = 'pickle'": lambda: run.export("pickle", tmp_path / "a.pkl"),
        "by = 'loss'": lambda: stopgrad.compare(run, by="loss"),
        "no run given": lambda: stopgrad.compare([]),
        "no run or directory": lambda: stopgrad.write_report([]),
    }
    for said, call in calls.items():
        with pytest.raises(ConfigError, match="^" + re.escape(said)):
            call()
    assert not any(tmp_path.iterdir())


def test_a_split_that_the_data_do_not_have_is_refused(run: stopgrad.Run) -> None:
    with pytest.raises(ConfigError, match=r"^split = 'tset' \(did you mean test\?\)"):
        run.evaluate(split="tset")


def test_nothing_that_a_caller_passes_is_silently_ignored(
    run: stopgrad.Run, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="both epochs and a config"):
        stopgrad.pretrain(pictures, out=tmp_path / "x", config=run.config, epochs=1)
    for data in (pictures, stopgrad.load(pictures)):
        with pytest.raises(ConfigError, match="labels or class_names for"):
            stopgrad.load(data, labels=[0] * 200)
    with pytest.raises(ConfigError, match="bands for images that were already read"):
        stopgrad.load(stopgrad.load(pictures), bands="1")
    with pytest.raises(ConfigError, match=r"^argument = 'band' \(did you mean bands\?\)"):
        stopgrad.load(pictures, band="1")
    with pytest.raises(ConfigError, match=r"^argument = 'epochs'; expected one of image_column"):
        stopgrad.pack(pictures, tmp_path / "x", epochs=1)
    assert not (tmp_path / "x").exists()


def test_data_that_was_loaded_stands_for_its_path(pictures: Path, tmp_path: Path) -> None:
    data = stopgrad.load(pictures)
    assert stopgrad.check(data, preset="tiny").findings.pictures == {"train": 160, "test": 40}
    assert len(stopgrad.pack(data, tmp_path / "store", side=28)) == 200
    with pytest.raises(DataError, match="images in memory"):
        stopgrad.pack(np.zeros((2, 8, 8, 3), np.uint8), tmp_path / "x")


def test_images_in_memory_are_checked_as_files_are(pictures: Path) -> None:
    loaded = load_dataset(str(pictures))
    in_files = stopgrad.check(pictures, preset="tiny")
    held = stopgrad.check(Dataset("held", loaded.train, loaded.test), preset="tiny")
    for each in (in_files, held):
        assert each.findings.pictures == {"train": 160, "test": 40}
        assert each.verdict == in_files.verdict
    assert held.findings.duplicates == in_files.findings.duplicates
    assert held.findings.classes == in_files.findings.classes
    pixels = np.array(loaded.train.pixels)
    pixels[7] = pixels[3]
    found = stopgrad.check(stopgrad.load(pixels, labels=loaded.train.labels), preset="tiny")
    places = [place.name for place in found.findings.copies]
    assert "7" in places
    assert found.as_json()["formats"] == {"array": 160}


def test_a_list_of_files_is_checked_by_its_files(pictures: Path, tmp_path: Path) -> None:
    files = [*sorted((pictures / "train").rglob("*.png"))[:30], tmp_path / "broken.png"]
    files[-1].write_bytes(b"junk")
    found = stopgrad.check(
        stopgrad.load(files, bad_images="skip"), preset="tiny", bad_images="skip"
    )
    assert [image.name for image in found.findings.damaged] == [str(files[-1])]
    assert found.as_json()["formats"] == {"PNG": 30}


def test_a_report_is_one_page(run: stopgrad.Run, tmp_path: Path) -> None:
    written = run.report(tmp_path / "page.html")
    assert written.page == tmp_path / "page.html"
    assert "digit 7" in written.page.read_text()


def test_a_run_goes_on_and_grows(run: stopgrad.Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    longer = stopgrad.pretrain(pictures, out=out, preset="tiny", epochs=1)
    with pytest.raises(ConfigError, match="epochs: 1 -> 2"):
        longer.resume(epochs=2)
    assert [row["epoch"] for row in longer.resume(extend=2).metrics] == [1, 2]
    assert longer.trained().epoch == 2


def test_the_baseline_and_fine_tuning_keep_their_records(
    run: stopgrad.Run, pictures: Path, tmp_path: Path
) -> None:
    short = {"epochs": 1, "batch": 32}
    (base,) = stopgrad.supervised(pictures, out=tmp_path, labels=0.5, preset="tiny", epochs=1)
    (tuned,) = run.finetune(0.5, out=tmp_path, finetune=short)
    assert tuned.config["finetune"] == asdict(run.config.finetune) | short
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["metric"] for line in lines] == [base.metric, tuned.metric]
    with pytest.raises(ConfigError, match="already trained"):
        run.finetune(batch=64)


def test_arrays_are_images_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = load_dataset("mnist5k").train.take(np.arange(64) * 60)
    data = stopgrad.load(digits.pixels, labels=digits.labels)
    found = stopgrad.pretrain(data, out=tmp_path / "run", preset="tiny", epochs=1)
    assert len(found.evaluate(of=["pixels"])) == 4
    assert main(["evaluate", str(tmp_path / "run")]) == 3
    assert "images in memory" in capsys.readouterr().err
    images = images_from_arrays(digits.pixels, labels=digits.labels)
    again = stopgrad.Run(tmp_path / "run", data=Dataset("again", images, None))
    assert again.evaluate(of=["pixels"])[0].value == found.records[0]["value"]
    with pytest.raises(DataError, match="images in memory"):
        stopgrad.Run(tmp_path / "run").evaluate()


def test_images_that_a_caller_holds_are_read_as_was_asked(tmp_path: Path) -> None:
    values = np.zeros((2, 8, 8), np.uint16)
    values[0, 0, :3] = 600, 3000, 4000  # 51 / 255 of the white, the white itself and more
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file, image in zip(files, values, strict=True):
        Image.fromarray(image).save(file)
    for held in (values, [*values], files):
        data = stopgrad.load(held, white_level=3000)
        assert data.dataset.train.pixels[0, 0, :3, 0].tolist() == [51, 255, 255]
        assert data.with_reading(preset("tiny")).white_level == 3000
    bands = np.arange(3 * 64, dtype=np.uint8).reshape(1, 8, 8, 3)
    assert (stopgrad.load(bands, bands="3,2,1").dataset.train.pixels == bands[..., ::-1]).all()


def test_how_an_array_is_read_may_be_said_with_the_knobs_of_its_training(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    run = stopgrad.pretrain(pixels, out=tmp_path / "run", preset="tiny", epochs=1, bands="3,2,1")
    swapped = stopgrad.load(pixels, bands="3,2,1").dataset.train.fingerprint
    assert read_run(run.path).data["fingerprint"] == swapped
    again = stopgrad.Run(run.path, data=pixels)  # as the run reads it
    assert again.resume(extend=2).metrics[-1]["epoch"] == 2


def test_runs_are_ranked(
    run: stopgrad.Run, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranking = stopgrad.compare([run, other], by="rankme")
    assert [row["place"] for row in ranking.rows] == [1, 2]
    assert "By RankMe" in repr(ranking)
    assert main(["compare", str(run.path), str(other), "--by", "rankme", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line["kind"] == "run"] == json.loads(json.dumps(ranking.rows))


def test_knobs_are_checked_as_on_the_command_line(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean optimizer\.base_lr"):
        stopgrad.pretrain(pictures, out=tmp_path / "x", optimizer={"bas_lr": 1})
    with pytest.raises(ConfigError, match="--labels 2"):
        stopgrad.supervised(pictures, out=tmp_path / "x", labels=[1, 2])
    assert not (tmp_path / "x").exists()


def test_a_study_has_a_table(pictures: Path, tmp_path: Path) -> None:
    study = tmp_path / "small.yaml"
    study.write_text(
        "question: Does it run?\nbaseline: as it is\narms: {as it is: {}}\n"
        "protocol: {split: test, labels: [1], metrics: [knn_accuracy]}\n"
    )
    found = stopgrad.study(
        str(study), data=str(pictures), out=tmp_path / "s", preset="tiny", seeds=1, epochs=1
    )
    assert found.names == ["small"]
    assert "as it is" in found.table("small")
    assert "1/1" in repr(found)
