"""Apple's MPS as a device, by what a machine without it can tell."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stopgrad.config import preset
from stopgrad.errors import ConfigError
from stopgrad.method import (
    compute_for,
    in_fp64,
    joined,
    on_this_machine,
    plain_torch,
)
from stopgrad.method.compute import has_device

SOURCES = Path(__file__).parents[2] / "src"


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)


@pytest.mark.usefixtures("apple")
def test_auto_takes_apples_gpu_where_there_is_no_cuda() -> None:
    compute = compute_for(preset("tiny"))
    assert compute.device.type == "mps"
    assert (compute.precision, compute.channels_last, compute.compiled) == ("fp32", False, False)


@pytest.mark.usefixtures("apple")
def test_auto_prefers_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert compute_for(preset("tiny")).device.type == "cuda"


def test_auto_takes_the_processor_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("cuda", "backends.mps"):
        monkeypatch.setattr(f"torch.{kind}.is_available", lambda: False)
    assert compute_for(preset("tiny")).device.type == "cpu"
    assert (has_device("auto"), has_device("cuda:1"), has_device("mps")) == (True, False, False)
    with pytest.raises(ConfigError, match="device = 'mps', but this machine"):
        compute_for(replace(preset("tiny"), device="mps"))


def test_a_finished_training_takes_another_device_where_its_own_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    first, second = (replace(preset("tiny"), device=f"cuda:{number}") for number in (0, 1))
    assert on_this_machine(first) == first
    assert on_this_machine(second).device == "auto"


def test_what_a_caller_has_set_in_torch_does_not_lower_the_precision() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with plain_torch():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("apple")
def test_several_processes_do_not_share_apples_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stopgrad.method.compute.process_count", lambda: 2)
    with pytest.raises(ConfigError, match="2 processes on Apple's GPU"):
        joined(preset("tiny"))


def test_fp64_is_made_where_a_device_has_it() -> None:
    x = torch.tensor([0.1], dtype=torch.float32)
    assert in_fp64(x).dtype == torch.float64
    assert in_fp64(x).item() == 0.10000000149011612  # exact: no bit is lost on the way
    alone = {"layers.py": 2, "simsiam.py": 1}  # sums over processes; the function itself
    for path in (SOURCES / "stopgrad" / "method").rglob("*.py"):
        count = len(re.findall(r"\.double\(\)|float64\)", path.read_text()))
        assert count <= 2 * alone.get(path.name, 0), path
