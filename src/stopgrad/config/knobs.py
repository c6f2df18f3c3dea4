"""Every knob on one page: frozen, keyword-only, with its meaning, unit and the paper's value.

"Paper" is Chen & He, CVPR 2021 (arXiv 2011.10566); where it says nothing on CIFAR-10, the value
is that of the CIFAR-10 study that stopgrad reproduces ("report"). That study has no fine-tuning,
whose values are those of SwAV (Caron et al. 2020) and Barlow Twins (Zbontar et al. 2021), where
both agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, NamedTuple

from stopgrad.config.bounds import PAIRS, Checked, contradictions, knob, section
from stopgrad.config.reading import Reading, read_bands
from stopgrad.errors import ConfigError

OptimizerName = Literal["sgd", "lars"]
Schedule = Literal["constant", "cosine"]
Precision = Literal["auto", "bf16", "fp32"]
Stem = Literal["small", "half", "large"]
Task = Literal["pretrain", "supervised", "finetune"]
BadImages = Literal["fail", "skip"]
BatchNorm = Literal["per-view", "joint"]
Compile = Literal["auto", "on", "off"]
TargetName = Literal["stop-gradient", "momentum"]

OWN = "own:"  # begins the name of an encoder, or of views, that were given in Python
TIMM = "timm:"  # begins the name of an encoder of timm, or of its weights

# Chosen by name besides the knobs; here, so that help lists them without torch.
SplitName = Literal["auto", "test", "validation"]  # images to score
Layer = Literal["features", "z"]  # the encoder's output, or the projector's
ExportFormat = Literal["torchvision", "timm", "safetensors", "onnx", "hub"]
LabelFreeName = Literal[
    "rankme",
    "participation_ratio",
    "retrieval",
    "effective_rank",
    "lidar",
    "positive_minus_random",
]
"""A measure by which runs are ranked; the fields of `evaluation.comparison.LabelFree`."""
RANKED_BY: LabelFreeName = "rankme"  # the best on the runs of docs/study.md


@dataclass(frozen=True, kw_only=True)
class ViewsConfig(Checked):
    """How a view is made from an image. Paper: Sec. 3 and Appendix D."""

    size: int = knob(32, "side of a view, px. Paper: 32 on CIFAR, 224 on ImageNet", at_least=8)
    crop_min: float = knob(
        0.2, "smallest crop, share of the image's area. Paper: 0.2", above=0, at_most=1
    )
    crop_max: float = knob(
        1.0, "largest crop, share of the image's area. Paper: 1", above=0, at_most=1
    )
    flip: float = knob(0.5, "probability of a horizontal flip. Paper: 0.5", at_least=0, at_most=1)
    jitter: float = knob(0.8, "probability of colour jitter. Paper: 0.8", at_least=0, at_most=1)
    brightness: float = knob(
        0.4, "jitter of brightness, factor 1 +- this. Paper: 0.4", at_least=0, at_most=100
    )
    contrast: float = knob(
        0.4, "jitter of contrast, factor 1 +- this. Paper: 0.4", at_least=0, at_most=100
    )
    saturation: float = knob(
        0.4, "jitter of saturation, factor 1 +- this. Paper: 0.4", at_least=0, at_most=100
    )
    hue: float = knob(
        0.1, "jitter of hue, +- this share of the circle. Paper: 0.1", at_least=0, at_most=0.5
    )
    grayscale: float = knob(0.2, "probability of grayscale. Paper: 0.2", at_least=0, at_most=1)
    blur: float = knob(
        0.0, "probability of blur. Paper: 0 on CIFAR, 0.5 on ImageNet", at_least=0, at_most=1
    )
    blur_sigma_min: float = knob(
        0.1, "smallest sigma of the blur, px. Paper: 0.1", above=0, at_most=1000
    )
    blur_sigma_max: float = knob(
        2.0, "largest sigma of the blur, px. Paper: 2", above=0, at_most=1000
    )
    own: str = knob(
        "", "views given in Python, in place of these; set by stopgrad.pretrain(views=)"
    )


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(Checked):
    """The encoder f: images -> features. Paper: Appendix D (ResNet-18 on CIFAR)."""

    name: str = knob(
        "resnet18",
        "resnet10|18|34|50, cifar_resnet8|14|20|32|44|56 (6n+2) or timm:NAME. Paper: resnet18",
    )
    stem: Stem = knob(
        "small",
        "first layer: small (3x3 stride 1), half (3x3 stride 2), large (7x7 stride 2 and max-pool)",
    )
    width: float = knob(1.0, "factor on every channel count of a ResNet", above=0, at_most=32)
    channels: int = knob(
        3,
        "channels of its input: 3, 1 for gray views, or as many as --bands. Paper: 3",
        at_least=1,
        at_most=1024,
    )
    zero_init: bool = knob(True, "start the last BN gain of each residual block at 0. Report: yes")

    @property
    def is_given(self) -> bool:
        """Whether it was given in Python, so that its name does not say how to build it."""
        return self.name.startswith(OWN)

    @property
    def is_timm(self) -> bool:
        """Whether timm builds it."""
        return self.name.startswith(TIMM)


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig(Checked):
    """The projector g: features -> z. Paper: Sec. 3 and Appendix D."""

    layers: Literal[2, 3] = knob(2, "number of linear layers. Paper: 2 on CIFAR, 3 on ImageNet")
    hidden: int = knob(512, "width of the hidden layers. Report: 512; others: 2048", at_least=1)
    out: int = knob(2048, "width D of z. Paper: 2048", at_least=2)
    hidden_bn: bool = knob(True, "BN on the hidden layers. Paper: yes")
    output_bn: bool = knob(True, "BN (without affine) on the output. Paper: yes")


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(Checked):
    """The predictor h: z -> p. Paper: Sec. 3 and Table 1."""

    enabled: bool = knob(True, "false: p = z, the ablation of Table 1a")
    hidden: int = knob(512, "width of the bottleneck. Paper: 512", at_least=1)
    hidden_bn: bool = knob(True, "BN on the hidden layer. Paper: yes")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Checked):
    """Optimiser and learning rates. Paper: Sec. 3; alpha_h: the report."""

    algorithm: OptimizerName = knob("sgd", "sgd or lars. Paper: sgd")
    base_lr: float = knob(
        0.03, "peak learning rate per 256 images of a batch. Paper: 0.03 on CIFAR", above=0
    )
    momentum: float = knob(0.9, "momentum. Paper: 0.9", at_least=0, at_most=1)
    weight_decay: float = knob(5e-4, "weight decay. Paper: 5e-4 on CIFAR", at_least=0)
    decay_norm_and_bias: bool = knob(
        True, "weight decay also on BN parameters and biases. Paper: yes"
    )
    warmup_epochs: float = knob(0.0, "linear warm-up, epochs. Paper: 0", at_least=0)
    alpha_h: float = knob(1.0, "learning rate of the predictor / lr. Paper: 1", above=0)
    predictor_schedule: Schedule = knob(
        "constant", "schedule of the predictor's learning rate. Paper: constant"
    )


@dataclass(frozen=True, kw_only=True)
class KNNConfig(Checked):
    """The weighted kNN classifier of Wu et al. 2018, by cosine similarity."""

    k: int = knob(200, "number of neighbours K. Report: 200", at_least=1)
    temperature: float = knob(0.1, "T in exp(similarity / T). Report: 0.1", above=0)


@dataclass(frozen=True, kw_only=True)
class LinearConfig(Checked):
    """The linear probe: one linear layer on frozen features."""

    algorithm: OptimizerName = knob("sgd", "sgd (the report's protocol) or lars (the paper's)")
    base_lr: float = knob(30.0, "peak learning rate per 256 samples. Report: 30", above=0)
    batch: int = knob(256, "samples per step. Report: 256; paper: 4096", at_least=1)
    epochs: int = knob(90, "epochs over 100 % of the labels. Report and paper: 90", at_least=1)
    momentum: float = knob(0.9, "momentum. Report and paper: 0.9", at_least=0, at_most=1)
    weight_decay: float = knob(0.0, "weight decay. Report and paper: 0", at_least=0)
    as_published: bool = knob(
        False,
        "raw features, nn.Linear's initial weights, whole batches, a rate for each epoch. "
        "Report: yes",
    )

    @property
    def lr(self) -> float:
        """Peak learning rate, base_lr x batch / 256."""
        return self.base_lr * self.batch / 256


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(Checked):
    """The baseline from scratch: the same encoder and one linear layer, trained with labels.

    Report: its label study; SGD as in pretraining, random crop with reflect padding and flip. The
    flip happens as often as in pretraining (views.flip).
    """

    epochs: int = knob(
        0,
        "epochs of as many images as in pretraining, 0: as many epochs too. Report: 800",
        at_least=0,
    )
    batch: int = knob(0, "images per step, 0: as pretraining. Report: 512", at_least=0)
    base_lr: float = knob(
        0.03, "peak learning rate per 256 images of a batch. Report: 0.03", above=0
    )
    momentum: float = knob(0.9, "momentum. Report: 0.9", at_least=0, at_most=1)
    weight_decay: float = knob(5e-4, "weight decay on every parameter. Report: 5e-4", at_least=0)
    padding: int = knob(4, "reflect padding before the crop, px. Report: 4", at_least=0)
    crop: int = knob(0, "side of the crop, px, 0: that of the images. Report: 32", at_least=0)

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of bounds and for a batch of one, which BN refuses."""
        super().__post_init__()
        if self.batch == 1:
            raise ConfigError("supervised.batch = 1", expected="0 or at least 2")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Checked):
    """Fine-tuning: a pretrained encoder and one linear layer, the whole network trained.

    The report left it out. The recipe is that of SwAV (Caron et al. 2020, semi-supervised
    evaluation): SGD, batch 256, 20 epochs, no weight decay, a larger learning rate for the new
    layer; with a cosine instead of steps, as Barlow Twins (Zbontar et al. 2021). The images are
    augmented as those of `supervised`.
    """

    epochs: int = knob(
        20, "epochs of as many images as in pretraining. SwAV, Barlow Twins: 20", at_least=1
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
    crop: int = knob(0, "side of the crop, px, 0: that of the images", at_least=0)


class Length(NamedTuple):
    """How long a training is: epochs over all images, and images per step."""

    epochs: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class Config(Checked):
    """One pretraining run: all that decides its result, apart from the images."""

    seed: int = knob(0, "seed of all randomness", at_least=0, at_most=2**63 - 1)
    epochs: int = knob(800, "passes over the images. Paper: 800 on CIFAR", at_least=1)
    batch: int = knob(512, "images per step B. Paper: 512", at_least=2)
    parts: int = knob(
        1,
        "number of equal parts of the data, from which a batch takes equally many images. If the "
        "number of processes divides it, each reads only its own parts. Paper: 1",
        at_least=1,
    )
    stop_gradient: bool = knob(True, "false: the ablation of Sec. 4.1, which collapses")
    target: TargetName = knob(
        "stop-gradient",
        "p is compared with z (stop-gradient), or with that of a moving average of encoder and "
        "projector (momentum, BYOL). Paper: stop-gradient",
    )
    target_momentum: float = knob(
        0.996,
        "share that the moving average keeps at each step. BYOL: 0.996, rising to 1",
        at_least=0,
        at_most=1,
    )
    stop_on_collapse: bool = knob(
        False,
        "end the run (exit code 4) after two verdicts of collapse in a row, past its first 10 %",
    )
    validation: float = knob(
        0.0,
        "share of the training images held out for validation, 0: none. Report: 0 or 0.2",
        at_least=0,
        at_most=0.9,
    )
    image_size: int = knob(
        0,
        "side that mixed or larger images are scaled to, px, 0: views.size x 8/7, at least 32",
        at_least=0,
    )
    bad_images: BadImages = knob(
        "fail", "what damaged images do: fail, or skip (left out, at most 5 % of the images)"
    )
    image_column: str = knob(
        "", "column of a table (Parquet, CSV, ...) of the images or their paths; empty: automatic"
    )
    label_column: str = knob(
        "", "column of a table (Parquet, CSV, ...) that holds the labels; empty: automatic"
    )
    white_level: float = knob(
        0.0, "value that is white in images of more than 8 bits, 0: from the images", at_least=0
    )
    bands: str = knob(
        "auto",
        "bands to read as red, green and blue, such as 4,3,2, or one as gray; more, or all: one "
        "channel per band; auto: the colours of the image",
    )
    views: ViewsConfig = section(ViewsConfig, "the augmentations")
    encoder: EncoderConfig = section(EncoderConfig, "encoder f")
    projector: ProjectorConfig = section(ProjectorConfig, "projector g")
    predictor: PredictorConfig = section(PredictorConfig, "predictor h")
    optimizer: OptimizerConfig = section(OptimizerConfig, "optimiser")
    knn: KNNConfig = section(KNNConfig, "the kNN that watches the run")
    supervised: SupervisedConfig = section(SupervisedConfig, "the baseline from scratch")
    finetune: FinetuneConfig = section(FinetuneConfig, "fine-tuning with labels")
    knn_every: int = knob(10, "epochs between kNN evaluations, 0: never", at_least=0)
    checkpoint_every: int = knob(
        0,
        "steps between checkpoints, 0: at the end of epochs, for at most 1 % of the time",
        at_least=0,
        at_most=10**9,
    )
    measure_every: int = knob(1, "epochs between measurements of collapse, 0: never", at_least=0)
    batch_norm: BatchNorm = knob(
        "per-view", "statistics of each view (per-view) or of both (joint). Paper: per-view"
    )
    batch_norm_over: Literal["all", "process"] = knob(
        "all", "statistics over the batch of all processes, or of each alone. Paper: all"
    )
    batch_norm_kernel: Literal["plain", "fused"] = knob(
        "plain", "BN, ReLU and residual sum of a ResNet on one GPU: PyTorch's, or fused kernels"
    )
    process_timeout: float = knob(
        120.0, "how long a process waits for the others, s", above=0, at_most=10**7
    )
    precision: Precision = knob(
        "auto", "bf16 (autocast), fp32 or auto: bf16 on a GPU and on processors that support it"
    )
    channels_last: bool = knob(True, "memory format of the network, faster nearly everywhere")
    compile: Compile = knob("auto", "torch.compile: on, off or auto (only on a GPU)")
    repeatable: bool = knob(
        True, "on a GPU, use cuDNN's repeatable algorithms: a resumed run has the same bits"
    )
    device: str = knob("auto", "auto, cpu, mps, cuda or cuda:N")
    threads: int = knob(
        0, "CPU threads, 0: PyTorch's choice, one per core", at_least=0, at_most=1024
    )

    @property
    def lr(self) -> float:
        """Peak learning rate of encoder and projector, base_lr x batch / 256 (Sec. 3)."""
        return self.optimizer.base_lr * self.batch / 256

    @property
    def has_own_parts(self) -> bool:
        """Whether its encoder or its views were given in Python."""
        return bool(self.views.own) or self.encoder.is_given

    @property
    def image_side(self) -> int:
        """Side of the stored images, px; 256 for views of 224 as is usual on ImageNet."""
        return self.image_size or max(32, round(self.views.size * 8 / 7))

    @property
    def reading(self) -> Reading:
        """How its images are read."""
        bands = read_bands(self.bands)
        return Reading("", self.image_column, self.label_column, self.white_level, bands)

    def length(self, task: Task) -> Length:
        """The length of the pretraining, of the baseline from scratch or of fine-tuning."""
        match task:
            case "pretrain":
                return Length(self.epochs, self.batch)
            case "supervised":
                knobs = self.supervised
                return Length(knobs.epochs or self.epochs, knobs.batch or self.batch)
            case "finetune":
                return Length(self.finetune.epochs, self.finetune.batch)

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of bounds and for pairs that contradict."""
        super().__post_init__()
        read_bands(self.bands)
        wrong = list(contradictions({key: attrgetter(key)(self) for pair in PAIRS for key in pair}))
        if self.target == "momentum" and not self.stop_gradient:
            wrong.append("target = momentum, stop_gradient = false (no gradient reaches a target)")
        if wrong:
            raise ConfigError(
                "; ".join(wrong),
                expected="knobs that do not contradict each other",
                hint="change one of the two",
            )
