"""Claims about what a training or an evaluation starts from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stopgrad
import stopgrad.method.encoder as encoder
import stopgrad.runs.setup as setup
from stopgrad.config import preset
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.images import Dataset, Normalization, images_from_arrays
from stopgrad.images.types import Notes, Unused
from stopgrad.runs import (
    TrainingImages,
    check_sizes,
    describe_run,
    evaluation_split,
    prepare,
    read_run,
)


def _dataset(count: int = 40) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return Dataset("noise", images_from_arrays(pixels), None)


def test_images_are_prepared_and_normalised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("prepare", "normalization"):
        real = getattr(setup, name)

        def counted(*given: Any, name: str = name, real: Any = real, **how: Any) -> Any:
            calls.append(name)
            return real(*given, **how)

        monkeypatch.setattr(setup, name, counted)
    dataset, config = _dataset(), preset("tiny")
    images = prepare(dataset, config)
    info = describe_run(dataset, config, spec="noise", images=images)
    assert info.normalization == images.normalization
    assert calls == ["normalization"]
    assert info == describe_run(dataset, config, spec="noise")
    assert calls == ["normalization", "prepare", "normalization"]


def test_what_is_not_used_for_one_reason_is_counted_whatever_it_is() -> None:
    groups = (
        Unused("image", "beyond the row limit", ("a.png", "b.png")),
        Unused("label", "beyond the row limit", ("0", "1", "2")),
        Unused("file", "no image", ("notes.txt",)),
    )
    noted = _dataset()._replace(notes=Notes(unused=groups))
    found = describe_run(noted, preset("tiny"), spec="noise").data
    assert found["unused"] == {"beyond the row limit": 5, "no image": 1}


def test_the_normalization_is_that_of_the_images_to_learn_from() -> None:
    pixels = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    pixels[..., 0], pixels[:2, ..., 1] = 51, 255
    found = TrainingImages(images_from_arrays(pixels)).normalization
    assert isinstance(found, Normalization)
    assert found.mean == pytest.approx((0.2, 0.5, 0.0), abs=1e-6)
    assert found.std[1] == pytest.approx(0.5, abs=1e-6)


def test_none_of_our_own_encoders_is_built_to_learn_its_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(*given: Any) -> Any:
        raise AssertionError("built")

    train = _dataset().train
    with pytest.raises(ConfigError, match="resnet5"):
        check_sizes(train, preset("tiny", **{"encoder.name": "resnet5"}))
    monkeypatch.setattr(encoder, "build_encoder", build)
    encoder.size_problems.cache_clear()  # another test may have asked the same
    for name in ("resnet18", "resnet50", "cifar_resnet8"):
        check_sizes(train, preset("tiny", **{"encoder.name": name}))
    with pytest.raises(AssertionError, match="built"):
        check_sizes(train, preset("tiny", **{"encoder.name": "timm:test_vit"}))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """400 images to learn from and 100 to score, of ten classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 3), dtype=np.uint8)
    images = images_from_arrays(pixels, labels=np.arange(500) % 10)
    return Dataset("noise", images.take(np.arange(400)), images.take(np.arange(400, 500)))


def test_the_whole_test_split_is_scored(dataset: Dataset) -> None:
    split = evaluation_split(dataset, preset("tiny"))
    assert split.name == "test"
    assert split.test is dataset.test
    assert split.train is dataset.train


def test_without_a_test_split_a_fifth_is_held_out_and_named_so(dataset: Dataset) -> None:
    split = evaluation_split(dataset._replace(test=None), preset("tiny"))
    assert (split.name, len(split.train), len(split.test)) == ("validation", 320, 80)


def test_images_held_out_for_validation_never_train_an_evaluator(dataset: Dataset) -> None:
    config = preset("tiny", validation=0.25)
    split = evaluation_split(dataset, config)
    assert split.name == "test"
    assert split.train.fingerprint == prepare(dataset, config).train.fingerprint
    assert len(split.train) == 300


def test_a_validation_split_of_the_data_is_scored_under_its_name(dataset: Dataset) -> None:
    own = dataset._replace(notes=Notes(scored="validation"))
    for name in ("auto", "validation"):
        split = evaluation_split(own, preset("tiny"), name=name)
        assert (split.name, split.test, split.train) == ("validation", own.test, own.train)
    # A study scores what there is as its test split.
    assert evaluation_split(own, preset("tiny"), name="test").name == "test"


def test_where_a_run_holds_images_out_those_are_its_validation_images(dataset: Dataset) -> None:
    own, config = (
        dataset._replace(notes=Notes(scored="validation")),
        preset("tiny", validation=0.25),
    )
    held_out = evaluation_split(own, config, name="validation")
    assert (held_out.name, len(held_out.test), len(held_out.train)) == ("validation", 100, 300)
    assert set(held_out.test.pixels[:, 0, 0, 0]) <= set(own.train.pixels[:, 0, 0, 0])
    scored = evaluation_split(own, config)
    assert (scored.name, scored.test, len(scored.train)) == ("test", own.test, 300)


def test_a_split_of_another_name_is_scored_only_if_it_was_read(dataset: Dataset) -> None:
    own = dataset._replace(notes=Notes(scored="contrast"))
    for name in ("auto", "contrast"):
        assert evaluation_split(own, preset("tiny"), name=name).name == "contrast"
    with pytest.raises(ConfigError, match=r"split = 'tset' \(did you mean test\?\)"):
        evaluation_split(own, preset("tiny"), name="tset")


def test_a_split_without_labels_leaves_a_fifth_of_the_others(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    assert dataset.test is not None
    bare = dataset._replace(test=images_from_arrays(dataset.test.pixels))
    split = evaluation_split(bare, preset("tiny"))
    assert (split.name, len(split.train), len(split.test)) == ("validation", 320, 80)
    said = "no labels in the validation split: a fifth of the training images is scored"
    assert caplog.messages == [said.replace("validation", "test")]
    evaluation_split(bare._replace(notes=Notes(scored="validation")), preset("tiny"))
    assert caplog.messages[1:] == [said]
    evaluation_split(bare, preset("tiny", validation=0.25))
    assert caplog.messages[2:] == ["no labels in the test split: the images held out are scored"]
    with pytest.raises(DataError, match="noise without labels on the test split"):
        evaluation_split(bare, preset("tiny"), name="test")


def test_images_without_labels_are_not_scored(dataset: Dataset) -> None:
    bare = Dataset("bare", images_from_arrays(dataset.train.pixels), None)
    with pytest.raises(DataError, match="without labels"):
        evaluation_split(bare, preset("tiny"))
    bare = bare._replace(notes=Notes(("a.csv gives no labels: use --label-column",)))
    with pytest.raises(DataError, match="to name their column: stopgrad pack DATA --out STORE --"):
        evaluation_split(bare, preset("tiny"))


def test_a_checkpoint_is_no_run_and_stays_as_it_is(tmp_path: Path) -> None:
    """To resume it would write a second run into the checkpoint, and so damage it."""
    run = stopgrad.pretrain("mnist5k", out=tmp_path / "run", preset="tiny", epochs=1, batch=1000)
    folder = max((run.path / "checkpoints").iterdir())
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match=f"is a checkpoint; .* name the run, {run.path}"):
        stopgrad.Run(folder).resume()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_no_run_is_told_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "config.json").write_text("{}")
    (tmp_path / "images").mkdir()
    for path, said in (
        (tmp_path / "runs", f"it holds runs; name them, such as {tmp_path}/runs/one"),
        (tmp_path / "runs/one/config.json", "name the directory of the run, not a file in it"),
        (tmp_path / "runs/one", "restore config.json; each checkpoint holds a copy of it"),
        (tmp_path / "images", "a folder of images is named by --data"),
    ):
        with pytest.raises(CheckpointError, match="is not a run that can be read") as caught:
            read_run(path)
        assert said in str(caught.value)
