"""Claims about `records`."""

import dataclasses
import importlib.metadata
import json
import math
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from stopgrad.errors import DataError
from stopgrad.evaluation import (
    Key,
    Record,
    append,
    append_cost,
    energy,
    newest,
    read,
    read_costs,
    scored_last,
    start_meter,
    to_line,
)
from stopgrad.evaluation.costs import (
    KG_CO2_PER_KWH,
    WATTS_PER_GPU,
    WATTS_PER_THREAD,
    Counter,
    Spent,
    counters,
    nvml,
    rapl,
)
from stopgrad.evaluation.records import from_values
from stopgrad.runs import environment
from stopgrad.runs.machine import _commit, device_name
from stopgrad.storage import append_lines
from tests import factories

KEYS = """metric value top5 per_class balanced majority labels label_draw of split images_scored
protocol config seed epoch verdict data init code versions device device_name threads wall_s embed_s
extent views flops train_s energy time"""


def _record(**changes: object) -> Record:
    values: dict[str, object] = {
        "value": 0.5123,
        "top5": 0.9,
        "per_class": (0.25, math.nan, 1.0),
        "data": {"name": "Übung\u2028", "fingerprint": "f" * 64},
        **environment(device="cpu", threads=2)._asdict(),
    }
    return factories.record(**values | changes)


def test_a_line_is_strict_json_with_the_stated_keys() -> None:
    line = to_line(_record())
    values = json.loads(line, parse_constant=pytest.fail)
    assert list(values) == KEYS.split()
    assert values["per_class"] == [0.25, None, 1.0]
    assert (values["value"], values["labels"], values["flops"]) == (0.5123, 1.0, None)
    assert "\n" not in line


def test_a_record_survives_the_way_through_a_file(tmp_path: Path) -> None:
    wanted = [_record(), _record(metric="linear_accuracy", seed=3, flops=1.5e17)]
    for record in wanted:
        append(tmp_path / "r.jsonl", record)
    assert read(tmp_path / "r.jsonl") == wanted


@pytest.mark.parametrize("bad", [{"value": math.nan}, {"protocol": {"lr": math.inf}}])
def test_a_number_that_is_not_finite_is_never_written(
    bad: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        append(tmp_path / "r.jsonl", _record(**bad))
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize("line", [b'{"metric": "kn', b"[]", b'{"metric": "x"}', b"", b"\xff"])
def test_a_bad_line_before_the_last_is_refused_by_its_number(line: bytes, tmp_path: Path) -> None:
    path, good = tmp_path / "r.jsonl", to_line(_record()).encode()
    path.write_bytes(b"\n".join([good, line, good, b""]))
    with pytest.raises(DataError, match="line 2, is not a record"):
        read(path)


def test_an_unknown_key_is_refused() -> None:
    values = json.loads(to_line(_record())) | {"kindness": 1}
    with pytest.raises(TypeError, match="kindness"):
        from_values(values)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.jsonl")


def test_importing_records_and_their_text_and_asking_for_versions_takes_no_torch() -> None:
    code = (
        "import sys; from stopgrad.runs import environment;"
        "from stopgrad.evaluation import metric_text, read, read_costs, start_meter, to_line;"
        "heavy = bool({'torch', 'scipy'} & sys.modules.keys());"
        "print(environment(device='cpu', threads=1).versions['torch'], heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [importlib.metadata.version("torch"), "False"]


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_our_own_checkout_only(tmp_path: Path) -> None:
    package = tmp_path / "src" / "stopgrad"
    package.mkdir(parents=True)
    (package / "a.py").write_text("a = 1\n")
    assert _commit(package) is None
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "One")
    commit = _commit(package)
    assert len(commit) >= 7
    assert _git(tmp_path, "rev-parse", "HEAD").startswith(commit)
    (package / "a.py").write_text("a = 2\n")
    assert _commit(package) == f"{commit}-dirty"
    installed = tmp_path / "site-packages" / "stopgrad"
    installed.mkdir(parents=True)
    assert _commit(installed) is None


def test_the_time_is_utc() -> None:
    assert environment(device="cpu", threads=1).time.endswith("+00:00")


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _record().value = 1.0  # type: ignore[misc]


def test_records_of_older_versions_are_still_read() -> None:
    old = Path(__file__).parents[2] / "results" / "2026-11-23-cpu-preset" / "records.jsonl"
    first = read(old)[0]
    assert (first.metric, first.value, first.verdict, first.energy) == (
        "knn_accuracy",
        0.6175,
        None,
        None,
    )


def test_a_run_that_was_scored_again_counts_once_by_its_newest_record() -> None:
    found = newest([_record(value=0.1), _record(value=0.2, labels=0.1), _record(value=0.3)])
    assert {key: record.value for key, record in found.items()} == {
        Key("knn_accuracy", 1.0, "encoder", "test"): 0.3,
        Key("knn_accuracy", 0.1, "encoder", "test"): 0.2,
    }
    assert [record.value for record in found.values()] == [0.2, 0.3]  # what was scored last is last


def test_of_accuracies_those_of_the_split_and_epoch_scored_last_are_shown() -> None:
    held_out = _record(value=0.1, split="validation", epoch=4)
    short = _record(value=0.2, split="test", epoch=2, metric="linear_accuracy")
    long = _record(value=0.3, split="test", epoch=4)
    pixels = _record(value=0.4, split="test", of="pixels", epoch=0)
    measure = _record(value=7.0, split="train", metric="effective_rank")
    assert scored_last([held_out, short, long, pixels, measure]) == [long, pixels]
    assert scored_last([long, held_out]) == [held_out]
    assert scored_last([measure]) == []


# What a training cost


def test_time_without_a_counter_is_multiplied_by_a_stated_power(tmp_path: Path) -> None:
    for wall_s in (1800.0, 1800.0):
        append_cost(tmp_path, Spent(wall_s, None, "", "cpu", threads=2))
    costs = read_costs(tmp_path)
    assert costs.wall_s == 3600
    found = energy(costs)
    assert found.kwh == pytest.approx(2 * WATTS_PER_THREAD / 1000)  # one hour
    assert found.co2_kg == pytest.approx(found.kwh * KG_CO2_PER_KWH)
    assert (found.source, found.watts) == ("estimate", 2 * WATTS_PER_THREAD)


def test_the_reports_gpu_hours_give_the_reports_energy(tmp_path: Path) -> None:
    append_cost(tmp_path, Spent(1300 * 3600.0, None, "", "cuda:0", threads=8))
    costs = read_costs(tmp_path)
    assert energy(costs).kwh == pytest.approx(1300 * WATTS_PER_GPU / 1000) == pytest.approx(266.5)
    assert energy(costs).co2_kg == pytest.approx(40, abs=0.1)


def test_of_several_processes_all_count_and_no_counter_of_one(tmp_path: Path) -> None:
    meter = start_meter(
        device="cpu", threads=2, processes=4, find=lambda _: [Counter("x", lambda: 7.0)]
    )
    assert meter.spent().joules is None
    before = {"wall_s": 1800.0, "joules": None, "source": "", "device": "cpu", "threads": 2}
    append_lines(tmp_path / "costs.jsonl", [before])  # as one process wrote it until now
    append_cost(tmp_path, Spent(1800.0, None, "", "cpu", threads=2, processes=4))
    costs = read_costs(tmp_path)
    assert costs is not None
    assert energy(costs).watts == (2 + 8) / 2 * WATTS_PER_THREAD


def test_what_counters_say_is_the_difference_between_two_looks(tmp_path: Path) -> None:
    readings = iter([100.0, 130.0, 130.5])
    meter = start_meter(device="cpu", threads=1, find=lambda _: [Counter("x", readings.__next__)])
    for _ in range(2):
        append_cost(tmp_path, meter.spent())
    costs = read_costs(tmp_path)
    assert costs.joules == 30.5
    found = energy(costs)
    assert (found.kwh, found.source, found.watts) == (pytest.approx(30.5 / 3.6e6), "x", None)


def test_a_part_that_was_not_counted_makes_the_whole_an_estimate(tmp_path: Path) -> None:
    append_cost(tmp_path, Spent(10.0, 5.0, "rapl", "cpu", threads=1))
    append_cost(tmp_path, Spent(10.0, None, "", "cpu", threads=1))
    costs = read_costs(tmp_path)
    assert energy(costs).source == "estimate"


def test_costs_torn_by_a_crash_lose_the_last_line_alone(tmp_path: Path) -> None:
    assert read_costs(tmp_path) is None
    append_cost(tmp_path, Spent(10.0, None, "", "cpu", threads=1))
    with (tmp_path / "costs.jsonl").open("a") as file:
        file.write('{"wall_s": 3')
    costs = read_costs(tmp_path)
    assert costs.wall_s == 10
    append_cost(tmp_path, Spent(20.0, None, "", "cpu", threads=1))
    costs = read_costs(tmp_path)
    assert costs.wall_s == 30


def _package(root: Path, number: int, *, name: str, microjoules: int) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir()
    for file, text in (("name", name), ("max_energy_range_uj", "10000000")):
        (folder / file).write_text(text + "\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_rapl_adds_packages_and_counts_the_rounds_of_a_full_counter(tmp_path: Path) -> None:
    assert rapl(tmp_path) is None
    first = _package(tmp_path, 0, name="package-0", microjoules=9_000_000)
    _package(tmp_path, 1, name="package-1", microjoules=0)
    _package(tmp_path, 2, name="psys", microjoules=123)
    counter = rapl(tmp_path)
    begin = counter.joules()
    first.write_text("1000000\n")  # 2 J later, having begun again at 10 J
    assert counter.joules() - begin == pytest.approx(2.0)
    assert counter.most_s == pytest.approx(10 / 500)  # of a counter that holds 10 J, at 500 W
    first.unlink()
    assert rapl(tmp_path) is None


def test_energy_of_a_stretch_in_which_a_counter_may_have_gone_round_twice_is_estimated() -> None:
    def spent(most_s: float) -> float | None:
        counter = Counter("x", iter([1.0, 3.0]).__next__, most_s)
        return start_meter(device="cpu", threads=1, find=lambda _: [counter]).spent().joules

    assert spent(60.0) == 2.0
    assert spent(0.0) is None


class _Card:
    """NVML as its reference describes it, with one card."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing, self.millijoules = "", 7000
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: self._may_fail("init"))
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", self._handle)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", self._energy)

    def _may_fail(self, call: str) -> None:
        if self.failing == call:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def _handle(self, uuid: str) -> int:
        if uuid != "GPU-1":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return 7

    def _energy(self, handle: int) -> int:
        assert handle == 7
        self._may_fail("energy")
        return self.millijoules


def test_nvml_is_asked_for_the_card_by_its_name_and_may_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = _Card(monkeypatch)
    counter = nvml("GPU-1")
    assert (counter.name, counter.joules()) == ("nvml", 7.0)
    assert nvml("GPU-2") is None
    for card.failing in ("init", "energy"):
        assert nvml("GPU-1") is None
    assert [counter.name for counter in counters("cpu")] in ([], ["rapl"])


def test_a_counter_that_stops_answering_makes_an_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, counter = _Card(monkeypatch), nvml("GPU-1")
    meter = start_meter(device="cpu", threads=1, find=lambda _: [counter])
    card.millijoules += 500
    assert meter.spent().joules == 0.5
    card.failing = "energy"
    assert meter.spent().joules is None


def test_the_processor_has_its_name_where_the_system_says_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = "processor\t: 0\nmodel name\t: A 64-Core Processor\nflags\t: fpu\n"
    for said, name in ((named, "A 64-Core Processor"), ("processor\t: 0\n", "some CPU")):
        monkeypatch.setattr(Path, "read_text", lambda _, said=said: said)
        monkeypatch.setattr("platform.processor", lambda: "some CPU")
        assert device_name.__wrapped__("cpu") == name
    assert device_name("tpu") == "tpu"
