"""Training: pretraining without labels, and the supervised baseline and fine-tuning.

In: images, a `Config` and, to keep the result, an open run directory. Out: one `Epoch` after
another. Paper: Algorithm 1.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
