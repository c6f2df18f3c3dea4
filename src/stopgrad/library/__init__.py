"""The public face: what `import stopgrad` offers, and what the command line calls.

In: specs, paths, arrays and knobs. Out: objects that show themselves, whose results are on disk.

    data      load, check, pack, views: a data set by name, by path or in memory
    run       pretrain, supervised, Run: a run directory as one object
    several   compare, write_report, verify, study, Studies, bench: several runs at once
    tables    what comes back, as a table in a terminal and in a notebook
    progress  bars and lines on standard error
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
