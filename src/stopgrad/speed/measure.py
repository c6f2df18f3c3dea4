"""All measurements in order, and their JSON object; including views, kNN, probe and decoding."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from stopgrad.config import Config, LinearConfig, numpy_generator, preset, torch_generator
from stopgrad.evaluation import Features, linear_probe, weighted_knn
from stopgrad.images import Encoded, Frame, decode, on_all_cores, strict_pillow
from stopgrad.method import compute_for
from stopgrad.runs import Environment, environment
from stopgrad.speed.beside import Beside, measure_beside
from stopgrad.speed.steps import Effort, StepSpeed, measure_steps, start_on_random_pixels
from stopgrad.speed.stopwatch import (
    MatrixProduct,
    Spread,
    peak_bytes,
    per_call,
    rate,
    spread,
    time_process,
    times,
)

MATRIX_SIDE = {"cpu": 2048, "mps": 4096, "cuda": 8192}
FEATURE_WIDTH = 512  # that of ResNet-18
CLASSES = 10
PNG_SIDE, JPEG_SIDE = 32, 256  # px
IMPORT = "from stopgrad.training import pretrain_epochs"  # what a command imports to train

Say: TypeAlias = "Callable[[str], None]"  # called with the name of what is measured next


class Sizes(NamedTuple):
    """How much to measure."""

    matrix_side: int  # 0: `MATRIX_SIDE` of the device
    seconds: float  # least duration of a measurement of many calls
    batches: tuple[int, int]  # of ResNet-18, of the `cpu` preset's encoder
    steps: Effort
    views: int  # images per batch of views
    bank: int  # images with known labels
    queries: int  # images to classify
    probe_epochs: int
    evaluations: int  # of each evaluator
    decoded: int  # images to decode
    starts: int  # processes of each kind to start


FULL = Sizes(
    matrix_side=0,
    seconds=0.25,
    batches=(64, 64),
    steps=Effort(images=4096, embedded=512, repeats=8, seconds=1.0),
    views=512,
    bank=50_000,
    queries=10_000,
    probe_epochs=90,
    evaluations=3,
    decoded=4096,
    starts=4,
)
"""What `stopgrad bench` measures: about two minutes on two cores."""

QUICK = Sizes(
    matrix_side=128,
    seconds=0.0,
    batches=(2, 4),
    steps=Effort(images=8, embedded=4, repeats=2, seconds=0.0),
    views=4,
    bank=300,
    queries=20,
    probe_epochs=2,
    evaluations=2,
    decoded=16,
    starts=1,
)
"""A check of a few seconds that everything runs; its numbers mean nothing."""


class Speed(NamedTuple):
    """All measurements, by their names in JSON."""

    matmul_bf16_flops: Spread  # FLOP/s of a product of two square matrices
    matmul_fp32_flops: Spread
    matmul_side: int
    steps: tuple[StepSpeed, ...]
    beside: tuple[Beside, ...]  # of the `cpu` preset's encoder; empty unless asked for
    views_per_s: Spread
    knn_s: Spread
    linear_s: Spread
    decode_png_per_s: Spread  # 32 x 32 px, on all cores
    decode_jpeg_per_s: Spread  # 256 x 256 px, on all cores
    start_help_s: Spread  # `stopgrad --help`
    start_import_s: Spread  # `IMPORT`
    peak_bytes: int  # of the process, or of the GPU's memory
    features: tuple[int, int, int]  # images with known labels, images to classify, F
    probe_epochs: int
    environment: Environment
    cores: int


def measure_speed(
    sizes: Sizes = FULL,
    *,
    device: str = "auto",
    beside: int = 0,
    say: Say = lambda _: None,
) -> Speed:
    """Measures everything, with PyTorch's present number of CPU threads.

    Args:
        sizes: How much to measure.
        device: auto, cpu, cuda or cuda:N.
        beside: Number of busy programs, next to which steps on the CPU are measured too.
        say: Called with the name of each measurement before it starts.

    Raises:
        ConfigError: When the device is missing.
    """
    configs = _configs(sizes, device=device)
    resnet, where = configs[0], compute_for(configs[0]).device
    say("matrix products")
    matrix = _matrix(sizes, where)
    steps = tuple(_steps(config, matrix, sizes, say) for config in configs)
    others = _beside(sizes, say, loops=beside) if beside else ()
    views_per_s = _views(resnet, sizes, say)
    say("kNN and linear probe")
    knn_s, linear_s = _evaluators(resnet, sizes, where)
    say("decoding and start-up")
    bf16, fp32 = zip(*matrix.measured, strict=True)
    return Speed(
        matmul_bf16_flops=spread(bf16),
        matmul_fp32_flops=spread(fp32),
        matmul_side=matrix.side,
        steps=steps,
        beside=others,
        views_per_s=views_per_s,
        knn_s=knn_s,
        linear_s=linear_s,
        decode_png_per_s=_decoding(sizes, sizes.decoded, form="PNG", side=PNG_SIDE),
        decode_jpeg_per_s=_decoding(sizes, sizes.decoded // 8, form="JPEG", side=JPEG_SIDE),
        start_help_s=time_process("-m", "stopgrad.cli", "--help", repeats=sizes.starts),
        start_import_s=time_process("-c", IMPORT, repeats=sizes.starts),
        peak_bytes=peak_bytes(where),
        features=(sizes.bank, sizes.queries, FEATURE_WIDTH),
        probe_epochs=sizes.probe_epochs,
        environment=environment(device=str(where), threads=torch.get_num_threads()),
        cores=os.cpu_count() or 1,
    )


def as_json(speed: Speed) -> dict[str, Any]:
    """The object that `stopgrad bench --json` prints.

    The matrix rates are the highest of their repeats, all other numbers medians. `spread` holds the
    lowest, median and highest of each, and the number of repeats.
    """
    values = _medians(speed) | {
        "matmul_bf16_flops": speed.matmul_bf16_flops.high,
        "matmul_fp32_flops": speed.matmul_fp32_flops.high,
        "steps": [_medians(step) | {"phases": step.phases._asdict()} for step in speed.steps],
        "beside": [*map(_medians, speed.beside)],
    }
    last = {name: values.pop(name) for name in ("cores", "spread")}
    del values["environment"]
    return values | speed.environment._asdict() | last


def _medians(found: Speed | StepSpeed | Beside) -> dict[str, Any]:
    """The fields, with the median of each spread; the spreads themselves under `spread`."""
    values = found._asdict()
    spreads = {name: value for name, value in values.items() if isinstance(value, Spread)}
    medians = {name: value.median for name, value in spreads.items()}
    return values | medians | {"spread": {n: value._asdict() for n, value in spreads.items()}}


def _configs(sizes: Sizes, *, device: str) -> list[Config]:
    """ResNet-18 and the `cpu` preset's encoder, in runs so long that the rate stays constant."""
    return [
        preset("cifar", batch=sizes.batches[0], epochs=10_000, device=device),
        preset("cpu", batch=sizes.batches[1], epochs=10_000, device=device),
    ]


def _matrix(sizes: Sizes, device: torch.device) -> MatrixProduct:
    side = sizes.matrix_side or MATRIX_SIDE[device.type]
    return MatrixProduct(side, device=device, at_least=sizes.seconds)


def _steps(config: Config, matrix: MatrixProduct, sizes: Sizes, say: Say) -> StepSpeed:
    say(f"training steps of {config.encoder.name}, batch {config.batch}")
    return measure_steps(config, matrix, sizes.steps)


def _beside(sizes: Sizes, say: Say, *, loops: int) -> tuple[Beside, ...]:
    say(f"training steps beside {loops} busy programs")
    _, on_cpu = _configs(sizes, device="cpu")
    return measure_beside(on_cpu, sizes.steps, loops=loops)


def _views(config: Config, sizes: Sizes, say: Say) -> Spread:
    """Views per second, from indices to normalised tensors on the device."""
    say("views")
    training = start_on_random_pixels(config, images=sizes.views)
    device = training.compute.device
    indices = torch.arange(sizes.views, device=device)
    return rate(
        lambda: training.views(indices),
        2 * sizes.views,
        device=device,
        repeats=sizes.steps.repeats,
        at_least=sizes.seconds,
    )


def _evaluators(config: Config, sizes: Sizes, device: torch.device) -> list[Spread]:
    """Seconds of kNN and of the report's SGD probe, on features of width 512."""
    train = _random_features(sizes.bank, name="bank", device=device)
    test = _random_features(sizes.queries, name="queries", device=device)
    few = Features(test.values[:512], None if test.labels is None else test.labels[:512])
    weighted_knn(train, few, config.knn)  # the first call warms up
    probe = LinearConfig(epochs=sizes.probe_epochs)
    works: list[Callable[[], object]] = [
        partial(weighted_knn, train, test, config.knn),
        partial(linear_probe, train, test, probe, seed=0),
    ]
    return [
        spread([per_call(times(work), device=device) for _ in range(sizes.evaluations)])
        for work in works
    ]


def _random_features(count: int, *, name: str, device: torch.device) -> Features:
    """Features (N, 512) and labels (N,), on the device."""
    generator = torch_generator(0, "speed", name)
    values = torch.randn(count, FEATURE_WIDTH, generator=generator)
    return Features(values.to(device), (torch.arange(count) % CLASSES).to(device))


def _decoding(sizes: Sizes, images: int, *, form: str, side: int) -> Spread:
    """Images per second that are decoded from memory, as `load_dataset` does."""
    files = _random_files(images, side=side, form=form)
    work = partial(decode, frame=Frame(side, side, fit=False))

    def decode_all() -> None:
        for image in on_all_cores(iter(files), work):
            assert isinstance(image.result, np.ndarray), image

    with strict_pillow():
        return rate(decode_all, images, device=torch.device("cpu"), repeats=sizes.steps.repeats)


def _random_files(count: int, *, side: int, form: str) -> list[Encoded]:
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
