"""Streams of encoded images -> decoded ones of one size, on all cores, in order.

Images keep their size if all of them, over both splits, have one size that is at most `side`; else
each is resized and cropped to side x side. The first image decides; when a later one differs,
decoding starts again with the square. It also restarts at the first image of more than 8 bits, once
all images of that depth have been measured for black and white.

Damaged images are counted by one rule, for training and for checking: `fail` refuses any and names
them; `skip` leaves them out, and refuses only when they are more than `MOST_DAMAGED` of all.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, assert_never

import numpy as np

from stopgrad.config import BY_RULE, BadImages, Bands, Reading
from stopgrad.errors import DataError
from stopgrad.images.decoding import (
    Decoded,
    Frame,
    OtherDepth,
    OtherSize,
    Unread,
    channels_in,
    decode_first,
    peek,
    range_in,
)
from stopgrad.images.depth import FULL, Depth, ValueRange, levels_for, remarks
from stopgrad.images.formats import says_what_to_do
from stopgrad.images.opening import Damaged, strict_pillow
from stopgrad.images.pixels import Pixels
from stopgrad.images.types import (
    Contents,
    DamagedImage,
    Encoded,
    Images,
    Labels,
    Levels,
    Notes,
    SplitReader,
    T,
    Track,
    no_progress,
    seal_fingerprint,
)
from stopgrad.storage import usable_cores

MOST_DAMAGED = 0.05  # of all images may be skipped
NAMED = 10  # damaged images that a message names
WHITE_IN_VAIN = "--white-level changes nothing: all images have 8 bits or state their white"
REPAIR = "repair the data set; it may have been copied or downloaded only in part"


class DamagedImagesError(DataError):
    """Damaged images that the policy does not allow; `damaged` holds all of them, in order."""

    def __init__(
        self, damaged: Sequence[DamagedImage], *, found: str, expected: str, hint: str
    ) -> None:
        self.damaged = tuple(damaged)
        super().__init__(found, expected=expected, hint=hint)


def refusal(
    damaged: Sequence[DamagedImage], *, count: int, bad_images: BadImages
) -> DamagedImagesError | None:
    """The error for these damaged images among `count`; None where the policy allows them."""
    too_many = len(damaged) > MOST_DAMAGED * count
    match bad_images:
        case "fail":
            refused, expected = bool(damaged), "images that can be read to their end"
            skip = "" if too_many else ", or leave them out with --bad-images skip"
            hint = f"replace or remove them{skip}"
        case "skip":
            refused, expected = too_many, f"at most {100 * MOST_DAMAGED:.0f} % damaged images"
            hint = REPAIR
        case _:
            assert_never(bad_images)
    if not refused:
        return None
    noun = "image" if len(damaged) == 1 else "images"
    found = f"{len(damaged)} damaged {noun} among {count}: {name_damaged(damaged)}"
    return DamagedImagesError(damaged, found=found, expected=expected, hint=hint)


def name_damaged(damaged: Sequence[DamagedImage]) -> str:
    """The first ten with their reasons, and how many more there are."""
    named = [
        f"{name!r}{'' if split == 'train' else f' of {split}'} ({reason})"
        for split, name, reason in damaged[:NAMED]
    ]
    more = f" and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
    return ", ".join(named) + more


# A task holds several images, because small ones cost more to hand over than to decode, but few
# enough for the tasks in flight to stay small in memory.
TASK_IMAGES = 64
TASK_BYTES = 1 << 20  # of encoded images
TASK_PIXELS = 64 * 64 * 64  # decoded

log = logging.getLogger(__name__)


class NamedResult(NamedTuple, Generic[T]):
    """The name of an image, and the result for it."""

    name: str
    result: T


def on_all_cores(
    items: Iterator[Encoded], work: Callable[[Encoded], T], *, at_a_time: int = TASK_IMAGES
) -> Generator[NamedResult[T]]:
    """Apply a function to images in order, in threads: Pillow decodes without the GIL.

    The results of at most `at_a_time` images, those of one task, wait in memory together.
    """
    workers = usable_cores()
    running: deque[Future[list[NamedResult[T]]]] = deque()
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


def tasks(items: Iterator[Encoded], *, at_a_time: int) -> Iterator[list[Encoded]]:
    """The images in order, in lists that are small in number and in encoded bytes."""
    task: list[Encoded] = []
    size = 0
    for encoded in items:
        task.append(encoded)
        data = encoded.data
        size += len(data) if isinstance(data, bytes) else getattr(data, "nbytes", 0)
        if len(task) == at_a_time or size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task


def _run(task: list[Encoded], work: Callable[[Encoded], T]) -> list[NamedResult[T]]:
    return [NamedResult(encoded.name, work(encoded)) for encoded in task]


def images_in_a_task(frame: Frame) -> int:
    """Images per task, few enough that their decoded pixels stay few."""
    return max(1, min(TASK_IMAGES, TASK_PIXELS // (frame.height * frame.width)))


class _SizesDifferError(Exception):
    """Images cannot keep their size; the message names two sizes."""


class _NoLevelsError(Exception):
    """An image has a depth for which no levels are known yet."""

    def __init__(self, depth: Depth) -> None:
        self.depth = depth


def in_one_frame(
    contents: Contents,
    work: Callable[[Frame], T],
    *,
    side: int | None,
    reading: Reading = BY_RULE,
    frame: Frame | None = None,
    track: Track = no_progress,
) -> T:
    """The result of `work` for a frame that all images fit; called again when one does not.

    Args:
        contents: The splits.
        work: Decodes all of them, by `decoded`.
        side: px; None where all images must have one size.
        reading: How samples become pixels.
        frame: The frame to begin with, if one was chosen before.
        track: Shows progress.

    Raises:
        DataError: For images of several sizes without a side.
    """
    with strict_pillow():
        frame = frame or _first_frame(contents, side, reading)
        while True:
            try:
                return work(frame)
            except _SizesDifferError as sizes:
                square = _square(side, sizes=str(sizes))
                frame = frame._replace(height=square.height, width=square.width, fit=True)
            except _NoLevelsError as unknown:
                frame = with_levels(
                    frame, unknown.depth, contents.readers, track, reading.white_level
                )


def _first_frame(contents: Contents, side: int | None, reading: Reading) -> Frame:
    """The size of the first readable image, if it may be kept; else the square of `side`."""
    sizes = (peek(encoded, bands=reading.bands) for encoded in contents.train.items())
    first = next((size for size in sizes if not isinstance(size, Damaged)), None)
    if first is None:  # every image is damaged: decoding will name them
        frame = Frame(1, 1, fit=True)
    elif side is not None and (reading.square or max(first) > side):
        frame = _square(side, sizes=_width_x_height(first))
    else:
        frame = Frame(*first, fit=False)
    return frame._replace(
        bands=reading.bands,
        levels=tuple(Levels(*of) for of in reading.levels),
        channels=channels_in(contents.train.items(), reading.bands),
    )


def with_levels(
    frame: Frame, depth: Depth, readers: Mapping[str, SplitReader], track: Track, white: float = 0
) -> Frame:
    """The frame with levels for one depth, from all images of that depth in all splits."""
    levels = Levels(depth, 0, white)
    if not white:
        levels = levels_for(depth, _range_of_all(depth, readers, bands=frame.bands, track=track))
    return frame._replace(levels=(*(frame.levels or ()), levels))


def _range_of_all(
    depth: Depth, readers: Mapping[str, SplitReader], *, bands: Bands, track: Track
) -> ValueRange | None:
    found: list[ValueRange] = []
    work = functools.partial(range_in, depth=depth, bands=bands)
    for split, reader in readers.items():
        with contextlib.closing(on_all_cores(reader.items(), work)) as attempts:
            for _, result in track(attempts, f"measuring {split}", reader.length):
                if isinstance(result, ValueRange):
                    found.append(result)
                    if depth == "16-bit" and result.high > FULL // 2:  # no other can change it
                        return result
    if not found:
        return None
    return ValueRange(min(of.low for of in found), max(of.high for of in found))


def notes_of(frame: Frame, reading: Reading) -> Notes:
    """Notes on the levels of a frame, if they were derived from the set."""
    levels = frame.levels or ()
    said = remarks([of for of in levels if of not in reading.levels])
    if reading.white_level:
        said = () if levels else (WHITE_IN_VAIN,)
    return Notes(said, levels=levels, bands=reading.bands)


def _square(side: int | None, *, sizes: str) -> Frame:
    if side is None:
        raise DataError(
            f"images of several sizes ({sizes})",
            expected="images of one size, or a side to resize them to",
            hint="give a side in px",
        )
    log.info("resizing all images to %d x %d px (found %s)", side, side, sizes)
    return Frame(side, side, fit=True)


def _width_x_height(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def decoded(
    reader: SplitReader, frame: Frame, *, shown_as: str, track: Track, start: int = 0
) -> Generator[NamedResult[Decoded | Damaged]]:
    """The images of a split, from the `start`-th on, as they come out of the decoder.

    For `in_one_frame`, which catches the errors for an image of another size or depth.
    """
    items = itertools.islice(reader.items(), start, None)
    work = functools.partial(decode_first, frame=frame)
    attempts = on_all_cores(items, work, at_a_time=images_in_a_task(frame))
    with contextlib.closing(attempts):
        for name, result in track(attempts, shown_as, reader.length - start):
            if isinstance(result, OtherSize):
                kept = _width_x_height((frame.height, frame.width))
                raise _SizesDifferError(f"{kept} and {_width_x_height(result)}")
            if isinstance(result, OtherDepth):
                raise _NoLevelsError(result.depth)
            yield NamedResult(name, result)


class Tally:
    """All that is known of a split ("train" or "test") while it is decoded, except its pixels."""

    def __init__(self, split: str, reader: SplitReader, class_names: tuple[str, ...]) -> None:
        self.split = split
        self.reader = reader
        self.class_names = () if reader.labels is None else class_names
        self.names: list[str] = []  # of the readable images
        self.damaged: dict[int, DamagedImage] = {}  # by position
        self.unread: dict[str, Unread] = {}  # by name of the image
        self.digest = hashlib.sha256()  # of the pixels

    @property
    def done(self) -> int:
        """How many images of the split were added."""
        return len(self.names) + len(self.damaged)

    def add(self, attempt: NamedResult[Decoded | Damaged]) -> Pixels | None:
        """Record the next image of the split; return its pixels, if it could be read."""
        if isinstance(attempt.result, Damaged):
            reason = attempt.result.reason
            self.damaged[self.done] = DamagedImage(self.split, attempt.name, reason)
            return None
        pixels, unread = attempt.result
        self.digest.update(pixels.data)
        self.names.append(attempt.name)
        if any(unread):
            self.unread[attempt.name] = unread
        return pixels

    @property
    def labels(self) -> Labels | None:
        """Labels (N,) of the readable images."""
        if self.reader.labels is None:
            return None
        return np.delete(self.reader.labels, list(self.damaged))

    def fingerprint(self, height: int, width: int, channels: int) -> str:
        """The fingerprint of the readable images."""
        return seal_fingerprint(
            self.digest,
            shape=(len(self.names), height, width, channels),
            labels=self.labels,
            class_names=self.class_names,
        )

    def images(self, pixels: Pixels) -> Images:
        """The readable images, given their pixels (N, H, W, C)."""
        mark = self.fingerprint(*pixels.shape[1:])
        return Images(pixels, self.labels, self.class_names, mark, tuple(self.names))


def all_damaged(tallies: Iterable[Tally]) -> tuple[DamagedImage, ...]:
    """The damaged images of all splits, in order."""
    return tuple(damaged for tally in tallies for damaged in tally.damaged.values())


def refuse_unreadable(tallies: Sequence[Tally]) -> None:
    """Refuses a data set with a split that has no readable image.

    Raises:
        DamagedImagesError: With all damaged images of the data set.
    """
    for tally in tallies:
        if not tally.names:
            damaged = all_damaged(tallies)
            first, *others = {image.reason for image in damaged}
            same = not others and len(damaged) > 1
            why = f"all {len(damaged):,}: {first}" if same else name_damaged(damaged)
            advised = not others and says_what_to_do(first)
            raise DamagedImagesError(
                damaged,
                found=f"no image of the {tally.split} split can be read: {why}",
                expected="" if advised else "at least one image that can be read to its end",
                hint="" if advised else REPAIR,
            )
