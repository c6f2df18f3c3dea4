"""The promises of docs/reliability.md that every commit must keep, each with its controls."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import pytest

from tests.promises import __main__ as bench
from tests.promises import lock
from tests.promises.__main__ import main, new_home
from tests.promises.lab import Lab
from tests.promises.outcome import NotRunError, Promise
from tests.promises.process import can_go_apart, go_apart
from tests.promises.table import PROMISES

QUICK = [promise for promise in PROMISES if promise.check is not None and promise.quick]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"), seed=0)


@pytest.mark.parametrize("promise", QUICK, ids=lambda promise: promise.name)
def test_a_promise_is_kept_and_its_controls_are_caught(lab: Lab, promise: Promise) -> None:
    assert promise.check is not None
    try:
        outcome = promise.check(lab, promise.quick)
    except NotRunError as error:
        pytest.skip(f"not run: {error}")
    assert outcome.tries >= promise.quick
    assert not outcome.failures
    assert not promise.together(outcome)
    assert outcome.controls
    assert not [control.sabotage for control in outcome.controls if not control.found]


def test_one_of_two_machines_writes_and_is_named_to_the_other(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_go_apart():
        pytest.skip("the kernel gives no process a name and a network of its own here")
    words = ["sh", "-c", "uname -n; readlink /proc/self/ns/net"]
    apart = functools.partial(go_apart, "elsewhere")
    name, network = subprocess.check_output(words, preexec_fn=apart, text=True).split()
    assert (name, network != os.readlink("/proc/self/ns/net")) == ("elsewhere", True)
    monkeypatch.setattr(lab, "apart", True)
    other = lab.start("--version")
    assert (other.wait().code, other.host != os.uname().nodename) == (0, True)
    outcome = lock.check(lab, 2)  # which asks that the loser names this host
    assert (outcome.tries, outcome.failures) == (2, ())
    assert all(control.found for control in outcome.controls)


def test_a_kernel_that_keeps_commands_together_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tests.promises", "--apart", "--only", "R25"])
    monkeypatch.setattr(bench, "can_go_apart", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err.count("\n") == 1


def test_every_promise_has_a_row() -> None:
    left_out = {17, 24}  # numbers that are not in use
    assert [promise.name for promise in PROMISES] == [
        f"R{number}" for number in range(1, 38) if number not in left_out
    ]
    assert all(bool(promise.check) != bool(promise.why_not) for promise in PROMISES)


def test_a_session_removes_the_folders_of_dead_sessions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    same = Namespace(out=None, seed=0)
    (first, lock_of_first), (second, lock_of_second) = new_home(same), new_home(same)
    assert sorted(tmp_path.iterdir()) == sorted({first, second})
    lock_of_first.close()  # as when its process is killed
    third, lock_of_third = new_home(same)
    assert sorted(tmp_path.iterdir()) == sorted([second, third])
    lock_of_second.close()
    lock_of_third.close()


def test_the_bench_keeps_a_record_and_does_not_test_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tests.promises", "--only", "R25,R23", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    for _ in range(2):
        assert main() == 0
        printed = capsys.readouterr().out
        assert "R25 kept" in printed
        assert "R23 not run: no release" in printed
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["promise"] for record in records] == ["R23", "R25", "R23"]  # no test, no wait
    tested = records[1]
    assert tested["failures"] == 0
    assert all(tested["controls"].values())
    assert {"seconds", "seed", "machine", "versions", "code", "date"} <= tested.keys()
    if not can_go_apart():
        return
    monkeypatch.setattr(sys, "argv", [*words, "--apart"])
    assert main() == 0  # what one machine has kept says nothing of two
    assert "not between two machines" in capsys.readouterr().out
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["mode"] for line in lines[3:]] == ["quick, apart", "quick, apart"]
