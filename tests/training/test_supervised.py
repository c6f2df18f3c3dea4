"""Claims about `supervised`: crops, one step, the schedule, subsets of labels, learning."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.transforms import functional as reference

from stopgrad.config import Config, preset, torch_generator
from stopgrad.errors import ConfigError, DataError, DivergedError, InterruptedRunError
from stopgrad.images import Dataset, images_from_arrays, normalization
from stopgrad.method import (
    Classifier,
    ClassifierShape,
    build_classifier,
    build_encoder,
    classifier_flops,
)
from stopgrad.runs import RunWriter, load_checkpoint, read_metrics, read_status
from stopgrad.training import LabelledEpoch, recipe_of
from stopgrad.training.labelled import (
    LabelledBatch,
    LabelledTraining,
    labelled_epochs,
    start_labelled_training,
)
from stopgrad.training.recipe import Crops, CropSize, LabelledImages, draw_crops, padded_crop
from tests.training.factories import (
    KilledError,
    assert_same_end,
    digits,
    dying_after,
    end_state,
    fraction_of,
    last,
    opened,
    poisoned,
    step_losses,
    weights_sha256,
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """320 real digits to learn from and 100 to score, of all classes."""
    return digits(320, 100)


def _tiny(**changes: Any) -> Config:
    return preset("tiny", **changes)


def _short() -> Config:
    return _tiny(epochs=2, checkpoint_every=7)


def _training(images: LabelledImages, config: Config) -> LabelledTraining:
    return start_labelled_training(
        build_classifier(config.encoder, classes=len(images.class_names), seed=config.seed),
        images,
        recipe=recipe_of(config, "supervised"),
        config=config,
        normalization=normalization(images.train),
    )


# Random crop


@pytest.mark.parametrize("padding", [0, 1, 4, 6])
def test_a_crop_is_torchvisions_pad_crop_and_flip(padding: int) -> None:
    pixels = torch.randint(0, 256, (40, 3, 9, 7), generator=torch_generator(0, "x")).byte()
    size = CropSize(8, 5)
    room = CropSize(9 + 2 * padding - 8, 7 + 2 * padding - 5)
    crops = draw_crops(torch_generator(1, "crops"), images=40, room=room, flip=0.5)
    cut = padded_crop(pixels, crops, padding=padding, size=size)
    for number in range(40):
        padded = reference.pad(pixels[number], [padding] * 4, padding_mode="reflect")
        top, left = int(crops.top[number]), int(crops.left[number])
        wanted = reference.crop(padded, top, left, *size)
        if crops.flip[number]:
            wanted = reference.hflip(wanted)
        assert torch.equal(cut[number], wanted)


def test_every_corner_is_as_likely_and_flips_come_as_often_as_asked() -> None:
    crops = draw_crops(torch_generator(0, "x"), images=90_000, room=CropSize(8, 2), flip=0.3)
    for corner, most in ((crops.top, 8), (crops.left, 2)):
        shares = corner.bincount() / len(corner)
        assert len(shares) == most + 1
        assert shares.numpy() == pytest.approx(1 / (most + 1), abs=0.006)  # 4 standard errors
    assert crops.flip.float().mean().item() == pytest.approx(0.3, abs=0.007)
    assert torch.corrcoef(torch.stack([c.float() for c in crops])).triu(1).abs().max() < 0.015


def test_no_room_means_no_crop() -> None:
    crops = draw_crops(torch_generator(0, "x"), images=5, room=CropSize(0, 0), flip=0.0)
    pixels = torch.randint(0, 256, (5, 3, 6, 6), generator=torch_generator(0, "y")).byte()
    assert torch.equal(padded_crop(pixels, crops, padding=0, size=CropSize(6, 6)), pixels)


def test_a_step_crops_by_the_seed_and_the_step_alone(dataset: Dataset) -> None:
    images = fraction_of(dataset)
    batch = torch.arange(16)
    first, again = (_training(images, _tiny()).augmented(batch).x for _ in range(2))
    torch.rand(1)
    later = _training(images, _tiny())
    later.step = 1
    assert torch.equal(first, again)
    assert not torch.equal(first, later.augmented(batch).x)
    assert not torch.equal(first, _training(images, _tiny(seed=1)).augmented(batch).x)


def test_what_goes_in_is_the_crop_normalised_by_the_fractions_own_mean_and_std(
    dataset: Dataset,
) -> None:
    config = _tiny(**{"supervised.padding": 0, "views.flip": 0.0})
    images = fraction_of(dataset, 0.1)
    x = _training(images, config).augmented(torch.arange(len(images.train))).x.double()
    assert x.mean(dim=(0, 2, 3)).numpy() == pytest.approx(0, abs=1e-5)
    assert x.std(dim=(0, 2, 3), correction=0).numpy() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"supervised.padding": 28}, "supervised.padding = 28"),
        ({"supervised.crop": 37}, "supervised.crop = 37"),
    ],
)
def test_a_crop_that_does_not_fit_is_refused(
    dataset: Dataset, changes: dict[str, int], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        next(labelled_epochs(fraction_of(dataset), _tiny(**changes)))


# One step and the schedule


class Plain(nn.Module):
    """torchvision's ResNet-10 for small images, with its own classifier."""

    def __init__(self) -> None:
        super().__init__()
        resnet = torchvision.models.resnet
        self.encoder = resnet.ResNet(resnet.BasicBlock, [1] * 4)
        self.encoder.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.encoder.maxpool = self.encoder.fc = nn.Identity()
        self.head = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))  # type: ignore[no-any-return]


def test_two_steps_agree_with_a_plain_loop_of_torch(dataset: Dataset) -> None:
    config = _tiny(
        **{
            "batch": 16,
            "epochs": 1,
            "encoder.name": "resnet10",
            "encoder.stem": "small",
            "precision": "fp32",
            "channels_last": False,
            "supervised.base_lr": 0.1,
            "supervised.weight_decay": 0.01,
        }
    )
    training = _training(fraction_of(dataset), config)
    plain = Plain().double()
    plain.load_state_dict(training.model.state_dict())
    training.model.double()
    sgd = torch.optim.SGD(plain.parameters(), lr=1.0, momentum=0.9, weight_decay=0.01)
    for step in range(2):
        x = torch.randn(16, 3, 12, 12, generator=torch_generator(step, "x")).double()
        labels = torch.arange(16) % 10
        loss = training.take_step(LabelledBatch(x, labels)).item()
        log_likelihood = plain(x).log_softmax(dim=1)[torch.arange(16), labels]
        sgd.zero_grad()
        (-log_likelihood.mean()).backward()
        # 320 images / 16 = 20 steps; lr = 0.1 x 16 / 256, on a half cosine.
        sgd.param_groups[0]["lr"] = 0.1 / 16 * (1 + math.cos(math.pi * step / 20)) / 2
        sgd.step()
        assert loss == pytest.approx(-log_likelihood.mean().item(), rel=1e-6)
    ours = dict(training.model.named_parameters())
    for key, value in plain.named_parameters():
        torch.testing.assert_close(ours[key], value, rtol=1e-6, atol=1e-7)


def test_the_learning_rate_falls_on_a_cosine_from_its_peak_to_0(dataset: Dataset) -> None:
    training = _training(fraction_of(dataset), _tiny(epochs=4, batch=32))
    assert training.steps_per_epoch == 10
    peak = 0.4 * 32 / 256
    rates = [training.group_rates(step)["encoder"] for step in (1, 11, 21, 41)]
    assert rates[0] == peak
    assert rates[1] == pytest.approx(peak * (2 + math.sqrt(2)) / 4)  # cos(pi / 4)
    assert rates[2] == pytest.approx(peak / 2)
    assert rates[3] == pytest.approx(0, abs=1e-12)


def test_the_report_s_setting_is_the_default() -> None:
    recipe = recipe_of(Config(), "supervised")
    assert (recipe.epochs, recipe.batch, recipe.padding, recipe.flip) == (800, 512, 4, 0.5)
    assert recipe.lr == recipe.head_lr == pytest.approx(0.06)  # 0.03 x 512 / 256
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 5e-4)


def test_the_encoder_starts_as_that_of_pretraining(dataset: Dataset) -> None:
    config = _tiny(seed=3)
    ours = build_classifier(config.encoder, classes=10, seed=3).encoder.state_dict()
    theirs = build_encoder(config.encoder, torch_generator(3, "encoder")).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    heads = [build_classifier(config.encoder, classes=10, seed=s).head.weight for s in (3, 4)]
    assert not torch.equal(*heads)


def test_a_training_view_of_resnet18_costs_three_times_its_forward_pass() -> None:
    multiply_adds = 555e6  # ResNet-18 at 32 px, forward
    shape = ClassifierShape(preset("cifar").encoder, 10, (32, 32))
    assert classifier_flops(shape) == pytest.approx(6 * multiply_adds, rel=0.02)


# Fractions of the labels


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.1, 0.01])
def test_every_fraction_takes_as_many_steps_and_sees_its_images_equally_often(
    dataset: Dataset, fraction: float
) -> None:
    images = fraction_of(dataset, fraction)
    training = _training(images, _tiny())
    epoch = torch.cat(list(training.batches()))
    assert len(epoch) == 320
    times = epoch.bincount(minlength=len(images.train))
    assert len(times) == len(images.train)
    assert int(times.max()) - int(times.min()) <= 1
    training.step, training.epoch = training.steps_per_epoch, 1
    assert not torch.equal(epoch, torch.cat(list(training.batches())))


def test_a_fraction_smaller_than_a_batch_fills_it_with_other_crops(dataset: Dataset) -> None:
    images = fraction_of(dataset, 0.01)  # one image of each class
    training = _training(images, _tiny(batch=32))
    batch = next(training.batches())
    assert len(images.train) == 10
    assert len(batch) == 32
    same = training.augmented(batch).x[batch == batch[0]]
    assert len(same) >= 3
    assert not torch.equal(same[0], same[1])


def test_no_image_outside_of_the_fraction_enters(dataset: Dataset) -> None:
    fraction = fraction_of(dataset, 0.1)
    noisy = dataset._replace(train=poisoned(dataset.train, fraction.train))
    assert not np.array_equal(noisy.train.pixels, dataset.train.pixels)
    config = _tiny(epochs=1)
    clean, other = (last(labelled_epochs(fraction_of(d, 0.1), config)) for d in (dataset, noisy))
    assert weights_sha256(clean.model) == weights_sha256(other.model)
    # The control: with all labels the same noise does enter.
    clean, other = (last(labelled_epochs(fraction_of(d), config)) for d in (dataset, noisy))
    assert weights_sha256(clean.model) != weights_sha256(other.model)


def test_no_test_image_enters(dataset: Dataset) -> None:
    noise = np.random.default_rng(0).integers(0, 256, dataset.test.pixels.shape, dtype=np.uint8)
    test = images_from_arrays(noise, labels=dataset.test.labels)
    config = _tiny(epochs=1)
    one, other = (
        last(labelled_epochs(fraction_of(d), config))
        for d in (dataset, dataset._replace(test=test))
    )
    assert weights_sha256(one.model) == weights_sha256(other.model)
    assert not torch.equal(one.score.predicted, other.score.predicted)


def test_a_new_seed_draws_other_labels(dataset: Dataset) -> None:
    one, other = (fraction_of(dataset, 0.1, seed=seed).train.fingerprint for seed in (0, 1))
    assert one != other


def test_fewer_images_than_a_batch_are_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"320 images to train on with supervised\.batch = 512"):
        next(labelled_epochs(fraction_of(dataset), _tiny(batch=512)))


# Learning and the score


def test_it_learns_far_more_than_the_untrained_network_knows(dataset: Dataset) -> None:
    config = _tiny(epochs=12, **{"views.flip": 0.0})
    epochs = list(labelled_epochs(fraction_of(dataset), config))
    scores = [epoch.score for epoch in epochs]
    assert scores[:-1] == [None] * 11
    assert epochs[-1].loss < epochs[0].loss / 2
    assert scores[-1].accuracy > 0.7  # chance, and the untrained network, are near 0.1


def test_the_score_is_that_of_the_last_weights_on_every_test_image(dataset: Dataset) -> None:
    images = fraction_of(dataset)
    epoch = last(labelled_epochs(images, _tiny(epochs=2, precision="fp32")))
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in normalization(images.train))
    x = (torch.from_numpy(images.test.pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        predicted = epoch.model.eval()(x).argmax(dim=1)
    right = predicted == torch.from_numpy(images.test.labels)
    assert epoch.score.images_scored == 100
    assert epoch.score.accuracy == pytest.approx(right.float().mean().item())
    assert torch.equal(epoch.score.predicted, predicted)


def test_the_protocol_states_the_recipe_and_the_budget_beside_pretrainings(
    dataset: Dataset,
) -> None:
    images = fraction_of(dataset, 0.1)
    epoch = last(labelled_epochs(images, _tiny(epochs=2)))
    how = epoch.score.protocol
    assert how["evaluator"] == "supervised"
    assert (how["epochs"], how["steps"], how["batch"], how["lr"]) == (2, 20, 32, 0.05)
    assert (how["train_images"], how["epoch_samples"]) == (len(images.train), 320)
    assert (how["views"], how["views_of_pretraining"]) == (640, 1280)
    assert how["augmentation"] == (
        "random crop of 28 x 28 px with 4 px of reflect padding, flip 0.5"
    )


def test_the_same_seed_twice_gives_the_same_bits_and_another_does_not(dataset: Dataset) -> None:
    ends = []
    for seed in (0, 0, 1):
        torch.rand(1)  # the global generator moves on between the trainings
        epochs = labelled_epochs(fraction_of(dataset), _tiny(epochs=1, seed=seed))
        ends.append(weights_sha256(last(epochs).model))
    assert ends[0] == ends[1] != ends[2]


# A run directory per fraction


def _open(path: Path, dataset: Dataset, config: Config, *, fraction: float = 0.5) -> RunWriter:
    images = fraction_of(dataset, fraction, seed=config.seed)
    how = {"task": "supervised", "normalization": normalization(images.train)}
    return opened(path, dataset, config, images=images, **how)


def _run(path: Path, dataset: Dataset, config: Config, **how: Any) -> list[LabelledEpoch]:
    with _open(path, dataset, config) as writer:
        return list(labelled_epochs(fraction_of(dataset, 0.5), config, writer=writer, **how))


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed: 2 epochs of 10 steps, a checkpoint every 7 steps."""
    run = tmp_path_factory.mktemp("whole") / "share"
    _run(run, dataset, _short())
    return run


@pytest.mark.parametrize("steps", [1, 10, 13, 19])
def test_a_training_that_died_goes_on_bit_for_bit(
    dataset: Dataset, whole: Path, tmp_path: Path, steps: int
) -> None:
    config = _short()
    with pytest.raises(KilledError):
        _run(tmp_path / "run", dataset, config, track=dying_after(steps))
    epochs = _run(tmp_path / "run", dataset, config)
    assert_same_end(tmp_path / "run", whole)
    assert [step for step, _ in step_losses(tmp_path / "run")] == list(range(1, 21))
    rows = [
        [row["loss"] for row in read_metrics(run) if row["kind"] == "epoch"]
        for run in (tmp_path / "run", whole)
    ]
    assert rows[0] == rows[1]
    assert epochs[-1].number == 2


@pytest.mark.parametrize(("part", "saved"), [(1e9, 10), (1e-9, 0)])
def test_an_epochs_end_is_saved_when_saving_takes_little_of_the_time(
    dataset: Dataset,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: float,
    saved: int,
) -> None:
    monkeypatch.setattr("stopgrad.training.learner.SAVING_TIME", part)
    with pytest.raises(KilledError):
        _run(tmp_path / "run", dataset, _tiny(epochs=2, checkpoint_every=0), track=dying_after(13))
    assert load_checkpoint(tmp_path / "run").step == saved
    _run(tmp_path / "run", dataset, _tiny(epochs=2, checkpoint_every=0))
    assert_same_end(tmp_path / "run", whole)


def test_a_forgotten_momentum_would_be_seen(dataset: Dataset, whole: Path) -> None:
    """Negative control of the test above."""
    checkpoint = load_checkpoint(whole)
    ends = []
    for momentum in (checkpoint.optimizer, {}):
        training = _training(fraction_of(dataset, 0.5), _short())
        training.restore(checkpoint._replace(optimizer=momentum, step=10))
        training.take_step(training.augmented(next(training.batches())))
        ends.append(weights_sha256(training.model))
    assert ends[0] != ends[1]


def test_saving_changes_nothing(dataset: Dataset, whole: Path) -> None:
    assert weights_sha256(
        last(labelled_epochs(fraction_of(dataset, 0.5), _short())).model
    ) == weights_sha256(_restored(whole, dataset))


def _restored(run: Path, dataset: Dataset) -> Classifier:
    training = _training(fraction_of(dataset, 0.5), _short())
    training.restore(load_checkpoint(run))
    return training.model


def test_where_losses_may_wait_as_on_a_gpu_each_step_has_its_own_row(
    dataset: Dataset, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stopgrad.training.learner.Learner.most_unread", 100)
    epochs = _run(tmp_path / "run", dataset, _short())
    assert_same_end(tmp_path / "run", whole)
    rows = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "step"]
    assert len({row["seconds"] for row in rows}) > 10  # not those of the newest step
    taken = sum(row["seconds"] for row in rows)
    assert epochs[0].seconds < taken < epochs[-1].seconds  # the last one was scored too


def test_a_finished_training_takes_no_step_and_gives_its_score_again(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = _short()
    first = _run(tmp_path / "run", dataset, config)
    rows = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    [again] = _run(tmp_path / "run", dataset, config)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == rows
    assert again.score.accuracy == first[-1].score.accuracy
    assert (again.number, again.step, again.loss) == (2, 20, first[-1].loss)
    steps = [row["seconds"] for row in read_metrics(tmp_path / "run") if row["kind"] == "step"]
    assert again.seconds > sum(steps) > 0


def test_it_is_finished_once_its_score_was_taken_in(dataset: Dataset, tmp_path: Path) -> None:
    config = _tiny(epochs=1, checkpoint_every=0)
    with _open(tmp_path / "run", dataset, config) as writer:
        epochs = labelled_epochs(fraction_of(dataset, 0.5), config, writer=writer)
        assert next(epochs).score is not None
        assert read_status(tmp_path / "run")["state"] == "running"
        assert list(epochs) == []
    assert read_status(tmp_path / "run")["state"] == "finished"


@pytest.mark.parametrize(
    ("moment", "item", "saved"),
    [("epoch 1/2", 1, 1), ("epoch 1/2", 10, 10), ("epoch 2/2", 10, 20), ("embed", 1, 20)],
)
def test_a_signal_stops_between_two_steps_or_while_scoring_and_nothing_is_lost(
    dataset: Dataset, whole: Path, tmp_path: Path, moment: str, item: int, saved: int
) -> None:
    config, run = _short(), tmp_path / "run"
    with _open(run, dataset, config) as writer:

        def track(items: Iterable[Any], description: str, total: int, /) -> Iterator[Any]:
            for number, one in enumerate(items, start=1):
                if (description, number) == (moment, item):
                    writer.stop_signal = 15
                yield one

        with pytest.raises(InterruptedRunError, match="same command") as caught:
            list(labelled_epochs(fraction_of(dataset, 0.5), config, writer=writer, track=track))
    assert caught.value.exit_code == 143
    assert read_status(run)["state"] == "interrupted"
    assert load_checkpoint(run).step == saved
    _run(run, dataset, config)
    assert [step for step, _ in step_losses(run)] == list(range(1, 21))
    assert end_state(run) == end_state(whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"supervised.base_lr": 0.5}, r"supervised\.base_lr: 0\.4 -> 0\.5"),
        ({"encoder.width": 2.0}, r"encoder\.width"),
        ({"seed": 1}, "seed: 0 -> 1"),
    ],
)
def test_other_settings_do_not_go_on(
    dataset: Dataset, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(KilledError):
        _run(tmp_path / "run", dataset, _tiny(), track=dying_after(2))
    with pytest.raises(ConfigError, match=said):
        _run(tmp_path / "run", dataset, _tiny(**change))


def test_another_fraction_or_other_images_do_not_go_on(dataset: Dataset, tmp_path: Path) -> None:
    config, run = _tiny(), tmp_path / "run"
    with pytest.raises(KilledError):
        _run(run, dataset, config, track=dying_after(2))
    quarter = _open(run, dataset, config, fraction=0.25)
    with quarter as writer, pytest.raises(DataError, match=r"labels: 0\.5 -> 0\.25"):
        next(labelled_epochs(fraction_of(dataset, 0.25), config, writer=writer))
    other = dataset._replace(train=poisoned(dataset.train, dataset.train.take(np.arange(319))))
    with pytest.raises(DataError, match="fingerprint"):
        _run(run, other, config)


def test_divergence_stops_before_the_bad_step(dataset: Dataset, tmp_path: Path) -> None:
    config = _tiny(**{"supervised.base_lr": 1e20, "checkpoint_every": 1})
    with pytest.raises(DivergedError, match="at step"):
        _run(tmp_path / "run", dataset, config)
    status = read_status(tmp_path / "run")
    assert status["state"] == "diverged"
    assert "learning rate" in status["reason"]
    tensors = load_checkpoint(tmp_path / "run").model.values()
    assert all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())


def test_a_loss_that_is_not_finite_leaves_the_weights_as_they_were(dataset: Dataset) -> None:
    training = _training(fraction_of(dataset), _tiny())
    batch = training.augmented(next(training.batches()))
    before = {key: value.clone() for key, value in training.model.named_parameters()}
    training.take_step(batch._replace(x=batch.x * math.nan))
    with pytest.raises(DivergedError, match=r"not finite at step 1 .*supervised\.base_lr"):
        training.read_losses()
    for key, value in training.model.named_parameters():
        assert torch.equal(value, before[key])
    assert training.step == 0
    assert F.cross_entropy(training.model(batch.x), batch.labels).isfinite()


def test_crops_are_taken_by_row(dataset: Dataset) -> None:
    """Each image has a corner of its own: one set for the whole batch would be no augmentation."""
    crops = draw_crops(torch_generator(0, "x"), images=64, room=CropSize(8, 8), flip=0.5)
    assert isinstance(crops, Crops)
    assert len(set(zip(crops.top.tolist(), crops.left.tolist(), strict=True))) > 30
