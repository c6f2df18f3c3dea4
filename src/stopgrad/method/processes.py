"""Several processes that take each training step together: who they are, what they exchange.

In: the environment that torchrun sets. Out: `Processes`, or None for a single process, which
never makes a group. Tensors of training are summed over one group (NCCL on GPUs, gloo on CPUs);
what the processes tell each other, in JSON, goes over a second one (gloo), so that a flag never
waits for a GPU. Each process writes heartbeats to the store through which they met, so that an
error can name the process that has not been heard from.

Why not DistributedDataParallel: it reorders its buckets after its first step, so a resumed run
adds in another order than one that was not stopped, and differs from it in the last bits.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from stopgrad.errors import (
    ConfigError,
    LostProcessError,
    StopgradError,
    error_from_json,
    error_to_json,
    no_memory,
)
from stopgrad.storage import heartbeat, is_gone

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
BEAT = 1.0  # s between two heartbeats
WAIT_S = 0.01  # between two looks whether all processes have come to a meeting
SILENT = 10.0  # s without one, after which a process counts as silent

log = logging.getLogger(__name__)

T = TypeVar("T")


def process_count() -> int:
    """The number of processes that take part, by the environment; 1 without torchrun.

    Raises:
        ConfigError: When only some of torchrun's variables are set, or one is not a number.
    """
    found = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not found:
        return 1
    missing = [name for name in VARIABLES if name not in found]
    wrong = [f"{n}={found[n]}" for n in found if n != "MASTER_ADDR" and not found[n].isdecimal()]
    if missing or wrong:
        raise ConfigError(
            f"{', '.join(found)} set, {', '.join(missing) or ', '.join(wrong)} "
            f"{'not' if missing else 'no number'}",
            expected="all of torchrun's variables, or none",
            hint="start several processes with --devices N or torchrun; unset them to train in one",
        )
    return int(found["WORLD_SIZE"])


@dataclass
class Processes:
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device  # of the tensors of training
    tensors: dist.ProcessGroup
    messages: dist.ProcessGroup  # for JSON, on the CPU
    store: Any  # the key-value store of torch.distributed through which they met
    timeout: float = 120.0  # s that a process waits for the others
    stopping: threading.Event = field(default_factory=threading.Event)
    beating: threading.Thread | None = None
    meetings: int = 0  # see `meet`

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that prints and writes."""
        return self.rank == 0

    @property
    def can_record(self) -> bool:
        """Whether sums can be part of a CUDA graph: NCCL's can, those over the CPU cannot."""
        return self.device.type == "cuda" and dist.get_backend(self.tensors) == "nccl"

    def part(self, total: int, *, step: int = 1, rank: int | None = None) -> slice:
        """A process's share of `total` items, cut at multiples of `step`."""
        number, pieces = self.rank if rank is None else rank, -(-total // step)
        first, end = (r * pieces // self.count * step for r in (number, number + 1))
        return slice(min(first, total), min(end, total))

    def sum(self, values: Tensor) -> None:
        """Adds up a tensor over all processes, in place; the same bits in each of them."""
        with self._naming_who_is_lost():
            dist.all_reduce(values, group=self.tensors)

    def gather(self, own: Tensor, *, total: int, step: int = 1) -> Tensor:  # -> (total, ...)
        """The rows of all processes, in order of rank; each has those of its `part` of `total`.

        Args:
            own: The rows of this process, equal in all dimensions but the first.
            total: The total number of rows.
            step: As for `part`.
        """
        parts = (self.part(total, step=step, rank=rank) for rank in range(self.count))
        sizes = [part.stop - part.start for part in parts]
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in sizes]
        with self._naming_who_is_lost():
            dist.all_gather(found, padded, group=self.tensors)
        return torch.cat([rows[:size] for rows, size in zip(found, sizes, strict=True)])

    def spread(self, tensor: Tensor) -> None:
        """Overwrites a tensor with that of the first process."""
        with self._naming_who_is_lost():
            dist.broadcast(tensor, src=0, group=self.tensors)

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes hold."""
        found = torch.tensor([number])
        with self._naming_who_is_lost():
            dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.messages)
        return int(found)

    def all_agree(self, yes: bool) -> bool:
        """Whether all processes say yes."""
        return not self.largest(int(not yes))

    def tell(self, value: Any) -> Any:
        """The first process's value, as JSON gives it back; the others' argument is ignored."""
        data = bytearray(json.dumps(value).encode()) if self.is_first else bytearray()
        size = self.largest(len(data))
        padded = torch.zeros(size, dtype=torch.uint8)
        if self.is_first:
            padded = torch.frombuffer(data, dtype=torch.uint8)
        with self._naming_who_is_lost():
            dist.broadcast(padded, src=0, group=self.messages)
        return json.loads(padded.numpy().tobytes())

    def everyone(self, value: Any) -> list[Any]:
        """The value of each process, as JSON gives it back, in order of rank."""
        data = bytearray(json.dumps(value).encode())
        padded = torch.zeros(self.largest(len(data)), dtype=torch.uint8)
        padded[: len(data)] = torch.frombuffer(data, dtype=torch.uint8)
        found = [torch.empty_like(padded) for _ in range(self.count)]
        with self._naming_who_is_lost():
            dist.all_gather(found, padded, group=self.messages)
        return [json.loads(each.numpy().tobytes().rstrip(b"\0")) for each in found]

    def first_does(self, act: Callable[[], T]) -> T | None:
        """Runs an act in the first process alone; the others wait for it, and fail as it fails.

        Returns:
            What the act returned, in the first process.

        Raises:
            StopgradError: What the act raised, in every process.
        """
        result, error = None, None
        if self.is_first:
            try:
                result = act()
            except BaseException as raised:
                error = raised
        self.meet()
        found = self.tell(None if error is None else error_to_json(error))
        if error is not None:
            raise error
        if found is not None:
            raise error_from_json(found)
        return result

    def meet(self) -> None:
        """Waits until all have come here, however long one of them works, while all are alive.

        Collectives give up after the timeout, and one without a timeout could not be left again.

        Raises:
            StopgradError: The error that another process noted, or that one is lost.
        """
        self.meetings += 1
        name, all_here = f"met-{self.meetings}", f"met-{self.meetings}-all"
        with self._naming_who_is_lost():
            if self.store.add(name, 1) == self.count:
                self.store.set(all_here, "")
            beats, looked = [""] * self.count, time.monotonic()
            heard = [looked] * self.count
            while not self.store.check([all_here]):
                time.sleep(WAIT_S)
                if (now := time.monotonic()) < looked + BEAT:
                    continue
                looked, (error, new) = now, self._ask(self._noted) or (None, beats)
                if error is not None:
                    raise error_from_json(error)
                pairs = zip(new, beats, heard, strict=True)
                beats, heard = new, [t if beat == old else now for beat, old, t in pairs]
                if now > min(heard) + self.timeout or any(map(is_gone, beats)):
                    raise self._why(or_else="a process has ended")

    def leave(self, error: BaseException | None) -> None:
        """Leaves the others; with an error, after noting it for them."""
        self.stopping.set()
        if self.beating is not None:
            self.beating.join(2 * BEAT)  # a thread that waits for a lost machine is abandoned
        if error is not None and not isinstance(error, LostProcessError):
            text = json.dumps(error_to_json(error))
            self._ask(lambda: self.store.set(f"error-{self.rank}", text))
        with contextlib.suppress(RuntimeError, ValueError):
            dist.destroy_process_group()

    @contextlib.contextmanager
    def _naming_who_is_lost(self) -> Iterator[None]:
        """Turns what a collective raises into the error of the process that made it fail.

        Raises:
            StopgradError: The error that another process noted, or that one is lost.
        """
        try:
            yield
        except RuntimeError as error:
            if no_memory(error):
                raise
            time.sleep(BEAT)  # until the one that failed has noted why
            raise self._why(or_else="a process has ended") from error

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Guards a wait for the GPU with a timeout: sums in a graph may hang for ever.

        After the timeout it logs an error and ends this process, with the code of a lost one.
        """
        timer = threading.Timer(self.timeout, self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self) -> None:
        error = self._why(or_else=f"the GPU of process {self.rank} has not answered")
        log.error("%s", error)
        os._exit(error.exit_code)

    def _why(self, *, or_else: str) -> StopgradError:
        """Why the others do not answer: the error that one has noted, or who is silent."""
        if (found := self._ask(self._noted)) is None:
            who = f"the machine of process 0, {os.environ['MASTER_ADDR']}, does not answer"
        elif found[0] is not None:
            return error_from_json(found[0])
        else:
            ages = [time.time() - float((beat or "0").split()[0]) for beat in found[1]]
            silent = [f"{r} ({age:.0f} s)" for r, age in enumerate(ages) if age > SILENT]
            who = f"process {', '.join(silent)} not heard from" if silent else or_else
        return LostProcessError(
            f"{who}, of {self.count} that train together",
            hint="the newest checkpoint is intact; continue with: stopgrad resume RUN",
        )

    def _noted(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The first error that a process has noted, and each one's newest heartbeat ("": none)."""

        def read(kind: str) -> list[str]:
            keys = [f"{kind}-{rank}" for rank in range(self.count)]
            return [self.store.get(k).decode() if self.store.check([k]) else "" for k in keys]

        errors = [json.loads(text) for text in read("error") if text]
        return next(iter(errors), None), read("beat")

    def _ask(self, question: Callable[[], T]) -> T | None:
        """The store's answer; None when it is gone, or its machine is silent for `SILENT`."""
        found: list[T] = []

        def ask() -> None:
            with contextlib.suppress(RuntimeError):
                found.append(question())

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(SILENT)
        return found[0] if found else None

    def beat(self) -> None:
        """Writes heartbeats until the process leaves."""
        store = self.store.clone()
        while not self.stopping.wait(BEAT):
            try:
                store.set(f"beat-{self.rank}", heartbeat())
            except RuntimeError:  # the store has gone, and with it the run
                return


_joinings = itertools.count()  # of this operating-system process, which may train several times
_joined: list[Processes] = []  # the group of this operating-system process, while it is open


@contextlib.contextmanager
def joined_on(device: torch.device, *, share: bool, timeout: float) -> Iterator[Processes | None]:
    """The processes that train together, this one among them; None when it is alone.

    Args:
        device: Where this process trains.
        share: Whether all train on one GPU, which NCCL refuses and gloo does over the CPU.
        timeout: How long a process waits for the others before it gives up, s.

    Raises:
        ConfigError: As `process_count`, or when the others cannot be reached.
    """
    if process_count() == 1 or _joined:
        yield _joined[0] if _joined else None
        return
    here = _group(device, share=share, timeout=timeout)
    here.store.set(f"beat-{here.rank}", heartbeat())
    here.beating = threading.Thread(target=here.beat, daemon=True, name="beat")
    here.beating.start()
    _joined.append(here)
    try:
        yield here
    except BaseException as error:
        here.leave(error)
        raise
    finally:
        _joined.clear()
    here.leave(None)


def _group(device: torch.device, *, share: bool, timeout: float) -> Processes:
    """The processes that torchrun has started with this one, once all are there."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    limit = timedelta(seconds=timeout)
    backend = "nccl" if device.type == "cuda" and not share else "gloo"
    try:
        found, rank, size = next(rendezvous("env://", timeout=limit))
        # torchrun keeps the store when it restarts its processes: the addresses and errors that
        # the earlier ones have written there must not be read.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        name = f"attempt-{attempt}-{next(_joinings)}"
        store = dist.distributed_c10d.PrefixStore(name, found)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
        messages = dist.new_group(backend="gloo", timeout=limit)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the processes did not find each other ({str(error).splitlines()[0][:200]})",
            expected=f"all {os.environ['WORLD_SIZE']} within {timeout:g} s",
            hint="start them with the same torchrun command on every machine",
        ) from error
    tensors, messages = (cast("dist.ProcessGroup", g) for g in (dist.group.WORLD, messages))
    me, count = dist.get_rank(), dist.get_world_size()
    return Processes(me, count, device, tensors, messages, store, timeout)


def by_one(processes: Processes | None, act: Callable[[], T]) -> T | None:
    """Runs `act` in the first process alone and returns its result; None in the others."""
    return act() if processes is None else processes.first_does(act)


def one_by_one(processes: Processes | None, load: Callable[[], T]) -> T:
    """Loads in every process, but first in one per machine, which fills the cache for the rest.

    Raises:
        StopgradError: What any of the first ones raised, in every process.
    """
    if processes is None:
        return load()
    found: list[T] = []
    for turn in (True, False):
        error = None
        if (os.environ["LOCAL_RANK"] == "0") is turn:
            try:
                found.append(load())
            except BaseException as raised:
                error = raised
        processes.meet()
        said = processes.everyone(None if error is None else error_to_json(error))
        if error is not None:
            raise error
        if other := next((each for each in said if each), None):
            raise error_from_json(other)
    return found[0]


def was_restarted() -> bool:
    """Whether torchrun has restarted this process and the others after one of them failed."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
