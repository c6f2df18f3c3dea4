"""Frozen features -> scores and records, their statistics, and comparisons of runs.

In: a run or `Features`. Out: a `Score`, a `Record` (one JSON line with all that defines the
number), or runs ranked without labels. Stands above training, because the loop watches kNN.

    features     frozen features of images, and the type of a score
    knn          the weighted kNN classifier
    linear       the linear probe by SGD or LARS, and the choice of its learning rate
    records      one JSON line per result
    costs        the wall time and energy of a training
    evaluate     a run -> its records
    statistics   means, intervals, tests over seeds
    format       how metrics are named and numbers written
    gain         whether a run is better than its untrained encoder, by its records
    accuracies   accuracies of several runs on the same images
    comparison   runs ranked by measures that need no labels, and how far labels agree
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
