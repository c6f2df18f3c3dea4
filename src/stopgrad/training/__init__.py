"""Training: pretraining without labels, and the supervised baseline and fine-tuning.

In: images, a `Config` and, to keep the result, an open run directory. Out: one `Epoch` after
another. Paper: Algorithm 1.

    learner    what every training shares: state, step, snapshot and restore, what is kept on disk
    replay     a step as a CUDA graph, recorded once
    pretrain   the loop and the step of SimSiam, Algorithm 1
    watch      what is measured when an epoch ends: collapse and kNN
    recipe     how a network is trained with labels: random crops, recipe, protocol
    labelled   training with labels: from scratch, or from a pretrained encoder
    sessions   a pretraining in a run directory: begun, resumed or extended
    fractions  training with one fraction of the labels after the other, each in its directory
    naming     which tensors of another tool's file are the encoder's
    importing  a file of torch.save -> safetensors, in a process of its own
    weights    what an encoder starts from: a run, a file, or timm's weights
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
