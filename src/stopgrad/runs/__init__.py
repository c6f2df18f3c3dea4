"""A run directory: config, status, metrics and checkpoints; atomic, verified, never pickled.

In: a path. Out: what was asked for (`RunInfo`), how far it came, its metrics and its model at the
newest checkpoint that is whole; or a `RunWriter`, the one process that may write there.

    machine      the machine and the code behind a run or a number
    entries      the files and folders of a run, and paths mistaken for one
    info         what a run was asked to do: config.json
    changes      what may differ when a run resumes, and what may not
    tensors      safetensors, and the tensors that a config's model has
    checkpoint   a step on disk: written, read with care, removed
    directory    status, metrics, and the one writer
    shared       the writer of several processes that train together
    scoring      which images of a data set are scored
    setup        the starting point of a training or an evaluation
    verify       every file of a run, checked
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
