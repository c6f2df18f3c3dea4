"""A frozen encoder and images -> features, and the score that all evaluators share.

In: an encoder (B, C, H, W) -> (B, F) and `Images`. Out: `Features`, values (N, F) float32 with
labels (N,), which is all that an evaluator sees: no network and no loader. An evaluator turns
them into class scores (N, C), and `score` turns those into a `Score` over every image.
Paper: Sec. 4 and Appendix D (kNN and linear evaluation of the encoder's output).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from stopgrad.config import torch_generator
from stopgrad.errors import DataError, DivergedError
from stopgrad.evaluation.records import CLEAN, Balance
from stopgrad.images import no_progress
from stopgrad.method import Compute, Processes, SimSiam, downscale, normalize

if TYPE_CHECKING:
    from stopgrad.images import Images, Normalization, Track

TOP = 5
UNEVEN = 2  # ratio of the largest class to the smallest above which accuracy alone misleads
EMBEDDED_PIXELS = 512 * 64 * 64  # that go through an encoder at a time
PIXEL_SIDE = 32  # px; larger images as raw pixels would not fit into memory


class Features(NamedTuple):
    """A set of images as an evaluator sees it."""

    values: Tensor  # (N, F) float32
    labels: Tensor | None  # (N,) int64, on the device of the values


class Labelled(NamedTuple):
    """Features that were checked: finite, with a label each."""

    values: Tensor  # (N, F) float32
    labels: Tensor  # (N,) int64


class Score(NamedTuple):
    """How well an evaluator classified a set of images. Tensors are on the CPU."""

    accuracy: float  # top-1, a fraction
    top5: float  # a fraction; 1 when there are at most five classes
    per_class: Tensor  # (C,) float64, accuracy of each class, NaN where a class has no image
    class_images: Tensor  # (C,) int64, images of each class that were scored
    predicted: Tensor  # (N,) int64
    images_scored: int
    protocol: dict[str, object]  # all that defines the number, ready for JSON

    @property
    def balance(self) -> Balance:
        """Set if one class has over `UNEVEN` times the images of another, or is the only one."""
        there = self.class_images[self.class_images > 0].double()
        if len(there) > 1 and bool(there.max() <= UNEVEN * there.min()):
            return Balance()
        return Balance(float(self.per_class.nanmean()), float(there.max() / there.sum()))


def embed(
    encoder: nn.Module,
    images: Images,
    *,
    normalization: Normalization,
    compute: Compute,
    batch: int | None = None,
    processes: Processes | None = None,
    track: Track = no_progress,
) -> Features:
    """The encoder's output for every image, in order; images are normalised, not augmented.

    They are embedded whole, at `images.whole_size`. Runs in eval and inference mode and leaves the
    encoder as it was. Draws no random number.

    Args:
        encoder: (B, C, H, W) float32 -> (B, F), on the device of `compute`.
        images: N images.
        normalization: The training set's mean and standard deviation.
        compute: Device, precision and memory format; the features stay on the device.
        batch: Images at a time; bounds the memory. None: `images_at_a_time`.
        processes: Processes that share the work, this one included; each gets all features.
        track: Shows progress.
    """
    batch = batch or images_at_a_time(images)

    def features_from(start: int) -> Tensor:
        return encoder(_prepare(images, start, batch=batch, to=(normalization, compute))).float()  # type: ignore[no-any-return]

    with _evaluating(encoder), compute.autocast():
        values = in_parts(
            features_from, len(images), batch, processes=processes, track=track, shown_as="embed"
        )
    labels = None
    if images.labels is not None:
        labels = torch.from_numpy(images.labels.copy()).to(compute.device)
    # Outside of inference mode, so that the result may be used in any computation.
    return Features(torch.cat(values), labels)


def clean_z(
    model: SimSiam,
    images: Images,
    *,
    seed: int,
    normalization: Normalization,
    compute: Compute,
    processes: Processes | None = None,
    track: Track = no_progress,
) -> Tensor:  # (N, D), N = min(CLEAN, images)
    """z of up to 8,192 training images without augmentation, chosen by the seed, in eval mode.

    They include the images whose views are measured during the run.
    """
    order = torch.randperm(len(images), generator=torch_generator(seed, "measured"))
    chosen = images.take(order[:CLEAN].sort().values.numpy())
    features = embed(
        model.encoder,
        chosen,
        normalization=normalization,
        compute=compute,
        processes=processes,
        track=track,
    ).values
    with _evaluating(model.projector):
        z: Tensor = model.projector(features)
    return z


def in_parts(
    work: Callable[[int], Tensor],
    total: int,
    step: int,
    *,
    processes: Processes | None,
    track: Track,
    shown_as: str,
) -> list[Tensor]:
    """The rows of all chunks, in order; several processes share the chunks and each gets all rows.

    Args:
        work: The start of a chunk -> its rows (<= step, ...).
        total: The total number of rows.
        step: Rows of a chunk.
        processes: Processes that share the work.
        track: Shows progress.
        shown_as: The work's name in the progress.
    """
    part = slice(0, total) if processes is None else processes.part(total, step=step)
    starts = range(part.start, part.stop, step)
    found = [work(start) for start in track(starts, shown_as, len(starts))]
    if processes is None:
        return found
    own = torch.cat(found) if found else work(0)[:0]  # fewer chunks than processes
    return [processes.gather(own, total=total, step=step)]


def images_at_a_time(images: Images) -> int:
    """The batch size that bounds the pixels of a batch: 512 up to 64 px, 32 at 256 px."""
    height, width = images.whole_size
    return max(16, min(512, EMBEDDED_PIXELS // (height * width)))


def pixel_features(
    images: Images, *, normalization: Normalization, device: torch.device | str = "cpu"
) -> Features:
    """Normalised pixels as features: the baseline that needs no network.

    Images of more than 32 px are averaged down to 32 x 32, so (N, 3 * H * W) with H, W <= 32.
    """
    compute = Compute(torch.device(device), "fp32", channels_last=False)
    height, width = (min(side, PIXEL_SIDE) for side in images.whole_size)
    shrink = nn.AdaptiveAvgPool2d((height, width))
    return embed(
        nn.Sequential(shrink, nn.Flatten()), images, normalization=normalization, compute=compute
    )


def labelled(features: Features, *, role: str) -> Labelled:
    """Features, checked to be finite and to have labels; `role` names them in an error.

    Raises:
        DataError: When there are no images or no labels.
        DivergedError: When a value is not finite.
    """
    finite(features.values, role=role)
    if features.labels is None:
        raise DataError(
            f"{role} images without labels",
            expected="a label for each image, as accuracy needs them",
            hint="put the images into one folder per class, or leave the evaluation out",
        )
    assert features.labels.shape == features.values.shape[:1], features.labels.shape
    return Labelled(features.values, features.labels)


def finite(values: Tensor, *, role: str) -> None:  # (N, F)
    """Raises a DataError when there are no features, a DivergedError when one is not finite."""
    if len(values) == 0:
        raise DataError(
            f"no {role} images", expected="at least one", hint="check the split that was asked for"
        )
    if bool(torch.isfinite(values.sum())):
        return  # one cheap pass: no sum over an infinity or a NaN is finite
    wrong = int((~torch.isfinite(values).all(dim=1)).sum())
    if wrong:
        raise DivergedError(
            f"features that are not finite, of {wrong} of {len(values)} {role} images",
            expected="finite features",
            hint="evaluate an earlier checkpoint, or pretrain with a lower optimizer.base_lr",
        )


def class_count(train: Labelled, test: Labelled) -> int:
    """C, one more than the largest label of either set."""
    return int(torch.maximum(train.labels.max(), test.labels.max())) + 1


def score(class_scores: Tensor, labels: Tensor, *, protocol: dict[str, object]) -> Score:
    """Top-1, top-5 and the accuracy of each class, over every image.

    Args:
        class_scores: (N, C), higher is better; of equal scores the lower class index wins.
        labels: (N,) int64 in 0..C-1.
        protocol: All that defines the number.
    """
    images, classes = class_scores.shape
    order = class_scores.sort(dim=1, descending=True, stable=True).indices[:, :TOP]  # (N, <= 5)
    hits = (order == labels[:, None]).cpu()  # (N, <= 5)
    labels = labels.cpu()
    right = labels[hits[:, 0]].bincount(minlength=classes)  # (C,)
    each = labels.bincount(minlength=classes)  # (C,)
    return Score(
        accuracy=int(right.sum()) / images,
        top5=int(hits.sum()) / images,
        per_class=right.double() / each,
        class_images=each,
        predicted=order[:, 0].cpu(),
        images_scored=images,
        protocol=protocol,
    )


def _prepare(
    images: Images, start: int, *, batch: int, to: tuple[Normalization, Compute]
) -> Tensor:  # (B, C, H, W) float32
    normalization, compute = to
    # Copied, because PyTorch warns about read-only arrays (memory maps).
    pixels = torch.from_numpy(images.pixels[start : start + batch].copy()).to(compute.device)
    whole = downscale(pixels.permute(0, 3, 1, 2), images.whole_size)
    return compute.arrange(normalize(whole, normalization))


@contextmanager
def _evaluating(encoder: nn.Module) -> Iterator[None]:
    """Eval and inference mode; each module's own training flag is restored, also after an error."""
    training = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, flag in training:
            module.training = flag
