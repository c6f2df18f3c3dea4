"""Whatever lies in a folder or in Parquet files: each image and each label is used, or named."""

import io
import os
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stopgrad.errors import DataError
from stopgrad.images.sources.find import find_source
from stopgrad.images.types import DataSource

FOLDERS = (
    *("train", "test", "val", "Training", "dev", "extra", "unlabeled", "seg_train", "seg_test"),
    *("cat", "dog", "images", "masks", "labels", ".hidden", "@eaDir", "__MACOSX"),
)
FILES = ("0.png", "1.png", "2.png", "2.jpg", ".0.png", "._0.png", "a.gif", "notes.txt", "x.csv")
ALL = ("image", "file")
TABLES = ("labels.csv", "metadata.csv", "b.csv")
GONE = ("gone.png", "cat/gone.png", "train/gone.jpg")
PICTURES = (".png", ".jpg", ".gif")
MANY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def encoded(gray: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), gray, np.uint8)).save(file, format="PNG")
    return file.getvalue()


GOOD, DAMAGED = encoded(7), encoded(7)[:-20]


def put(root: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def check_there_was_nothing(error: DataError) -> None:
    """Data may be refused only because no image of them can be trained on."""
    assert re.search("no (images to train on|image column|rows with|train split)", str(error)), (
        error
    )


def used(source: DataSource, root: Path) -> Counter[str]:
    """What is decoded, damaged or not: paths of files, and names of rows."""
    return Counter(
        item.data.relative_to(root).as_posix() if isinstance(item.data, Path) else item.name
        for reader in source.open().readers.values()
        for item in reader.items()
    )


def unused(source: DataSource, *whats: str) -> Counter[str]:
    """What is named as not used."""
    groups = (*source.notes.unused, *source.open().notes.unused)
    return Counter(name for of in groups if of.what in (whats or ALL) for name in of.names)


def classes(source: DataSource) -> dict[str, str]:
    """The class of each image that has one, by its name."""
    contents, found = source.open(), dict[str, str]()
    for reader in contents.readers.values():
        labels = [-1] * reader.length if reader.labels is None else reader.labels.tolist()
        for item, label in zip(reader.items(), labels, strict=True):
            found |= {item.name: contents.class_names[label]} if label >= 0 else {}
    return found


def is_end_of(path: str, whole: str) -> bool:
    """Whether a path is the end of another, whatever the endings of their files."""
    return f"/{os.path.splitext(whole)[0]}".endswith(f"/{os.path.splitext(path)[0]}")


def said_of(source: DataSource, name: str) -> bool:
    """Whether a remark says that a file gives no labels."""
    remarks = (*source.notes.remarks, *source.open().notes.remarks)
    return any(re.match(f"{re.escape(name)} (gives|has) no labels", said) for said in remarks)


paths = st.builds(
    lambda folders, file: "/".join([*folders, file]),
    st.lists(st.sampled_from(FOLDERS), max_size=3),
    st.sampled_from(FILES),
)


@MANY
@given(st.dictionaries(paths, st.sampled_from([GOOD, DAMAGED, b""]), min_size=1, max_size=25))
def test_each_image_of_a_folder_is_used_or_named_once(files: dict[str, bytes]) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "data"
        put(root, files)
        try:
            source = find_source(str(root))
        except DataError as error:
            check_there_was_nothing(error)
            return
        found = used(source, root) + unused(source)
        pictures = {name for name in files if name.endswith(PICTURES) and "._" not in name}
        assert {name: found[name] for name in pictures} == dict.fromkeys(pictures, 1)
        assert used(source, root).keys() <= pictures


@MANY
@given(
    st.lists(paths, min_size=1, max_size=25, unique=True),
    st.dictionaries(st.sampled_from(TABLES), st.lists(st.sampled_from(GONE), max_size=4)),
    st.integers(0, 9),
)
def test_each_label_of_a_table_is_used_or_named(
    files: list[str], given: dict[str, list[str]], stray: int
) -> None:
    """Each row of some tables has a label of its own; some name images that are not there."""
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "data"
        # The table that counts first has the fewest rows, so that others count in part.
        numbered = enumerate(sorted(given.items()))
        rows = {table: [*files[stray * place :], *others] for place, (table, others) in numbered}
        contents = dict.fromkeys(files, GOOD)
        for table, names in rows.items():
            lines = [f"{name},{table} {row}" for row, name in enumerate(names)]
            contents[table] = "\n".join(["file,label", *lines]).encode()
        put(root, contents)
        try:
            source = find_source(str(root))
        except DataError as error:
            check_there_was_nothing(error)
            return
        found, lost = classes(source).values(), unused(source, "label", *ALL)
        for table, names in rows.items():
            for row, name in enumerate(names):
                named = any(is_end_of(path, name) or is_end_of(name, path) for path in lost)
                whole = lost[table] or said_of(source, table)
                assert named or whole or f"{table} {row}" in found, (table, name, source.open())


STEMS = ("train", "Training-0", "test", "val", "dev", "extra", "train_more", "x")
CONTENTS = st.sampled_from([GOOD, DAMAGED, None])
LABELS = st.sampled_from([None, -1, 0, 1, 2, 35_000])
tables = st.fixed_dictionaries(
    {
        "image": st.lists(CONTENTS, min_size=1, max_size=6),
        "label": st.lists(LABELS, min_size=6, max_size=6),
        "columns": st.sampled_from(["image label", "image", "label", "img target", "path label"]),
    }
)


def written(path: Path, *, image: list[bytes | None], label: list[int | None], columns: str) -> int:
    """A Parquet file; returns how many rows it has."""
    names, rows = columns.split(), len(image)
    where = ["0.png", "https://a.b/c.png", "/etc/0.png", "../../0.png", None, "gone.png"][:rows]
    values = {"image": pa.array(image, pa.binary()), "path": pa.array(where, pa.string())}
    values["img"] = values["image"]
    values["label"] = values["target"] = pa.array(label[:rows], pa.int64())
    pq.write_table(pa.table({name: values[name] for name in names}), path)
    return rows


@MANY
@given(st.dictionaries(st.sampled_from(STEMS), tables, min_size=1, max_size=5))
def test_each_row_of_parquet_files_is_used_or_named_once(files: dict[str, dict]) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        rows = {f"{n}.parquet": written(root / f"{n}.parquet", **of) for n, of in files.items()}
        try:
            source = find_source(str(root))
            contents = source.open()
        except DataError as error:
            check_there_was_nothing(error)
            return
        items = [item.name for reader in contents.readers.values() for item in reader.items()]
        found = Counter(items) + unused(source)
        for name, count in rows.items():
            if not found[name]:  # else the whole file is named
                each = [found[f"{name}:{row}"] for row in range(count)]
                assert each == [1] * count, (name, source.notes, contents.notes)


@MANY
@given(st.dictionaries(st.sampled_from(STEMS), tables, min_size=1, max_size=5), st.booleans())
def test_each_label_of_parquet_files_is_used_or_named(files: dict[str, dict], table: bool) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name, of in files.items():
            written(root / f"{name}.parquet", **of)
        if table:
            (root / "labels.csv").write_text("file,label\n0.png,a\n")
        try:
            source = find_source(str(root))
            found, lost = classes(source), unused(source, "label", *ALL)
        except DataError as error:
            check_there_was_nothing(error)
            return
        assert lost["labels.csv"] == table
        for name, of in files.items():
            file = f"{name}.parquet"
            if of["columns"] == "image" or lost[file] or said_of(source, file):
                continue
            for row, label in enumerate(of["label"][: len(of["image"])]):
                if label not in (None, -1):
                    assert found.get(f"{file}:{row}") == str(label) or lost[f"{file}:{row}"]
