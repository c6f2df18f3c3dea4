"""The baseline from scratch: labelled images -> the same encoder with one linear layer, its score.

In: a share of the labels and the test images (`draw_share`). Out: an `Epoch` at a time; the last
one brings the score on the whole test set. `finetune` trains by the same loop. All randomness is a
function of (seed, step), so a training that is killed and goes on takes the same steps.
Report: the supervised network of its label study.
"""

from stopgrad.supervised.crop import Crops, Size, draw_crops, padded_crop
from stopgrad.supervised.loop import Epoch, supervised, train
from stopgrad.supervised.recipe import (
    LabelledShare,
    Recipe,
    draw_share,
    protocol,
    supervised_recipe,
)
from stopgrad.supervised.shares import describe_share, open_share, share_folder
from stopgrad.supervised.training import Training, start_training

__all__ = [
    "Crops",
    "Epoch",
    "LabelledShare",
    "Recipe",
    "Size",
    "Training",
    "describe_share",
    "draw_crops",
    "draw_share",
    "open_share",
    "padded_crop",
    "protocol",
    "share_folder",
    "start_training",
    "supervised",
    "supervised_recipe",
    "train",
]
