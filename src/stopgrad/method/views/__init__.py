"""A batch of uint8 pixels and a generator -> two random views of each image.

In: pixels (B, C, H, W) uint8 on any device and a generator on the same device.
Out: x1, x2 (B, C, S, S) float32, normalised, channels_last.
Every image has its own parameters. Each augmentation is a pure function of a batch and these
parameters, and equals torchvision's function on one image.
On a CPU a long run makes them by `loops`, compiled and with the same bits (`faster` decides).
Paper: Sec. 3 ("Baseline settings", from Chen et al. 2020a) and Appendix D (CIFAR-10).
"""
