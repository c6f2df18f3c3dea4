"""Contents (streams of encoded pictures) -> pixels of one size, decoded on all cores.

The pictures go, in order, to a sink: memory or a file. Whether they keep their size is decided
over all splits together: they do if all have one size that is at most `side`; else each is
brought to side x side.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

from stopgrad.errors import DataError
from stopgrad.images.decode import Damaged, Frame, OtherSize, decode, peek, strict_pillow
from stopgrad.images.source import Contents, Encoded, Reader
from stopgrad.images.types import BadImages, Labels, Pixels, Track, seal_fingerprint

MOST_DAMAGED = 0.05  # share of all pictures that bad_images="skip" may leave out
# A task holds several pictures, because small ones cost more to hand over than to decode, but
# only so many that the tasks in flight stay small in memory.
TASK_PICTURES = 64
TASK_PIXELS = 64 * 64 * 64
TASK_BYTES = 1 << 20

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where the pixels of one split go."""

    def add(self, picture: Pixels) -> None:
        """Append one picture (H, W, 3)."""
        ...


class Order(NamedTuple):
    """How to decode: as `load_dataset` was asked."""

    side: int | None
    bad_images: BadImages
    track: Track


class Gathered(NamedTuple):
    """What is known of one split once its pixels have gone to their sink."""

    shape: tuple[int, int, int, int]
    labels: Labels | None
    class_names: tuple[str, ...]
    fingerprint: str
    sources: tuple[str, ...]


class GatheredSplits(NamedTuple):
    """Both splits, and the damaged pictures that were left out of them."""

    train: Gathered
    test: Gathered | None
    left_out: tuple[Damaged, ...]


MakeSink = Callable[[str, int], Sink]  # (split, most pictures) -> an empty sink


class _SizesDifferError(Exception):
    """Pictures cannot keep their size; says which sizes were met."""


def gather(contents: Contents, order: Order, *, sink: MakeSink) -> GatheredSplits:
    """Decode all splits of a data set.

    Args:
        contents: The splits.
        order: Side, what to do with damaged pictures, how to show progress.
        sink: Makes the sink of a split; called again for the same split if decoding begins anew.

    Raises:
        DataError: For a damaged picture (or, when they are skipped, more than 5 % of them), and
            for pictures of several sizes without a side.
    """
    with strict_pillow():
        try:
            return _gather(contents, order, frame=_first_frame(contents, order.side), sink=sink)
        except _SizesDifferError as sizes:
            frame = _fitting_frame(order.side, sizes=str(sizes))
        return _gather(contents, order, frame=frame, sink=sink)


def _first_frame(contents: Contents, side: int | None) -> Frame:
    """The size of the first readable picture, if it may be kept; else the square of `side`."""
    sizes = (peek(picture) for picture in contents.train.items())
    first = next((size for size in sizes if not isinstance(size, Damaged)), None)
    if first is None:  # every picture is damaged: decoding will name the first
        return Frame(1, 1, fit=True)
    if side is not None and max(first) > side:
        return _fitting_frame(side, sizes=_in_words(first))
    return Frame(*first, fit=False)


def _fitting_frame(side: int | None, *, sizes: str) -> Frame:
    if side is None:
        raise DataError(
            f"pictures of several sizes ({sizes})",
            expected="pictures of one size, or a side to bring them to",
            hint="give a side in px",
        )
    log.info("bringing all pictures to %d x %d px (found %s)", side, side, sizes)
    return Frame(side, side, fit=True)


def _in_words(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _gather(contents: Contents, order: Order, *, frame: Frame, sink: MakeSink) -> GatheredSplits:
    count = contents.train.length + (contents.test.length if contents.test else 0)
    toll = _Toll(order.bad_images, count)

    def split(name: str, reader: Reader) -> Gathered:
        with contextlib.closing(_on_all_cores(reader.items(), frame)) as decoded:
            shown = order.track(decoded, f"decoding {name}", reader.length)
            pictures = _of_one_size(toll.collect(shown), frame)
            return _pour(pictures, reader, contents.class_names, sink(name, reader.length))

    train = split("train", contents.train)
    test = split("test", contents.test) if contents.test else None
    return GatheredSplits(train, test, tuple(toll.damaged))


class _Attempt(NamedTuple):
    name: str
    result: Pixels | OtherSize | Damaged


class _Sized(NamedTuple):
    position: int
    name: str
    pixels: Pixels | OtherSize


class _Picture(NamedTuple):
    position: int
    name: str
    pixels: Pixels


class _Toll:
    """Counts damaged pictures and lets the others pass; raises where they are too many."""

    def __init__(self, bad_images: BadImages, count: int) -> None:
        self.bad_images = bad_images
        self.count = count
        self.damaged: list[Damaged] = []

    def collect(self, attempts: Iterable[_Attempt]) -> Iterator[_Sized]:
        for index, (name, result) in enumerate(attempts):
            if isinstance(result, Damaged):
                self._note(result)
            else:
                yield _Sized(index, name, result)

    def _note(self, damaged: Damaged) -> None:
        self.damaged.append(damaged)
        if self.bad_images == "fail":
            raise DataError(
                f"damaged picture {damaged.name!r} ({damaged.reason})",
                expected="a picture that can be read to its end",
                hint="replace or remove it, or skip damaged pictures (bad_images=skip)",
            )
        if len(self.damaged) > MOST_DAMAGED * self.count:
            raise DataError(
                f"{len(self.damaged)} damaged pictures or more among {self.count}, such as "
                f"{damaged.name!r} ({damaged.reason})",
                expected=f"at most {MOST_DAMAGED:.0%} of them to be left out",
                hint="repair the data set; it may have been copied or downloaded in part",
            )


def _of_one_size(pictures: Iterable[_Sized], frame: Frame) -> Iterator[_Picture]:
    for index, name, pixels in pictures:
        if isinstance(pixels, OtherSize):
            kept = _in_words((frame.height, frame.width))
            raise _SizesDifferError(f"{kept} and {_in_words(pixels)}")
        yield _Picture(index, name, pixels)


def _pour(
    pictures: Iterable[_Picture], reader: Reader, class_names: tuple[str, ...], sink: Sink
) -> Gathered:
    """Send the pixels of one split to its sink, taking their fingerprint on the way."""
    digest = hashlib.sha256()
    kept: list[int] = []
    names: list[str] = []
    shape: tuple[int, ...] = ()
    for index, name, pixels in pictures:
        shape = pixels.shape
        digest.update(pixels.data)
        sink.add(pixels)
        kept.append(index)
        names.append(name)
    if not kept:
        raise DataError(
            "a split in which no picture can be read",
            expected="at least one picture",
            hint="repair the data set",
        )
    whole = (len(kept), shape[0], shape[1], 3)
    labels = None if reader.labels is None else reader.labels[kept]
    mine = () if labels is None else class_names
    mark = seal_fingerprint(digest, shape=whole, labels=labels, class_names=mine)
    return Gathered(whole, labels, mine, mark, tuple(names))


def _on_all_cores(items: Iterator[Encoded], frame: Frame) -> Generator[_Attempt]:
    """Decode in order, a few tasks ahead. Pillow lets go of the GIL while it decodes."""
    workers = _cores()
    running: deque[Future[list[_Attempt]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for task in _tasks(items, frame):
                running.append(pool.submit(_decode_task, task, frame))
                if len(running) > 2 * workers:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _tasks(items: Iterator[Encoded], frame: Frame) -> Iterator[list[Encoded]]:
    most = max(1, min(TASK_PICTURES, TASK_PIXELS // (frame.height * frame.width)))
    task: list[Encoded] = []
    size = 0
    for picture in items:
        task.append(picture)
        size += len(picture.data) if isinstance(picture.data, bytes) else 0
        if len(task) == most or size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task


def _decode_task(task: list[Encoded], frame: Frame) -> list[_Attempt]:
    return [_Attempt(picture.name, decode(picture, frame)) for picture in task]
