"""A run directory: config, status, metrics and checkpoints; atomic, verified, never pickled.

In: a path. Out: what was asked for (`RunInfo`), how far it came, its metrics and its model at the
newest checkpoint that is whole; or a `RunWriter`, the one process that may write there.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
