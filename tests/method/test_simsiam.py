"""Claims about `simsiam`: the whole model against the paper's, written here with torchvision."""

import pytest
import torch
from torch import Tensor, nn

from stopgrad.config import preset
from stopgrad.method import build_simsiam, simsiam_loss

torchvision = pytest.importorskip("torchvision")

STEPS, BATCH, SIDE, WIDTH, HIDDEN = 5, 4, 16, 32, 16


def _heads(features: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Appendix D: two layers each, BN everywhere but on the predictor's output."""
    projector = nn.Sequential(
        *(nn.Linear(features, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU()),
        *(nn.Linear(HIDDEN, WIDTH, bias=False), nn.BatchNorm1d(WIDTH, affine=False)),
    )
    predictor = nn.Sequential(
        *(nn.Linear(WIDTH, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU()),
        nn.Linear(HIDDEN, WIDTH),
    )
    return projector, predictor


class _Paper(nn.Module):
    """Algorithm 1, line by line: one view after the other through torchvision's ResNet-18."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torchvision.models.resnet18()
        self.encoder.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.encoder.maxpool, self.encoder.fc = nn.Identity(), nn.Identity()
        self.projector, self.predictor = _heads(512)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:  # (B, 3, S, S) twice -> ()
        z1, z2 = (self.projector(self.encoder(x)) for x in (x1, x2))  # (B, D)
        p1, p2 = self.predictor(z1), self.predictor(z2)  # (B, D)
        return _distance(p1, z2) / 2 + _distance(p2, z1) / 2


def _distance(p: Tensor, z: Tensor) -> Tensor:  # (B, D), (B, D) -> ()
    z = z.detach()
    p, z = p / p.square().sum(1, keepdim=True).sqrt(), z / z.square().sum(1, keepdim=True).sqrt()
    return -(p * z).sum(1).mean()


def test_loss_and_gradients_are_those_of_the_paper_over_five_steps() -> None:
    heads = {"projector.hidden": HIDDEN, "projector.out": WIDTH, "predictor.hidden": HIDDEN}
    ours, paper = build_simsiam(preset("cifar", **heads)).double(), _Paper().double()
    pairs = list(zip(ours.parameters(), paper.parameters(), strict=True))
    with torch.no_grad():
        for mine, other in pairs:
            assert mine.shape == other.shape
            # No residual block is left without a part in the gradients, as its last gain of 0 does.
            other.copy_(mine.copy_(torch.where(mine == 0, 0.1, mine)))
    optimizers = [torch.optim.SGD(m.parameters(), 0.05, momentum=0.9) for m in (ours, paper)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        views = torch.randn(2, BATCH, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
        losses = simsiam_loss(ours(*views), stop_gradient=True), paper(*views)
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
        assert abs(losses[0].item() - losses[1].item()) < 1e-13
        for mine, other in pairs:
            assert mine.grad is not None
            assert other.grad is not None
            scale = float(other.grad.abs().max())
            assert float((mine.grad - other.grad).abs().max()) <= 1e-12 * scale + 1e-13
        for optimizer in optimizers:
            optimizer.step()
