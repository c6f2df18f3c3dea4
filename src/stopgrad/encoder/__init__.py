"""Encoders f: images x (B, 3, H, W) -> features (B, F).

ResNets in torchvision's names and keys with a small, half or large stem and a width factor, the
narrow CIFAR ResNets of the 6n+2 family, and any timm backbone by name (Appendix D of the paper).
"""

from stopgrad.encoder.build import build_encoder, encoder_names
from stopgrad.encoder.initialize import initialize
from stopgrad.encoder.resnet import ResNet
from stopgrad.encoder.sizes import why_not

__all__ = ["ResNet", "build_encoder", "encoder_names", "initialize", "why_not"]
