"""How fast stopgrad is on this machine, relative to the machine's limit; what a run will cost.

In: `Sizes`, and no data, because images are random pixels. Out: `Speed`, medians with their spread:
the rate of a large matrix product, the training step and its phases, views, embedding, kNN, linear
probe, decoding, memory and start-up.

Matrix products are timed right before and after each group of steps and compared with that group.
So other work on the machine widens the spread but does not distort the fraction.

    stopwatch   seconds of a piece of work and their spread, peak memory, the machine's limit
    steps       the training step and its phases
    beside      the training step while other programs compute
    measure     all measurements in order, and their JSON; views, kNN, the linear probe, decoding
    cost        the time and memory of a run, from a few real steps
    outlook     whether a run would start, what it costs, and a suggestion
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
