"""One thread per test process: two processes with two threads each slow each other many times.

Signals are as in a terminal, also where the suite runs under nohup, and no example of a property is
too slow on a machine that does other work.
"""

import os
import signal

from hypothesis import settings

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
