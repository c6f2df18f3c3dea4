"""`--devices N`: the same command in N processes that train together.

They are started by the agent behind torchrun, on this machine. Several machines take torchrun
itself, with `-m stopgrad` and the command.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

from stopgrad.errors import ConfigError
from stopgrad.storage import usable_cores

SAVING_S = 600  # a process may take this long to end a measurement and save after a signal


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Adds --devices."""
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="processes that train together on this machine, each on a GPU of its own, or on the "
        "CPU with --device cpu; the batch is shared among them. Default: 1",
    )


def train_together(arguments: Sequence[str], *, devices: int) -> int:
    """Runs a command in several processes; returns the exit code that they agree on.

    Args:
        arguments: The command's arguments, `--devices` included.
        devices: How many processes.

    Raises:
        ConfigError: For fewer than one process, or inside torchrun.
    """
    _check(devices)
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // devices)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=str(os.getpid()),
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        **_how(LaunchConfig),
    )
    command = ["-u", "-P", "-m", "stopgrad", *_without_devices(arguments)]
    asked = _pass_on_other_signals()
    logging.disable(logging.CRITICAL)  # the agent's log of its processes is not for users
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        return _exit_code(error)
    except SignalException as error:
        # A thread of the agent may still be running and would abort the interpreter at exit.
        sys.stderr.flush()
        os._exit(128 + (asked[0] if asked else int(error.sigval)))
    return 0


def _how(launch: type) -> dict[str, Any]:
    """The signals that torch handles, and how long it lets a process save before it kills it.

    A SIGHUP that is ignored, as under nohup, stays ignored.
    """
    wanted: dict[str, Any] = {"shutdown_timeout": SAVING_S}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        wanted["signals_to_handle"] = "SIGTERM,SIGINT,SIGQUIT"
    known = signature(launch).parameters
    return {name: value for name, value in wanted.items() if name in known}


def _check(devices: int) -> None:
    if devices < 1:
        raise ConfigError(f"--devices {devices}", expected="at least 1")
    if os.environ.get("WORLD_SIZE"):
        raise ConfigError(
            f"--devices {devices} in a process of torchrun",
            expected="one of the two",
            hint="leave --devices out; torchrun says how many processes there are",
        )


def _without_devices(arguments: Sequence[str]) -> Iterator[str]:
    words = iter(arguments)
    for word in words:
        if word == "--devices":
            next(words)
        elif not word.startswith("--devices="):
            yield word


def _pass_on_other_signals() -> list[int]:
    """Turns SIGUSR1 and SIGUSR2, which the agent does not know, into SIGTERM, which it forwards.

    Returns:
        Those that have come, for the exit code.
    """

    def pass_on(number: int, _: object) -> None:
        asked.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    asked = list[int]()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    return asked


def _exit_code(error: Any) -> int:
    """The exit code of the process that failed first; with a message if a signal killed it."""
    rank, failure = error.get_first_failure()
    if failure.exitcode >= 0:
        return int(failure.exitcode)
    name = signal.Signals(-failure.exitcode).name
    sys.stderr.write(f"stopgrad: process {rank} was killed by {name}\n")
    return int(128 - failure.exitcode)
