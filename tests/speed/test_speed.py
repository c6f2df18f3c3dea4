"""Claims about `speed` and `stopgrad bench`: what is timed is what is said, and JSON is JSON."""

import contextlib
import io
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stopgrad
from stopgrad.cli import main
from stopgrad.config import preset
from stopgrad.evaluation import percent
from stopgrad.face.machine import MachineSpeed, written
from stopgrad.method import training_flops
from stopgrad.speed import Phases, Spread, steps, stopwatch
from stopgrad.speed.beside import busy
from stopgrad.speed.steps import (
    Effort,
    measure_steps,
    start_on_random_pixels,
    step_phases,
    take_steps,
)
from stopgrad.speed.stopwatch import MatrixProduct, MatrixRates, peak_bytes, per_call, spread
from stopgrad.training import Pretraining

CPU = torch.device("cpu")
TINY = preset("tiny", batch=4, epochs=1000, precision="bf16")
SLOW = 0.25  # s; all the rest of a tiny step takes a tenth of it


class FakeClock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class FakeMatrix:
    """A matrix product whose rate in bf16 rises by 2e9 with each timing."""

    def __init__(self) -> None:
        self.timings = 0

    def rates(self) -> MatrixRates:
        self.timings += 1
        return MatrixRates(bf16=2e9 * self.timings, fp32=1.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(stopwatch, "time", fake)
    return fake


@pytest.fixture
def training() -> Pretraining:
    tiny = start_on_random_pixels(TINY, images=8)
    take_steps(tiny, 2)
    return tiny


@pytest.fixture(scope="module")
def bench() -> tuple[str, str, MachineSpeed]:
    """Standard output and standard error of `stopgrad bench --quick --json`, and what it found."""
    out, err, found = io.StringIO(), io.StringIO(), list[MachineSpeed]()
    measured = stopgrad.bench

    def kept(**how: Any) -> MachineSpeed:
        found.append(measured(**how))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopgrad, "bench", kept)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            assert main(["bench", "--quick", "--json", "--beside", "2"]) == 0
    return out.getvalue(), err.getvalue(), found[0]


def _slow(work: Callable[..., Any]) -> Callable[..., Any]:
    def slower(*inputs: Any, **settings: Any) -> Any:
        time.sleep(SLOW)
        return work(*inputs, **settings)

    return slower


def test_json_is_one_object_and_nothing_else(bench: tuple[str, str, MachineSpeed]) -> None:
    found = json.loads(bench[0])
    assert bench[0].count("\n") == 1
    assert "training steps of resnet18" in bench[1]
    assert [step["encoder"] for step in found["steps"]] == ["resnet18", "cifar_resnet8"]
    numbers = ("matmul_bf16_flops", "matmul_fp32_flops", "views_per_s", "knn_s", "linear_s")
    for name in (*numbers, "peak_bytes", "threads"):
        assert found[name] > 0, name
    assert found["device"] in ("cpu", "cuda")
    for name in numbers:
        low, middle, high = (found["spread"][name][part] for part in ("low", "median", "high"))
        assert low <= middle <= high
        assert found[name] == (high if "matmul" in name else middle)


def test_the_numbers_of_a_step_belong_together(bench: tuple[str, str, MachineSpeed]) -> None:
    for step in json.loads(bench[0])["steps"]:
        assert list(step["phases"]) == ["views", "forward", "backward", "optimizer"]
        assert sum(step["phases"].values()) == pytest.approx(1)
        assert min(step["phases"].values()) > 0
        flops = step["views_per_s"] * step["flops_per_view"]
        assert step["flops_per_s"] == pytest.approx(flops)


def test_steps_are_measured_alone_and_beside_as_many_programs(
    bench: tuple[str, str, MachineSpeed],
) -> None:
    found = json.loads(bench[0])
    everything = sorted({1, found["threads"]})
    assert [part["threads"] for part in found["beside"]] == everything
    for part in found["beside"]:
        assert (part["encoder"], part["loops"]) == ("cifar_resnet8", 2)
        low, high = (
            part["spread"]["beside_views_per_s"][one] / part["spread"]["alone_views_per_s"][other]
            for one, other in (("low", "high"), ("high", "low"))
        )
        assert low <= part["kept"] <= high


def test_busy_programs_compute_until_the_measurement_ends() -> None:
    def seconds() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    before = seconds()
    with busy(2):
        time.sleep(2.0)
    assert seconds() > before + 0.2  # children are counted once they have ended


def test_tables_say_the_same_as_json(bench: tuple[str, str, MachineSpeed]) -> None:
    said, found = json.loads(bench[0]), bench[2]
    tables = {table.name: table for table in found.tables}
    rows = {
        name: {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
        for name, table in tables.items()
    }
    assert tables["steps"].heads[1:] == [
        f"{step['encoder']}, batch {step['batch']}, {step['precision']}" for step in said["steps"]
    ]
    for place, step in enumerate(said["steps"]):
        of = step["spread"]
        for row, name, unit in (("views/s", "views_per_s", 1), ("GFLOP/s", "flops_per_s", 1e9)):
            assert rows["steps"][row][place] == written(Spread(**of[name]), unit=unit)
        backward = percent(step["phases"]["backward"], images=1000)
        assert rows["steps"]["backward, % of the step"][place] == backward
    side = f"{said['matmul_side']:,}"
    for precision in ("bf16", "fp32"):
        rate = Spread(**said["spread"][f"matmul_{precision}_flops"])
        row = f"matrix product of {side} x {side}, {precision}, GFLOP/s"
        assert rows["parts"][row] == [written(rate, unit=1e9)]
    alone = [Spread(**part["spread"]["alone_views_per_s"]) for part in said["beside"]]
    assert [cells[0] for cells in rows["beside"].values()] == [written(each) for each in alone]
    assert len(found.lines) == 2


def test_a_spread_is_written_as_its_median_and_range() -> None:
    assert written(Spread(97.2e9, 9.51e10, 98e9, 5), unit=1e9) == "97.2 (95.1 to 98.0)"


def test_threads_and_programs_below_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--threads", "--beside"):
        assert main(["bench", flag, "-1"]) == 2
        assert f"{flag} -1; expected" in capsys.readouterr().err


def test_time_per_call_counts_every_call(clock: FakeClock) -> None:
    rows: list[int] = []

    def work(count: int) -> None:
        rows.append(count)
        clock.now += 0.5 * count

    assert per_call(work, device=CPU, at_least=3.0) == 0.5
    assert rows == [1, 2, 4]  # 0.5 s, 1.5 s, 3.5 s
    assert per_call(work, device=CPU) == 0.5
    assert rows[3:] == [1]


def test_spread_is_median_lowest_highest_and_count() -> None:
    assert spread([5.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=5.0, repeats=3)


def test_a_matrix_product_is_two_operations_per_cube(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "per_call", lambda work, **_: (work(1), 0.5)[1])
    product = MatrixProduct(16, device=CPU, at_least=0.0)
    assert product.rates() == MatrixRates(2 * 16**3 / 0.5, 2 * 16**3 / 0.5)
    assert len(product.measured) == 1


def test_the_product_that_is_timed_is_the_product_in_its_precision() -> None:
    product = MatrixProduct(16, device=CPU, at_least=0.0)
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        left, right, found = product._matrices[name]  # type: ignore[index]
        assert found.dtype == dtype
        assert torch.allclose(found.double(), left.double() @ right.double(), rtol=0.02, atol=0.05)


def test_steps_are_those_of_a_run_over_several_epochs() -> None:
    training = start_on_random_pixels(TINY, images=8)  # two steps an epoch
    weight = next(training.model.parameters()).detach().clone()
    take_steps(training, 5)
    assert (training.step, training.epoch) == (5, 2)
    assert not torch.equal(weight, next(training.model.parameters()))


@pytest.mark.parametrize("phase", Phases._fields)
def test_a_slow_part_of_the_step_shows_in_its_phase(
    training: Pretraining, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    if phase == "views":
        training.make_views = _slow(training.make_views)
    elif phase == "forward":
        training.forward = _slow(training.forward)
    elif phase == "backward":
        monkeypatch.setattr(torch.Tensor, "backward", _slow(torch.Tensor.backward))
    else:
        monkeypatch.setattr(training.optimizer, "step", _slow(training.optimizer.step))
    found = step_phases(training)
    assert SLOW <= getattr(found, phase) < 2 * SLOW
    assert max(found._replace(**{phase: 0.0})) < SLOW
    assert getattr(found.fractions(), phase) > 0.5


def test_phases_leave_the_training_as_it_was(training: Pretraining) -> None:
    parts = (training.make_views, training.forward)
    step_phases(training)
    assert (training.make_views, training.forward) == parts
    assert training.step == 3


def test_a_slow_step_shows_as_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pretraining, "algorithm_1", _slow(Pretraining.algorithm_1))
    effort = Effort(images=8, embedded=4, repeats=1, seconds=0.0)
    found = measure_steps(TINY, FakeMatrix(), effort)  # type: ignore[arg-type]
    views = 2 * TINY.batch
    assert views / (2 * SLOW) < found.views_per_s.median <= views / SLOW
    assert found.flops_per_s.median == found.views_per_s.median * training_flops(TINY)


def test_the_fraction_of_the_matrix_rate_compares_a_step_with_the_products_before_and_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "per_call", lambda work, **_: 0.001)
    monkeypatch.setattr(steps, "step_phases", lambda _: Phases(1.0, 1.0, 1.0, 1.0))
    effort = Effort(images=8, embedded=4, repeats=2, seconds=0.0)
    found = measure_steps(TINY, FakeMatrix(), effort)  # type: ignore[arg-type]
    flops = 2 * TINY.batch / 0.001 * training_flops(TINY)
    # Products of 2e9, 4e9 and 6e9 stand around two groups of steps.
    assert found.share_of_matmul.high == pytest.approx(flops / 3e9)
    assert found.share_of_matmul.low == pytest.approx(flops / 5e9)


def test_peak_memory_is_that_of_the_kernel() -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc here")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert peak_bytes(CPU) == pytest.approx(1024 * int(line.split()[1]), rel=0.02)
