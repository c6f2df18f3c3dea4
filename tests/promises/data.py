"""R9: damaged pictures are listed, all of them and no other. R22: no Parquet file gets through.

What is damaged is known because it was damaged on purpose; pictures that are only odd (16 bits,
CMYK, palette, animated, EXIF-rotated) must not be listed. Root may read what nobody may, so its
processes give that up first.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.promises.lab import ALONE, SMALL, Lab, draw_picture
from tests.promises.outcome import Control, Outcome, control
from tests.promises.pages import write_parquet
from tests.promises.process import Done

CODES = (0, 2, 3)
SHARE = 5  # one picture in so many is a mutant
FEW = 50  # with --bad-images skip one in so many may be damaged
MEMORY = 2 << 30  # bytes that looking at the pictures may take
BOMB = 50_000  # px, the side of a picture that would need 7.5 GB

Mutant = Callable[[Path, random.Random], None]


def check(lab: Lab, tries: int) -> Outcome:
    """So many pictures; `check-data` and `pretrain` must list the damaged ones, and no other."""
    folder, damaged = _folder(lab, tries, every=SHARE)
    words = (*SMALL, *ALONE)
    looked = lab.run("check-data", folder, "--json", *words, memory=MEMORY)
    failures = _listed(looked, damaged)
    words = ("pretrain", "--data", folder, "--out", lab.place("run"), *words)
    failures += _refused(lab.run(*words), len(damaged))
    failures += _skipped(lab, tries)
    unknown = control("one damaged picture unknown", _listed(looked, damaged[1:]), sees="list")
    measured = {"damaged": len(damaged), "kinds": sorted({**DAMAGED, **ODD})}
    return Outcome(tries, tuple(failures), (unknown,), measured)


def _listed(done: Done, damaged: list[str]) -> list[str]:
    if done.crashed or done.code != 3:
        return [f"check-data: {done.crashed} exit code {done.code}: {done.last_line}"]
    listed = {entry["name"] for entry in json.loads(done.out)["damaged"]}
    wrong = sorted(listed ^ set(damaged))
    return [f"list of check-data: {len(wrong)} wrong, first {wrong[0]}"] if wrong else []


def _refused(done: Done, count: int) -> list[str]:
    told = f"{count} damaged image" in done.last_line
    return [] if done.code == 3 and told and not done.crashed else [f"pretrain: {done.last_line}"]


def _skipped(lab: Lab, tries: int) -> list[str]:
    """Few damaged pictures are left out where that was asked for, and named."""
    folder, damaged = _folder(lab, tries, every=FEW)
    words = ("pretrain", "--data", folder, "--out", lab.place("skipped"), *SMALL, *ALONE)
    done = lab.run(*words, "--bad_images", "skip", "--epochs", "1")
    if done.code != 0:
        return [f"--bad_images skip: exit code {done.code}: {done.last_line}"]
    return [] if f"left out {len(damaged)} " in done.err else [f"left out in silence: {done.err}"]


def _folder(lab: Lab, count: int, *, every: int) -> tuple[Path, list[str]]:
    """Pictures of which one in `every` is a mutant, and the names of those that are damaged."""
    folder, chance = lab.place("pictures"), lab.chance("R9", every)
    damaged = []
    kinds = {**DAMAGED, **ODD}
    names = list(kinds)
    for number in range(count):
        path = folder / "train" / f"{number % 4}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(chance, tint=number % 3).save(path)
        if number % every == 0:
            kind = names[number // every % len(names)]
            kinds[kind](path, chance)
            damaged += [path.relative_to(folder / "train").as_posix()] if kind in DAMAGED else []
    return folder, damaged


def _written(data: Callable[[random.Random], bytes]) -> Mutant:

    def write(path: Path, chance: random.Random) -> None:
        path.write_bytes(data(chance))

    return write


def _truncated(path: Path, chance: random.Random) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * chance.uniform(0.2, 0.7))])


def _instead(make: Callable[[Path], object]) -> Mutant:
    def change(path: Path, chance: random.Random) -> None:
        path.unlink()
        make(path)

    return change


def _bomb(path: Path, chance: random.Random) -> None:
    """A small file that claims to be huge."""
    from PIL import Image

    Image.new("1", (BOMB, BOMB)).save(path)


def _as(mode: str, kind: str, **how: Any) -> Mutant:
    """The picture in another mode and format, under its name."""

    def change(path: Path, chance: random.Random) -> None:
        from PIL import Image

        with Image.open(path) as picture:
            other = picture.convert(mode)
        other.save(path, format=kind, **how)

    return change


def _animated(path: Path, chance: random.Random) -> None:
    frames = [draw_picture(chance, tint=tint) for tint in range(3)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def _rotated(path: Path, chance: random.Random) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    draw_picture(chance, tint=0).save(path, format="JPEG", exif=exif)


DAMAGED: dict[str, Mutant] = {
    "truncated": _truncated,
    "random bytes": _written(lambda chance: chance.randbytes(500)),
    "empty": _instead(Path.touch),
    "text": _written(lambda chance: b"not a picture\n"),
    "a loop of links": _instead(lambda path: path.symlink_to(path.name)),
    "a pipe": _instead(os.mkfifo),
    "a bomb": _bomb,
    "a directory": _instead(os.mkdir),
}
ODD: dict[str, Mutant] = {
    "16 bits": _as("I;16", "PNG"),
    "CMYK": _as("CMYK", "JPEG"),
    "palette": _as("P", "PNG"),
    "animated": _animated,
    "rotated": _rotated,
}


def parquet(lab: Lab, tries: int) -> Outcome:
    """R22: so many Parquet files with bytes changed or labels that are none."""
    base = write_parquet(lab, [f"class {n}" for n in range(8)])
    failures: list[str] = []
    for number in lab.numbers(tries):
        chance, folder = lab.chance("R22", number), lab.copy(base, "mutant")
        what = (_odd_labels if number % 4 == 0 else _scramble)(folder, chance)
        failures += [f"{number}, {what}: {line}" for line in _load(lab, folder)]
    controls: tuple[Control, ...] = ()
    if lab.is_first:
        controls = (_caught(_load(lab, base, sabotage="uncaught")),)
    return Outcome(tries, tuple(failures), controls)


def _caught(found: list[str]) -> Control:
    return control("an error that nobody catches", found, sees="traceback")


def _load(lab: Lab, folder: Path, *, sabotage: str = "") -> list[str]:
    cache = {"STOPGRAD_CACHE": str(folder / "cache")}
    words = ("views", "--data", folder, "--out", folder / "views.png", "--count", 1, *SMALL)
    # Forks even with --full: what counts is the reading, and fresh processes would take hours.
    done = lab.run(*words, environment=cache, sabotage=sabotage, fresh=False)
    shutil.rmtree(folder if not sabotage else folder / "cache", ignore_errors=True)
    wrong = [done.crashed] if done.crashed else []
    return wrong + ([f"exit code {done.code}: {done.last_line}"] if done.code not in CODES else [])


def _scramble(folder: Path, chance: random.Random) -> str:
    """Changes, drops or adds bytes, most often in the footer, where the schema is."""
    path = chance.choice(sorted(folder.glob("*.parquet")))
    data = bytearray(path.read_bytes())
    first = len(data) - 3000 if chance.random() < 0.6 else 0
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(max(0, first), len(data))
        data[place : place + chance.randint(0, 4)] = chance.randbytes(chance.randint(0, 4))
    path.write_bytes(data)
    return "bytes changed"


def _odd_labels(folder: Path, chance: random.Random) -> str:
    """Labels of another kind or out of range."""
    import pyarrow
    from pyarrow import parquet as files

    path = chance.choice(sorted(folder.glob("*.parquet")))
    table = files.read_table(path)
    odd: tuple[Any, ...] = (-1, -7, 10**6, 2**62, None, 0.5, "x", "", [1], {"a": 1}, b"\xff", True)
    value = chance.choice(odd)
    column = pyarrow.array([value] * len(table))
    if chance.random() < 0.3:
        table = table.replace_schema_metadata(None)
    place = table.schema.get_field_index("label")
    files.write_table(table.set_column(place, "label", column), path)
    return f"labels {value!r}"
