"""Weights that an encoder starts from: a run, a safetensors file, or timm's -> named tensors.

Whatever the source, the tensors are checked against the encoder that will hold them, by name,
shape and type, before they are read, and are finite. Nothing is unpickled.
"""

from stopgrad.weights.file import card_of, read_tensors
from stopgrad.weights.read import Weights, read_weights

__all__ = ["Weights", "card_of", "read_tensors", "read_weights"]
