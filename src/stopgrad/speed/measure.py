"""All measurements in order, and their JSON object."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from stopgrad.config import Config, preset
from stopgrad.method import compute_for
from stopgrad.runs import Environment, environment
from stopgrad.speed.evaluators import (
    DecodingSpeed,
    EvaluatorSizes,
    EvaluatorSpeed,
    measure_decoding,
    measure_evaluators,
    measure_views,
)
from stopgrad.speed.matmul import MatrixProduct, MatrixRates
from stopgrad.speed.steps import Effort, StepSpeed, measure_steps
from stopgrad.speed.stopwatch import Spread, StartUp, measure_start_up, peak_bytes, spread

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}


class Sizes(NamedTuple):
    """How much to measure."""

    matrix_side: int  # 0: `MATRIX_SIDE` of the device
    seconds: float  # least duration of a measurement of many calls
    batches: tuple[int, int]  # of ResNet-18, of the `cpu` preset's encoder
    steps: Effort
    views: int  # images per batch of views
    evaluators: EvaluatorSizes
    decoded: int  # images to decode
    starts: int  # processes of each kind to start


FULL = Sizes(
    matrix_side=0,
    seconds=0.25,
    batches=(64, 64),
    steps=Effort(images=4096, embedded=512, repeats=8, seconds=1.0),
    views=512,
    evaluators=EvaluatorSizes(bank=50_000, queries=10_000, probe_epochs=90, repeats=3),
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
    evaluators=EvaluatorSizes(bank=300, queries=20, probe_epochs=2, repeats=2),
    decoded=16,
    starts=1,
)
"""A check of a few seconds that everything runs; its numbers mean nothing."""


class Speed(NamedTuple):
    """All measurements."""

    matrix_side: int
    matrix: MatrixSpeed
    steps: tuple[StepSpeed, ...]
    views_per_s: Spread
    evaluators: EvaluatorSpeed
    decoding: DecodingSpeed
    start_up: StartUp
    peak_bytes: int  # of the process, or of the GPU's memory
    environment: Environment
    cores: int


class MatrixSpeed(NamedTuple):
    """FLOP/s of a product of two square matrices, over all its timings."""

    bf16: Spread
    fp32: Spread


def measure_speed(
    sizes: Sizes = FULL, *, device: str = "auto", say: Callable[[str], None] = lambda _: None
) -> Speed:
    """Measures everything, with PyTorch's present number of CPU threads.

    Args:
        sizes: How much to measure.
        device: auto, cpu, cuda or cuda:N.
        say: Called with the name of each measurement before it starts.

    Raises:
        ConfigError: When the device is missing.
    """
    configs = _configs(sizes, device)
    where = compute_for(configs[0]).device
    side = sizes.matrix_side or MATRIX_SIDE[where.type]
    say("matrix products")
    matrix = MatrixProduct(side, device=where, at_least=sizes.seconds)
    steps = []
    for config in configs:
        say(f"training steps of {config.encoder.name}, batch {config.batch}")
        steps.append(measure_steps(config, matrix, sizes.steps))
    say("views")
    views_per_s = measure_views(
        configs[0], batch=sizes.views, repeats=sizes.steps.repeats, seconds=sizes.seconds
    )
    say("kNN and linear probe")
    evaluators = measure_evaluators(configs[0], sizes.evaluators, where)
    say("decoding and start-up")
    return Speed(
        matrix_side=side,
        matrix=matrix_speed(matrix.measured),
        steps=tuple(steps),
        views_per_s=views_per_s,
        evaluators=evaluators,
        decoding=measure_decoding(images=sizes.decoded, repeats=sizes.steps.repeats),
        start_up=measure_start_up(sizes.starts),
        peak_bytes=peak_bytes(where),
        environment=environment(device=str(where), threads=torch.get_num_threads()),
        cores=os.cpu_count() or 1,
    )


def matrix_speed(rates: Sequence[MatrixRates]) -> MatrixSpeed:
    """All timings of each precision together."""
    return MatrixSpeed(*(spread(values) for values in zip(*rates, strict=True)))


def as_json(speed: Speed) -> dict[str, Any]:
    """The object that `stopgrad bench --json` prints.

    The matrix rates are the highest of their repeats, all other numbers medians. `spread` holds the
    lowest, median and highest of each, and the number of repeats.
    """
    spreads = _spreads(speed)
    return {
        "matmul_bf16_flops": speed.matrix.bf16.high,
        "matmul_fp32_flops": speed.matrix.fp32.high,
        "matmul_side": speed.matrix_side,
        "steps": [_step_as_json(step) for step in speed.steps],
        **{name: found.median for name, found in spreads.items() if "matmul" not in name},
        "peak_bytes": speed.peak_bytes,
        "features": [speed.evaluators.bank, speed.evaluators.queries, speed.evaluators.width],
        "probe_epochs": speed.evaluators.epochs,
        **speed.environment._asdict(),
        "cores": speed.cores,
        "spread": {name: found._asdict() for name, found in spreads.items()},
    }


def _configs(sizes: Sizes, device: str) -> tuple[Config, Config]:
    """ResNet-18 and the `cpu` preset, with enough epochs to keep the learning rate constant."""
    resnet, narrow = sizes.batches
    return (
        preset("cifar", batch=resnet, epochs=10_000, device=device),
        preset("cpu", batch=narrow, epochs=10_000, device=device),
    )


def _spreads(speed: Speed) -> dict[str, Spread]:
    """The measurements that do not belong to one network, by their names in JSON."""
    return {
        "matmul_bf16_flops": speed.matrix.bf16,
        "matmul_fp32_flops": speed.matrix.fp32,
        "views_per_s": speed.views_per_s,
        "knn_s": speed.evaluators.knn_s,
        "linear_s": speed.evaluators.linear_s,
        **{f"decode_{name}": found for name, found in speed.decoding._asdict().items()},
        **{f"start_{name}": found for name, found in speed.start_up._asdict().items()},
    }


def _step_as_json(step: StepSpeed) -> dict[str, Any]:
    values = step._asdict()
    spreads = {name: value for name, value in values.items() if isinstance(value, Spread)}
    return {
        **values,
        **{name: found.median for name, found in spreads.items()},
        "phases": step.phases._asdict(),
        "spread": {name: found._asdict() for name, found in spreads.items()},
    }
