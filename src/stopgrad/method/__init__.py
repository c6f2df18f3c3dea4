"""The paper, file by file: views, encoder, heads, SimSiam and its loss, optimizer, collapse.

In: batches of uint8 images and a `Config`. Out: views (B, C, S, S), features (B, F), z and p
(B, D), the loss (), and measures of collapse.

    views/       two random views of a batch, and whole images without augmentation
    layers       BN per view, and how weights start
    fused        BN, sum and ReLU of images as kernels of Triton
    resnet       our ResNets, and what every encoder has
    own          an encoder and views that a Python caller gives
    encoder      encoder f by name: a ResNet or any timm backbone
    heads        projector g and predictor h
    simsiam      two views -> p1, p2, z1, z2 -> the symmetrised loss
    classifier   an encoder and one linear layer, for training with labels
    flops        floating-point operations of training per view
    schedule     the learning rates as a function of the step, and how far a run goes by them
    optimizer    parameter groups, SGD and LARS
    collapse     measures of collapse and the verdict
    compute      device, precision, memory format, threads
    processes    several processes that take each step together
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
