"""The knobs of training with labels: the baseline from scratch, and fine-tuning.

"Report" is the CIFAR-10 study that stopgrad reproduces; it has no fine-tuning, whose values are
those of SwAV (Caron et al. 2020) and Barlow Twins (Zbontar et al. 2021), where both agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from stopgrad.config.bounds import Checked, knob
from stopgrad.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(Checked):
    """The baseline from scratch: the same encoder and one linear layer, trained with labels.

    Report: its label study; SGD as in pretraining, random crop with reflect padding and flip. The
    flip happens as often as in pretraining (views.flip).
    """

    epochs: int = knob(
        0,
        "passes over as many images as pretraining has, 0: as many as pretraining. Report: 800",
        at_least=0,
    )
    batch: int = knob(0, "images per step, 0: as pretraining. Report: 512", at_least=0)
    base_lr: float = knob(
        0.03, "peak learning rate per 256 images of a batch. Report: 0.03", above=0
    )
    momentum: float = knob(0.9, "momentum. Report: 0.9", at_least=0, at_most=1)
    weight_decay: float = knob(5e-4, "weight decay on every parameter. Report: 5e-4", at_least=0)
    padding: int = knob(4, "reflect padding before the crop, px. Report: 4", at_least=0)
    crop: int = knob(0, "side of the crop, px, 0: that of the pictures. Report: 32", at_least=0)

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of bounds and for a batch of one, which BN refuses."""
        super().__post_init__()
        if self.batch == 1:
            raise ConfigError("supervised.batch = 1", expected="0 or at least 2", hint="raise it")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Checked):
    """Fine-tuning: a pretrained encoder and one linear layer, the whole network trained.

    The report left it out. The recipe is that of SwAV (Caron et al. 2020, semi-supervised
    evaluation): SGD, batch 256, 20 epochs, no weight decay, a larger learning rate for the new
    layer; with a cosine instead of steps, as Barlow Twins (Zbontar et al. 2021). The images are
    augmented as those of `supervised`.
    """

    epochs: int = knob(
        20, "passes over as many images as pretraining has. SwAV, Barlow Twins: 20", at_least=1
    )
    batch: int = knob(256, "images per step. SwAV, Barlow Twins: 256", at_least=2)
    base_lr: float = knob(
        0.01, "peak learning rate of the encoder per 256 images of a batch. SwAV: 0.01", above=0
    )
    head_base_lr: float = knob(
        0.2, "peak learning rate of the new layer per 256 images of a batch. SwAV: 0.2", above=0
    )
    momentum: float = knob(0.9, "momentum. SwAV, Barlow Twins: 0.9", at_least=0, at_most=1)
    weight_decay: float = knob(
        0.0, "weight decay on every parameter. SwAV, Barlow Twins: 0", at_least=0
    )
    padding: int = knob(4, "reflect padding before the crop, px. Report: 4", at_least=0)
    crop: int = knob(0, "side of the crop, px, 0: that of the pictures", at_least=0)
