"""Arrow files as `datasets` saves them: splits, labels, several files, and what is no data."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
from PIL import Image

from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images import load_dataset
from stopgrad.images.sources.arrow_files import opened_arrow
from tests.images.inputs.factories import unused

PIXELS = np.random.default_rng(5).integers(0, 256, (12, 8, 8, 3), np.uint8)
FEATURES = {
    "img": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": ["cat", "dog", "frog"]},
}


def table(rows: range) -> pa.Table:
    cells = []
    for row in rows:
        file = io.BytesIO()
        Image.fromarray(PIXELS[row]).save(file, format="PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    found = pa.table({"img": cells, "label": [row % 3 for row in rows]})
    return found.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    )


def write(path: Path, rows: range, *, as_file: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = table(rows)
    new = pa.ipc.new_file if as_file else pa.ipc.new_stream
    with new(str(path), found.schema) as writer:
        writer.write_table(found, max_chunksize=2)
    return path


def save(folder: Path, *parts: range) -> None:
    """A split as save_to_disk leaves it."""
    names = [f"data-{n:05}-of-{len(parts):05}.arrow" for n in range(len(parts))]
    for name, rows in zip(names, parts, strict=True):
        write(folder / name, rows)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


@pytest.mark.input(
    "format", what="datasets.save_to_disk, several splits", happens="read with labels"
)
def test_saved_splits_are_read(tmp_path: Path) -> None:
    save(tmp_path / "set" / "train", range(4), range(4, 8))
    save(tmp_path / "set" / "test", range(8, 10))
    save(tmp_path / "set" / "validation", range(10, 12))
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    found = load_dataset(str(tmp_path / "set"))
    assert (found.train.pixels == PIXELS[:8]).all()
    assert (found.test.pixels == PIXELS[8:10]).all()
    assert found.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert found.train.class_names == ("cat", "dog", "frog")
    other = "validation/data-00000-of-00001.arrow"
    assert unused(found, "image") == [f"{other}:0", f"{other}:1"]
    scored = load_dataset(str(tmp_path / "set"), reading=Reading("validation"))
    assert (scored.test.pixels == PIXELS[10:12]).all()


@pytest.mark.input(
    "format", what="datasets.save_to_disk, one data set", happens="all rows are for training"
)
def test_saved_data_set_is_read_and_caches_are_not(tmp_path: Path) -> None:
    save(tmp_path / "set", range(4))
    write(tmp_path / "set" / "cache-0123456789abcdef.arrow", range(2))
    found = load_dataset(str(tmp_path / "set"))
    assert (found.train.pixels == PIXELS[:4]).all()
    assert found.test is None
    assert unused(found, "file") == ["cache-0123456789abcdef.arrow"]


@pytest.mark.input(
    "format",
    what="files from the cache of the library datasets (NAME-train.arrow)",
    happens="the file names give the splits",
)
def test_files_of_the_cache_are_told_by_their_names(tmp_path: Path) -> None:
    write(tmp_path / "set" / "cifar10-train.arrow", range(4))
    write(tmp_path / "set" / "cifar10-test.arrow", range(4, 6))
    found = load_dataset(str(tmp_path / "set"))
    assert (len(found.train), len(found.test)) == (4, 2)


@pytest.mark.input("format", what="a single .arrow file", happens="all rows are for training")
@pytest.mark.parametrize("as_file", [False, True])
def test_single_file_of_either_format_is_read(tmp_path: Path, as_file: bool) -> None:
    path = write(tmp_path / "x.arrow", range(5), as_file=as_file)
    assert (load_dataset(str(path)).train.pixels == PIXELS[:5]).all()


@pytest.mark.input(
    "oddity", what="a missing file of save_to_disk", happens="refused; the error names it"
)
def test_missing_file_is_named(tmp_path: Path) -> None:
    save(tmp_path / "set", range(4), range(4, 8))
    (tmp_path / "set" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"data-00001-of-00002\.arrow' is not there"):
        load_dataset(str(tmp_path / "set"))


@pytest.mark.input(
    "oddity", what="a truncated .arrow file", happens="refused with a one-line error"
)
@pytest.mark.parametrize("kept", [0, 3, 100, -200])
def test_cut_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "x.arrow", range(5))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"x\.arrow' cannot be read") as caught:
        load_dataset(str(path))
    assert "\n" not in str(caught.value)


def test_mutated_files_give_our_errors_or_whole_images(tmp_path: Path) -> None:
    whole: Any = write(tmp_path / "x.arrow", range(5)).read_bytes()
    chance, refused = np.random.default_rng(0), 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(3):
            place = int(chance.choice([chance.integers(len(data)), chance.integers(1500)]))
            data[place] ^= 1 << int(chance.integers(8))
        (tmp_path / "x.arrow").write_bytes(data)
        try:
            assert load_dataset(str(tmp_path / "x.arrow")).train.pixels.shape[1:] == (8, 8, 3)
        except DataError as error:
            refused += "\n" not in str(error)
    assert 50 < refused < 150


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_packed_batches_are_sized_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: Any, as_file: bool, shared: bool
) -> None:
    """4 MB of zeros, in a batch of rows or in the dictionary that its rows share."""
    path, values = tmp_path / "data.arrow", pa.array([bytes(4 << 20)])
    rows = pa.table({"img": values.dictionary_encode() if shared else values})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_file if as_file else pa.ipc.new_stream
    with path.open("wb") as sink, new(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    with opened_arrow(path) as file:
        assert file.metadata.num_rows == 1
    monkeypatch.setattr("stopgrad.images.sources.limits.ALWAYS", 1 << 20)
    for name in ("open_stream", "open_file"):
        monkeypatch.delattr(pyarrow.ipc, name)
    with (
        pytest.raises(DataError, match=r"bytes that unpack to 4,194,\d\d\d, more"),
        opened_arrow(path),
    ):
        pass
