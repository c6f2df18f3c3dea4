"""How fast stopgrad is on this machine, beside the machine's own limit.

In: nothing but `Sizes`; images are random pixels, so no data is needed. Out: `Speed`: the rate of
a large matrix product, the training step in views/s and FLOP/s with the share of each phase,
views, embedding, kNN, linear probe, decoding, memory and start-up, each as a median with its
spread.

Matrix products are timed right before and after each group of steps, and a share compares
neighbours in time: a machine that others use shows as spread, not as a wrong share.
"""

from stopgrad.speed.measure import FULL, QUICK, Sizes, Speed, as_json, measure
from stopgrad.speed.process import peak_bytes
from stopgrad.speed.steps import (
    Phases,
    StepSpeed,
    endless_steps,
    start_on_random_pixels,
    step_phases,
    take_steps,
)
from stopgrad.speed.stopwatch import Spread, per_call, spread, wait_for

__all__ = [
    "FULL",
    "QUICK",
    "Phases",
    "Sizes",
    "Speed",
    "Spread",
    "StepSpeed",
    "as_json",
    "endless_steps",
    "measure",
    "peak_bytes",
    "per_call",
    "spread",
    "start_on_random_pixels",
    "step_phases",
    "take_steps",
    "wait_for",
]
