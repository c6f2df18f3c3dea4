"""Sources of pictures -> `Images`: uint8 pixels, labels or none, class names, a fingerprint.

In: a spec (a known name, `hf:OWNER/NAME`, a path) or arrays. Out: `Dataset`, `Images`
(N, H, W, 3), in memory or packed on disk, splits, label subsets, and the training set's mean and
std; `check_images` says what the pictures are like. Importing this takes NumPy alone; pyarrow,
Pillow and the Hub's client are imported when a data set needs them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
