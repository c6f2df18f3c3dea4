"""Archives, shards and files of arrays mutated at random: our errors or whole images.

`survive_containers` takes any number of mutants; the suite runs a few hundred.
"""

import collections
import gzip
import logging
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from stopgrad.errors import StopgradError
from stopgrad.images import load_dataset
from tests.images.factories import png
from tests.images.inputs.factories import (
    COLOUR,
    GRAY,
    LABELS,
    PIXELS,
    idx,
    npy,
    samples,
    saved,
    shard,
    tarred,
    zipped,
)

LONGEST = 20.0  # s for one mutant: more is a hang
MOST_MEMORY = 1 << 31  # bytes that the process may grow by
EDGE = 600  # bytes at either end of a file, where what it holds is listed


def survive_containers(folder: Path, *, mutants: int, seed: int) -> collections.Counter[str]:
    """Load mutated files; what happened how often.

    Args:
        folder: An empty folder to work in.
        mutants: How many.
        seed: Which.

    Raises:
        AssertionError: For a hang, too much memory, or images of another shape.
        Exception: Whatever `load_dataset` should not have raised.
    """
    chance = np.random.default_rng(seed)
    whole = _whole_files(folder)
    outcomes: collections.Counter[str] = collections.Counter()
    before = _peak()
    for number in range(mutants):
        name = [*whole][number % len(whole)]
        path = folder / "set" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_mutated(whole[name], chance))
        began = time.monotonic()
        try:
            found = load_dataset(str(path), side=16)
        except StopgradError as refused:
            outcomes["refused" if "\n" not in str(refused) else "refused in several lines"] += 1
        else:
            assert found.train.pixels.shape[3] == 3
            assert found.train.labels is None or len(found.train.labels) == len(found.train)
            outcomes["loaded"] += 1
        path.unlink()
        assert time.monotonic() - began < LONGEST
        assert _peak() - before < MOST_MEMORY
    return outcomes


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _whole_files(folder: Path) -> dict[str, bytes]:
    """A file of each kind, by its name."""
    files = {"x.npy": npy(COLOUR), "train-images-idx3-ubyte": idx(GRAY)}
    files["train-images-idx3-ubyte.gz"] = gzip.compress(idx(GRAY))
    for name in ("x.npz", "x.h5", "x.mat"):
        files[name] = Path(saved(folder / name, images=COLOUR, labels=LABELS)).read_bytes()
    for number in range(4):
        image = folder / "pets" / "ab"[number % 2] / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(png(PIXELS[number]))
    files["p.zip"] = zipped(folder / "pets", folder / "p.zip").read_bytes()
    for name in ("p.tar", "p.tar.gz", "p.tar.xz"):
        files[name] = tarred(folder / "pets", folder / name).read_bytes()
    members = samples(0, 1, 2, 3, cls=lambda number: str(number % 2))
    files["s.tar"] = shard(folder / "s.tar", members).read_bytes()
    return files


def _mutated(data: bytes, chance: np.random.Generator) -> bytes:
    """One to three damages, half of them near the beginning or the end."""
    for _ in range(chance.integers(1, 4)):
        ends = [(0, EDGE), (max(0, len(data) - EDGE), len(data)), (0, len(data)), (0, len(data))]
        lowest, highest = ends[chance.integers(4)]
        place = int(chance.integers(lowest, min(highest, len(data))))
        length = int(chance.choice([1, 1, 4, 16, 300]))
        before, here, after = data[:place], data[place : place + length], data[place + length :]
        choices = [
            before + bytes([here[0] ^ 1 << int(chance.integers(8))]) + here[1:] + after,
            before + chance.bytes(len(here)) + after,
            before + b"\xff" * len(here) + after,
            before + bytes(len(here)) + after,
            before + after,
            before + here + here + after,
        ]
        data = choices[chance.integers(len(choices))] or b"\0"
    return data


def test_mutated_containers_give_our_errors_or_whole_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    with caplog.at_level(logging.CRITICAL):
        outcomes = survive_containers(tmp_path, mutants=330, seed=0)
    assert set(outcomes) == {"refused", "loaded"}
    assert outcomes["refused"] > 150
    assert outcomes["loaded"] > 50
