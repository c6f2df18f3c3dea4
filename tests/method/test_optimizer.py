"""Claims about `optimizer`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stopgrad.config import Config, OptimizerConfig, preset
from stopgrad.method import (
    SGD,
    Optimizer,
    ParameterGroup,
    build_optimizer,
    build_simsiam,
    learning_rates,
    parameter_groups,
)
from stopgrad.method.optimizer import LARS


def _config(**changes: Any) -> Config:
    return preset("cifar", epochs=10, batch=256, **changes)


def test_every_parameter_is_in_one_group_and_decays_by_default() -> None:
    model = build_simsiam(preset("tiny"))
    groups = list(parameter_groups(model, OptimizerConfig()))
    assert sum(len(group.parameters) for group in groups) == len(list(model.parameters()))
    assert {group.weight_decay for group in groups} == {5e-4}


def test_norms_and_biases_can_be_spared_from_decay() -> None:
    model = build_simsiam(preset("tiny"))
    groups = list(parameter_groups(model, OptimizerConfig(decay_norm_and_bias=False)))
    spared = [p for group in groups if group.weight_decay == 0 for p in group.parameters]
    assert {p.ndim for p in spared} == {1}
    assert len(spared) == sum(p.ndim == 1 for p in model.parameters())


def test_only_the_predictor_gets_the_predictors_rate() -> None:
    model = build_simsiam(preset("tiny"))
    config = preset("tiny", **{"optimizer.alpha_h": 3.0})
    optimizer = build_optimizer(model, config.optimizer)
    rates = learning_rates(config, step=0, steps_per_epoch=10)
    optimizer.set_learning_rates({"encoder": rates.lr, "predictor": rates.predictor_lr})
    rate_of = {id(p): group.lr for group in optimizer.groups for p in group.parameters}
    for parameter in model.predictor.parameters():
        assert rate_of[id(parameter)] == pytest.approx(3 * config.lr)
    for parameter in (*model.encoder.parameters(), *model.projector.parameters()):
        assert rate_of[id(parameter)] == config.lr


def test_a_gradient_that_comes_later_than_others_starts_its_own_momentum() -> None:
    """As of a layer that is skipped at random."""
    first, late = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = SGD([ParameterGroup("encoder", [first, late], lr=0.1)], momentum=0.9, fused=True)
    for gradients in ((1.0, None), (1.0, 2.0)):
        for parameter, gradient in zip((first, late), gradients, strict=True):
            parameter.grad = None if gradient is None else torch.full((3,), gradient)
        optimizer.step(torch.zeros(()))
    assert torch.allclose(first, torch.full((3,), 1 - 0.1 - 0.19))
    assert torch.allclose(late, torch.full((3,), 1 - 0.2))


def test_sgd_takes_the_step_worked_out_by_hand() -> None:
    model = build_simsiam(preset("tiny"))
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.1, momentum=0.5))
    for group in optimizer.groups:
        group.lr = 0.01
    weight = next(model.encoder.parameters())
    start = weight.detach().clone()
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    first = start - 0.01 * (1 + 0.1 * start)
    momentum = 0.5 * (1 + 0.1 * start) + (1 + 0.1 * first)
    torch.testing.assert_close(weight.detach(), first - 0.01 * momentum)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_is_that_of_torch_to_the_bit_and_goes_on_from_its_state(
    fused: bool, momentum: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((8, 3, 3, 3), (5, 8), (5,))]
    ours, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    options: dict[str, Any] = {"momentum": momentum, "fused": fused}
    sgd = SGD([ParameterGroup("encoder", ours, 0.01)], **options)
    torchs = torch.optim.SGD(theirs, lr=0.0, weight_decay=0.01, **options)
    refused = torch.zeros(())
    for step in range(6):
        if step == 3:
            state = sgd.state()
            assert len(state) == (len(ours) if momentum else 0)
            sgd = SGD([ParameterGroup("encoder", ours, 0.01)], **options)
            sgd.restore(state)
        sgd.set_learning_rates({"encoder": 0.1 / (step + 1)})
        torchs.param_groups[0]["lr"] = 0.1 / (step + 1)
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        sgd.step(refused)
        torchs.step()
        assert all(map(torch.equal, ours, theirs))
    named = torchs.state_dict()["state"].items()
    buffers = {f"{index}.{name}": value for index, kept in named for name, value in kept.items()}
    assert sgd.state().keys() == buffers.keys()
    assert all(torch.equal(value, buffers[key]) for key, value in sgd.state().items())


@pytest.mark.parametrize("kind", [partial(SGD, fused=True), partial(SGD, fused=False), LARS])
def test_a_refused_step_changes_neither_weights_nor_momentum(
    kind: Callable[..., Optimizer],
) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = kind([ParameterGroup("encoder", [weight], 0.1, lr=0.5)], momentum=0.9)
    weight.grad = torch.full((2, 2), 2.0)
    optimizer.step(torch.zeros(()))
    before = [weight.detach().clone(), optimizer.state()["0.momentum_buffer"].clone()]
    assert not torch.equal(before[0], torch.ones(2, 2))
    weight.grad = torch.full((2, 2), math.nan)
    optimizer.step(torch.ones(()))
    assert torch.equal(weight, before[0])
    assert torch.equal(optimizer.state()["0.momentum_buffer"], before[1])


def test_lars_takes_the_step_worked_out_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    bias = nn.Parameter(torch.tensor([1.0]))
    group = ParameterGroup("encoder", [weight, bias], weight_decay=0.5, lr=200.0)
    optimizer = LARS([group], momentum=0.9)
    weight.grad, bias.grad = torch.tensor([[0.0, 2.0]]), torch.tensor([0.25])
    optimizer.step()
    scale = 0.001 * 5 / (2 + 0.5 * 5)
    expected = torch.tensor([[3 - 200 * scale * 1.5, 4 - 200 * scale * (2 + 2)]])
    torch.testing.assert_close(weight.detach(), expected)
    scale = 0.001 * 1 / (0.25 + 0.5 * 1)  # a bias is scaled too
    torch.testing.assert_close(bias.detach(), torch.tensor([1 - 200 * scale * (0.25 + 0.5)]))


def test_lars_over_five_steps_is_algorithm_1_of_its_paper_in_fp64() -> None:
    """You et al. 2017: v = m v + lr x trust |w| / (|g| + d |w|) x (g + d w), then w = w - v.

    The rate stays the same, so that it may stand inside of v, as there, or outside, as here.
    """
    rng = np.random.default_rng(0)
    weights = {"matrix": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}
    ours = [nn.Parameter(torch.from_numpy(w.copy())) for w in weights.values()]
    optimizer = LARS([ParameterGroup("encoder", ours, weight_decay=0.1, lr=20.0)], momentum=0.9)
    moving = {name: np.zeros_like(w) for name, w in weights.items()}
    for _ in range(5):
        for mine, (name, weight) in zip(ours, weights.items(), strict=True):
            gradient = rng.normal(size=weight.shape)
            mine.grad = torch.from_numpy(gradient)
            norm, of_gradient = np.sqrt((weight**2).sum()), np.sqrt((gradient**2).sum())
            local = 0.001 * norm / (of_gradient + 0.1 * norm)
            moving[name] = 0.9 * moving[name] + 20 * local * (gradient + 0.1 * weight)
            weight -= moving[name]
        optimizer.step()
    for mine, weight in zip(ours, weights.values(), strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), weight, rtol=1e-13, atol=1e-14)


def test_lars_moves_a_weight_of_zeros() -> None:
    weight = nn.Parameter(torch.zeros(1, 2))
    optimizer = LARS([ParameterGroup("encoder", [weight], lr=1.0)], momentum=0.9)
    weight.grad = torch.ones(1, 2)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), -torch.ones(1, 2))
