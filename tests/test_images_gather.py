"""Decoding many pictures: in order, in parallel, in bounded memory."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from stopgrad.images import gather
from stopgrad.images.decode import Frame, strict_pillow
from stopgrad.images.source import Encoded


@pytest.fixture(autouse=True)
def _pillow():
    with strict_pillow():
        yield


def png(value: int, side: int = 2) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), value).save(file, "PNG")
    return file.getvalue()


def pictures(count: int):
    return (Encoded(str(number), png(number % 251)) for number in range(count))


def test_pictures_come_back_in_order(monkeypatch):
    monkeypatch.setattr(gather, "_cores", lambda: 4)
    found = list(gather._on_all_cores(pictures(1000), Frame(2, 2, fit=False)))
    assert [attempt.name for attempt in found] == [str(number) for number in range(1000)]
    values = [attempt.result[0, 0, 0] for attempt in found]
    assert values == [number % 251 for number in range(1000)]


@pytest.mark.timeout(60)
def test_as_many_tasks_run_at_once_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(gather, "_cores", lambda: 3)
    meeting = threading.Barrier(3, timeout=20)

    def meet(task, frame):
        meeting.wait()  # breaks unless three tasks are here at the same time
        return [gather._Attempt(picture.name, np.zeros((2, 2, 3), np.uint8)) for picture in task]

    monkeypatch.setattr(gather, "_decode_task", meet)
    count = 3 * gather.TASK_PICTURES
    assert len(list(gather._on_all_cores(pictures(count), Frame(2, 2, fit=False)))) == count


def test_only_a_few_tasks_are_read_ahead(monkeypatch):
    monkeypatch.setattr(gather, "_cores", lambda: 2)
    read = []

    def watched():
        for picture in pictures(10**6):
            read.append(picture.name)
            yield picture

    decoded = gather._on_all_cores(watched(), Frame(2, 2, fit=False))
    next(decoded)
    decoded.close()
    assert len(read) == 5 * gather.TASK_PICTURES


def sizes(items, frame: Frame) -> list[int]:
    return [len(task) for task in gather._tasks(iter(items), frame)]


def test_tasks_shrink_with_large_pictures_and_large_files():
    small = [Encoded("x", b"1")] * 130
    assert sizes(small, Frame(32, 32, fit=False)) == [64, 64, 2]
    assert sizes(small[:5], Frame(256, 512, fit=False)) == [2, 2, 1]
    assert sizes(small[:2], Frame(4000, 6000, fit=False)) == [1, 1]
    assert sizes([Encoded("x", bytes(600_000))] * 5, Frame(32, 32, fit=True)) == [2, 2, 1]
