"""Claims about `evaluate`, and about the examples of a run that the report shows."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stopgrad
from stopgrad.config import Config, preset
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.evaluation import (
    Selection,
    embed,
    evaluate_run,
    read,
    record_extent,
    weighted_knn,
)
from stopgrad.evaluation.evaluate import score_run
from stopgrad.images import Dataset, images_from_arrays, label_subset, normalization
from stopgrad.method import build_simsiam
from stopgrad.report import neighbor_examples, view_examples
from stopgrad.report.examples import choose_examples
from stopgrad.runs import (
    RunWriter,
    TrainedRun,
    describe_run,
    load_checkpoint,
    load_run,
    prepare,
)
from stopgrad.training import pretrain_epochs
from tests.factories import digits
from tests.inputs import row as input_row


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """400 real digits to learn from and 100 to score, of all classes."""
    return digits(400, 100)


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A tiny run of two epochs."""
    return load_run(_train(dataset, preset("tiny", epochs=2), tmp_path_factory.mktemp("run")))


def _train(dataset: Dataset, config: Config, path: Path) -> Path:
    with RunWriter.create(path, describe_run(dataset, config, spec="digits")) as writer:
        for _ in pretrain_epochs(prepare(dataset, config), config, writer=writer):
            pass
    return path


def test_records_say_what_was_scored_on_what(run: TrainedRun, dataset: Dataset) -> None:
    records = list(evaluate_run(run, dataset, labels=(1.0, 0.1)))
    assert len(records) == 2 * 3 * 4
    for record in records:
        assert record.images_scored == 100
        assert record.split == "test"
        assert record.data["fingerprint"] == dataset.train.fingerprint
        assert record.epoch == (2 if record.of == "encoder" else 0)
        assert record.views == (2 * 32 * 24 if record.of == "encoder" else 0)
        if record.of == "encoder":  # 24 steps of 32 images, of the 400 that there are
            reach = run.info.extent(24)
            assert record.extent == reach._asdict() | {"images": 400}
            assert record_extent(record) == reach
            assert reach.passes == pytest.approx(24 * 32 / 400)
        assert record.label_draw == (0 if record.labels < 1 else None)
        assert record.value == pytest.approx(np.mean(record.per_class))  # ten of each class
    banks = {r.labels: r.protocol["bank_images"] for r in records if r.metric == "knn_accuracy"}
    drawn = label_subset(dataset.train, fraction=0.1, seed=0)
    assert banks == {1.0: 400, 0.1: len(drawn)}


def test_untrained_is_the_model_that_the_run_began_with(run: TrainedRun, dataset: Dataset) -> None:
    [untrained] = [
        r for r in evaluate_run(run, dataset) if r.of == "untrained" and r.metric == "knn_accuracy"
    ]
    model = run.compute.place(build_simsiam(run.info.config))
    how = {"normalization": run.info.normalization, "compute": run.compute}
    bank, queries = (
        embed(model.get_submodule("encoder"), images, **how)  # type: ignore[arg-type]
        for images in (dataset.train, dataset.test)
    )
    assert untrained.value == weighted_knn(bank, queries, run.info.config.knn).accuracy


def test_other_images_than_those_of_the_run_are_refused(run: TrainedRun, dataset: Dataset) -> None:
    other = dataset._replace(train=dataset.train.take(np.arange(300)))
    for out in (None, run.path):
        with pytest.raises(DataError, match="fingerprint"):
            next(evaluate_run(run, other, out=out))


def test_numbers_of_an_epoch_before_are_missing_for_the_encoder_alone(
    run: TrainedRun, dataset: Dataset, tmp_path: Path
) -> None:
    select = Selection(metrics=("knn_accuracy",), missing=True)
    first = list(evaluate_run(run, dataset, select=select, out=tmp_path))
    assert [record.of for record in first] == ["encoder", "untrained", "pixels"]
    assert list(evaluate_run(run, dataset, select=select, out=tmp_path)) == []
    before = [dataclasses.replace(record, epoch=1) for record in first]
    assert [r.of for r in score_run(run, dataset, select=select, known=before)] == ["encoder"]


def test_numbers_of_another_run_in_the_same_folder_are_not_those_of_this_one(
    run: TrainedRun, dataset: Dataset, tmp_path: Path
) -> None:
    select = Selection(of=("encoder",), metrics=("knn_accuracy",), missing=True)
    config = dataclasses.replace(run.info.config, seed=1)
    other = run._replace(info=run.info._replace(config=config))
    for each in (run, other):
        assert len(list(evaluate_run(each, dataset, select=select, out=tmp_path))) == 1
        assert list(evaluate_run(each, dataset, select=select, out=tmp_path)) == []


def test_a_run_of_a_gpu_is_scored_where_there_is_none(run: TrainedRun, dataset: Dataset) -> None:
    config = dataclasses.replace(run.info.config, device="cuda:9")
    there = run._replace(info=run.info._replace(config=config))
    select = Selection(of=("encoder",), metrics=("knn_accuracy",))
    [record] = score_run(there, dataset, select=select)
    assert record.device == str(run.compute.device)


def test_numbers_of_other_test_labels_are_missing(
    run: TrainedRun, dataset: Dataset, tmp_path: Path
) -> None:
    """A record does not stand for test images that were corrected since."""
    assert dataset.test is not None
    select = Selection(of=("encoder",), metrics=("knn_accuracy",), missing=True)
    [first] = evaluate_run(run, dataset, select=select, out=tmp_path)
    assert first.data["scored"] == dataset.test.fingerprint
    corrected = dataset._replace(test=dataset.test.take(np.arange(99)))
    [second] = evaluate_run(run, corrected, select=select, out=tmp_path)
    assert second.images_scored == 99
    unmarked = {key: value for key, value in first.data.items() if key != "scored"}  # an older one
    older = dataclasses.replace(first, data=unmarked)
    assert list(score_run(run, corrected, select=select, known=[older])) == []


def test_other_images_are_scored_into_a_folder_of_their_own(
    run: TrainedRun, dataset: Dataset, tmp_path: Path
) -> None:
    other = Dataset("other", dataset.test, dataset.train.take(np.arange(60)))
    own = run.path / "records.jsonl"
    before = own.read_bytes() if own.exists() else None
    select = Selection(of=("encoder",), metrics=("knn_accuracy",))
    [record] = evaluate_run(run, other, labels=(0.5,), select=select, out=tmp_path / "on" / "other")
    assert read(tmp_path / "on" / "other" / "records.jsonl") == [record]
    assert (own.read_bytes() if own.exists() else None) == before
    assert record.data == {
        "name": "other",
        "fingerprint": dataset.test.fingerprint,
        "pretrained_on": dataset.train.fingerprint,
        "scored": other.test.fingerprint,
    }
    drawn = dataset.test.take(label_subset(dataset.test, fraction=0.5, seed=0))
    how = {"normalization": run.info.normalization, "compute": run.compute}
    bank, queries = (embed(run.model.encoder, part, **how) for part in (drawn, other.test))
    assert record.value == weighted_knn(bank, queries, run.info.config.knn).accuracy
    assert [path.name for path in (tmp_path / "on" / "other" / "labels").iterdir()] == [
        "share-0.5-seed-0.json"
    ]


def _in_folders(path: Path, pixels: np.ndarray, labels: list[str]) -> None:
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        place = path / ("val" if number % 4 == 3 else "train") / label / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((50, 40)).save(place)
        (path / "test").mkdir(exist_ok=True)
        Image.fromarray(image).save(path / "test" / f"{number}.png")


def _in_an_array(path: Path, pixels: np.ndarray, labels: list[str]) -> None:
    path.mkdir()
    np.savez(path / "set.npz", images=pixels[..., 0], labels=labels)


def _beside_a_table(path: Path, pixels: np.ndarray, labels: list[str]) -> None:
    path.mkdir()
    rows = [f"{number:02},{label}" for number, label in enumerate(labels)]
    (path / "labels.csv").write_text("\n".join(["id,class", *rows]))
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(path / f"{number:02}.jpg", quality=95)


def _other(what: str, happens: str, *values: Any) -> Any:
    return input_row(f"evaluate RUN --data LABELLED: {what}", happens, *values, kind="command")


@pytest.mark.parametrize(
    ("write", "scored"),
    [
        _other("folders of other sizes, with a flat test/", "val/ is scored", _in_folders, 10),
        _other(
            "a gray array without a test split", "a fifth of the images is scored", _in_an_array, 8
        ),
        _other("images beside a table", "a fifth of the images is scored", _beside_a_table, 8),
    ],
)
def test_labelled_images_of_any_kind_score_a_run_on_others(
    run: TrainedRun, tmp_path: Path, write: Any, scored: int
) -> None:
    dark = np.random.default_rng(0).integers(0, 60, (40, 28, 28, 1), np.uint8)
    pixels = np.repeat(dark + np.uint8(180) * (np.arange(40) % 2 == 1)[:, None, None, None], 3, 3)
    write(tmp_path / "other", pixels, [("night", "day")[number % 2] for number in range(40)])
    [record] = stopgrad.Run(run.path).evaluate(
        data=tmp_path / "other", out=tmp_path / "on", of="pixels", metrics="knn_accuracy"
    )
    assert (record.split, record.images_scored, record.value) == ("validation", scored, 1.0)
    assert record.data["pretrained_on"] == run.info.data["fingerprint"]


def test_no_image_of_other_data_is_held_out_as_the_runs_own_were(
    dataset: Dataset, tmp_path: Path
) -> None:
    path = _train(dataset, preset("tiny", epochs=1, validation=0.25), tmp_path / "run")
    other = dataset._replace(train=dataset.train.take(np.arange(200)))
    select = Selection(of=("pixels",), metrics=("knn_accuracy",))
    [own] = evaluate_run(load_run(path), dataset, select=select)
    [record] = evaluate_run(load_run(path), other, select=select, out=tmp_path / "on")
    assert own.protocol["bank_images"] == 300
    assert record.protocol["bank_images"] == 200


@pytest.mark.input(
    "label",
    what="a class more than twice as large as another among the scored images",
    happens="its share and the balanced accuracy are reported beside the accuracy",
)
@pytest.mark.parametrize(
    ("counts", "majority"),
    [
        ((30, 30, 30), None),
        ((40, 20, 30), None),
        ((41, 20, 20), 41 / 81),
        ((90, 10, 0), 0.9),
        ((30, 0, 0), 1),
    ],
)
def test_balanced_accuracy_and_the_largest_class_are_said_of_uneven_classes(
    run: TrainedRun, dataset: Dataset, counts: tuple[int, ...], majority: float | None
) -> None:
    by_class = [np.flatnonzero(dataset.train.labels == label) for label in range(3)]
    chosen = np.concatenate([np.resize(of, n) for of, n in zip(by_class, counts, strict=True)])
    uneven = dataset._replace(test=dataset.train.take(chosen))
    select = Selection(of=("encoder",), metrics=("knn_accuracy",))
    [record] = score_run(run, uneven, select=select)
    assert record.majority == (None if majority is None else pytest.approx(majority))
    there = [right for right, n in zip(record.per_class, counts, strict=False) if n]
    expected = None if majority is None else pytest.approx(sum(there) / len(there))
    assert record.balanced == expected


@pytest.mark.parametrize("share", [0.0, -0.1, 10.0, float("nan")])
def test_a_share_of_labels_out_of_range_is_refused_first(
    run: TrainedRun, dataset: Dataset, share: float
) -> None:
    with pytest.raises(ConfigError, match="--labels"):
        next(evaluate_run(run, dataset, labels=(1.0, share)))


def test_one_label_per_class_leaves_the_tuned_probe_out(run: TrainedRun, dataset: Dataset) -> None:
    metrics = [r.metric for r in evaluate_run(run, dataset, labels=(0.01,))]
    assert metrics == ["knn_accuracy", "linear_accuracy", "linear_published_accuracy"] * 3


def test_a_damaged_last_checkpoint_is_passed_over_where_that_is_asked_for_and_named(
    dataset: Dataset, tmp_path: Path
) -> None:
    path = _train(dataset, preset("tiny", epochs=1), tmp_path / "run")
    newest = max((path / "checkpoints").iterdir())
    (newest / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"of this finished run is of step 9.*--older"):
        load_run(path)
    run = load_run(path, older=True)
    assert run.step == load_checkpoint(path).step == 9
    assert "model.safetensors" in run.damaged[0]


def test_examples_are_one_of_each_class_and_the_surest_mistakes() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    sure = torch.tensor([0.9, 0.8, 0.6, 0.7, 0.9, 0.95])  # of class 0
    votes = torch.stack([sure, 1 - sure], dim=1).double()
    chosen = choose_examples(votes, labels, count=6, seed=0).tolist()
    assert int(labels[chosen[0]]) == 0
    assert int(labels[chosen[1]]) == 1
    assert chosen[2:] == [5, 4]  # taken for 0, the surest first, two of a class at most


def test_neighbours_of_a_query_are_those_of_its_features(run: TrainedRun, dataset: Dataset) -> None:
    panel = neighbor_examples(run, dataset, count=12)
    how = {"normalization": run.info.normalization, "compute": run.compute}
    bank = embed(run.model.encoder, panel.bank, **how).values  # type: ignore[arg-type]
    queries = embed(run.model.encoder, panel.queries, **how).values  # type: ignore[arg-type]
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], bank[None], dim=2)
    np.testing.assert_allclose(panel.similarity, cosine.topk(8).values, rtol=1e-4)
    assert panel.index.shape == (len(panel.queries), 8)


def test_without_labels_a_picture_is_not_its_own_neighbour(
    dataset: Dataset, run: TrainedRun
) -> None:
    bare = Dataset("bare", images_from_arrays(dataset.train.pixels), None)
    panel = neighbor_examples(run, bare, count=5)
    assert panel.predicted is None
    for pixels, row in zip(panel.queries.pixels, panel.index, strict=True):
        assert all(not np.array_equal(pixels, panel.bank.pixels[index]) for index in row)


def test_view_examples_show_each_image_beside_two_views_of_it(dataset: Dataset) -> None:
    side, how = dataset.train.pixels.shape[1], {"normalization": normalization(dataset.train)}
    plain = dict.fromkeys(("flip", "jitter", "grayscale"), 0.0) | {"crop_min": 1.0, "size": side}
    as_they_are = preset("cifar", **{f"views.{knob}": value for knob, value in plain.items()})
    panel = view_examples(dataset.train, as_they_are, count=4, **how)  # type: ignore[arg-type]
    np.testing.assert_array_equal(panel.x1, panel.originals)
    np.testing.assert_array_equal(panel.x2, panel.originals)
    panel = view_examples(dataset.train, preset("cifar"), count=4, **how)  # type: ignore[arg-type]
    assert panel.x1.shape == panel.x2.shape == (4, 32, 32, 3)
    assert not np.array_equal(panel.x1, panel.x2)
