"""Claims about processes that train together: they compute the run of one process.

Real processes, started by torchrun, on the CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, cast

import pytest
import torch

from stopgrad.errors import ConfigError, DataError, StopgradError
from stopgrad.method import process_count, unused_gpus
from stopgrad.training.sessions import check_agreement
from tests.training import together

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
COUNTS = [2, 3, 4]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process computes."""
    return together.computed(None)


@pytest.fixture(scope="module", params=COUNTS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What several compute together."""
    out = tmp_path_factory.mktemp("together") / "computed.pt"
    command = [*TORCHRUN, str(request.param), "-m", "tests.training.together", str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


def test_every_bit_of_a_view_is_that_of_one_process(
    alone: dict[str, Any], shared: dict[str, Any]
) -> None:
    for own, theirs in zip(alone["views"], shared["views"], strict=True):
        assert torch.equal(own, theirs)


@pytest.mark.parametrize("kind", ["per-view", "joint", "momentum"])
def test_forty_steps_in_fp64_are_those_of_one_process(
    alone: dict[str, Any], shared: dict[str, Any], kind: str
) -> None:
    (losses, tensors), (own_losses, own_tensors) = shared[f"fp64 {kind}"], alone[f"fp64 {kind}"]
    assert len(own_losses) == together.STEPS
    assert float((losses - own_losses).abs().max()) < 1e-11
    assert tensors.keys() == own_tensors.keys()
    for name, tensor in own_tensors.items():
        assert float((tensors[name] - tensor).abs().max()) < 1e-9, name


def test_a_step_in_fp32_is_that_of_one_process(
    alone: dict[str, Any], shared: dict[str, Any]
) -> None:
    own, theirs = (
        torch.cat([p.flatten() for p in found["fp32"].values()]) for found in (alone, shared)
    )
    assert float((own - theirs).norm() / own.norm()) < 1e-6


def test_every_bit_of_what_is_measured_is_that_of_one_process(
    alone: dict[str, Any], shared: dict[str, Any]
) -> None:
    for own, theirs in zip(alone["outputs"], shared["outputs"], strict=True):
        assert torch.equal(own, theirs)
    assert torch.equal(alone["features"], shared["features"])
    assert shared["looks"] == together.plain(alone["looks"])
    assert shared["looks"][2] is not None


def test_processes_that_normalise_alone_keep_the_same_weights_and_statistics(
    shared: dict[str, Any],
) -> None:
    first, *others = shared["states"]
    assert others
    assert all(other == first for other in others)


@pytest.mark.parametrize(
    ("place", "kind", "named"),
    [(0, DataError, "other images"), (1, ConfigError, "stopgrad"), (2, ConfigError, "other torch")],
)
def test_processes_with_other_images_or_programs_are_refused_by_name(
    place: int, kind: type[StopgradError], named: str
) -> None:
    class Told:
        """Processes of which the third says something else."""

        def everyone(self, own: tuple[str, ...]) -> list[list[str]]:
            other = [*own]
            other[place] = "another"
            return [[*own], [*own], other]

    with pytest.raises(kind, match=f"process 2 has .*{named}"):
        check_agreement(cast("Any", Told()), together.images())


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_ADDR, MASTER_PORT"),
        (dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"), "x"), "MASTER_ADDR"),
    ],
)
def test_some_of_the_variables_of_torchrun_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=named):
        process_count()


def test_variables_of_slurm_alone_mean_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert process_count() == 1


@pytest.mark.parametrize(
    ("device", "gpus", "idle"), [("auto", 4, 3), ("auto", 1, 0), ("cpu", 4, 0), ("auto", 0, 0)]
)
def test_gpus_that_one_process_leaves_idle_are_counted(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, idle: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert unused_gpus(together.config(device=device)) == idle
