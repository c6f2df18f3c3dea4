"""Claims about the start of a process: what is imported for nothing, and how threads will wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NEVER = ("torch._dynamo", "sympy", "scipy.special")
WORK = """
import sys
from stopgrad.config import preset
from stopgrad.method import build_simsiam, training_flops
from stopgrad.studies import built_in_studies
build_simsiam(preset("tiny"))
assert training_flops(preset("tiny")) == 4_749_312
print(*sys.modules)
"""
REPORT = """
import sys
from stopgrad.cli import main
assert main(["report", "no-such-run"]) == 2
print(*sys.modules)
"""
ENVIRONMENT = """
import os, sys
from stopgrad.{module} import main
main(["{word}"])
assert "torch" not in sys.modules
print(*(f"{{name}}={{os.environ.get(name)}}" for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")))
"""


def _output(code: str, **variables: str) -> str:
    ours = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_models_are_built_and_counted_without_the_compiler() -> None:
    imported = _output(WORK).split()
    assert "torch" in imported
    assert not set(NEVER) & set(imported)


@pytest.mark.parametrize(("module", "word"), [("cli", "list"), ("studies.task", "no-task.json")])
def test_threads_wait_briefly_unless_the_user_has_decided(
    module: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a task writes down what went wrong beside its file
    code = ENVIRONMENT.format(module=module, word=word)
    assert "GOMP_SPINCOUNT=20000 OMP_WAIT_POLICY=None" in _output(code)
    assert "GOMP_SPINCOUNT=7" in _output(code, GOMP_SPINCOUNT="7")
    assert "GOMP_SPINCOUNT=None" in _output(code, OMP_WAIT_POLICY="active")


def test_a_report_without_a_poster_loads_neither_that_nor_studies() -> None:
    loaded = _output(REPORT).split()
    assert "stopgrad.face.report" in loaded
    assert not [
        name for name in loaded if name.startswith(("stopgrad.studies.", "stopgrad.report.p"))
    ]


TURNS = """
import ctypes, os, struct, threading
from stopgrad.storage import take_turns
def turn():
    found = ctypes.create_string_buffer(48)
    ctypes.CDLL(None).syscall({"x86_64": 315, "aarch64": 275}[os.uname().machine], 0, found, 48, 0)
    _, policy, _, nice, _, runtime, _, _ = struct.unpack("IIQiIQQQ", found.raw)
    print(policy, nice, runtime)
take_turns(0)  # a command in this process may have taken others
turn()
os.nice(3)
take_turns()
thread = threading.Thread(target=turn)
thread.start()
thread.join()
take_turns(0)
turn()
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
take_turns()
turn()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sched_setattr is Linux's")
def test_short_turns_reach_new_threads_and_change_neither_priority_nor_policy() -> None:
    usual, short, again, batch = (
        tuple(map(int, line.split())) for line in _output(TURNS).splitlines()
    )
    if usual[2] == 0:
        pytest.skip("Linux before 6.12 has no turns of one's own length")
    assert short == (usual[0], usual[1] + 3, 100_000)
    assert again == (usual[0], usual[1] + 3, usual[2])
    assert batch == (os.SCHED_BATCH, usual[1] + 3, usual[2])
