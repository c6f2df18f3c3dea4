"""Presets: each a few named changes to the defaults, as flat key paths."""

from __future__ import annotations

from typing import Literal

PresetName = Literal["cifar", "fast", "imagenet", "cpu", "miniature", "digits", "tiny"]

_NARROW: dict[str, object] = {  # what learns the most in minutes on a CPU, docs/log.md
    "views.size": 24,
    "encoder.name": "cifar_resnet8",
    "encoder.stem": "half",
    "encoder.width": 2.0,
    "encoder.zero_init": False,
    "projector.out": 512,
    "predictor.hidden": 128,
    "optimizer.alpha_h": 10.0,
    "optimizer.predictor_schedule": "cosine",
}

# The most learned on CIFAR-10 in ten minutes on two cores (docs/log.md says what was tried). In
# runs this small the best weight decay of those tried has N = 3.6 (docs/study.md, 38 epochs).
_CPU: dict[str, object] = {
    "epochs": 20,
    "batch": 64,
    "views.crop_min": 0.5,
    **_NARROW,
    "optimizer.base_lr": 0.8,
    "optimizer.weight_decay": 2e-4,
    "supervised.base_lr": 0.4,
    "finetune.epochs": 5,
    "finetune.batch": 64,
    "finetune.base_lr": 0.05,
    "knn_every": 5,
}

PRESET_WORDS: dict[PresetName, str] = {
    "cifar": "the paper's CIFAR-10: ResNet-18, batch 512, 800 epochs; for a GPU",
    "fast": "cifar in half the epochs, at twice the learning rate; for a GPU (not measured yet)",
    "imagenet": "the paper's ImageNet: ResNet-50, views of 224 px, 100 epochs; for a GPU",
    "cpu": "a small network on views of 24 px: ten minutes on two cores for 50,000 images",
    "miniature": "for studies on two cores, with the paper's weight decay, alpha_h and N: cpu at "
    "width 1, 30 epochs",
    "digits": "what quickstart takes for handwritten digits: the network of cpu, no mirroring",
    "tiny": "seconds, for a first look and for tests; learns little",
}

PRESETS: dict[PresetName, dict[str, object]] = {
    # The paper's CIFAR setting (Appendix D): the defaults. 8 hours on a V100 in the report.
    "cifar": {},
    # The same N (docs/method.md) in half the time.
    "fast": {"epochs": 400, "optimizer.base_lr": 0.06},
    # The paper's ImageNet setting (Sec. 3, the batch of Table 4): 100 epochs, 3-layer projector,
    # blur.
    "imagenet": {
        "epochs": 100,
        "batch": 256,
        "views.size": 224,
        "views.blur": 0.5,
        "encoder.name": "resnet50",
        "encoder.stem": "large",
        "projector.layers": 3,
        "projector.hidden": 2048,
        "optimizer.base_lr": 0.05,
        "optimizer.weight_decay": 1e-4,
        # The usual supervised recipe of ImageNet (Goyal et al. 2017).
        "supervised.base_lr": 0.1,
        "supervised.weight_decay": 1e-4,
        "supervised.crop": 224,
        "finetune.crop": 224,
    },
    "cpu": _CPU,
    # The study in miniature: its weight decay, alpha_h and N (docs/method.md) on CIFAR-10.
    # Paper: a constant rate of the predictor; here: a cosine, which costs little at alpha_h = 1
    # (docs/study.md) and is what the records of this preset have.
    "miniature": {
        **_CPU,
        "epochs": 30,
        "encoder.width": 1.0,
        "optimizer.alpha_h": 1.0,
        "optimizer.weight_decay": 5e-4,
    },
    # What `stopgrad quickstart` does with 4,000 handwritten digits; a mirrored 2 is not a 2.
    "digits": {
        "epochs": 20,
        "batch": 32,
        "views.crop_min": 0.5,
        "views.flip": 0.0,
        **_NARROW,
        "threads": 1,  # a second gains 0 to 25 % alone, and costs half next to other programs
        "optimizer.base_lr": 1.6,
        "supervised.base_lr": 1.6,
        "finetune.epochs": 5,
        "finetune.batch": 32,
        "finetune.base_lr": 0.05,
        "knn_every": 2,
    },
    # Seconds: for tests and first looks.
    "tiny": {
        "epochs": 4,
        "batch": 32,
        "views.size": 16,
        "encoder.name": "cifar_resnet8",
        "encoder.stem": "half",
        "encoder.zero_init": False,
        "projector.hidden": 64,
        "projector.out": 64,
        "predictor.hidden": 16,
        "optimizer.base_lr": 0.8,
        "optimizer.alpha_h": 10.0,
        "supervised.base_lr": 0.4,
        "finetune.epochs": 4,
        "finetune.batch": 32,
        "knn_every": 1,
        "checkpoint_every": 3,
        "threads": 1,
    },
}
