"""Claims about `loss`."""

import math

import torch
from torch import Tensor

from stopgrad.method import simsiam_loss
from stopgrad.method.simsiam import Outputs, negative_cosine


def _outputs(*, seed: int = 0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(4, 6, generator=generator, requires_grad=True) for _ in range(4)]
    return Outputs(*tensors)


def test_loss_is_minus_one_when_p_equals_z() -> None:
    z1, z2 = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    assert math.isclose(
        float(simsiam_loss(Outputs(z2, z1, z1, z2), stop_gradient=True)), -1, rel_tol=1e-6
    )


def test_each_prediction_is_held_against_the_other_view() -> None:
    e1, e2 = torch.eye(2)[:1], torch.eye(2)[1:]
    crossed = Outputs(p1=e2, p2=e1, z1=e1, z2=e2)
    straight = Outputs(p1=e1, p2=e2, z1=e1, z2=e2)
    assert float(simsiam_loss(crossed, stop_gradient=True)) == -1
    assert float(simsiam_loss(straight, stop_gradient=True)) == 0


def test_negative_cosine_by_hand() -> None:
    p, z = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [-2.0, 0.0]])
    assert math.isclose(float(negative_cosine(p, z)), -(24 / 25 - 1) / 2, rel_tol=1e-6)


def test_no_gradient_reaches_z() -> None:
    outputs = _outputs()
    simsiam_loss(outputs, stop_gradient=True).backward()
    assert outputs.z1.grad is None
    assert outputs.z2.grad is None


def test_without_the_stop_gradient_z_gets_the_gradient_that_p_would() -> None:
    outputs = _outputs()
    swapped = Outputs(*[t.detach().clone().requires_grad_() for t in _swap(outputs)])
    simsiam_loss(outputs, stop_gradient=False).backward()
    simsiam_loss(swapped, stop_gradient=False).backward()
    torch.testing.assert_close(outputs.z1.grad, swapped.p2.grad)
    assert outputs.z1.grad is not None


def test_the_gradient_of_p_is_the_closed_form() -> None:
    outputs = _outputs()
    simsiam_loss(outputs, stop_gradient=True).backward()
    p, z = outputs.p1.detach(), outputs.z2.detach()
    u, v = p / p.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True)
    closed = -(v - (u * v).sum(1, keepdim=True) * u) / p.norm(dim=1, keepdim=True) / (2 * len(p))
    torch.testing.assert_close(outputs.p1.grad, closed)


def _swap(outputs: Outputs) -> tuple[Tensor, ...]:
    """Swaps p and z, view for view: cosine is symmetric, so the loss is the same."""
    return outputs.z2, outputs.z1, outputs.p2, outputs.p1
