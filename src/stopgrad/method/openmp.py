"""How the threads of OpenMP wait for each other. Read once, when torch is loaded. No torch."""

from __future__ import annotations

from collections.abc import MutableMapping

WAITING = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")  # by which a user decides
SPINS = "20000"  # GNU's OpenMP, in torch's wheels for Linux; 100,000 take about 1 ms
BLOCKTIME = "1"  # ms; LLVM's and Intel's, in those for macOS and in conda


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Lets threads with nothing to do sleep soon, which leaves the core to other programs.

    By default they wait awake for 3 ms (GNU) or 200 ms (LLVM, Intel): beside other programs those
    that still work are then not given a core. Changes no bit of a result, and nothing where one of
    `WAITING` is set.
    """
    if not any(name in environment for name in WAITING):
        environment.update(GOMP_SPINCOUNT=SPINS, KMP_BLOCKTIME=BLOCKTIME)
