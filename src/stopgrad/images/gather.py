"""Contents (streams of encoded pictures) -> pixels of one size, decoded on all cores.

The pictures go, in order, to a sink: memory or a file. Whether they keep their size is decided
over all splits together: they do if all have one size that is at most `side`; else each is
brought to side x side.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple, Protocol

from stopgrad.errors import DataError
from stopgrad.images.damage import unreadable_split
from stopgrad.images.decoding import Damaged, Frame, OtherSize, decode, peek, strict_pillow
from stopgrad.images.parallel import TASK_PICTURES, Attempt, on_all_cores
from stopgrad.images.source import Contents, Reader
from stopgrad.images.types import Labels, LeftOut, Pixels, Track, seal_fingerprint

TASK_PIXELS = 64 * 64 * 64  # decoded pixels that a task may hold

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where the pixels of one split go."""

    def add(self, picture: Pixels) -> None:
        """Append one picture (H, W, 3)."""
        ...


class Order(NamedTuple):
    """How to decode: as `load_dataset` was asked."""

    side: int | None
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
    left_out: tuple[LeftOut, ...]


MakeSink = Callable[[str, int], Sink]  # (split, most pictures) -> an empty sink


class _SizesDifferError(Exception):
    """Pictures cannot keep their size; says which sizes were met."""


def gather(contents: Contents, order: Order, *, sink: MakeSink) -> GatheredSplits:
    """Decode all splits of a data set.

    Args:
        contents: The splits.
        order: Side, and how to show progress.
        sink: Makes the sink of a split; called again for the same split if decoding begins anew.

    Raises:
        DataError: When no picture of a split can be read, and for pictures of several sizes
            without a side.
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
    if first is None:  # every picture is damaged: decoding will name them
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
    left_out: list[LeftOut] = []

    def split(name: str, reader: Reader) -> Gathered | None:
        with contextlib.closing(_decoded(reader, frame)) as decoded:
            shown = order.track(decoded, f"decoding {name}", reader.length)
            pictures = _of_one_size(_readable(shown, left_out, split=name), frame)
            return _pour(pictures, reader, contents.class_names, sink(name, reader.length))

    train = split("train", contents.train)
    test = split("test", contents.test) if contents.test else None
    if train is None or (contents.test is not None and test is None):
        raise unreadable_split("test" if train else "train", left_out)
    return GatheredSplits(train, test, tuple(left_out))


def _decoded(reader: Reader, frame: Frame) -> Generator[Attempt[Pixels | OtherSize | Damaged]]:
    """Each picture of a split as it comes out of the decoder, in order."""
    work = functools.partial(decode, frame=frame)
    return on_all_cores(reader.items(), work, at_a_time=pictures_in_a_task(frame))


def pictures_in_a_task(frame: Frame) -> int:
    """So many that the pixels of a task stay few."""
    return max(1, min(TASK_PICTURES, TASK_PIXELS // (frame.height * frame.width)))


class _Sized(NamedTuple):
    position: int
    name: str
    pixels: Pixels | OtherSize


class _Picture(NamedTuple):
    position: int
    name: str
    pixels: Pixels


def _readable(
    attempts: Iterable[Attempt[Pixels | OtherSize | Damaged]],
    left_out: list[LeftOut],
    *,
    split: str,
) -> Iterator[_Sized]:
    """Let the readable pictures pass, and note the others."""
    for index, (name, result) in enumerate(attempts):
        if isinstance(result, Damaged):
            left_out.append(LeftOut(split, name, result.reason))
        else:
            yield _Sized(index, name, result)


def _of_one_size(pictures: Iterable[_Sized], frame: Frame) -> Iterator[_Picture]:
    for index, name, pixels in pictures:
        if isinstance(pixels, OtherSize):
            kept = _in_words((frame.height, frame.width))
            raise _SizesDifferError(f"{kept} and {_in_words(pixels)}")
        yield _Picture(index, name, pixels)


def _pour(
    pictures: Iterable[_Picture], reader: Reader, class_names: tuple[str, ...], sink: Sink
) -> Gathered | None:
    """Send the pixels of one split to its sink, taking their fingerprint on the way.

    None when there are none.
    """
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
        return None
    whole = (len(kept), shape[0], shape[1], 3)
    labels = None if reader.labels is None else reader.labels[kept]
    mine = () if labels is None else class_names
    mark = seal_fingerprint(digest, shape=whole, labels=labels, class_names=mine)
    return Gathered(whole, labels, mine, mark, tuple(names))
