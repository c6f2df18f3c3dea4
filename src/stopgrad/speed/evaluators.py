"""Views, kNN, the linear probe and decoding, each timed separately on random input."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from stopgrad.config import Config, LinearConfig, numpy_generator, torch_generator
from stopgrad.evaluation import Features, linear_probe, weighted_knn
from stopgrad.images import Encoded, Frame, decode, on_all_cores, strict_pillow
from stopgrad.speed.steps import start_on_random_pixels
from stopgrad.speed.stopwatch import Spread, per_call, spread, times

FEATURE_WIDTH = 512  # that of ResNet-18
CLASSES = 10
PNG_SIDE, JPEG_SIDE = 32, 256  # px
CPU = torch.device("cpu")


class EvaluatorSizes(NamedTuple):
    """The work of each evaluator."""

    bank: int  # images with known labels
    queries: int  # images to classify
    probe_epochs: int
    repeats: int


class EvaluatorSpeed(NamedTuple):
    """Seconds of each evaluation."""

    bank: int  # images with known labels
    queries: int  # images to classify
    width: int  # F
    epochs: int  # of the linear probe
    knn_s: Spread
    linear_s: Spread


class DecodingSpeed(NamedTuple):
    """Images decoded per second, on all cores."""

    png_per_s: Spread  # 32 x 32 px
    jpeg_per_s: Spread  # 256 x 256 px


def measure_views(config: Config, *, batch: int, repeats: int, seconds: float) -> Spread:
    """Views per second of a config, from indices to normalised tensors on the device."""
    training = start_on_random_pixels(config, images=batch)
    device = training.compute.device
    indices = torch.arange(batch, device=device)
    work = times(lambda: training.views(indices))
    per_call(work, device=device)
    timed = [per_call(work, device=device, at_least=seconds) for _ in range(repeats)]
    return spread([2 * batch / second for second in timed])


def measure_evaluators(
    config: Config, sizes: EvaluatorSizes, device: torch.device
) -> EvaluatorSpeed:
    """kNN as `config.knn` says, and the report's SGD probe, on features of width 512."""
    train = _random_features(sizes.bank, name="bank", device=device)
    test = _random_features(sizes.queries, name="queries", device=device)
    probe = LinearConfig(epochs=sizes.probe_epochs)
    few = Features(test.values[:512], None if test.labels is None else test.labels[:512])
    weighted_knn(train, few, config.knn)  # the first call warms up
    return EvaluatorSpeed(
        bank=sizes.bank,
        queries=sizes.queries,
        width=FEATURE_WIDTH,
        epochs=sizes.probe_epochs,
        knn_s=_timed(partial(weighted_knn, train, test, config.knn), device, sizes.repeats),
        linear_s=_timed(partial(linear_probe, train, test, probe, seed=0), device, sizes.repeats),
    )


def measure_decoding(*, images: int, repeats: int) -> DecodingSpeed:
    """Decodes PNG and JPEG files in memory, as `load_dataset` does."""
    return DecodingSpeed(
        png_per_s=_decoding(images, form="PNG", side=PNG_SIDE, repeats=repeats),
        jpeg_per_s=_decoding(images // 8, form="JPEG", side=JPEG_SIDE, repeats=repeats),
    )


def random_files(count: int, *, side: int, form: str) -> list[Encoded]:
    """Encoded images of side x side px, form "PNG" or "JPEG".

    A few random colours, scaled up smoothly: a file of noise would be several times larger than
    that of a photo, and slower to decode.
    """
    from PIL import Image

    chance = numpy_generator(0, "speed", "files")
    files = []
    for number in range(count):
        colours = Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        colours.resize((side, side), Image.Resampling.BICUBIC).save(file, format=form)
        files.append(Encoded(f"{number}.{form.lower()}", file.getvalue()))
    return files


def _decoding(images: int, *, form: str, side: int, repeats: int) -> Spread:
    files = random_files(images, side=side, form=form)
    work = partial(decode, frame=Frame(side, side, fit=False))

    def decode_all() -> None:
        for image in on_all_cores(iter(files), work):
            assert isinstance(image.result, np.ndarray), image

    with strict_pillow():
        decode_all()
        seconds = [per_call(times(decode_all), device=CPU) for _ in range(repeats)]
    return spread([images / second for second in seconds])


def _random_features(count: int, *, name: str, device: torch.device) -> Features:
    """Features (N, 512) and labels (N,), on the device."""
    generator = torch_generator(0, "speed", name)
    values = torch.randn(count, FEATURE_WIDTH, generator=generator)
    return Features(values.to(device), (torch.arange(count) % CLASSES).to(device))


def _timed(work: Callable[[], object], device: torch.device, repeats: int) -> Spread:
    return spread([per_call(times(work), device=device) for _ in range(repeats)])
