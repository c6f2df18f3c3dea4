"""Your own encoder, views, images and a function after each epoch, in one pretraining.

    pip install '.[onnx]'
    python examples/own_parts.py --out runs/own

Each part is plain PyTorch and knows nothing of stopgrad. The run notes in its card that its config
alone cannot rebuild it, so the parts are given again when it is opened in another process.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import stopgrad


class SmallEncoder(nn.Sequential):
    """Any module will do that makes features (B, F) of images (B, 3, S, S)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


def shifted_and_noisy(pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pixels (B, 3, H, W) uint8 -> two views in [0, 1]; all randomness is the generator's."""

    def view() -> Tensor:
        down, right = torch.randint(-4, 5, (2,), generator=generator, device=generator.device)
        x = pixels.float().div(255).roll((int(down), int(right)), dims=(2, 3))
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        return (x + 0.1 * noise).clamp(0, 1)

    return view(), view()


class Stripes(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Any map-style data set of pairs of an image and its label: here stripes in two directions."""

    classes = ("horizontal", "vertical")

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """An image (3, 32, 32) in [0, 1], and 0 or 1."""
        generator = torch.Generator().manual_seed(index)
        phase, period = torch.rand(2, generator=generator)
        wave = torch.sin(torch.arange(32) / (1 + 3 * period) + 6 * phase).add(1).div(2)
        image = wave[:, None].expand(32, 32)
        return (image if index % 2 == 0 else image.T).expand(3, 32, 32).clone(), index % 2


def tell(epoch: stopgrad.Epoch) -> None:
    """Called when an epoch is on disk; `epoch.model` is the living network."""
    print(f"after epoch {epoch.number}: loss {epoch.loss:.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Pretrains with all four, opens the run again and scores it."""
    parser = argparse.ArgumentParser(description="Pretrain with parts of your own.")
    parser.add_argument("--out", type=Path, required=True, help="the run directory")
    parser.add_argument("--preset", default="cpu", help="cifar, imagenet, cpu, digits or tiny")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args(arguments)

    data = stopgrad.load(Stripes())
    parts = {"encoder": SmallEncoder(), "views": shifted_and_noisy}
    settings = {"preset": options.preset, "epochs": options.epochs, "batch": 64}
    stopgrad.pretrain(data, out=options.out, on_epoch=tell, **settings, **parts)

    run = stopgrad.Run(str(options.out), data, **parts)  # in another process: the parts again
    print(run.evaluate())
    print(run.export("onnx", options.out / "encoder.onnx"))  # needs stopgrad[onnx]


if __name__ == "__main__":
    main()
