"""Where the tests work: a folder, a seed, pictures, an undisturbed run to compare with.

The runs are as small as a run can be that still has everything: 4 epochs of 8 steps and images
left over, distinct colour pictures, all augmentations, BN, momentum, cosine, a checkpoint every
3 steps (the preset `tiny` with batch 16 and blur).
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.promises import state
from tests.promises.process import LONGEST, Done, Order, Running, start_forked, start_fresh

SMALL = ("--preset", "tiny", "--batch", "16", "--views.blur", "0.5", "--knn.k", "20")
ALONE = ("--threads", "1", "--device", "cpu")
PREPARED = "prepared.json"
FRESH = 5  # with `full` one process in so many is a plain new one
EVERY = 3  # steps from one checkpoint to the next
STEPS, STEPS_PER_EPOCH, EPOCHS = 32, 8, 4
TRAIN, TEST, CLASSES, SIDE = 136, 20, 4, 24


class Reference(NamedTuple):
    """An undisturbed run."""

    run: Path
    end: state.End
    seconds: float  # of the process
    training: float  # s from its first status to its end


@dataclass
class Lab:
    """The surroundings of a test.

    Attributes:
        folder: Where everything is written.
        seed: Decides everything random; the same seed repeats a test.
        full: Every fifth process is a plain new one, the others are forks of a warm one; strace
            and a browser are asked where that says more.
        part: Of the tries of a promise, the number of this part; its size is `check`'s `tries`.
        apart: Whether each command has a host name and a network of its own, as two machines that
            share a disk.
        home: A folder of `prepare`, whose undisturbed runs are used; None: this lab has its own.
    """

    folder: Path
    seed: int
    full: bool = False
    part: int = 0
    apart: bool = False
    home: Path | None = None

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self._count = itertools.count(1)
        self._started = itertools.count()

    def next_is_fresh(self) -> bool:
        """Whether it is the turn of a plain new process."""
        return self.full and next(self._started) % FRESH == 0

    def numbers(self, tries: int) -> range:
        """The numbers of this part's tries among all tries."""
        return range(self.part * tries, (self.part + 1) * tries)

    @property
    def is_first(self) -> bool:
        """Whether this is the part that also makes the negative controls."""
        return self.part == 0

    def prepare(self) -> None:
        """Makes the undisturbed runs, for all labs that have this one as their home."""
        runs = {"reference": self.reference.run.name, "halfway": self.halfway.name}
        times = {"seconds": self.reference.seconds, "training": self.reference.training}
        (self.folder / PREPARED).write_text(json.dumps(runs | times))

    @functools.cached_property
    def _prepared(self) -> dict[str, Any]:
        return dict(json.loads((self._home / PREPARED).read_text()))

    @property
    def _home(self) -> Path:
        return self.home or self.folder

    def chance(self, *position: object) -> random.Random:
        """Random numbers for one purpose."""
        return random.Random("/".join(map(str, (self.seed, *position))))

    def place(self, name: str) -> Path:
        """A new path for a run or a folder, in a folder that exists."""
        path = self.folder / f"{name}-{next(self._count)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def start(self, *words: object, **how: Any) -> Running:
        """Starts `stopgrad WORDS`.

        `how` are fields of `Order`, `fresh` for this one alone, and `under`, another program that
        a fresh process is started by.
        """
        under = how.pop("under", ())
        fresh = (how.pop("fresh") if "fresh" in how else self.next_is_fresh()) or bool(under)
        place = self.place("output/process")
        cache = {"STOPGRAD_CACHE": str(self._home / "cache")}
        order = Order(
            words=tuple(map(str, words)),
            out=f"{place}.out",
            err=f"{place}.err",
            cwd=how.pop("cwd", str(self.folder)),
            environment=tuple((cache | how.pop("environment", {})).items()),
            host=place.name.replace("process", "machine") if self.apart else "",
            **how,
        )
        return start_fresh(order, under=under) if fresh else start_forked(order)

    def run(self, *words: object, longest: float = LONGEST, **how: Any) -> Done:
        """Runs `stopgrad WORDS` to its end."""
        return self.start(*words, **how).wait(longest)

    def pretraining(self, out: Path, *flags: object) -> tuple[object, ...]:
        """The words that begin the usual run."""
        return ("pretrain", "--data", self.pictures, "--out", out, *SMALL, *ALONE, *flags)

    def going_on(self, out: Path, *flags: object) -> tuple[object, ...]:
        """The words that go on with the usual run, or begin it where a kill left nothing."""
        begun = (out / "config.json").exists()
        return ("resume", out) if begun else self.pretraining(out, *flags)

    @functools.cached_property
    def pictures(self) -> Path:
        """Distinct colour pictures in `train/CLASS/` and `test/CLASS/`."""
        place = self._home / "pictures"
        return place if self.home else draw_pictures(place, self.chance("pictures"))

    @functools.cached_property
    def reference(self) -> Reference:
        """The usual run, disturbed by nothing."""
        if self.home is None:
            return self.refer()
        known = self._prepared
        run = self.home / known["reference"]
        return Reference(run, state.read_end(run), known["seconds"], known["training"])

    def refer(self, *flags: object, **how: Any) -> Reference:
        """A run with these flags, disturbed by nothing."""
        run = self.place("reference")
        running = self.start(*self.pretraining(run, *flags), **how)
        began = seconds_until(lambda: bool(state.status(run)), running)
        done = running.wait()
        assert done.code == 0, done.err
        return Reference(run, state.read_end(run), done.seconds, done.seconds - began)

    @functools.cached_property
    def halfway(self) -> Path:
        """The usual run, killed after its checkpoint at step 15; work on copies of it."""
        return self.home / self._prepared["halfway"] if self.home else self.kill_halfway()

    def kill_halfway(self, **how: Any) -> Path:
        """A run that was killed after its checkpoint at step 15."""
        run = self.place("halfway")
        running = self.start(*self.pretraining(run), **how)
        seconds_until(lambda: state.newest_step(run) >= 15, running)
        running.kill()
        return run

    def copy(self, run: Path, name: str) -> Path:
        """A copy of a run directory."""
        return Path(shutil.copytree(run, self.place(name)))

    def finish(self, run: Path, *flags: object) -> list[str]:
        """Brings the usual run to its end; what is wrong with it then."""
        done = self.run(*self.going_on(run, *flags))
        if done.code != 0:
            return [f"{run.name}: not resumable, exit code {done.code}: {done.last_line}"]
        return state.differences(run, self.reference.end)


def seconds_until(happened: Callable[[], bool], running: Running) -> float:
    """Waits until something has happened or the process has ended; seconds since its start."""
    while running.is_running() and not happened():
        time.sleep(0.001)
    return time.perf_counter() - running.began


def draw_pictures(folder: Path, chance: random.Random) -> Path:
    """Small smooth pictures, each another one; the class is a tint."""
    for split, number in _numbers():
        place = folder / split / f"class {number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        draw_picture(chance, tint=number % CLASSES).save(place / f"{number:03d}.png")
    return folder


def draw_picture(chance: random.Random, *, tint: int) -> Any:
    """One picture: 4 x 4 random colours, enlarged."""
    from PIL import Image

    values = [
        chance.randrange(256) // (2 if channel == tint else 1)
        for _ in range(16)
        for channel in range(3)
    ]
    return Image.frombytes("RGB", (4, 4), bytes(values)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )


def _numbers() -> Iterator[tuple[str, int]]:
    for split, count in (("train", TRAIN), ("test", TEST)):
        for number in range(count):
            yield split, number
