"""Claims about the start of a process: what is imported for nothing, and how threads will wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stopgrad.storage.process import _cores

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


APART = """
import os
import torch
from stopgrad.method import keep_threads_apart
from stopgrad.storage.process import _cores
cores = _cores()
for threads in (len(cores) - 1, len(cores)):
    torch.set_num_threads(threads)
    keep_threads_apart()
    held = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
    print(sorted(map(sorted, [which for which in held if which in cores])))
print(os.sched_getaffinity(0) == set().union(*cores))
print(sorted(map(sorted, cores[1:])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a thread be pinned")
def test_as_many_threads_as_cores_get_one_each_and_the_first_may_use_all() -> None:
    if len(_cores()) < 2:  # hyper-threads of a core are one
        pytest.skip("needs two cores")
    fewer, as_many, first_has_all, all_but_one = _output(APART).splitlines()
    assert fewer == "[]"
    assert as_many == all_but_one != "[]"
    assert first_has_all == "True"


CALLS = """
import sys
import numpy as np
import stopgrad
pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
assert "torch" not in sys.modules
run = stopgrad.pretrain(pixels, out="run", preset="tiny", epochs=1)
import torch
cudnn = torch.backends.cudnn
print(torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark)
torch.set_num_threads(3)
cudnn.benchmark = True
run.resume(extend=2)
print(torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark)
from stopgrad.runs import read_run
print(read_run(run.path).environment["threads"])
run.report(data=pixels, out="page.html")
print(*(name for name in sys.modules if name.startswith("stopgrad.")))
"""


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a program prints that trains and reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("calls"))
        return _output(CALLS, OMP_NUM_THREADS="2", MKL_NUM_THREADS="2").splitlines()


def test_a_call_with_its_own_number_of_threads_leaves_that_of_the_program(
    called: list[str],
) -> None:
    assert called[-4:-1] == ["2 False False", "3 False True", "1"]


def test_a_report_without_a_poster_loads_neither_that_nor_studies(called: list[str]) -> None:
    loaded = called[-1].split()
    assert "stopgrad.report.page" in loaded
    unwanted = ("stopgrad.studies.", "stopgrad.report.poster", "stopgrad.report.study")
    assert not [name for name in loaded if name.startswith(unwanted)]
