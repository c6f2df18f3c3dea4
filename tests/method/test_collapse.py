"""Claims about `collapse`."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.evaluation import MEASURE_NAMES
from stopgrad.method import (
    Layers,
    covariance_spectrum,
    effective_rank,
    judge,
    measure,
    participation_ratio,
    positive_minus_random,
    retrieval,
    spectra,
)
from stopgrad.method.collapse import Measures, correlation_strength, output_std


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _bn(z: Tensor) -> Tensor:
    return F.batch_norm(z, None, None, training=True)


def _views(rank: int, *, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Two views (512, 64) that share a signal of this rank, behind a BN as in the projector."""
    signal = _normal(512, rank) @ _normal(rank, 64, seed=1)
    return tuple(_bn(signal + noise * _normal(512, 64, seed=seed)) for seed in (2, 3))  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(200, 8), (8, 200)])
def test_the_spectrum_is_that_of_numpys_covariance(shape: tuple[int, int]) -> None:
    z = _normal(*shape)
    expected = np.linalg.eigvalsh(np.cov(z.double().numpy().T))[-8:]
    np.testing.assert_allclose(covariance_spectrum(z)[-8:], expected, rtol=1e-4, atol=1e-6)


def test_ranks_of_a_flat_spectrum_count_its_dimensions() -> None:
    spectrum = torch.tensor([2.0, 2.0, 2.0, 0.0])
    assert float(participation_ratio(spectrum)) == pytest.approx(3)
    assert float(effective_rank(spectrum)) == pytest.approx(3)


def test_ranks_of_an_uneven_spectrum_by_hand() -> None:
    spectrum = torch.tensor([3.0, 1.0])
    assert float(participation_ratio(spectrum)) == pytest.approx(16 / 10)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(effective_rank(spectrum)) == pytest.approx(math.exp(entropy))


def test_participation_ratio_is_the_trace_formula() -> None:
    z = _normal(300, 6) @ _normal(6, 6, seed=1)
    covariance = torch.cov(z.T)
    trace = covariance.trace().square() / covariance.square().sum()
    assert float(participation_ratio(covariance_spectrum(z))) == pytest.approx(
        float(trace), rel=1e-4
    )


def test_the_page_says_what_correlation_strength_is_of_z_on_a_line_and_of_constant_z() -> None:
    """A wholly constant z has no correlations: 0 is no sign of health there."""
    line = torch.randn(64, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(8)
    says = MEASURE_NAMES["correlation_strength"].collapsed
    assert f"near {float(correlation_strength(line)):.0f} if z lies on one line" in says
    assert f"{float(correlation_strength(torch.ones(64, 8))):.0f} if z is constant" in says


def test_correlation_strength_agrees_with_numpy() -> None:
    z = _normal(100, 5) @ _normal(5, 5, seed=1)
    correlation = np.abs(np.corrcoef(z.numpy().T))
    expected = correlation[~np.eye(5, dtype=bool)].mean()
    assert float(correlation_strength(z)) == pytest.approx(expected, rel=1e-4)


def test_output_std_is_one_on_a_sphere_and_zero_at_a_point() -> None:
    assert float(output_std(_normal(4000, 32))) == pytest.approx(1, abs=0.02)
    assert float(output_std(torch.ones(10, 32))) == pytest.approx(0, abs=1e-6)


def test_retrieval_counts_images_whose_second_view_is_nearest() -> None:
    """Of three images the first finds itself, the second the third, the third ties with it."""
    z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    z2 = torch.tensor([[2.0, 0.1], [0.6, 0.8], [0.0, 3.0]])
    assert float(retrieval(z1, z2)) == pytest.approx(1 / 3)
    assert float(retrieval(z1, z1)) == 1
    assert float(retrieval(torch.ones(3, 2), torch.ones(3, 2))) == 0


def test_positive_minus_random_counts_every_pair_once() -> None:
    z1, z2 = F.normalize(_normal(5, 3)), F.normalize(_normal(5, 3, seed=1))
    pairs = [[float(z1[i] @ z2[j]) for j in range(5)] for i in range(5)]
    positive = sum(pairs[i][i] for i in range(5)) / 5
    random = sum(pairs[i][j] for i in range(5) for j in range(5) if i != j) / 20
    assert float(positive_minus_random(z1, z2)) == pytest.approx(positive - random, rel=1e-4)


OLD = 1000  # steps


def _verdict(z1: Tensor, z2: Tensor, *, steps: int = OLD) -> str:
    return judge(Layers(*[measure(z1, z2)] * 3), steps=steps, images=512).state


def test_many_shared_directions_are_healthy() -> None:
    assert _verdict(*_views(40)) == "healthy"


def test_one_line_is_a_complete_collapse_that_output_std_does_not_see() -> None:
    z1, z2 = _views(1, noise=0.01)
    assert float(output_std(z1)) > 0.8
    assert _verdict(z1, z2) == "complete collapse"


def test_noise_blown_up_by_the_bn_is_a_complete_collapse() -> None:
    z1, z2 = _bn(1e-3 * _normal(512, 64)), _bn(1e-3 * _normal(512, 64, seed=1))
    assert measure(z1, z2).participation_ratio > 30
    assert _verdict(z1, z2) == "complete collapse"


def test_two_directions_are_a_dimensional_collapse() -> None:
    verdict = judge(Layers(*[measure(*_views(2))] * 3), steps=OLD, images=512)
    assert verdict.state == "dimensional collapse"
    assert verdict.reason.endswith(", n = 512)")
    assert "weight_decay" in verdict.advice


def test_a_young_run_of_two_directions_is_healthy_and_one_of_one_is_not() -> None:
    assert _verdict(*_views(2), steps=OLD - 1) == "healthy"
    assert _verdict(*_views(1, noise=0.01), steps=1) == "complete collapse"


def test_a_young_run_that_tells_no_images_apart_yet_has_not_collapsed() -> None:
    views = [_bn(_normal(512, 64)), _bn(_normal(512, 64, seed=1))]
    young = judge(Layers(*[measure(*views)] * 3), steps=9, images=512)
    assert young.state == "healthy"
    assert "directions but does not tell images apart yet (difference" in young.reason
    assert _verdict(*views) == "complete collapse"


def test_a_run_on_a_line_that_still_tells_images_apart_has_collapsed() -> None:
    """Too much weight decay: effective rank 1.0 with a difference of cosines of 0.2 to 0.4."""
    z1, z2 = _views(1, noise=0.01)
    assert measure(z1, z2).positive_minus_random > 0.4
    assert _verdict(z1, z2) == "complete collapse"


def test_outputs_that_are_not_finite_have_diverged() -> None:
    z1, z2 = _views(8)
    z1[0, 0] = math.nan
    assert _verdict(z1, z2) == "diverged"


def test_a_single_point_has_no_dimensions_and_breaks_nothing() -> None:
    measures = measure(torch.ones(16, 4), torch.ones(16, 4))
    assert measures._replace(centre_norm=0.0) == Measures(0, 1, 0, 0, 0, 0, 0)
    assert measures.centre_norm == pytest.approx(1)


def test_the_spectra_are_those_of_a_predictor_made_by_hand() -> None:
    # z fills three directions of known weight; p is a known matrix of z, neither symmetric nor
    # diagonal in them, of which only the diagonal in the directions of z counts.
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(6, 6, generator=generator).double()).Q
    amounts = torch.linalg.qr(torch.randn(50, 3, generator=generator).double()).Q * 50**0.5
    z = amounts @ torch.diag(torch.tensor([3.0, 2.0, 1.0]).double()) @ directions[:, :3].T
    inner = torch.tensor([[0.9, 0.4, 0.0], [-0.3, 0.5, 0.2], [0.1, 0.7, 0.25]]).double()
    p = z @ (directions[:, :3] @ inner @ directions[:, :3].T).T
    noise = torch.randn(50, 6, generator=generator).double()
    noise -= amounts @ (amounts.T @ noise) / 50  # that has nothing in common with z
    other = 0.8 * z + noise
    found = spectra(z.float(), p.float(), other.float())
    assert found.ranks == (1, 2, 3)
    assert found.representation == pytest.approx((9.0, 4.0, 1.0), rel=1e-4)
    assert found.predictor == pytest.approx((0.9, 0.5, 0.25), rel=1e-4)
    assert found.between == pytest.approx((0.8, 0.8, 0.8), rel=1e-4)
    few = spectra(z[:5].float(), z[:5].float(), z[:5].float())  # fewer images than channels
    assert few.predictor == pytest.approx([1.0] * len(few.ranks), rel=1e-4)
    assert sum(spectra(*[torch.zeros(4, 3)] * 3).ranks) == 0
