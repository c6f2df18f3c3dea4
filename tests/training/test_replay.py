"""Claims about steps that several processes replay: all or none, and none waits for ever.

There is no GPU here: what `torch.cuda` does is played, so that the steps are those of a CPU.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from stopgrad.errors import LostProcessError
from stopgrad.method import Processes
from stopgrad.training.replay import ONE_BY_ONE, Replay
from tests.training import together


class PlayedGraph:
    """Says 'replayed' where a graph would run."""

    def replay(self) -> None:
        DONE.append("replayed")


DONE: list[str] = []


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def wait_stream(self, other: Stream) -> None:
            """There is one order only."""

    DONE.clear()
    for name, value in {
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "graph": lambda graph, stream: contextlib.nullcontext(),
        "CUDAGraph": PlayedGraph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


class Others:
    """Processes of which this one hears whether they could record the step."""

    def __init__(self, *, could: bool) -> None:
        self.could = could

    def all_agree(self, yes: bool) -> bool:
        return yes and self.could

    def watched(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@pytest.mark.parametrize("fails", [None, RuntimeError("no memory"), LostProcessError("a sum")])
@pytest.mark.parametrize("could", [True, False])
def test_a_step_is_replayed_when_every_process_has_recorded_it_and_by_none_otherwise(
    caplog: pytest.LogCaptureFixture, could: bool, fails: Exception | None
) -> None:
    def work(indices: Tensor, table: Tensor) -> Tensor:
        DONE.append("launched")
        if fails is not None and len(DONE) == ONE_BY_ONE + 1:  # while it is recorded
            raise fails
        return torch.zeros(2)

    step = Replay(work, cast("Any", Others(could=could)))
    for _ in range(ONE_BY_ONE + 2):
        step(torch.zeros(4), torch.zeros(8, 3))
    recorded = could and fails is None
    assert step.is_recorded == recorded
    once = ["launched"] * (ONE_BY_ONE + 1)
    assert once + (["replayed"] if recorded else ["launched"]) * 2 == DONE
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (not recorded)
    assert recorded or str(fails or "another process cannot record them") in said[0]


@pytest.mark.parametrize(
    ("can", "repeatable", "others", "asked", "expected"),
    [
        (True, False, True, [True], True),
        (True, False, False, [True], False),
        (True, True, True, [], False),  # not before its bits have been compared
        (False, False, True, [], False),  # sums over the CPU
    ],
)
def test_processes_replay_on_gpus_where_all_hold_the_images_and_bits_are_not_promised(
    can: bool, repeatable: bool, others: bool, asked: list[bool], expected: bool
) -> None:
    heard: list[bool] = []

    class OnGPUs:
        can_record = can

        def all_agree(self, yes: bool) -> bool:
            heard.append(yes)
            return yes and others

    learner = together.training(None, repeatable=repeatable)
    learner.processes = cast("Any", OnGPUs())
    learner.pixels = cast("Any", OnCuda(torch.zeros(1)))
    assert learner.may_be_replayed() == expected
    assert heard == asked


class OnCuda(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda = True  # type: ignore[assignment]


@pytest.mark.parametrize("silent", [False, True])
def test_processes_wait_for_one_at_work_longer_than_the_timeout_while_it_is_heard_from(
    monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    store, none, stop = dist.HashStore(), cast("Any", None), threading.Event()

    def beat() -> None:  # by a clock that is a day behind
        while not stop.wait(0.05):
            for rank in range(1 if silent else 2):
                store.set(f"beat-{rank}", str(time.time() - 86400))

    monkeypatch.setattr("stopgrad.method.processes.BEAT", 0.1)
    first = Processes(0, 2, torch.device("cpu"), none, none, store, timeout=1.0)
    beating = threading.Thread(target=beat)
    beating.start()
    if not silent:
        threading.Timer(2.0, lambda: store.set("met-1-all", "")).start()
    try:
        if silent:
            with pytest.raises(LostProcessError, match="not heard from"):
                first.meet()
        else:
            first.meet()
    finally:
        stop.set()
        beating.join()


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_wait_that_is_longer_than_the_timeout_ends_the_process_and_names_the_lost_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    store, ended = dist.HashStore(), list[int]()
    for rank, age in enumerate((0, 77)):
        store.set(f"beat-{rank}", str(time.time() - age))
    monkeypatch.setattr(os, "_exit", ended.append)
    none = cast("Any", None)
    one = Processes(0, 2, torch.device("cpu"), none, none, store, timeout=0.3)
    with caplog.at_level(logging.ERROR), one.watched():
        time.sleep(seconds)
    time.sleep(0.4)
    said = [record.getMessage() for record in caplog.records]
    if seconds:
        assert ended == [LostProcessError.exit_code]
        assert len(said) == 1
        assert said[0].startswith("process 1 (77 s) not heard from, of 2 that train together")
    else:
        assert (ended, said) == ([], [])
