"""Claims about `fused` in Triton's interpreter; `bench/gpu.py` measures its speed on a GPU."""

import json
import subprocess
import sys
from typing import Any

import pytest

from stopgrad.config import Config, preset
from stopgrad.errors import ConfigError
from stopgrad.method import check_kernels


def _fused(**changes: Any) -> Config:
    return preset("tiny", device="cpu", batch_norm_kernel="fused", **changes)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `interpreted` found."""
    out = tmp_path_factory.mktemp("fused") / "found.json"
    subprocess.run([sys.executable, "-m", "tests.method.interpreted", str(out)], check=True)
    read: dict[str, Any] = json.loads(out.read_text())
    return read


def test_values_gradients_and_running_statistics_are_those_of_the_plain_module(
    found: dict[str, Any],
) -> None:
    assert len(found["apart"]) == 11
    for case, apart in found["apart"].items():
        if case == "a mean of 1000":
            continue
        # In bf16 a value has 8 bits, and the interpreter cuts off the others.
        bounds = dict.fromkeys(("y", "x", "shortcut"), 2**-7) if "bf16" in case else {}
        assert all(apart[name] < bounds.get(name, 1e-6) for name in apart), case


def test_a_mean_far_above_the_deviations_leaves_the_variance_its_digits(
    found: dict[str, Any],
) -> None:
    """The mean of squares less the square of the mean would keep one digit."""
    assert found["apart"]["a mean of 1000"]["running_var"] < 2e-6


def test_a_value_that_is_not_finite_reaches_the_loss(found: dict[str, Any]) -> None:
    """The ReLU keeps NaN: all 2 x 3 x 3 values of its channel in its view, and no other."""
    assert found["nan"] == [18, 0]


def test_a_training_by_the_kernels_is_the_plain_one(found: dict[str, Any]) -> None:
    plain, fused = found["losses"]
    assert len(plain) == 2
    assert plain == pytest.approx(fused, abs=1e-6)
    assert found["states"] < 1e-5


def test_kernels_are_refused_in_one_line_where_they_do_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_kernels(Config(device="cpu"))
    with pytest.raises(ConfigError, match="fused on cpu, which cannot run its kernels"):
        check_kernels(_fused())
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    check_kernels(_fused())
    with pytest.raises(ConfigError, match="fused in timm:resnet18, whose layers are not ours"):
        check_kernels(_fused(**{"encoder.name": "timm:resnet18"}))
    monkeypatch.setattr("stopgrad.method.compute.process_count", lambda: 2)
    check_kernels(_fused(batch_norm_over="process"))
    with pytest.raises(ConfigError, match=r"fused over 2 processes.*plain") as caught:
        check_kernels(_fused())
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("stopgrad.method.compute.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="fused without Triton"):
        check_kernels(_fused())
