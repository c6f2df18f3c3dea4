"""Encoders f: images x (B, 3, H, W) -> features (B, F).

ResNets in torchvision's names and keys with a small, half or large stem and a width factor, the
narrow CIFAR ResNets of the 6n+2 family, and any timm backbone by name (Appendix D of the paper).
"""
