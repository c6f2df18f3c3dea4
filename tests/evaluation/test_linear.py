"""Claims about `linear`."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

import stopgrad.evaluation.linear
from stopgrad.config import LinearConfig, torch_generator
from stopgrad.errors import DataError, DivergedError
from stopgrad.evaluation import Features, linear_probe
from stopgrad.evaluation.features import Labelled
from stopgrad.evaluation.linear import (
    AS_PUBLISHED,
    PAPER_LARS,
    REPORT_SGD,
    Heads,
    Plan,
    batches,
    choose_lr,
    fit,
    loss_gradient,
    lr_candidates,
    standardization,
    start,
    tuned_probe,
    validation_mask,
)
from stopgrad.images import Images, load_dataset
from tests.factories import digit_features


def _random_relu(images: Images, *, count: int, seed: int) -> Features:
    """512 random ReLU features of random 16 x 16 crops of real digits: no two classes separate."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(9)) / 8
    crops = torch.from_numpy(images.pixels[..., 0].copy()).unfold(1, 16, 1).unfold(2, 16, 1)
    chosen = torch.randint(len(crops), (count,), generator=generator)
    top, left = torch.randint(crops.shape[1], (2, count), generator=generator)
    x = crops[chosen, top, left].flatten(1) / 255
    return Features(torch.relu(x @ weight), torch.from_numpy(images.labels.copy())[chosen])


def test_probe_is_within_half_a_point_of_a_converged_logistic_regression() -> None:
    data = load_dataset("mnist5k")
    train = _random_relu(data.train, count=10_000, seed=1)
    test = _random_relu(data.test, count=10_000, seed=2)
    mean, std = train.values.mean(dim=0), train.values.std(dim=0)
    reference = LogisticRegression(C=np.inf, max_iter=1000)
    reference.fit(((train.values - mean) / std).numpy(), train.labels.numpy())
    expected = reference.score(((test.values - mean) / std).numpy(), test.labels.numpy())
    assert abs(linear_probe(train, test, REPORT_SGD, seed=0).accuracy - expected) <= 0.005


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_and_the_offset_of_features_do_not_matter(factor: float) -> None:
    train, test = digit_features()
    config = LinearConfig(epochs=10)
    plain = linear_probe(train, test, config, seed=0)
    moved = linear_probe(
        train._replace(values=factor * (train.values + 2)),
        test._replace(values=factor * (test.values + 2)),
        config,
        seed=0,
    )
    assert abs(moved.accuracy - plain.accuracy) < 0.004


def _scale_gradients(layer: torch.nn.Linear, decay: float) -> None:
    """Turns SGD into LARS (You et al. 2017, Algorithm 1): each parameter has its own rate.

    A parameter of zeros, as the bias at its start, takes the plain step.
    """
    for parameter in layer.parameters():
        value, gradient = parameter.detach(), parameter.grad
        trust = 0.001 * value.norm() / (gradient.norm() + decay * value.norm())
        gradient.add_(decay * value).mul_(trust if value.any() else 1.0)


def _by_torch(train: Labelled, plan: Plan, *, lars: bool) -> Heads:
    """The same training by a torch layer, autograd and a torch optimiser and scheduler."""
    layer = torch.nn.Linear(train.values.shape[1], plan.classes)
    torch.nn.init.zeros_(layer.bias)
    torch.nn.init.zeros_(layer.weight)
    if lars:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            layer.weight.copy_(0.01 * torch.randn(layer.weight.shape, generator=generator))
    config, lr = plan.config, plan.base_lrs[0] * plan.config.batch / 256
    decay = 0.0 if lars else config.weight_decay
    optimizer = torch.optim.SGD(
        layer.parameters(), lr=lr, momentum=config.momentum, weight_decay=decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps)
    for index in batches(plan, train.labels):
        optimizer.zero_grad()
        F.cross_entropy(layer(train.values[index]), train.labels[index]).backward()
        if lars:
            _scale_gradients(layer, config.weight_decay)
        optimizer.step()
        schedule.step()
    return Heads(layer.weight.detach()[None], layer.bias.detach()[None])


@pytest.mark.parametrize("lars", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_training_is_that_of_torch(
    lars: bool, weight_decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LinearConfig(
        algorithm="lars" if lars else "sgd", batch=100, epochs=3, weight_decay=weight_decay
    )
    train, _ = digit_features()
    values = standardization(train.values, config.algorithm).apply(train.values)
    known = Labelled(values, train.labels)
    plan = Plan(config, (4.0,), 10, seed=0, epoch_samples=1150)
    monkeypatch.setattr(
        "stopgrad.evaluation.linear.torch_generator",
        lambda seed, *position: torch.Generator().manual_seed(
            0 if position[-1] == "start" else int(position[-1])
        ),
    )
    ours, theirs = fit(known, plan), _by_torch(known, plan, lars=lars)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-3, atol=1e-4)


def test_the_published_protocol_is_the_reports_loop_on_raw_features() -> None:
    train, test = digit_features()
    known = Labelled(10 * train.values, train.labels)  # 1,200 samples, so 4 whole batches of 256
    config = dataclasses.replace(AS_PUBLISHED, epochs=3)
    plan = Plan(config, (30.0,), 10, seed=1, epoch_samples=len(known.labels))
    layer = torch.nn.Linear(64, 10)
    begun = start(plan, like=known.values)
    with torch.no_grad():
        layer.weight.copy_(begun.weight[0])
        layer.bias.copy_(begun.bias[0])
    optimizer = torch.optim.SGD(layer.parameters(), lr=30.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)
    for epoch in range(3):
        order = torch.randperm(1200, generator=torch_generator(1, "linear", epoch))
        for index in order[: 4 * 256].view(4, 256):
            optimizer.zero_grad()
            F.cross_entropy(layer(known.values[index]), known.labels[index]).backward()
            optimizer.step()
        schedule.step()
    expected = (layer(10 * test.values).argmax(dim=1) == test.labels).double().mean()
    ours = fit(known, plan)
    torch.testing.assert_close(ours.weight[0], layer.weight.detach(), rtol=1e-3, atol=1e-2)
    scaled = (part._replace(values=10 * part.values) for part in (train, test))
    score = linear_probe(*scaled, config, seed=1)
    assert score.accuracy == pytest.approx(float(expected), abs=0.004)
    assert (score.protocol["features"], score.protocol["steps"]) == ("raw", 12)


def test_the_published_start_is_that_of_a_linear_layer() -> None:
    plan = Plan(AS_PUBLISHED, (30.0,), 500, seed=0, epoch_samples=1)
    weight, bias = start(plan, like=torch.empty(1, 16))
    for drawn in (weight, bias):  # uniform within 1 / sqrt(16), whose std is .25 / sqrt(3)
        assert 0.24 < float(drawn.abs().max()) <= 0.25
        assert float(drawn.std()) == pytest.approx(0.25 / 3**0.5, rel=0.05)
    assert not torch.equal(weight[0, :, 0], bias[0])


def test_fewer_samples_than_a_batch_are_one_batch_of_the_published_protocol() -> None:
    plan = Plan(dataclasses.replace(AS_PUBLISHED, epochs=2), (1.0,), 2, seed=0, epoch_samples=100)
    assert [len(index) for index in batches(plan, torch.zeros(100, dtype=torch.int64))] == [100] * 2


def test_heads_that_are_trained_side_by_side_do_not_touch_each_other() -> None:
    train, _ = digit_features()
    known = Labelled(train.values / 100, train.labels)
    config = LinearConfig(algorithm="lars", epochs=2)
    both = fit(known, Plan(config, (0.5, 9.0), 10, seed=0, epoch_samples=1200))
    for head, lr in enumerate((0.5, 9.0)):
        alone = fit(known, Plan(config, (lr,), 10, seed=0, epoch_samples=1200))
        torch.testing.assert_close(both.weight[head], alone.weight[0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(both.bias[head], alone.bias[0], rtol=1e-3, atol=1e-5)


def test_gradient_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, 5, generator=generator, requires_grad=True)
    bias = torch.randn(2, 3, generator=generator, requires_grad=True)
    x, labels = torch.randn(7, 5, generator=generator), torch.arange(7) % 3
    loss = sum(F.cross_entropy(x @ w.T + b, labels) for w, b in zip(weight, bias, strict=True))
    expected = torch.autograd.grad(loss, [weight, bias])
    gradient = loss_gradient(Heads(weight.detach(), bias.detach()), Labelled(x, labels))
    torch.testing.assert_close(gradient.weight, expected[0])
    torch.testing.assert_close(gradient.bias, expected[1])


def test_a_label_share_is_repeated_so_that_the_number_of_steps_stays() -> None:
    config = LinearConfig(batch=30, epochs=2)
    few = Plan(config, (1.0,), 2, seed=0, epoch_samples=1000)
    seen = list(batches(few, torch.zeros(100, dtype=torch.int64)))
    assert len(seen) == few.steps == 2 * 34
    assert [len(index) for index in seen] == ([30] * 33 + [10]) * 2
    for epoch in (seen[:34], seen[34:]):
        assert torch.cat(epoch).bincount(minlength=100).tolist() == [10] * 100
    assert not torch.equal(seen[0], seen[34])


def test_an_epoch_of_the_whole_set_sees_each_image_once() -> None:
    plan = Plan(LinearConfig(batch=64, epochs=1), (1.0,), 2, seed=0, epoch_samples=500)
    order = torch.cat(list(batches(plan, torch.zeros(500, dtype=torch.int64))))
    assert sorted(order.tolist()) == list(range(500))
    assert order.tolist() != list(range(500))


def test_the_protocol_tells_the_steps_of_the_full_set() -> None:
    train, test = digit_features()
    few = Features(train.values[:120], train.labels[:120] if train.labels is not None else None)
    protocol = linear_probe(few, test, LinearConfig(epochs=2), seed=0, full_size=1200).protocol
    assert (protocol["train_images"], protocol["steps"]) == (120, 10)
    assert (protocol["base_lr"], protocol["lr"], protocol["epochs"]) == (30, 30, 2)


def test_standardised_features_have_the_stated_moments() -> None:
    train, _ = digit_features()
    live = train.values.std(dim=0) > 0  # digits have pixels that are always blank
    unit = standardization(train.values, "lars").apply(train.values)
    torch.testing.assert_close(unit.mean(dim=0), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(unit.square().mean(dim=0), live.float(), atol=1e-3, rtol=0)
    short = standardization(train.values, "sgd").apply(train.values)
    assert abs(float(short.square().sum(dim=1).mean()) - int(live.sum()) / 64) < 1e-3


def test_a_channel_that_only_varies_by_rounding_is_left_out() -> None:
    values = torch.full((100, 2), 1000.0)
    values[::2, 0] = torch.nextafter(values[::2, 0], torch.tensor(2000.0))
    values[::2, 1] = 1001
    assert standardization(values, "lars").scale.tolist() == [0, 2]


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    train, _ = digit_features()
    known = Labelled(train.values / 100, train.labels)
    plan = Plan(LinearConfig(epochs=2), (30.0,), 10, seed=3, epoch_samples=1200)
    assert torch.equal(fit(known, plan).weight, fit(known, plan).weight)
    assert not torch.equal(fit(known, plan).weight, fit(known, plan._replace(seed=4)).weight)


def test_validation_takes_a_fifth_of_each_class_but_never_all() -> None:
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3])[torch.randperm(63)]
    mask = validation_mask(labels, seed=0)
    assert labels[mask].bincount(minlength=4).tolist() == [10, 2, 1, 0]
    assert torch.equal(mask, validation_mask(labels, seed=0))
    assert not torch.equal(mask, validation_mask(labels, seed=1))


def test_the_chosen_learning_rate_is_the_best_of_the_grid_on_held_out_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, _ = digit_features()
    candidates = (1e-6, 100.0, 1e39)  # learns nothing, learns, diverges
    monkeypatch.setattr(stopgrad.evaluation.linear, "lr_candidates", lambda _: candidates)
    config = dataclasses.replace(PAPER_LARS, epochs=10, batch=256)
    assert choose_lr(train, config, seed=0) == 100


def test_the_choice_trains_on_no_label_that_it_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    fit_heads, seen = stopgrad.evaluation.linear.fitted_logits, []

    def spy(train: Labelled, values: torch.Tensor, plan: Plan) -> torch.Tensor:
        seen.extend([set(train.values[:, 0].tolist()), set(values[:, 0].tolist())])
        return fit_heads(train, values, plan)

    monkeypatch.setattr("stopgrad.evaluation.linear.fitted_logits", spy)
    numbered = Features(torch.arange(100.0)[:, None], torch.arange(100) % 4)
    choose_lr(numbered, LinearConfig(epochs=1), seed=0)
    trained, scored = seen
    assert (len(trained), len(scored)) == (80, 20)
    assert not trained & scored


def test_the_tuned_probe_says_what_it_chose_from() -> None:
    train, test = digit_features()
    config = dataclasses.replace(PAPER_LARS, epochs=4)
    result = tuned_probe(train, test, config, seed=0)
    best = choose_lr(train, config, seed=0)
    assert result.protocol["base_lr"] == best
    assert result.protocol["base_lr_candidates"] == list(lr_candidates(config))
    assert best in lr_candidates(config)
    plain = linear_probe(train, test, dataclasses.replace(config, base_lr=best), seed=0)
    assert torch.equal(result.predicted, plain.predicted)


def test_bad_input_is_refused_in_one_line() -> None:
    train, test = digit_features()
    with pytest.raises(DataError, match="test images without labels"):
        linear_probe(train, test._replace(labels=None), REPORT_SGD, seed=0)
    spoilt = test.values.clone()
    spoilt[3, 3] = float("inf")
    with pytest.raises(DivergedError, match="1 of 597 test images"):
        linear_probe(train, test._replace(values=spoilt), REPORT_SGD, seed=0)
    with pytest.raises(DataError, match="one of each class at most"):
        choose_lr(Features(train.values[:10], torch.arange(10)), PAPER_LARS, seed=0)


def test_a_probe_that_diverges_says_so() -> None:
    train, test = digit_features()
    config = LinearConfig(base_lr=1e39, epochs=1)
    with pytest.raises(DivergedError, match=r"diverged at base_lr = 1e\+39"):
        linear_probe(train, test, config, seed=0)
