"""One thread per test process: two processes with two threads each slow each other many times.

Bytecode is kept, whatever PYTHONDONTWRITEBYTECODE says: after an install without any, each process
that a test starts would compile all of torch again.

Signals are as in a terminal, also where the suite runs under nohup, and no example of a property is
too slow on a machine that does other work.

A file is run by one process, so that what its tests share is made once, and the files that take
longest come first, so that both processes end at the same time.
"""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

SLOWEST = (  # the order in which they begin
    "promises/test_promises.py",
    "training/test_processes.py",
    "cli/test_devices.py",
    "bench/test_gpu.py",
    "test_checks.py",
    "training/test_pretrain.py",
    "cli/test_terminal.py",
    "cli/test_places.py",
    "export/test_export.py",
    "studies/test_study_reliability.py",
)

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def no_folder_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test knows no runs of others, as a new process."""
    monkeypatch.setattr("stopgrad.storage.inside._roots", set())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slowest files first."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
