"""Claims about what a process sets up for its work: signals that ask it to stop."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from stopgrad.storage import STOP_SIGNALS, heartbeat, is_gone, stop_signals


def _asked(*numbers: int) -> list[int]:
    """What is caught of signals that this process sends itself."""
    found = list[int]()
    with stop_signals(lambda number, frame: found.append(number)):
        for number in numbers:
            os.kill(os.getpid(), number)
    return found


def test_each_signal_is_caught_and_given_back() -> None:
    assert {*STOP_SIGNALS} == {
        *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
    }
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    assert _asked(*STOP_SIGNALS) == [*STOP_SIGNALS]
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_what_somebody_ignores_or_handles_stays_theirs(number: signal.Signals) -> None:
    """As SIGHUP under nohup, or SIGUSR1 of a job that is queued again."""
    own = list[int]()
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert _asked(number, signal.SIGTERM) == [signal.SIGTERM]
        signal.signal(number, lambda n, frame: own.append(n))
        assert _asked(number, signal.SIGTERM) == [signal.SIGTERM]
        assert own == [number]
    finally:
        signal.signal(number, before)


def test_interrupt_is_caught_even_where_a_shell_ignores_it_for_the_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert _asked(signal.SIGINT) == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_catches_nothing_and_works() -> None:
    before, done = signal.getsignal(signal.SIGTERM), list[bool]()

    def work() -> None:
        with stop_signals(lambda number, frame: None):
            done.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says where a number holds")
def test_a_heartbeat_tells_whether_its_process_has_ended() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from stopgrad.storage import heartbeat; print(heartbeat())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    second, number, *where = ended.split(" ")
    assert (is_gone(ended), is_gone(heartbeat()), is_gone("")) == (True, False, False)
    assert not is_gone(f"{second} {number} {where[0]} pid:[1]")  # another container's number
    assert not is_gone(f"{second} {number} a-machine-without-proc")
