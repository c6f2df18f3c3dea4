"""Weights that an encoder starts from: a run, a safetensors file, or timm's -> named tensors.

Whatever the source, the tensors are checked against the encoder that will hold them, by name,
shape and type, before they are read, and are finite. Nothing is unpickled.
"""
