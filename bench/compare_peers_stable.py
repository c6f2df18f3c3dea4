"""stable-pretraining's loop: its Manager runs its SimSiam on its DataModule by Lightning.

Written from its documentation (README, and the SimSiam of its benchmarks): its views, image by
image in the loader's workers; its ResNet-18 for low resolution; SGD. Its projector has three
layers and gives way to the two of the others. It computes in the precision that ours chooses, by
the `bf16-mixed` of its README; its logger and its checkpoints are off, as our loop has no files.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from compare_peers_recipes import HeldImages
from torch import nn

from stopgrad.config import Config, ViewsConfig
from stopgrad.images import Images
from stopgrad.method import compute_for


def stable_pretraining(
    images: Images, config: Config, *, workers: int, after_step: Callable[[], bool]
) -> None:
    """Trains until `after_step`, which is asked after each step, says that it is enough."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        import lightning
        import stable_pretraining as spt

        class Stop(lightning.Callback):
            def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
                trainer.should_stop = after_step()

        spt.set(cache_dir=folder, verbose="ERROR", progress_bar="none", requeue_checkpoint=False)
        spt.set(default_loggers={"registry": False})
        bf16 = compute_for(config).precision == "bf16"
        trainer = lightning.Trainer(
            max_epochs=1000,
            precision="bf16-mixed" if bf16 else "32-true",
            callbacks=[Stop()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = _loader(images, config, workers=workers)
        data = spt.data.DataModule(train=loader)
        spt.Manager(trainer=trainer, module=_module(config), data=data, seed=0)()


def _module(config: Config) -> Any:
    """Its SimSiam, with the forward that its documentation asks for: a batch to a loss."""
    import stable_pretraining as spt
    from stable_pretraining.methods.simsiam import SimSiam

    class TwoViews(SimSiam):  # type: ignore[misc]
        def forward(self, batch: dict[str, Any], stage: str) -> dict[str, Any]:
            one, other = (view["image"] for view in batch["views"])
            found = super().forward(one, other)
            self.log(f"{stage}/loss", found.loss)
            return {"loss": found.loss, "embedding": found.embedding.detach()}

    backbone = spt.backbone.from_torchvision("resnet18", low_resolution=True)
    backbone.fc = nn.Identity()
    hidden, out = config.projector.hidden, config.projector.out
    module = TwoViews(backbone, projector_dim=out, predictor_hidden_dim=config.predictor.hidden)
    module.projector = nn.Sequential(
        nn.Linear(module.embed_dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out, bias=False),
        nn.BatchNorm1d(out, affine=False),
    )
    sgd = {"type": "SGD", "lr": config.lr, "momentum": 0.9, "weight_decay": 5e-4}
    cosine = {"type": "LinearWarmupCosineAnnealing"}
    module.optim = {"optimizer": sgd, "scheduler": cosine, "interval": "epoch"}
    return module


def _loader(images: Images, config: Config, *, workers: int) -> Any:
    import stable_pretraining as spt

    views = [_view(config.views), _view(config.views)]
    return torch.utils.data.DataLoader(
        spt.data.FromTorchDataset(
            HeldImages(images),
            names=["image", "label"],
            transform=spt.data.transforms.MultiViewTransform(views),
        ),
        batch_size=config.batch,
        num_workers=workers,
        drop_last=True,
        shuffle=True,
    )


def _view(config: ViewsConfig) -> Any:
    import stable_pretraining as spt
    from stable_pretraining.data import transforms

    jitter = (config.brightness, config.contrast, config.saturation, config.hue)
    return transforms.Compose(
        transforms.RGB(),
        transforms.RandomResizedCrop((config.size, config.size), scale=(config.crop_min, 1.0)),
        transforms.RandomHorizontalFlip(p=config.flip),
        transforms.ColorJitter(*jitter, p=config.jitter),
        transforms.RandomGrayscale(p=config.grayscale),
        transforms.ToImage(**spt.data.static.CIFAR10),
    )
