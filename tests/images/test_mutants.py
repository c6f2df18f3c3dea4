"""Parquet files and labels mutated at random: our errors or whole data sets, and nothing else.

`survive_parquet` and `survive_labels` take any number of mutants (promise R22 asks for 5,000);
the suite runs a few hundred.
"""

import collections
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stopgrad.errors import DataError
from stopgrad.images import load_dataset
from tests.images.factories import CLASSES, TARGETS, cells

LONGEST = 20.0  # s for one mutant: more is a hang
MOST_MEMORY = 1 << 31  # bytes that the process may grow by
ROWS = 24
FOOTER = 1800  # bytes at the end, where schema and offsets stand

WRITERS: list[dict[str, Any]] = [
    {},
    {"compression": "none", "use_dictionary": False},
    {"compression": "zstd", "row_group_size": 5, "write_page_checksum": True},
    {"compression": "gzip", "data_page_version": "2.0", "write_statistics": False},
]


def survive_parquet(folder: Path, *, mutants: int, seed: int) -> collections.Counter[str]:
    """Load mutated files; what happened how often.

    Args:
        folder: An empty folder to work in.
        mutants: How many.
        seed: Which.

    Raises:
        AssertionError: For a hang, too much memory, or a data set of another shape.
        Exception: Whatever `load_dataset` should not have raised.
    """
    chance = np.random.default_rng(seed)
    whole = list(_whole_files(folder))
    return _survive(
        folder, (_mutated(whole[chance.integers(len(whole))], chance) for _ in range(mutants))
    )


def survive_labels(folder: Path, *, mutants: int, seed: int) -> collections.Counter[str]:
    """The same for whole files with odd label columns and odd metadata."""
    chance = np.random.default_rng(seed)
    return _survive(folder, (_odd_labels(folder, chance) for _ in range(mutants)))


def _survive(folder: Path, files: Iterator[bytes]) -> collections.Counter[str]:
    outcomes: collections.Counter[str] = collections.Counter()
    path = folder / "set" / "train.parquet"
    path.parent.mkdir(exist_ok=True)
    before = _peak()
    for data in files:
        path.write_bytes(data)
        began = time.monotonic()
        try:
            found = load_dataset(str(path.parent)).train
        except DataError as refused:
            lines = str(refused).count("\n")
            outcomes["refused" if not lines else "refused in several lines"] += 1
        else:
            labels = found.labels
            assert found.pixels.shape[1:] == (8, 8, 3)
            assert labels is None or labels.shape == (len(found),)
            assert labels is None or -1 <= labels.min() <= labels.max() < len(found.class_names)
            outcomes["loaded"] += 1
        assert time.monotonic() - began < LONGEST
        assert _peak() - before < MOST_MEMORY
    return outcomes


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _whole_files(folder: Path) -> Iterator[bytes]:
    """Digits with numbers or words as labels, written in several ways."""
    words = [f"digit {number}" for number in TARGETS[:ROWS]]
    for writer in WRITERS:
        for features, label in ((CLASSES, TARGETS[:ROWS]), (None, words)):
            yield _file(folder, label, features=features, **writer)


def _file(folder: Path, label: Any, *, features: Any = None, **writer: Any) -> bytes:
    table = pa.table({"img": cells(range(ROWS)), "label": label})
    if features is not None:
        text = (
            features if isinstance(features, str) else json.dumps({"info": {"features": features}})
        )
        table = table.replace_schema_metadata({"huggingface": text})
    path = folder / "whole.parquet"
    pq.write_table(table, path, **writer)
    return path.read_bytes()


def _mutated(data: bytes, chance: np.random.Generator) -> bytes:
    """One to three damages, half of them in the footer."""
    for _ in range(chance.integers(1, 4)):
        lowest = chance.choice([0, max(0, len(data) - FOOTER)])
        place = int(chance.integers(lowest, len(data)))
        length = int(chance.choice([1, 1, 4, 64, 1000]))
        data = _damage(data, place, length, chance)
    return data


def _damage(data: bytes, place: int, length: int, chance: np.random.Generator) -> bytes:
    before, here, after = data[:place], data[place : place + length], data[place + length :]
    flipped = bytes([here[0] ^ 1 << int(chance.integers(8))]) + here[1:]
    choices = [
        before + flipped + after,
        before + flipped + after,
        before + chance.bytes(len(here)) + after,
        before + bytes(len(here)) + after,
        before + b"\xff" * len(here) + after,
        before + after,
        before + here + here + after,
        before,
        data[-4:] + before + after,
    ]
    return choices[chance.integers(len(choices))] or b"\0"


def _odd_labels(folder: Path, chance: np.random.Generator) -> bytes:
    """A whole file whose labels are of any type and value, and so its class names."""
    names: list[Any] = [
        [*map(str, range(10))], [], None, "abc", 7, [1, 2], {"0": "a"}, ["a"] * 10, ["x" * 10**5],
    ]  # fmt: skip
    kinds: list[Any] = ["ClassLabel", "ClassLabel", "Value", None, 3]
    feature = {
        "_type": kinds[chance.integers(len(kinds))],
        "names": names[chance.integers(len(names))],
    }
    texts = ["{", "[]", "null", '{"info": 3}', '{"info": {"features": []}}', "[" * 5000]
    features: Any = {"label": feature, "img": {"_type": "Image"}}
    if chance.random() < 0.2:
        features = texts[chance.integers(len(texts))]
    return _file(folder, _odd_column(chance), features=features)


def _odd_column(chance: np.random.Generator) -> Any:
    numbers = [-(2**63), -1, 0, 1, 9, 10, ROWS, 2**31, 2**62, 2**63 - 1]
    words = ["", "a", "a\0", "ä", "\u202e", "x" * 10**5, "-1", "None", "a/b", "a\nb"]
    few = [int(value) for value in chance.integers(0, 3, ROWS)]
    columns = [
        pa.array([numbers[chance.integers(len(numbers))] for _ in range(ROWS)], pa.int64()),
        pa.array([words[chance.integers(len(words))] for _ in range(ROWS)]),
        pa.array([words[chance.integers(len(words))] for _ in range(ROWS)], pa.large_string()),
        pa.array([None if chance.random() < 0.1 else value for value in few]),
        pa.array([None if chance.random() < 0.1 else str(value) for value in few]),
        pa.array([2**64 - 1 - value for value in few], pa.uint64()),
        pa.array(few, pa.int8()),
        pa.array([value + 0.5 for value in few]),
        pa.array([float("nan")] * ROWS),
        pa.array([value > 0 for value in few]),
        pa.array([[value] * value for value in few]),
        pa.array([{"a": value} for value in few]),
        pa.array([bytes([value]) for value in few]),
        pa.array(few, pa.timestamp("s")),
        pa.array(few, pa.decimal128(5)),
        pa.array([str(value) for value in few]).dictionary_encode(),
        pa.nulls(ROWS),
    ]
    return columns[chance.integers(len(columns))]


def test_mutated_parquet_gives_our_errors_or_whole_pictures(tmp_path: Path) -> None:
    outcomes = survive_parquet(tmp_path, mutants=250, seed=0)
    assert set(outcomes) == {"refused", "loaded"}
    assert outcomes["refused"] > 100
    assert outcomes["loaded"] > 5


def test_no_odd_labels_keep_a_data_set_from_being_read(tmp_path: Path) -> None:
    outcomes = survive_labels(tmp_path, mutants=150, seed=0)
    assert outcomes == {"loaded": 150}
