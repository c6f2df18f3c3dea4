"""stopgrad: self-supervised image representations with SimSiam (Chen & He, CVPR 2021).

Pretrain an encoder on images without labels, see whether it collapses, measure it, show it:

    import stopgrad

    run = stopgrad.pretrain("pictures/", preset="cpu", out="runs/mine")
    run.evaluate(labels=[1, 0.1, 0.01])

Each name is loaded when it is first used, so importing the package takes no torch.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
