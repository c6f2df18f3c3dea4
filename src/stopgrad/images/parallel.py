"""One function over many encoded pictures, on all cores, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple

from stopgrad.images.source import Encoded
from stopgrad.images.types import T

# A task holds several pictures, because small ones cost more to hand over than to decode, but
# only so many that the tasks in flight stay small in memory.
TASK_PICTURES = 64
TASK_BYTES = 1 << 20


class Attempt(NamedTuple, Generic[T]):
    """What the function made of a picture, and the picture's name."""

    name: str
    result: T


def on_all_cores(
    items: Iterator[Encoded], work: Callable[[Encoded], T], *, at_a_time: int = TASK_PICTURES
) -> Generator[Attempt[T]]:
    """Work through pictures in order, a few tasks ahead. Pillow lets go of the GIL as it decodes.

    Args:
        items: The pictures.
        work: What to do with each; called in threads.
        at_a_time: Most pictures in a task; their results are in memory together.
    """
    workers = cores()
    running: deque[Future[list[Attempt[T]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for task in tasks(items, at_a_time=at_a_time):
                running.append(pool.submit(_run, task, work))
                if len(running) > 2 * workers:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tasks(items: Iterator[Encoded], *, at_a_time: int) -> Iterator[list[Encoded]]:
    """The pictures in order, in lists that are small in number and in encoded bytes."""
    task: list[Encoded] = []
    size = 0
    for picture in items:
        task.append(picture)
        size += len(picture.data) if isinstance(picture.data, bytes) else 0
        if len(task) == at_a_time or size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task


def _run(task: list[Encoded], work: Callable[[Encoded], T]) -> list[Attempt[T]]:
    return [Attempt(picture.name, work(picture)) for picture in task]
