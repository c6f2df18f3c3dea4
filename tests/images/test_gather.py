"""Decoding many pictures: in order, in parallel, in bounded memory."""

import functools
import io
import threading
import time

import pytest
from PIL import Image

from stopgrad.images import Encoded, Frame, decode, gather, on_all_cores, strict_pillow
from stopgrad.images.gather import images_in_a_task, tasks
from stopgrad.images.opening import PixelBudget

DECODE = functools.partial(decode, frame=Frame(2, 2, fit=False))


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
    monkeypatch.setattr(gather, "usable_cores", lambda: 4)
    found = list(on_all_cores(pictures(1000), DECODE))
    assert [attempt.name for attempt in found] == [str(number) for number in range(1000)]
    values = [attempt.result[0, 0, 0] for attempt in found]
    assert values == [number % 251 for number in range(1000)]


@pytest.mark.timeout(60)
def test_as_many_tasks_run_at_once_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(gather, "usable_cores", lambda: 3)
    meeting = threading.Barrier(3, timeout=20)

    def meet(picture):
        return meeting.wait()  # breaks unless three tasks are here at the same time

    assert len(list(on_all_cores(pictures(30), meet, at_a_time=1))) == 30


def test_only_a_few_tasks_are_read_ahead(monkeypatch):
    monkeypatch.setattr(gather, "usable_cores", lambda: 2)
    read = []

    def watched():
        for picture in pictures(10**6):
            read.append(picture.name)
            yield picture

    decoded = on_all_cores(watched(), DECODE, at_a_time=10)
    next(decoded)
    decoded.close()
    assert len(read) == 50


def sizes(items, frame: Frame) -> list[int]:
    return [len(t) for t in tasks(iter(items), at_a_time=images_in_a_task(frame))]


def test_tasks_shrink_with_large_pictures_and_large_files():
    small = [Encoded("x", b"1")] * 130
    assert sizes(small, Frame(32, 32, fit=False)) == [64, 64, 2]
    assert sizes(small[:5], Frame(256, 512, fit=False)) == [2, 2, 1]
    assert sizes(small[:2], Frame(4000, 6000, fit=False)) == [1, 1]
    assert sizes([Encoded("x", bytes(600_000))] * 5, Frame(32, 32, fit=True)) == [2, 2, 1]


@pytest.mark.timeout(60)
def test_images_being_decoded_stay_within_a_budget_of_pixels():
    budget, most, inside = PixelBudget(100), [], threading.Event()

    def hold(pixels: int, *, until: threading.Event) -> threading.Thread:
        def work():
            with budget.spend(pixels):
                most.append(budget.taken)
                inside.set()
                until.wait(20)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    first, free = threading.Event(), threading.Event()
    free.set()
    threads = [hold(60, until=first)]
    assert inside.wait(20)
    threads += [hold(pixels, until=free) for pixels in (40, 60, 500)]
    while len(most) < 2:
        time.sleep(0.001)  # 40 fit beside 60
    time.sleep(0.05)
    assert most == [60, 100]
    first.set()
    for thread in threads:
        thread.join(20)
    assert sorted(most) == [60, 60, 100, 500]  # what is larger than the budget goes alone
    assert budget.taken == 0
