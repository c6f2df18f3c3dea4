"""The loops that are compared: each function returns an iterator that takes one step per item.

`stopgrad` is the loop of `stopgrad pretrain`. `lightly` is lightly's own CIFAR-10 recipe, written
from its documentation (benchmark "CIFAR-10", model SimSiam) with its public parts: `LightlyDataset`
with workers, `SimSiamTransform` without blur, `ResNetGenerator("resnet-18")`, heads of 2048,
`NegativeCosineSimilarity`, SGD, all in fp32 and PyTorch's default layout. Both make the same views
(crops, flip, jitter, grayscale), the same network and the same heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stopgrad.config import Config, preset, torch_generator
from stopgrad.images import Images, normalization
from stopgrad.method import build_encoder
from stopgrad.speed.steps import endless_steps
from stopgrad.training import start_training


def config_of(network: str, *, batch: int) -> Config:
    """The `cpu` preset's network and views, or else ResNet-18 with heads as wide as lightly's."""
    if network == "cpu":
        return preset("cpu", batch=batch)
    return preset("cifar", batch=batch, **{"projector.hidden": 2048})


def stopgrad_steps(images: Images, config: Config) -> Iterator[None]:
    """The loop of `stopgrad pretrain`, without its files."""
    return endless_steps(start_training(images, config, normalization=normalization(images)))


class LightlyTraining:
    """lightly's recipe: its model, its optimiser and its loop.

    Args:
        images: What to learn from; in memory, as torchvision's CIFAR-10 is.
        config: Batch, views and network.
        workers: Of the loader.
        fast: Whether it is given bf16 and channels_last by hand, which its recipe does not have.
    """

    def __init__(self, images: Images, config: Config, *, workers: int, fast: bool = False) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.layout = torch.channels_last if fast else torch.contiguous_format
        self.fast, self.loader = fast, _lightly_loader(images, config, workers=workers)
        self.model = LightlySimSiam(config).to(memory_format=self.layout).to(self.device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4
        )

    def steps(self) -> Iterator[None]:
        """One step per item, epoch after epoch."""
        from lightly.loss import NegativeCosineSimilarity

        criterion = NegativeCosineSimilarity()
        while True:
            for views, _, _ in self.loader:
                x0, x1 = (view.to(self.device, memory_format=self.layout) for view in views)
                with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.fast):
                    (z0, p0), (z1, p1) = self.model(x0), self.model(x1)
                    loss = 0.5 * (criterion(z0, p1) + criterion(z1, p0))
                loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
                yield


class LightlySimSiam(nn.Module):
    """lightly's parts: x (B, 3, S, S) -> z without gradient and p, (B, D) each."""

    def __init__(self, config: Config) -> None:
        from lightly.models.modules import SimSiamPredictionHead
        from lightly.models.modules.heads import ProjectionHead

        super().__init__()
        self.backbone, features = _lightly_backbone(config)
        hidden, out = config.projector.hidden, config.projector.out
        self.projection_head = ProjectionHead(
            [
                (features, hidden, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)),
                (hidden, out, nn.BatchNorm1d(out), None),
            ]
        )
        self.prediction_head = SimSiamPredictionHead(out, config.predictor.hidden, out)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.projection_head(self.backbone(x).flatten(start_dim=1))
        return z.detach(), self.prediction_head(z)


def _lightly_backbone(config: Config) -> tuple[nn.Module, int]:
    """lightly's own ResNet-18 for 32 px; for another network ours, as lightly takes any module."""
    from lightly.models import ResNetGenerator

    if config.encoder.name == "resnet18":
        layers = list(ResNetGenerator("resnet-18").children())[:-1]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)), 512
    encoder = build_encoder(config.encoder, torch_generator(0, "encoder"))
    return encoder, int(encoder.feature_width)  # type: ignore[arg-type]


class HeldImages(torch.utils.data.Dataset[Any]):
    """Pixels in memory, handed out as PIL images, as torchvision's CIFAR10 does."""

    def __init__(self, images: Images) -> None:
        self.pixels = np.array(images.pixels)  # (N, H, W, 3)
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        image = Image.fromarray(self.pixels[index])
        return (self.transform(image) if self.transform else image), 0


def _lightly_loader(images: Images, config: Config, *, workers: int) -> Any:
    from lightly.data import LightlyDataset
    from lightly.data.multi_view_collate import MultiViewCollate
    from lightly.transforms.simsiam_transform import SimSiamTransform

    views = config.views
    transform = SimSiamTransform(input_size=views.size, min_scale=views.crop_min, gaussian_blur=0.0)
    return torch.utils.data.DataLoader(
        LightlyDataset.from_torch_dataset(HeldImages(images), transform=transform),
        batch_size=config.batch,
        shuffle=True,
        collate_fn=MultiViewCollate(),
        drop_last=True,
        num_workers=workers,
    )
