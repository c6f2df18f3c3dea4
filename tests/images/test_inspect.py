"""`check-data`: its lists against an oracle, and against what training makes of the same folder."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

import stopgrad
from stopgrad.cli import main
from stopgrad.config import preset
from stopgrad.images import (
    Damaged,
    DamagedImage,
    DamagedImagesError,
    Encoded,
    Frame,
    check_images,
    decode,
    load_dataset,
    strict_pillow,
)
from stopgrad.images.gather import refusal
from stopgrad.images.inspect import inspect_image
from stopgrad.runs import prepare
from stopgrad.speed import cost
from stopgrad.speed.outlook import suggest

DIGITS = np.kron(load_digits().images, np.ones((2, 2))) * 15  # (1797, 16, 16)


class Oracle(NamedTuple):
    """What was put into a folder: the names of each kind, in order."""

    damaged: list[str]
    tiny: list[str]
    copies: list[str]
    odd: dict[str, list[str]]


def digit(number: int) -> Image.Image:
    """A real digit in a colour of its own, so that all are different."""
    gray = DIGITS[number][..., None]
    colour = np.array([1, 0.5 + number % 7 / 14, 0.5 + number % 11 / 22])
    return Image.fromarray((gray * colour).astype(np.uint8))


def png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of black pixels; with a side of 37,000 px 4 MB become 4 GB."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9, wbits=-15)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    pixels = b"\x78\xda" + megabyte * (side * (1 + 3 * side) // (1 << 20) + 1)
    return _assemble(header, pixels)


def _assemble(header: bytes, pixels: bytes) -> bytes:
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


Put = Callable[[Path, Image.Image], object]


def _orientation(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


DAMAGES: dict[str, Put] = {
    "truncated": lambda path, image: path.write_bytes(png(image)[: len(png(image)) * 2 // 3]),
    "last byte": lambda path, image: path.write_bytes(png(image, "JPEG")[:-30]),
    "random": lambda path, _: path.write_bytes(np.random.default_rng(0).bytes(500)),
    "empty": lambda path, _: path.touch(),
    "text": lambda path, _: path.write_text("not a picture"),
    "folder": lambda path, _: path.mkdir(),
    "loop": lambda path, _: _link(path, path),
    "two loops": lambda path, _: _link(path, path.parent),
    "broken link": lambda path, _: _link(path, path / "nowhere"),
    "pipe": lambda path, _: os.mkfifo(path),
    "endless": lambda path, _: _link(path, Path("/dev/zero")),
    "bomb": lambda path, _: path.write_bytes(BOMB),
    "complex": lambda path, _: tifffile.imwrite(path, np.ones((16, 16), np.complex64)),
}
ODD: dict[str, Put] = {
    "animated": lambda path, image: image.save(
        path, "PNG", save_all=True, append_images=[image.rotate(90)]
    ),
    "sixteen_bit": lambda path, image: Image.fromarray(
        np.asarray(image.convert("L")).astype(np.uint16) * 257
    ).save(path, "PNG"),
    "cmyk": lambda path, image: image.convert("CMYK").save(path, "TIFF"),
    "palette": lambda path, image: image.quantize(64).save(path, "PNG"),
    "alpha": lambda path, image: _with_alpha(image).save(path, "PNG"),
    "rotated": lambda path, image: image.save(path, "JPEG", quality=95, exif=_orientation(6)),
    "elongated": lambda path, image: image.resize((16, 64)).save(path, "PNG"),
    "few_colours": lambda path, image: (
        image.convert("L").point(lambda v: 255 * (v > 99)).save(path, "PNG")
    ),
    "constant": lambda path, image: Image.new("RGB", (16, 16), image.getpixel((5, 5))).save(
        path, "PNG"
    ),
}
BOMB = bomb(37_000)


def _with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(128)
    return image


def build(folder: Path, *, pictures: int, mutants: int, damages: int = 10**6) -> Oracle:
    """Pictures in two class folders, of which so many are mutants of all kinds in turn.

    Args:
        folder: Where to put them.
        pictures: How many.
        mutants: How many of them are no plain pictures; every one of an odd number.
        damages: How many of these may be damaged.
    """
    kinds = [*list(DAMAGES)[:damages], *ODD, "tiny", "copy", "converted copy"]
    every = pictures // mutants
    named: dict[str, list[str]] = {kind: [] for kind in (*DAMAGES, *kinds, "whole")}
    for number in range(pictures):
        mutated = number % every == every - 1
        kind = kinds[number // every % len(kinds)] if mutated else "whole"
        name = f"{'ab'[number % 2]}/{number:04d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        put(folder / name, kind, number)
        named[kind].append(name)
    return Oracle(
        damaged=sorted(name for kind in DAMAGES for name in named[kind]),
        tiny=sorted(named["tiny"]),
        copies=sorted(named["copy"] + named["converted copy"]),
        odd={kind: sorted(named[kind]) for kind in ODD},
    )


def put(path: Path, kind: str, number: int) -> None:
    """One picture of a kind."""
    image, first = digit(number), digit(number % 2)
    match kind:
        case "whole":
            image.save(path)
        case "tiny":
            image.resize((7, 20)).save(path)
        case "copy":
            first.save(path)
        case "converted copy":
            first.save(path, "TIFF")
        case _:
            (DAMAGES | ODD)[kind](path, image)


def found_in(folder: Path, **options: Any) -> Any:
    return check_images(str(folder), side=32, tiny_below=8, **options)


def names(places: Any) -> list[str]:
    return [place.name for place in places]


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `stopgrad ...`."""
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


@pytest.mark.timeout(60)
def test_the_lists_are_those_of_the_oracle_and_of_training(tmp_path: Path) -> None:
    oracle = build(tmp_path / "p", pictures=200, mutants=40)
    assert len(oracle.damaged) >= len(DAMAGES)
    found = found_in(tmp_path / "p")
    assert names(found.damaged) == oracle.damaged
    assert names(found.tiny) == oracle.tiny
    assert names(found.copies) == oracle.copies
    assert {trait: names(places) for trait, places in found.odd.items()} == oracle.odd
    assert found.pictures == {"train": 200}
    assert sum(found.formats.values()) == sum(found.sizes.values()) == 200 - len(oracle.damaged)
    assert [(each.name, each.train, each.test) for each in found.classes] == [
        ("a", 100, 0),
        ("b", 100, 0),
    ]
    with pytest.raises(DamagedImagesError) as caught:
        load_dataset(str(tmp_path / "p"), side=32)
    assert caught.value.damaged == found.damaged
    assert str(caught.value) == str(found.refusal)
    assert f"{len(oracle.damaged)} damaged images among 200: " in str(caught.value)
    assert all(repr(name) in str(caught.value) for name in oracle.damaged[:10])
    assert f"and {len(oracle.damaged) - 10} more;" in str(caught.value)


def test_skipping_leaves_out_what_checking_lists(tmp_path: Path) -> None:
    oracle = build(tmp_path / "p", pictures=200, mutants=40, damages=3)
    assert 0 < len(oracle.damaged) <= 10
    found = found_in(tmp_path / "p", bad_images="skip")
    assert found.refusal is None
    loaded = load_dataset(str(tmp_path / "p"), side=32, bad_images="skip")
    assert loaded.damaged == found.damaged
    assert names(loaded.damaged) == oracle.damaged
    assert len(loaded.train) == len(found.dataset.train) == 200 - len(oracle.damaged)
    assert not set(oracle.damaged) & set(loaded.train.sources)
    with pytest.raises(DamagedImagesError) as caught:
        load_dataset(str(tmp_path / "p"), side=32)
    assert caught.value.damaged == found.damaged


@pytest.mark.parametrize(
    ("damaged", "count", "fail", "skip"),
    [(0, 100, False, False), (1, 100, True, False), (5, 100, True, False), (6, 100, True, True)],
)
def test_skipping_ends_above_five_percent(damaged: int, count: int, fail: bool, skip: bool) -> None:
    list_of = [DamagedImage("train", f"{number}.png", "cut") for number in range(damaged)]
    assert bool(refusal(list_of, count=count, bad_images="fail")) is fail
    assert bool(refusal(list_of, count=count, bad_images="skip")) is skip


def test_advice_to_skip_is_given_only_where_skipping_helps() -> None:
    def advice(damaged: int) -> str:
        error = refusal([DamagedImage("test", "x", "cut")] * damaged, count=100, bad_images="fail")
        return str(error)

    assert "'x' of test (cut)" in advice(1)
    assert "--bad-images skip" in advice(5)
    assert "--bad-images skip" not in advice(6)


def test_pictures_in_both_splits_are_found_in_any_lossless_format(tmp_path: Path) -> None:
    for split, numbers in (("train", range(20)), ("test", range(15, 30))):
        for number in numbers:
            path = tmp_path / "p" / split / f"{number}.{'png' if split == 'train' else 'bmp'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            digit(number).save(path)
    # Not equal in the file but as they are seen: stored on its side, and turned back by EXIF.
    sideways = digit(3).transpose(Image.Transpose.ROTATE_90)
    sideways.save(tmp_path / "p" / "test" / "turned.png", exif=_orientation(6))
    for copy in ("40.png", "41.png"):  # equal to one another, but not to train
        digit(40).save(tmp_path / "p" / "test" / copy)
    found = found_in(tmp_path / "p")
    expected = [("15.bmp", "15.png"), ("16.bmp", "16.png"), ("17.bmp", "17.png")]
    expected += [("18.bmp", "18.png"), ("19.bmp", "19.png"), ("turned.png", "3.png")]
    assert sorted((test.name, train.name) for test, train in found.leaked) == expected
    assert found.copies == ()
    assert names(found.odd["rotated"]) == ["turned.png"]
    assert len(found.duplicates) == len(expected) + 1
    assert found.pictures == {"train": 20, "test": 18}


def test_one_bit_of_one_pixel_makes_another_picture(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    pixels = np.asarray(digit(0)).copy()
    Image.fromarray(pixels).save(tmp_path / "p" / "1.png")
    pixels[9, 9, 2] ^= 1
    Image.fromarray(pixels).save(tmp_path / "p" / "2.png")
    # The same bytes in another shape are another picture too.
    Image.fromarray(pixels.reshape(32, 8, 3)).save(tmp_path / "p" / "3.png")
    found = found_in(tmp_path / "p")
    assert found.duplicates == ()
    assert found.tiny == ()  # 8 px are not below 8


def test_what_fails_at_full_size_fails_when_a_jpeg_is_reduced(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((160, 120))
    damaged = 0
    with strict_pillow():
        for options in ({}, {"progressive": True}):
            whole = png(photo, "JPEG", **options)
            cut = [whole[: len(whole) - step] for step in range(0, 300, 3)]
            for data in [*cut, *(_with_noise(whole, chance) for _ in range(100))]:
                reduced = decode(Encoded("x", data), Frame(8, 8, fit=True))
                full = inspect_image(Encoded("x", data))
                assert isinstance(reduced, Damaged) == isinstance(full, Damaged)
                damaged += isinstance(full, Damaged)
    assert 100 < damaged < 390


def _png_of_16_bits(colour: int) -> bytes:
    """2 x 1 px in colour type 0 (gray) or 2 (RGB) with 16 bits a channel (PNG 1.2, 4.1.1)."""
    header = struct.pack(">IIBBBBB", 2, 1, 16, colour, 0, 0, 0)
    row = b"\0" + bytes(range(4 if colour == 0 else 12))
    return _assemble(header, zlib.compress(row))


@pytest.mark.parametrize(
    ("data", "deep"),
    [
        (_png_of_16_bits(0), True),
        (_png_of_16_bits(2), True),
        (b"P6 2 1 65535\n" + bytes(12), True),
        (b"P6 2 1 1023\n" + bytes(12), True),
        (b"P5 2 1 65535\n" + bytes(4), True),
        (b"P6 2 1 255\n" + bytes(6), False),
        (png(Image.new("RGB", (2, 1))), False),
        (png(Image.new("RGB", (2, 1)), "TIFF"), False),
    ],
)
def test_sixteen_bits_are_seen_in_gray_and_in_colour(data: bytes, deep: bool) -> None:
    with strict_pillow():
        seen = inspect_image(Encoded("x", data))
    assert not isinstance(seen, Damaged)
    assert ("sixteen_bit" in seen.traits) is deep


def _with_noise(data: bytes, chance: np.random.Generator) -> bytes:
    noisy = bytearray(data)
    for place in chance.integers(0, len(data), 20):
        noisy[place] = chance.integers(256)
    return bytes(noisy)


def test_split_in_which_nothing_can_be_read_is_refused_and_named_whole(tmp_path: Path) -> None:
    for name in ("train/1.png", "train/2.png", "test/3.png", "test/4.png"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(png(digit(1))[: 100 if "test" in name else None])
    found = found_in(tmp_path / "p", bad_images="skip")
    assert found.dataset is None
    assert [(each.split, each.name) for each in found.damaged] == [
        ("test", "3.png"),
        ("test", "4.png"),
    ]
    with pytest.raises(DamagedImagesError, match="no image of the test split") as caught:
        load_dataset(str(tmp_path / "p"), side=32, bad_images="skip")
    assert caught.value.damaged == found.damaged


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "bomb.png").write_bytes(BOMB)
    for number in range(30):
        digit(number).save(tmp_path / "p" / f"{number}.png")
    assert 3e6 < len(BOMB) < 5e6
    code = """
import resource, sys
from pathlib import Path
from stopgrad.images import check_images
limit = 3 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
(left_out,) = check_images(sys.argv[1], side=32, tiny_below=8).damaged
print(left_out.name, left_out.reason)
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p")],
        capture_output=True,
        text=True,
        check=True,
    )
    said, peak = done.stdout.splitlines()
    assert said == ("bomb.png too large: 37,000 x 37,000 = 1,369.0 megapixels, at most 250")
    assert int(peak) * 1024 < 400 << 20


# The command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures in a blink; the numbers mean nothing."""
    monkeypatch.setattr(cost, "TIMED", 1)
    monkeypatch.setattr(cost, "STEP_BUDGET", 0.0)
    monkeypatch.setattr(cost, "EMBED_BUDGET", 0.0)


@pytest.mark.usefixtures("quick")
def test_the_command_says_what_pretraining_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = build(tmp_path / "p", pictures=200, mutants=40, damages=3)
    data, run = tmp_path / "p", tmp_path / "run"
    tiny = ("--preset", "tiny", "--epochs", 1)
    code, out, err = command(capsys, "check-data", data, *tiny, "--json")
    (line,) = out.splitlines()
    told = json.loads(line)
    assert code == 3
    assert told["starts"] is False
    assert [each["name"] for each in told["damaged"]] == oracle.damaged
    assert told["cost"]["steps"] == (200 - len(oracle.damaged)) // 32
    assert "refused" in told["verdict"]
    refused, out, error = command(capsys, "pretrain", "--data", data, "--out", run, *tiny)
    assert (refused, out) == (3, "")
    assert error == err
    assert error.count("\n") == 1
    assert not run.exists()

    skip = (*tiny, "--bad-images", "skip")
    code, out, err = command(capsys, "check-data", data, *skip)
    assert code == 0
    assert "'a" in out
    cells = " ".join(out.replace("│", " ").split())  # that a narrow terminal breaks
    good = 200 - len(oracle.damaged)
    far = f"{good // 32} steps, {good // 32 * 32 / good:.2g} passes over each image"
    assert f"{far}; the published run: N = 11.6" in cells
    assert f"start with {200 - len(oracle.damaged)} images, without {len(oracle.damaged)}" in out
    assert command(capsys, "pretrain", "--data", data, "--out", run, *skip)[0] == 0
    assert json.loads((run / "config.json").read_bytes())["config"]["bad_images"] == "skip"


@pytest.mark.usefixtures("quick")
def test_a_run_remembers_its_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "p", pictures=200, mutants=40, damages=3)
    run = tmp_path / "run"
    words = ("--data", tmp_path / "p", "--preset", "tiny", "--epochs", 1, "--bad-images", "skip")
    assert command(capsys, "pretrain", "--out", run, *words)[0] == 0
    assert command(capsys, "views", *words, "--out", tmp_path / "views.png")[0] == 0
    assert command(capsys, "evaluate", run, "--labels", 1)[0] == 0
    assert command(capsys, "resume", run, "--extend", 2)[0] == 0
    assert command(capsys, "report", run)[0] == 0


@pytest.mark.usefixtures("quick")
def test_a_learning_rate_that_would_diverge_is_measured_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "p", pictures=64, mutants=2)
    words = ("--preset", "tiny", "--optimizer.base_lr", "1e30", "--bad-images", "skip", "--json")
    code, out, _ = command(capsys, "check-data", tmp_path / "p", *words)
    assert code == 0
    told = json.loads(out)
    assert told["cost"]["seconds"] > 0
    # 62 of 64 images can be read: one batch of 32 an epoch, for four epochs.
    assert (told["extent"]["steps"], told["extent"]["passes"]) == (4, pytest.approx(128 / 62))
    assert told["suggestion"]["flags"].endswith(" --bad_images skip")


@pytest.mark.usefixtures("quick")
def test_the_suggestion_reads_the_images_as_they_were_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    for number in range(64):
        digit(number).save(tmp_path / "p" / f"{number}.png")
    words = ("--preset", "tiny", "--white-level", "3000", "--bands", "3,2,1", "--json")
    told = json.loads(command(capsys, "check-data", tmp_path / "p", *words)[1])
    assert told["suggestion"]["flags"].endswith(" --white_level 3000.0 --bands 3,2,1")


@pytest.mark.usefixtures("quick")
def test_too_few_pictures_for_a_batch_are_a_refusal_with_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    for number in range(20):
        digit(number).save(tmp_path / "p" / f"{number}.png")
    code, out, err = command(capsys, "check-data", tmp_path / "p", "--preset", "tiny", "--json")
    told = json.loads(out)
    assert code == 3
    assert "20 images to train on with batch = 32" in err
    assert told["classes"] is None
    assert told["cost"] is None
    flags = told["suggestion"]["flags"].split()
    told = json.loads(command(capsys, "check-data", tmp_path / "p", *flags, "--json")[1])
    assert told["starts"] is True


def test_where_there_is_nothing_to_look_at_there_is_one_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for spec in ("cifar11", tmp_path / "empty"):
        code, out, err = command(capsys, "check-data", spec, "--json")
        assert code == 3
        told = json.loads(out)
        assert told["starts"] is False
        assert err == f"stopgrad: {told['error']}\n"
    assert command(capsys, "check-data", "mnist5k", "--preset", "cpux")[0] == 2


@pytest.mark.usefixtures("quick")
def test_names_cannot_write_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    for number in range(40):
        digit(number).save(tmp_path / "p" / f"{number}.png")
    (tmp_path / "p" / "\x1b[31m[red]\n\u202e.png").write_bytes(b"no")
    code, out, err = command(capsys, "check-data", tmp_path / "p", "--preset", "tiny")
    assert code == 3
    assert "\\x1b[31m[red]\\n\\u202e.png" in out
    assert not set("\x1b\u202e") & set(out + err)
    assert "no labels" in out


@pytest.mark.usefixtures("quick")
def test_python_is_shown_what_the_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    for number in range(40):
        digit(number).save(tmp_path / "p" / f"{number}.png")
    found = stopgrad.check(tmp_path / "p", preset="tiny")
    _, out, _ = command(capsys, "check-data", tmp_path / "p", "--preset", "tiny", "--json")
    told, ours = json.loads(out), json.loads(json.dumps(found.as_json()))
    assert ours.keys() == told.keys()
    assert {**told, "cost": 0, "suggestion": 0} == {**ours, "cost": 0, "suggestion": 0}
    assert found.verdict in repr(found)
    assert found._repr_html_().count("<table") == 2


# Cost and suggestion


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_line_through_two_sizes_gives_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, tried = Clock(), []
    monkeypatch.setattr(cost.time, "perf_counter", clock)

    def work(images: int) -> None:
        tried.append(images)
        clock.now += 0.1 + 0.01 * images

    samples = cost._grow(work, most=512, budget=10.0, on=torch.device("cpu"))
    assert sorted(set(tried)) == [2, 8, 32, 128]
    assert cost._at(samples, 512).seconds == pytest.approx(0.1 + 0.01 * 512)
    assert clock.now < 12


def test_a_batch_that_was_tried_is_taken_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(cost.time, "perf_counter", clock)

    def work(images: int) -> None:
        clock.now += 0.001 * images**2  # no line at all

    samples = cost._grow(work, most=20, budget=10.0, on=torch.device("cpu"))
    assert [sample.images for sample in samples] == [0, 2, 8, 20]
    assert cost._at(samples, 20).seconds == pytest.approx(0.4)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset on Linux alone")
def test_memory_is_the_peak_that_work_reaches() -> None:
    def work(images: int) -> None:
        np.ones(images << 20, np.uint8)

    work(700)  # a peak that was before, and does not count
    freed = [np.ones(1 << 14, np.uint8) for _ in range(12_000)]
    last = freed.pop()  # so that the others stay with the process, free for small work
    freed.clear()
    samples = cost._grow(work, most=128, budget=10.0, on=torch.device("cpu"))
    rise = cost._at(samples, 512).host_bytes - samples[0].host_bytes
    assert rise == pytest.approx(512 << 20, rel=0.1)
    assert last.all()


def test_larger_steps_than_the_memory_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    monkeypatch.setattr(cost, "_peaks", lambda device: ((tried or [0])[-1] << 30, 0))
    monkeypatch.setattr(cost, "memory_limit", lambda: 100 << 30)
    samples = cost._grow(tried.append, most=512, budget=10.0, on=torch.device("cpu"))
    assert max(tried) == 32
    assert cost._at(samples, 512).host_bytes == 512 << 30


def test_evaluations_of_a_run_are_counted() -> None:
    images = load_dataset("mnist5k")
    config = preset("tiny", epochs=7, knn_every=3, measure_every=2)
    prepared = prepare(images, config)
    # Measured after epochs 2, 4, 6, 7 (two views of 1,024 images), scored after 3, 6, 7.
    assert cost._embedded(prepared, config) == 2 * 4 * 2 * 1024 + 4000 + 3 * 5000
    never = preset("tiny", epochs=7, knn_every=0, measure_every=0)
    assert cost._embedded(prepared, never) == 0


@pytest.mark.parametrize(
    ("pictures", "side", "on_gpu", "flags"),
    [
        (50_000, 32, True, "--preset cifar"),
        (50_000, 32, False, "--preset cpu"),
        (50_000, 64, False, "--preset cpu --views.size 32"),
        (1_281_167, 256, True, "--preset imagenet"),
        (10_000, 100, True, "--preset imagenet --views.size 96 --epochs 800"),
        (5_000, 64, True, "--preset cifar --views.size 64 --batch 256"),
        (300, 8, False, "--preset cpu --batch 16 --epochs 400"),
        (20, 500, False, "--preset cpu --views.size 32 --batch 16 --epochs 400"),
    ],
)
def test_the_suggestion_follows_its_rules(
    pictures: int, side: int, on_gpu: bool, flags: str
) -> None:
    found = suggest(images=pictures, short_side=side, on_gpu=on_gpu)
    assert found.flags == flags
    assert found.config.batch <= pictures
    assert ("learns little" in found.reason) is (pictures < 500)
