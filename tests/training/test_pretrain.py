"""Claims about `simsiam` and `pretrain`."""

import functools
import itertools
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

from stopgrad.config import Config, preset
from stopgrad.errors import (
    CollapsedError,
    ConfigError,
    DataError,
    DivergedError,
    InterruptedRunError,
)
from stopgrad.evaluation import embed
from stopgrad.face.progress import epoch_line
from stopgrad.images import Dataset, Images, Track, images_from_arrays, normalization
from stopgrad.method import Layers, Views, build_simsiam, compute_for, training_flops
from stopgrad.method.collapse import Measures
from stopgrad.runs import (
    Checkpoint,
    RunWriter,
    check_sizes,
    describe_run,
    fit_sizes,
    load_checkpoint,
    prepare,
    read_metrics,
    read_status,
    spec_to_keep,
)
from stopgrad.storage import append_lines
from stopgrad.training import Epoch, Pretraining, pretrain_epochs, start_training
from stopgrad.training.learner import Keeper
from stopgrad.training.watch import watched_knn
from tests.training.factories import (
    KilledError,
    assert_same_end,
    digits,
    dying_after,
    end_state,
    step_losses,
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """280 real digits to learn from and 40 to watch, of all classes."""
    return digits(280, 40)


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the preset, disturbed by nothing: four epochs of eight steps."""
    run = tmp_path_factory.mktemp("undisturbed") / "whole"
    _train(dataset, _tiny(), run)
    return run


def _tiny(**changes: Any) -> Config:
    return preset("tiny", **changes)


def _train(dataset: Dataset, config: Config, run: Path | None = None) -> list[Epoch]:
    images = prepare(dataset, config)
    if run is None:
        return list(pretrain_epochs(images, config))
    writer = RunWriter.create(run, describe_run(dataset, config, spec="digits"))
    with writer:
        return list(pretrain_epochs(images, config, writer=writer))


def _go_on(dataset: Dataset, config: Config, run: Path) -> list[Epoch]:
    with RunWriter.resume(run) as writer:
        return list(pretrain_epochs(prepare(dataset, config), config, writer=writer))


def _of_epochs(run: Path, field: str) -> list[Any]:
    return [row[field] for row in read_metrics(run) if row["kind"] == "epoch"]


def _begun(dataset: Dataset, config: Config) -> Pretraining:
    """A pretraining at step 0."""
    return start_training(dataset.train, config, normalization=normalization(dataset.train))


# One step against an independent reference


class Reference(nn.Module):
    """SimSiam without any speed trick, written from the paper with torchvision's ResNet."""

    def __init__(self, *, blocks: int, predictor: bool) -> None:
        super().__init__()
        resnet = torchvision.models.resnet
        self.encoder = resnet.ResNet(resnet.BasicBlock, [blocks] * 4)
        self.encoder.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.encoder.maxpool = self.encoder.fc = nn.Identity()
        self.hidden, self.out = nn.Linear(512, 64, bias=False), nn.Linear(64, 128, bias=False)
        self.hidden_bn, self.out_bn = nn.BatchNorm1d(64), nn.BatchNorm1d(128, affine=False)
        self.down, self.down_bn = nn.Linear(128, 32, bias=False), nn.BatchNorm1d(32)
        self.up = nn.Linear(32, 128)
        self.predictor = predictor

    def project(self, x: Tensor) -> Tensor:
        return self.out_bn(self.out(F.relu(self.hidden_bn(self.hidden(self.encoder(x))))))

    def predict(self, z: Tensor) -> Tensor:
        return self.up(F.relu(self.down_bn(self.down(z)))) if self.predictor else z

    def loss(self, x1: Tensor, x2: Tensor, *, stop_gradient: bool) -> Tensor:
        z1, z2 = self.project(x1), self.project(x2)
        terms = []
        for p, z in ((self.predict(z1), z2), (self.predict(z2), z1)):
            z = z.detach() if stop_gradient else z
            terms.append(-((p / p.norm(dim=1)[:, None]) * (z / z.norm(dim=1)[:, None])).sum(1))
        return torch.cat(terms).mean()

    def as_ours(self) -> dict[str, nn.Parameter]:
        """Parameters by our names."""
        pairs = {
            "projector.hidden.0.0": self.hidden,
            "projector.hidden.0.1": self.hidden_bn,
            "projector.output": self.out,
            "predictor.hidden.0": self.down,
            "predictor.hidden.1": self.down_bn,
            "predictor.output": self.up,
        }
        modules = {"encoder": self.encoder} | (
            pairs if self.predictor else {k: v for k, v in pairs.items() if "predictor" not in k}
        )
        return {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
        }


def _reference(*, blocks: int, predictor: bool) -> Reference:
    """A reference with gains and offsets that leave no gradient at 0."""
    reference = Reference(blocks=blocks, predictor=predictor)
    for layer in reference.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return reference


def _worst_difference(ours: dict[str, nn.Parameter], theirs: dict[str, nn.Parameter]) -> float:
    """The largest |our gradient - theirs| / |theirs| over all parameters."""
    differences = []
    for key, value in theirs.items():
        gradient, wanted = ours[key].grad, value.grad
        differences.append(float((gradient - wanted).norm() / wanted.norm().clamp_min(1e-6)))
    return max(differences)


# fp32 for a network in which rounding flips no ReLU: one flip moves a whole layer's gradient by
# more than the bound (up to 2e-2 in ResNet-18, the reference against itself in fp64). ResNet-18
# is therefore compared in fp64, in the memory format that training uses.
@pytest.mark.parametrize(
    ("stop_gradient", "predictor", "encoder", "dtype"),
    [
        *itertools.product([True, False], [True, False], ["resnet10"], [torch.float32]),
        (True, True, "resnet18", torch.float64),
        (False, True, "resnet18", torch.float64),
    ],
)
def test_one_step_agrees_with_a_plain_reference(
    dataset: Dataset, stop_gradient: bool, predictor: bool, encoder: str, dtype: torch.dtype
) -> None:
    config = _tiny(
        **SMALL_HEADS,
        **{
            "stop_gradient": stop_gradient,
            "predictor.enabled": predictor,
            "encoder.name": encoder,
            "channels_last": dtype == torch.float64,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = 1 if encoder == "resnet10" else 2
        reference = _reference(blocks=blocks, predictor=predictor).to(dtype)
        x1, x2 = torch.randn(2, 16 if dtype == torch.float32 else 6, 3, 16, 16, dtype=dtype)
    training = _begun(dataset, config)
    ours, theirs = dict(training.model.to(dtype).named_parameters()), reference.as_ours()
    assert ours.keys() == theirs.keys()
    with torch.no_grad():
        for key, value in theirs.items():
            ours[key].copy_(value)
    loss = training.take_step(Views(x1, x2))
    expected = reference.loss(x1, x2, stop_gradient=stop_gradient)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), abs=1e-5)
    assert _worst_difference(ours, theirs) < 1e-4


def test_a_momentum_target_is_the_average_of_the_weights_and_gives_the_z(dataset: Dataset) -> None:
    training = _begun(dataset, _tiny(target="momentum", target_momentum=0.9))
    model, names = training.model, ("encoder.conv1.weight", "projector.hidden.0.0.weight")
    average = {name: model.get_parameter(name).detach().clone() for name in names}
    for indices in list(training.batches())[:2]:
        training.advance(indices)
        for name, value in average.items():  # by hand: .9 of the old and .1 of the new weights
            value.mul_(0.9).add_(0.1 * model.get_parameter(name).detach())
    kept = model.get_parameter("target.0.conv1.weight")
    torch.testing.assert_close(kept, average["encoder.conv1.weight"])
    assert kept.grad is None
    views = training.views(next(training.batches()))
    outputs = model(*views)
    plain = _begun(dataset, _tiny()).model  # whose encoder and projector are the average
    for part, own in zip(model.target, (plain.encoder, plain.projector), strict=True):
        own.load_state_dict(part.state_dict())
    torch.testing.assert_close(outputs.z1, plain(*views).z1.detach())
    assert not outputs.z1.requires_grad
    assert outputs.p1.requires_grad


def test_a_momentum_target_without_the_stop_gradient_is_refused() -> None:
    with pytest.raises(ConfigError, match="no gradient reaches a target"):
        _tiny(target="momentum", stop_gradient=False)


def test_one_pass_of_both_views_equals_two_passes_one_after_the_other() -> None:
    """Outputs and running statistics; joint statistics are the negative control."""
    x1, x2 = torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    ours = build_simsiam(_tiny()).train()
    plain, joint = (build_simsiam(_tiny(batch_norm="joint")).train() for _ in range(2))
    features = [plain.encoder(x) for x in (x1, x2)]
    z1, z2 = (plain.projector(f) for f in features)
    expected = (plain.predictor(z1), plain.predictor(z2), z1, z2)
    for got, wanted, other in zip(ours(x1, x2), expected, joint(x1, x2), strict=True):
        assert torch.allclose(got, wanted, atol=1e-4)
        assert not torch.allclose(other, wanted, atol=1e-2)
    for key, value in plain.state_dict().items():
        assert torch.allclose(ours.state_dict()[key], value, atol=1e-5), key


def test_views_are_kept_apart_in_a_backbone_of_timm() -> None:
    config = _tiny(**{"encoder.name": "timm:resnet10t"})
    x1, x2 = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    ours, plain = (
        build_simsiam(config),
        build_simsiam(_tiny(batch_norm="joint", **{"encoder.name": "timm:resnet10t"})),
    )
    together = ours.encoder.train()(torch.cat([x1, x2]))
    one_by_one = torch.cat([plain.encoder.train()(x) for x in (x1, x2)])
    assert torch.allclose(together, one_by_one, atol=1e-4)


SMALL_HEADS = {
    "precision": "fp32",
    "encoder.stem": "small",
    "encoder.zero_init": False,
    "projector.hidden": 64,
    "projector.out": 128,
    "predictor.hidden": 32,
    "batch": 16,
}


def test_a_training_view_of_resnet18_costs_what_the_literature_says() -> None:
    multiply_adds = 555e6  # ResNet-18 at 32 px, forward, without the heads
    assert training_flops(preset("cifar")) == pytest.approx(6 * multiply_adds, rel=0.02)


# The same bits


def test_the_same_seed_twice_gives_the_same_bits_and_another_does_not(
    dataset: Dataset, whole: Path, tmp_path: Path
) -> None:
    for name, seed in (("b", 0), ("c", 1)):
        torch.rand(1)  # the global generator moves on between the runs
        _train(dataset, _tiny(seed=seed), tmp_path / name)
    assert_same_end(whole, tmp_path / "b")
    assert end_state(whole) != end_state(tmp_path / "c")


def test_watching_and_saving_change_nothing(dataset: Dataset, tmp_path: Path) -> None:
    _train(dataset, _tiny(knn_every=1, checkpoint_every=1), tmp_path / "often")
    _train(dataset, _tiny(knn_every=0, checkpoint_every=0), tmp_path / "never")
    assert end_state(tmp_path / "often") == end_state(tmp_path / "never")
    assert read_status(tmp_path / "often")["knn"] == _of_epochs(tmp_path / "often", "knn")[-1]
    assert "knn" not in read_status(tmp_path / "never")


def test_losses_that_are_read_late_as_on_a_gpu_change_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _tiny(epochs=2)
    _train(dataset, config, tmp_path / "at once")
    monkeypatch.setattr("stopgrad.training.learner.Learner.most_unread", 100)
    _train(dataset, config, tmp_path / "late")
    assert_same_end(tmp_path / "late", tmp_path / "at once")


@pytest.mark.parametrize("steps", [1, 8, 13, 31])
def test_a_run_that_died_goes_on_bit_for_bit(
    dataset: Dataset, whole: Path, tmp_path: Path, steps: int
) -> None:
    config = _tiny()
    images, info = prepare(dataset, config), describe_run(dataset, config, spec="digits")
    with RunWriter.create(tmp_path / "dead", info) as writer, pytest.raises(KilledError):
        list(pretrain_epochs(images, config, writer=writer, track=dying_after(steps)))
    _go_on(dataset, config, tmp_path / "dead")
    assert_same_end(tmp_path / "dead", whole)
    assert [step for step, _ in step_losses(tmp_path / "dead")] == list(range(1, 33))
    assert _of_epochs(tmp_path / "dead", "loss") == _of_epochs(whole, "loss")


def test_a_run_with_a_momentum_target_goes_on_bit_for_bit(dataset: Dataset, tmp_path: Path) -> None:
    config = _tiny(target="momentum", target_momentum=0.9)
    _train(dataset, config, tmp_path / "whole")
    images, info = prepare(dataset, config), describe_run(dataset, config, spec="digits")
    with RunWriter.create(tmp_path / "dead", info) as writer, pytest.raises(KilledError):
        list(pretrain_epochs(images, config, writer=writer, track=dying_after(13)))
    _go_on(dataset, config, tmp_path / "dead")
    assert_same_end(tmp_path / "dead", tmp_path / "whole")
    tensors = load_checkpoint(tmp_path / "whole").model
    assert not torch.equal(tensors["target.0.conv1.weight"], tensors["encoder.conv1.weight"])


def test_a_run_killed_before_its_last_status_is_finished_by_resuming(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = _tiny(epochs=1)
    _train(dataset, config, tmp_path / "run")
    status = tmp_path / "run" / "status.json"
    status.write_text(status.read_text().replace("finished", "running"))
    assert _go_on(dataset, config, tmp_path / "run") == []
    assert read_status(tmp_path / "run")["state"] == "finished"


def test_a_forgotten_momentum_would_be_seen(dataset: Dataset, whole: Path) -> None:
    """Negative control of the test above."""
    config = _tiny()
    checkpoint = load_checkpoint(whole)
    ends = []
    for momentum in (checkpoint.optimizer, {}):
        training = _begun(dataset, config)
        training.restore(checkpoint._replace(optimizer=momentum))
        training.epoch, training.step = 1, 8
        training.take_step(training.views(next(training.batches())))
        ends.append(training.model.state_dict()["encoder.conv1.weight"])
    assert not torch.equal(*ends)


# What an epoch reports


def test_the_last_epoch_also_reports_z_without_augmentation(dataset: Dataset) -> None:
    first, last = _train(dataset, _tiny(epochs=2))
    assert first.clean is None
    assert (last.measured, last.clean.images) == (280, 280)
    model, images = last.model.eval(), prepare(dataset, _tiny()).train
    how = {"normalization": normalization(images), "compute": compute_for(_tiny())}
    with torch.no_grad():
        z = model.projector(embed(model.encoder, images, **how).values)
    spectrum = np.linalg.eigvalsh(np.cov(z.double().numpy().T)).clip(0)
    share = spectrum[spectrum > 0] / spectrum.sum()
    expected = np.exp(-(share * np.log(share)).sum())
    assert last.clean.z.effective_rank == pytest.approx(expected, rel=1e-4)
    assert math.isnan(last.clean.z.positive_minus_random)


def test_the_loss_falls_and_each_epoch_is_measured(dataset: Dataset) -> None:
    epochs = _train(dataset, _tiny(epochs=6, **{"encoder.stem": "small"}))
    assert epochs[-1].loss < epochs[0].loss - 0.02
    for epoch in epochs:
        assert epoch.layers.z.positive_minus_random > 0
        assert epoch.layers.features.participation_ratio > 1
    assert epochs[-1].knn > 0.2  # chance is 0.1


def test_before_bn_and_z_differ_by_the_bn_alone(dataset: Dataset) -> None:
    with_bn, without = (
        _train(dataset, _tiny(epochs=1, **{"projector.output_bn": bn}))[-1].layers
        for bn in (True, False)
    )
    assert without.before_bn == without.z
    assert with_bn.before_bn != with_bn.z
    assert with_bn.z.correlation_strength == pytest.approx(
        with_bn.before_bn.correlation_strength, rel=1e-2
    )


def test_without_labels_there_is_no_knn_but_all_else(dataset: Dataset) -> None:
    unlabelled = images_from_arrays(dataset.train.pixels)
    epoch = _train(Dataset("nameless", unlabelled, None), _tiny(epochs=1))[-1]
    assert epoch.knn is None
    assert isinstance(epoch.layers.z, Measures)


@pytest.mark.input(
    "label",
    what="uneven classes among the images that kNN scores during training",
    happens="the balanced accuracy and the largest class's share are reported beside kNN",
)
def test_knn_of_uneven_classes_stands_beside_the_balanced_accuracy(
    dataset: Dataset, tmp_path: Path
) -> None:
    assert dataset.train.labels is not None
    by_class = [np.flatnonzero(dataset.train.labels == label) for label in (0, 1)]
    uneven = dataset.train.take(np.concatenate([np.resize(by_class[0], 9), by_class[1][:3]]))
    (epoch,) = _train(dataset._replace(test=uneven), _tiny(epochs=1), tmp_path / "run")
    balanced, majority = epoch.balance
    assert majority == 9 / 12
    assert epoch.knn is not None
    assert balanced is not None
    right = round(12 * epoch.knn)
    of_two = [(n / 9 + (right - n) / 3) / 2 for n in range(10)]  # n of the larger class are right
    assert any(math.isclose(balanced, value) for value in of_two)
    (row,) = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "epoch"]
    assert (row["knn_balanced"], row["knn_majority"]) == (balanced, 0.75)
    said = f"kNN {epoch.knn:6.2%} (balanced {balanced:.2%}, largest class 75.00%)"
    assert said in epoch_line(epoch, 1)


def test_validation_images_are_watched_and_not_learned_from(dataset: Dataset) -> None:
    images = prepare(dataset, _tiny(validation=0.25))
    assert (len(images.train), len(images.watch or [])) == (210, 70)
    learned, watched = (
        {picture.tobytes() for picture in part.pixels}
        for part in (images.train, images.watch)
        if part is not None
    )
    assert not learned & watched


def test_without_a_test_split_a_fifth_of_the_labels_is_watched(dataset: Dataset) -> None:
    images = prepare(dataset._replace(test=None), _tiny())
    assert images.train is dataset.train
    assert (len(images.bank), len(images.watch)) == (224, 56)
    assert _train(dataset._replace(test=None), _tiny(epochs=1))[-1].knn is not None


def test_known_names_are_kept_and_paths_hold_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10").mkdir()
    assert spec_to_keep("cifar10") == "cifar10"
    assert spec_to_keep("hf:a/b") == "hf:a/b"
    assert spec_to_keep("./cifar10") == str(tmp_path / "cifar10")


def test_what_a_backbone_drops_by_chance_is_decided_by_the_step(dataset: Dataset) -> None:
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        knobs = {"encoder.name": "timm:ghostnet_050", "batch": 8, "precision": "fp32"}
        training = _begun(dataset, _tiny(**knobs))
        for batch in [*training.batches()][:2]:
            training.advance(batch)
        losses.append(training.read_losses())
        assert torch.initial_seed() == seed
    assert losses[0] == losses[1]


def test_a_backbone_that_cannot_take_the_views_is_refused_first(dataset: Dataset) -> None:
    config = _tiny(**{"encoder.name": "timm:mixer_s32_224"})
    with pytest.raises(ConfigError, match="at 16 x 16 px"):
        check_sizes(dataset.train, config)


def _noise(height: int, width: int) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (20, height, width, 3)).astype(np.uint8)
    return Dataset("noise", images_from_arrays(pixels), images_from_arrays(pixels[:3]))


def test_whole_pictures_are_seen_at_a_size_that_the_backbone_takes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = _tiny(**{"encoder.name": "timm:test_vit", "views.size": 32})  # patches of 16 px
    assert fit_sizes(_noise(48, 64), config).train.whole_size == (48, 64)  # as it is
    assert caplog.text == ""
    odd = _noise(37, 37)
    fitted = fit_sizes(odd, config)
    assert fitted.train.whole_size == fitted.test.whole_size == (32, 32)
    assert fitted.train.fingerprint == odd.train.fingerprint
    assert "at 37 x 37 px" in caplog.text
    assert "whole images are seen at 32 x 32 px" in caplog.text
    assert fit_sizes(odd, _tiny()) is odd


def test_pictures_that_the_backbone_takes_at_no_size_are_refused_in_one_line() -> None:
    config = _tiny(**{"encoder.name": "timm:test_vit", "views.size": 32})
    with pytest.raises(ConfigError, match=r"at 36 x 20 px .*\(32 x 32 px\).*; resize the images"):
        fit_sizes(_noise(20, 36), config)
    config = _tiny(**{"encoder.name": "timm:test_vit", "views.size": 36})
    with pytest.raises(ConfigError, match=r"at 36 x 36 px .*; set views.size"):
        fit_sizes(_noise(32, 32), config)


def test_a_network_that_is_not_finite_has_diverged_and_is_not_scored(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(training: Pretraining, *, track: Track) -> Layers:
        return Layers(*[Measures(*[float("nan")] * 7)] * 3)

    monkeypatch.setattr("stopgrad.training.watch.measure_layers", broken)
    epoch = _train(dataset, _tiny(epochs=1))[-1]
    assert epoch.verdict.state == "diverged"
    assert epoch.knn is None


def test_fewer_images_than_a_batch_are_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="280 images to train on with batch = 512"):
        prepare(dataset, _tiny(batch=512))


def test_divergence_stops_before_the_bad_step(dataset: Dataset, tmp_path: Path) -> None:
    config = _tiny(**{"optimizer.base_lr": 1e20, "checkpoint_every": 1})
    with pytest.raises(DivergedError, match="at step"):
        _train(dataset, config, tmp_path / "run")
    status = read_status(tmp_path / "run")
    assert status["state"] == "diverged"
    assert "learning rate" in status["reason"]
    tensors = load_checkpoint(tmp_path / "run").model.values()
    assert all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())


def test_a_refused_step_and_all_after_it_leave_the_weights_as_they_are(dataset: Dataset) -> None:
    """On a GPU the host reads the losses later; until then the device itself refuses."""
    for algorithm, target in (("sgd", "stop-gradient"), ("lars", "momentum")):
        config = _tiny(**{"optimizer.algorithm": algorithm, "target": target})
        training = _begun(dataset, config)
        batches = list(training.batches())
        training.take_step(training.views(batches[0]))
        before = {key: value.clone() for key, value in training.model.named_parameters()}
        views = training.views(batches[1])
        training.take_step(Views(views.x1 * float("nan"), views.x2))
        training.take_step(training.views(batches[2]))
        with pytest.raises(DivergedError, match=r"not finite at step 2 .*loss nan"):
            training.read_losses()
        assert (training.step, len(training.losses)) == (1, 1)
        for key, value in training.model.named_parameters():
            assert torch.equal(value, before[key]), (algorithm, key)


def test_compiled_steps_agree_with_plain_ones(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views, forward and backward are one graph each; making machine code of them takes long."""
    graphs = functools.partial(torch.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr("torch.compile", graphs)
    losses = []
    for compiled in ("off", "on"):
        config = _tiny(precision="fp32", compile=compiled)
        training = _begun(dataset, config)
        for batch in list(training.batches())[:3]:
            training.take_step(training.views(batch))
        losses.append(training.read_losses())
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_what_cannot_be_compiled_is_one_line_that_says_what_to_do(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(graph: object, inputs: object) -> None:
        raise RuntimeError("PassManager::run failed\nand pages more")

    monkeypatch.setattr("torch.compile", functools.partial(torch.compile, backend=backend))
    config = _tiny(compile="on")
    with pytest.raises(ConfigError, match="PassManager") as caught:
        list(pretrain_epochs(prepare(dataset, config), config))
    assert "--compile off" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_learning_rates_kept_on_the_device_make_the_same_steps(dataset: Dataset) -> None:
    """A recorded step of a GPU reads them from there, as 32 bits."""
    weights = []
    for on_device in (False, True):
        config = _tiny(precision="fp32")
        training = _begun(dataset, config)
        if on_device:
            training.optimizer.keep_learning_rates_on(torch.device("cpu"))
        for batch in list(training.batches())[:3]:
            training.advance(batch)
        weights.append(training.model.encoder.conv1.weight)
    assert torch.allclose(*weights, rtol=1e-5, atol=1e-6)
    assert not torch.equal(weights[0], build_simsiam(_tiny()).encoder.conv1.weight)


def test_a_run_that_wants_to_stop_on_collapse_ends_at_its_second_verdict(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = _tiny(epochs=12, stop_gradient=False, stop_on_collapse=True)
    with pytest.raises(CollapsedError, match="collapse at epoch") as stopped:
        _train(dataset, config, tmp_path / "run")
    assert stopped.value.exit_code == 4
    status = read_status(tmp_path / "run")
    assert status["state"] == "collapsed"
    assert "collapse" in status["verdict"]["state"]
    verdicts = [verdict["state"] for verdict in _of_epochs(tmp_path / "run", "verdict")]
    assert "healthy" not in verdicts[-2:]
    assert load_checkpoint(tmp_path / "run").step == status["step"]
    assert len(verdicts) >= 3, "the first tenth of the epochs does not count"
    # As if a signal had come, or a kill, before it could stop.
    with pytest.raises(CollapsedError, match="collapse at epoch") as again:
        _go_on(dataset, config, tmp_path / "run")
    assert str(again.value) == str(stopped.value)
    assert load_checkpoint(tmp_path / "run").step == status["step"]


def test_measuring_less_often_changes_no_bit(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    epochs = _train(dataset, _tiny(measure_every=3, knn_every=2), tmp_path / "third")
    assert [epoch.layers is not None for epoch in epochs] == [False, False, True, True]
    assert [epoch.knn is not None for epoch in epochs] == [False, True, False, True]
    assert step_losses(whole) == step_losses(tmp_path / "third")
    ends = [load_checkpoint(run) for run in (whole, tmp_path / "third")]
    for one, other in zip(*((end.model, end.optimizer) for end in ends), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_signal_during_the_measurements_stops_at_once_and_loses_nothing(
    dataset: Dataset, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _tiny()
    images, info = prepare(dataset, config), describe_run(dataset, config, spec="digits")
    with RunWriter.create(tmp_path / "run", info) as writer:

        def stopped(training: Pretraining, images: Any, *, track: Track) -> float | None:
            if training.epoch == 1:
                writer.stop_signal = 15
            return watched_knn(training, images, track=track)

        monkeypatch.setattr("stopgrad.training.watch.watched_knn", stopped)
        with pytest.raises(InterruptedRunError, match="saved at step 16"):
            list(pretrain_epochs(images, config, writer=writer))
    assert (read_status(tmp_path / "run")["state"], load_checkpoint(tmp_path / "run").step) == (
        "interrupted",
        16,
    )
    monkeypatch.undo()
    # A kill after the row of that epoch was written, before its checkpoint replaces this one.
    row = next(row for row in read_metrics(whole) if row.get("epoch") == 2)
    append_lines(tmp_path / "run" / "metrics.jsonl", [row])
    saved, save = list[int](), RunWriter.save

    def saving(writer: RunWriter, checkpoint: Checkpoint) -> None:
        saved.append(checkpoint.step)
        save(writer, checkpoint)

    monkeypatch.setattr(RunWriter, "save", saving)
    _go_on(dataset, config, tmp_path / "run")
    assert saved[-1] == 32
    assert 16 not in saved  # it would be removed before it is there again
    assert end_state(tmp_path / "run") == end_state(whole)
    for field in ("loss", "knn", "verdict"):
        told = _of_epochs(tmp_path / "run", field)
        assert told == _of_epochs(whole, field)
        assert len(told) == 4


@pytest.mark.parametrize(("every", "epoch"), [(1, 0), (0, 1)])
def test_a_signal_in_the_last_step_of_an_epoch_does_not_wait_for_its_measurements(
    dataset: Dataset, tmp_path: Path, every: int, epoch: int
) -> None:
    config = _tiny(epochs=2, measure_every=every, knn_every=every)
    _train(dataset, config, tmp_path / "whole")
    images, info = prepare(dataset, config), describe_run(dataset, config, spec="digits")
    with RunWriter.create(tmp_path / "run", info) as writer:

        def track(items: Iterable[Any], description: str, total: int, /) -> Iterator[Any]:
            for number, item in enumerate(items, start=1):
                if number == total:
                    writer.stop_signal = 15
                yield item

        with pytest.raises(InterruptedRunError, match="saved at step 8"):
            list(pretrain_epochs(images, config, writer=writer, track=track))
    status = read_status(tmp_path / "run")
    assert (status["state"], status["step"], status["epoch"]) == ("interrupted", 8, epoch)
    _go_on(dataset, config, tmp_path / "run")
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_a_signal_while_losses_wait_on_the_device_saves_them_too(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = _tiny()
    training = _begun(dataset, config)
    info = describe_run(dataset, config, spec="digits")
    with RunWriter.create(tmp_path / "run", info) as writer:
        keeper = Keeper(training, writer)
        keeper.begin()
        training.take_step(training.views(next(training.batches())))
        writer.stop_signal = 15
        with pytest.raises(InterruptedRunError, match="saved at step 1"):
            keeper.stop_if_asked()
        manifest = tmp_path / "run" / "checkpoints" / "step-000001" / "manifest.json"
        saved = manifest.stat().st_mtime_ns
        with pytest.raises(InterruptedRunError, match="saved at step 1"):
            keeper.stop_if_asked()
        assert manifest.stat().st_mtime_ns == saved  # written again it would be gone for a moment
    assert [step for step, _ in step_losses(tmp_path / "run")] == [1]
    assert len(load_checkpoint(tmp_path / "run").state["losses"]) == 1


def test_every_image_is_seen_at_most_once_an_epoch(dataset: Dataset) -> None:
    config = _tiny()
    training = _begun(dataset, config)
    first = torch.cat(list(training.batches()))
    training.epoch, training.step = 1, training.steps_per_epoch
    second = torch.cat(list(training.batches()))
    assert len(first) == len(first.unique()) == 256
    assert not torch.equal(first, second)


def test_the_model_of_a_seed_does_not_depend_on_the_data(dataset: Dataset) -> None:
    config = _tiny()
    few = Images(dataset.train.pixels[:64], None, (), dataset.train.fingerprint)
    training = start_training(few, config, normalization=normalization(few))
    for key, value in build_simsiam(config).state_dict().items():
        assert torch.equal(training.model.state_dict()[key], value)


@pytest.mark.parametrize("has_bf16", [False, True])
def test_a_processor_without_bf16_computes_in_fp32_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    found = [
        compute_for(_tiny(device="cpu", precision=name)).precision
        for name in ("auto", "bf16", "fp32")
    ]
    assert found == ["bf16" if has_bf16 else "fp32", "bf16", "fp32"]
