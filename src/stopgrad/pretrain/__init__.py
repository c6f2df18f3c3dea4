"""Pretraining: images without labels -> an encoder. Paper: Algorithm 1.

`pretrain` is a generator that yields once per epoch. All randomness is a function of (seed, step),
so a run that is killed and resumed takes the same steps as one that is not.
"""

from stopgrad.pretrain.loop import Epoch, pretrain
from stopgrad.pretrain.setup import WATCHED, TrainingImages, describe_run, prepare
from stopgrad.pretrain.training import Training, load_model, start_training

__all__ = [
    "WATCHED",
    "Epoch",
    "Training",
    "TrainingImages",
    "describe_run",
    "load_model",
    "prepare",
    "pretrain",
    "start_training",
]
