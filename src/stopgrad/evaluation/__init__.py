"""Frozen features -> scores and records, their statistics, and runs beside each other.

In: a run or `Features`. Out: a `Score`, a `Record` (one JSON line with all that defines the
number), or ranks of runs without labels. Stands above training, because the loop watches kNN.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
