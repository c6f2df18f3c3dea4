"""How fast stopgrad is on this machine, beside the machine's own limit.

In: nothing but `Sizes`; images are random pixels, so no data is needed. Out: `Speed`: the rate of
a large matrix product, the training step in views/s and FLOP/s with the share of each phase,
views, embedding, kNN, linear probe, decoding, memory and start-up, each as a median with its
spread.

Matrix products are timed right before and after each group of steps, and a share compares
neighbours in time: a machine that others use shows as spread, not as a wrong share.

    stopwatch   seconds of a piece of work, their spread, peak memory, start-up
    matmul      the machine's limit: the rate of a large matrix product
    steps       the training step, and the phases of it
    evaluators  views, kNN, the linear probe and decoding
    measure     all measurements in order, and their JSON
    cost        what a run will need: time and memory, from a few real steps
    outlook     whether a run would start, what it costs, and a suggestion
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
