"""Claims about `finetune`: what it starts from, its two learning rates, its labels, its records."""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stopgrad.config import Config, preset, torch_generator
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluation import to_line
from stopgrad.evaluation.records import from_values
from stopgrad.images import Dataset, normalization
from stopgrad.method import build_classifier
from stopgrad.runs import (
    EvaluationSplit,
    RunWriter,
    TrainedRun,
    describe_run,
    load_checkpoint,
    load_run,
    prepare,
)
from stopgrad.training import LabelledEpoch, pretrain_epochs
from stopgrad.training.fractions import finetune_fractions, trained_record
from stopgrad.training.labelled import (
    LabelledBatch,
    Start,
    labelled_epochs,
    start_labelled_training,
)
from stopgrad.training.recipe import LabelledImages, recipe_of
from tests.training.factories import (
    KilledError,
    assert_same_end,
    digits,
    dying_after,
    fraction_of,
    last,
    opened,
    poisoned,
    weights_sha256,
)

CHANGES = {
    "finetune.epochs": 2,
    "finetune.batch": 32,
    "finetune.base_lr": 0.2,
    "checkpoint_every": 7,
    "views.flip": 0.0,
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """320 real digits to learn from and 100 to score, of all classes."""
    return digits(320, 100)


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A tiny pretraining of one epoch."""
    path = tmp_path_factory.mktemp("run") / "run"
    config = preset("tiny", **{**CHANGES, "epochs": 1, "knn_every": 0})
    with RunWriter.create(path, describe_run(dataset, config, spec="digits")) as writer:
        for _ in pretrain_epochs(prepare(dataset, config), config, writer=writer):
            pass
    return load_run(path)


def _start(run: TrainedRun) -> Start:
    return Start(run.model.encoder, run.info.normalization)


def _finetuned(run: TrainedRun, images: LabelledImages, **changes: Any) -> LabelledEpoch:
    config = preset("tiny", **{**CHANGES, "epochs": 1, "knn_every": 0, **changes})
    return last(labelled_epochs(images, config, start=_start(run)))


def test_the_recipe_is_that_of_swav_with_a_larger_rate_for_the_new_layer() -> None:
    recipe = recipe_of(Config(), "finetune")
    assert (recipe.lr, recipe.head_lr) == (0.01, 0.2)
    assert (recipe.epochs, recipe.batch, recipe.weight_decay) == (20, 256, 0.0)
    assert (recipe.momentum, recipe.padding, recipe.flip) == (0.9, 4, 0.5)


def test_it_starts_from_the_pretrained_encoder_and_leaves_it_as_it_was(
    run: TrainedRun, dataset: Dataset, tmp_path: Path
) -> None:
    before = weights_sha256(run.model.encoder)
    with pytest.raises(KilledError):
        _run(tmp_path / "run", run, dataset, track=dying_after(0))
    first = load_checkpoint(tmp_path / "run")
    assert first.step == 0
    for key, value in run.model.encoder.state_dict().items():
        assert torch.equal(first.model[f"encoder.{key}"], value.cpu())
    _finetuned(run, fraction_of(dataset))
    assert weights_sha256(run.model.encoder) == before


def test_every_weight_of_the_network_is_trained(run: TrainedRun, dataset: Dataset) -> None:
    model = _finetuned(run, fraction_of(dataset)).model
    for key, value in run.model.encoder.named_parameters():
        assert not torch.equal(model.encoder.get_parameter(key), value), key


def test_its_bn_sees_whole_batches_whatever_pretraining_did(
    run: TrainedRun, dataset: Dataset
) -> None:
    layers = list(_finetuned(run, fraction_of(dataset)).model.modules())
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert all(type(layer) is nn.BatchNorm2d for layer in norms)


def test_a_step_moves_encoder_and_new_layer_by_their_own_rates(
    run: TrainedRun, dataset: Dataset
) -> None:
    changes = {**CHANGES, "finetune.head_base_lr": 3.0, "precision": "fp32"}
    config = preset("tiny", **changes)
    training = start_labelled_training(
        build_classifier(config.encoder, classes=10, seed=0),
        fraction_of(dataset),
        recipe=recipe_of(config, "finetune"),
        config=config,
        normalization=run.info.normalization,
    )
    before = {key: value.detach().clone() for key, value in training.model.named_parameters()}
    x = torch.randn(32, 3, 28, 28, generator=torch_generator(0, "x"))
    training.take_step(LabelledBatch(x, torch.arange(32) % 10))
    for key, value in training.model.named_parameters():
        peak = 3.0 if key.startswith("head.") else 0.2
        moved = before[key] - peak * 32 / 256 * value.grad
        torch.testing.assert_close(value.detach(), moved)


def test_no_image_outside_of_the_fraction_enters(run: TrainedRun, dataset: Dataset) -> None:
    fraction = fraction_of(dataset, 0.1)
    noisy = dataset._replace(train=poisoned(dataset.train, fraction.train))
    clean, other = (_finetuned(run, fraction_of(d, 0.1)) for d in (dataset, noisy))
    assert weights_sha256(clean.model) == weights_sha256(other.model)
    clean, other = (_finetuned(run, fraction_of(d)) for d in (dataset, noisy))
    assert weights_sha256(clean.model) != weights_sha256(other.model)


def test_it_learns_far_more_than_the_untrained_network_knows(
    run: TrainedRun, dataset: Dataset
) -> None:
    changes = {"finetune.epochs": 12, "finetune.base_lr": 0.4, "finetune.head_base_lr": 1.0}
    epoch = _finetuned(run, fraction_of(dataset), **changes)
    assert epoch.score.images_scored == 100
    assert epoch.score.accuracy > 0.7  # chance, and the untrained network, are near 0.1


def test_what_was_pretrained_matters(run: TrainedRun, dataset: Dataset) -> None:
    other = build_classifier(run.info.config.encoder, classes=10, seed=5).encoder
    start = Start(other, run.info.normalization)
    ours = _finetuned(run, fraction_of(dataset))
    theirs = last(labelled_epochs(fraction_of(dataset), run.info.config, start=start))
    assert weights_sha256(ours.model) != weights_sha256(theirs.model)


# Its run directory and its record


def _open(path: Path, run: TrainedRun, dataset: Dataset, *, step: int | None = None) -> RunWriter:
    data = {"from_step": step or run.step, "from_epoch": run.epoch}
    how = {"task": "finetune", "normalization": run.info.normalization, "data": data}
    return opened(path, dataset, run.info.config, images=fraction_of(dataset, 0.5), **how)


def _run(path: Path, run: TrainedRun, dataset: Dataset, **how: Any) -> list[LabelledEpoch]:
    config, start = run.info.config, _start(run)
    with _open(path, run, dataset) as writer:
        return list(
            labelled_epochs(fraction_of(dataset, 0.5), config, start=start, writer=writer, **how)
        )


def test_one_that_died_goes_on_bit_for_bit(
    run: TrainedRun, dataset: Dataset, tmp_path: Path
) -> None:
    _run(tmp_path / "whole", run, dataset)
    with pytest.raises(KilledError):
        _run(tmp_path / "dead", run, dataset, track=dying_after(13))
    _run(tmp_path / "dead", run, dataset)
    assert_same_end(tmp_path / "dead", tmp_path / "whole")


def test_it_does_not_go_on_from_another_encoder(
    run: TrainedRun, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        _run(tmp_path / "run", run, dataset, track=dying_after(2))
    with _open(tmp_path / "run", run, dataset, step=99) as writer:
        how = {"start": _start(run), "writer": writer}
        epochs = labelled_epochs(fraction_of(dataset, 0.5), run.info.config, **how)
        with pytest.raises(DataError, match=f"from_step: {run.step} -> 99"):
            next(epochs)


def test_of_other_images_none_is_held_out(
    run: TrainedRun, dataset: Dataset, tmp_path: Path
) -> None:
    """The probes of the same encoder train on all of them too."""
    config = replace(run.info.config, validation=0.2)
    held = run._replace(info=run.info._replace(config=config))
    other = Dataset("other", dataset.test, dataset.train.take(np.arange(60)))
    labels = (0.5, 1)
    epochs = list(finetune_fractions(held, other, config, tmp_path, spec="other", labels=labels))
    half, whole = (each.record for each in epochs if each.record is not None)
    assert whole.protocol["train_images"] == len(other.train)
    assert whole.data["pretrained_on"] == run.info.data["fingerprint"]
    [file] = tmp_path.glob("finetune/share-0.5/labels/*.json")
    assert len(json.loads(file.read_text())) == half.protocol["train_images"]


def test_its_record_is_the_encoders_beside_those_of_other_evaluators(
    run: TrainedRun, dataset: Dataset, tmp_path: Path
) -> None:
    epoch = _run(tmp_path / "run", run, dataset)[-1]
    with _open(tmp_path / "run", run, dataset) as writer:
        split = EvaluationSplit(dataset.train, dataset.test, "test")
        record = trained_record(writer.info, epoch, split=split)
    assert (record.metric, record.of, record.split) == ("finetune_accuracy", "encoder", "test")
    assert (record.value, record.images_scored) == (epoch.score.accuracy, 100)
    assert (record.labels, record.label_draw, record.seed) == (0.5, 0, 0)
    assert record.epoch == 1
    assert record.views == 2 * 32 * 10  # of the pretraining
    assert record.protocol["views"] == 2 * 32 * 10  # of the fine-tuning: 2 epochs, one view each
    assert record.protocol["start"] == "the pretrained encoder"
    marks = {"fingerprint": dataset.train.fingerprint, "scored": dataset.test.fingerprint}
    assert record.data == {"name": "digits"} | marks
    assert from_values(json.loads(to_line(record))) == record


def test_crops_that_the_backbone_does_not_take_are_refused_in_one_line(dataset: Dataset) -> None:
    images, normal = fraction_of(dataset), normalization(dataset.train)
    vit = {"encoder.name": "timm:test_vit", "views.size": 16}  # patches of 16 px
    for crop, said in ((0, r"crops of 28 x 28 px .*; set finetune.crop"), (16, None)):
        config = preset("tiny", **CHANGES, **vit, **{"finetune.crop": crop})
        model = build_classifier(config.encoder, classes=10, seed=0)
        how = {"recipe": recipe_of(config, "finetune"), "normalization": normal, "config": config}
        begin = functools.partial(start_labelled_training, model, images, **how)
        if said is None:
            assert begin().model.training
            continue
        with pytest.raises(ConfigError, match=said):
            begin()
