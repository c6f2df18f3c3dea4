"""Claims about `heads`."""

import pytest
import torch
from torch import nn

from stopgrad.config import PredictorConfig, ProjectorConfig
from stopgrad.method.heads import Predictor, Projector, build_predictor, build_projector


def _linears(module: nn.Module) -> list[tuple[int, int, bool]]:
    return [
        (m.in_features, m.out_features, m.bias is not None)
        for m in module.modules()
        if isinstance(m, nn.Linear)
    ]


def _norms(module: nn.Module) -> list[tuple[int, bool]]:
    return [(m.num_features, m.affine) for m in module.modules() if isinstance(m, nn.BatchNorm1d)]


def test_the_cifar_heads_are_the_papers_table() -> None:
    projector, predictor = Projector(512, ProjectorConfig()), Predictor(2048, PredictorConfig())
    assert _linears(projector) == [(512, 512, False), (512, 2048, False)]
    assert _norms(projector) == [(512, True), (2048, False)]
    assert _linears(predictor) == [(2048, 512, False), (512, 2048, True)]
    assert _norms(predictor) == [(512, True)]


def test_the_imagenet_projector_has_three_layers() -> None:
    projector = Projector(2048, ProjectorConfig(layers=3, hidden=2048))
    assert _linears(projector) == [(2048, 2048, False)] * 3
    assert _norms(projector) == [(2048, True), (2048, True), (2048, False)]


def test_a_layer_has_a_bias_exactly_where_no_bn_follows() -> None:
    projector = Projector(8, ProjectorConfig(hidden=4, out=6, hidden_bn=False, output_bn=False))
    assert _linears(projector) == [(8, 4, True), (4, 6, True)]
    assert _norms(projector) == []
    predictor = Predictor(6, PredictorConfig(hidden=3, hidden_bn=False))
    assert _linears(predictor) == [(6, 3, True), (3, 6, True)]


def test_z_is_the_normalised_output_before_the_bn() -> None:
    generator = torch.Generator().manual_seed(0)
    projector = build_projector(8, ProjectorConfig(hidden=16, out=4), generator)
    features = torch.randn(32, 8, generator=generator)
    before, z = projector.before_bn(features), projector(features)
    expected = (before - before.mean(0)) / (before.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(z, expected)


def test_an_ablated_predictor_is_the_identity() -> None:
    predictor = build_predictor(4, PredictorConfig(enabled=False), torch.Generator())
    z = torch.ones(2, 4)
    assert predictor(z) is z


def test_linear_layers_start_uniform_within_their_fan_in() -> None:
    predictor = build_predictor(400, PredictorConfig(), torch.Generator().manual_seed(0))
    weight = predictor.get_submodule("hidden.0").weight
    assert isinstance(weight, nn.Parameter)
    assert weight.abs().max().item() == pytest.approx(1 / 20, rel=0.01)
    assert weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.01)
