"""A batch of uint8 pixels and a generator -> two random views of each image.

In: pixels (B, 3, H, W) uint8 on any device and a generator on the same device.
Out: x1, x2 (B, 3, S, S) float32, normalised, channels_last.
Every image has parameters of its own; each augmentation is a pure function of a batch and its
per-image parameters, and agrees with torchvision's function on one image.
Paper: Sec. 3 ("Baseline settings", from Chen et al. 2020a) and Appendix D (CIFAR-10).
"""

from stopgrad.views.blur import blur
from stopgrad.views.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    colour_jitter,
    grayscale,
)
from stopgrad.views.crop import resized_crop
from stopgrad.views.draw import ViewParameters, draw_parameters, random_table
from stopgrad.views.make import (
    Recipe,
    Views,
    make_view,
    normalize,
    to_float,
    two_views,
    views_of,
    work_out,
)
from stopgrad.views.whole import bring_down

__all__ = [
    "Recipe",
    "ViewParameters",
    "Views",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "blur",
    "bring_down",
    "colour_jitter",
    "draw_parameters",
    "grayscale",
    "make_view",
    "normalize",
    "random_table",
    "resized_crop",
    "to_float",
    "two_views",
    "views_of",
    "work_out",
]
