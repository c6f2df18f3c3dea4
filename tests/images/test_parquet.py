"""Parquet files in the Hub's layout."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stopgrad.errors import DataError
from stopgrad.images import load_dataset
from stopgrad.images.sources.columns import batches_of
from stopgrad.images.sources.pages import groups_of, unpacked_bytes
from stopgrad.images.sources.parquet import parquet_source
from stopgrad.images.sources.rows import opened_parquet
from tests.images.factories import CLASSES, DIGITS, NAMES, STRUCT, TARGETS, cells, png


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def write(path: Path, rows, *, features=None, **columns) -> None:
    """Digits of scikit-learn by row, in a column `img` unless columns say otherwise."""
    table = pa.table({"img": cells(rows), **columns})
    if features is not None:
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)


def labelled(path: Path, rows) -> None:
    write(path, rows, features=CLASSES, label=TARGETS[list(rows)])


def test_shards_labels_and_names_come_in_order(root):
    labelled(root / "train-00001-of-00002.parquet", range(20, 30))
    labelled(root / "train-00000-of-00002.parquet", range(20))
    labelled(root / "test-00000-of-00001.parquet", range(30, 40))
    found = load_dataset(str(root))
    assert found.name == "set"
    assert (found.train.pixels == DIGITS[:30, :, :, None]).all()
    assert (found.test.pixels == DIGITS[30:40, :, :, None]).all()
    assert found.train.labels.tolist() == TARGETS[:30].tolist()
    assert found.train.class_names == found.test.class_names == tuple(NAMES)
    assert found.train.sources[20] == "train-00001-of-00002.parquet:0"


def test_fingerprint_is_that_of_the_same_pictures_in_another_layout(root, tmp_path):
    labelled(root / "train-00000-of-00002.parquet", range(12))
    labelled(root / "train-00001-of-00002.parquet", range(12, 30))
    labelled(tmp_path / "other" / "data" / "train.parquet", range(30))
    first, second = load_dataset(str(root)), load_dataset(str(tmp_path / "other"))
    assert first.train.fingerprint == second.train.fingerprint
    assert first.test is None


def test_one_file_is_a_train_split(root):
    labelled(root / "whatever.parquet", range(5))
    assert len(load_dataset(str(root / "whatever.parquet")).train) == 5


@pytest.mark.parametrize("name", ["label", "labels", "fine_label"])
def test_label_column_is_found_by_its_name(root, name):
    write(root / "train.parquet", range(10), **{name: TARGETS[:10]})
    found = load_dataset(str(root)).train
    assert found.labels.tolist() == TARGETS[:10].tolist()
    assert found.class_names == tuple("0123456789")


def test_fine_labels_win_over_coarse_ones_and_a_class_label_may_have_any_name(root, tmp_path):
    kinds = {"coarse_label": {"_type": "ClassLabel", "names": ["low", "high"]}}
    fine = {"fine_label": {"_type": "ClassLabel", "names": NAMES}}
    coarse = TARGETS[:10] // 5
    write(
        root / "train.parquet",
        range(10),
        features=kinds | fine,
        coarse_label=coarse,
        fine_label=TARGETS[:10],
    )
    assert load_dataset(str(root)).train.class_names == tuple(NAMES)
    write(tmp_path / "b" / "train.parquet", range(10), features=kinds, coarse_label=coarse)
    found = load_dataset(str(tmp_path / "b")).train
    assert found.class_names == ("low", "high")
    assert found.labels.tolist() == coarse.tolist()


def test_of_several_unknown_label_columns_the_first_is_taken_and_the_other_named(root):
    kinds = {name: {"_type": "ClassLabel", "names": NAMES} for name in ("colour", "form")}
    write(root / "train.parquet", range(3), features=kinds, colour=[1, 2, 3], form=[4, 4, 4])
    found = load_dataset(str(root))
    assert found.train.labels.tolist() == [1, 2, 3]
    (remark,) = found.notes.remarks
    assert remark == ("the labels come from column 'colour'; --label-column takes 'form' instead")


def test_string_labels_are_numbered_in_sorted_order(root):
    write(root / "train.parquet", range(4), label=["dog", "Cat", "dog", "ant"])
    write(root / "test.parquet", range(2), label=["ant", "dog"])
    found = load_dataset(str(root))
    assert found.train.class_names == ("Cat", "ant", "dog")
    assert found.train.labels.tolist() == [2, 0, 2, 1]
    assert found.test.labels.tolist() == [1, 2]


def test_labels_are_optional_and_hidden_ones_are_none(root):
    labelled(root / "train.parquet", range(4))
    write(root / "test.parquet", range(4), features=CLASSES, label=[-1] * 4)
    found = load_dataset(str(root))
    assert found.train.labels is not None
    assert found.test.labels is None
    write(root / "train.parquet", range(5))
    assert load_dataset(str(root)).train.labels is None


def test_image_column_is_found_by_its_schema(tmp_path):
    blob = pa.array([b"not a picture"] * 3)
    layouts = {
        "anything": {"photo": cells(range(3)), "raw": blob},
        "binary": {"image": pa.array([png(DIGITS[row]) for row in range(3)]), "raw": blob},
        "large": {"img": cells(range(3)).cast(pa.struct([("bytes", pa.large_binary())]))},
        "two": {"mask": cells(range(3, 6)), "image": cells(range(3))},
    }
    for name, columns in layouts.items():
        path = tmp_path / name / "train.parquet"
        path.parent.mkdir()
        pq.write_table(pa.table(columns), path)
        assert (load_dataset(str(path.parent)).train.pixels == DIGITS[:3, :, :, None]).all(), name


def test_image_column_of_the_metadata_wins(root):
    columns = {"a": cells(range(3, 6)), "b": cells(range(3))}
    text = json.dumps({"info": {"features": {"b": {"_type": "Image"}}}})
    table = pa.table(columns).replace_schema_metadata({"huggingface": text})
    pq.write_table(table, root / "train.parquet")
    assert (load_dataset(str(root)).train.pixels == DIGITS[:3, :, :, None]).all()


def test_bytes_are_found_wherever_they_stand_in_the_struct(root):
    kind = pa.struct([("path", pa.string()), ("bytes", pa.binary())])
    cell = [{"path": "x.png", "bytes": png(DIGITS[4])}]
    pq.write_table(pa.table({"img": pa.array(cell, kind)}), root / "train.parquet")
    assert (load_dataset(str(root)).train.pixels[0, ..., 0] == DIGITS[4]).all()


def test_row_without_bytes_and_damaged_row_are_named(root):
    cell = cells(range(30)).to_pylist()
    cell[9]["bytes"] = None
    pq.write_table(pa.table({"img": pa.array(cell, STRUCT)}), root / "train.parquet")
    with pytest.raises(DataError, match=r"'train\.parquet:9' \(no image bytes in this row\)"):
        load_dataset(str(root))
    found = load_dataset(str(root), bad_images="skip").train
    assert (found.pixels[9, ..., 0] == DIGITS[10]).all()
    assert "train.parquet:9" not in found.sources


@pytest.mark.parametrize(
    ("train", "test", "labels", "unused"),
    [
        (
            [0, 1, 10],
            [0],
            ([0, 1, -1], [0]),
            ("'10' is none of the class names", "train.parquet:2"),
        ),
        ([0, 1, -1], [0], ([0, 1, -1], [0]), None),
        ([0, 1, 2], [10, 2], ([0, 1, 2], [-1, 2]), ("'10' is not in train", "test.parquet:0")),
        ([0, 1, None], [0], ([0, 1, -1], [0]), None),
    ],
)
def test_images_with_labels_out_of_range_are_unlabelled_and_named(
    root, train, test, labels, unused
):
    write(root / "train.parquet", range(3), features=CLASSES, label=train)
    write(root / "test.parquet", range(len(test)), features=CLASSES, label=test)
    found = load_dataset(str(root))
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == labels
    named = [(each.reason, *each.names) for each in found.notes.unused if each.what == "label"]
    assert named == ([unused] if unused else [])


def test_classes_that_the_test_split_numbers_otherwise_are_matched_by_name(root):
    labelled(root / "train.parquet", range(3))
    features = {"label": {"_type": "ClassLabel", "names": [*NAMES[::-1], "ten"]}}
    write(root / "test.parquet", range(3), features=features, label=[0, 9, 10])
    found = load_dataset(str(root))
    assert found.test.labels.tolist() == [9, 0, -1]
    (unused,) = found.notes.unused
    assert unused == ("label", "'ten' is not in train", ("test.parquet:2",))


def test_classes_may_be_called_by_numbers_in_another_order(root):
    for split, names in (("train", ["1", "10", "2"]), ("test", ["1", "2", "10"])):
        features = {"label": {"_type": "ClassLabel", "names": names}}
        path = root / f"{split}-00000-of-00001.parquet"
        write(path, range(3), features=features, label=[0, 1, 2])
    found = load_dataset(str(root))
    assert found.train.class_names == ("1", "10", "2")
    assert found.train.labels.tolist() == [0, 1, 2]
    assert found.test.labels.tolist() == [0, 2, 1]


def test_file_without_an_image_column_is_refused(root):
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), root / "train.parquet")
    with pytest.raises(DataError, match=r"no image column .*text, label.*\{bytes, path\}"):
        load_dataset(str(root))


def test_cut_or_foreign_file_is_refused(root):
    path = root / "train.parquet"
    labelled(path, range(30))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", b"PAR1", b"hello", b"x" * 10**5):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read as Parquet") as caught:
            load_dataset(str(root))
        assert "\n" not in str(caught.value)


def test_flipped_bits_give_our_errors_or_pictures_of_the_right_shape(root):
    path = root / "train.parquet"
    labelled(path, range(30))
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        # Half of the flips hit the footer, which holds the schema and the offsets.
        lowest = generator.choice([0, len(data) - 1500])
        data[generator.integers(lowest, len(data))] ^= 1 << generator.integers(8)
        path.write_bytes(data)
        try:
            assert load_dataset(str(root)).train.pixels.shape[1:] == (8, 8, 3)
        except DataError:
            refused += 1
    assert refused > 50


def test_metadata_that_is_no_json_costs_the_names_alone(root):
    columns = {"img": cells(range(2)), "label": [0, 1]}
    table = pa.table(columns).replace_schema_metadata({"huggingface": "{"})
    pq.write_table(table, root / "train.parquet")
    found = load_dataset(str(root))
    assert found.train.class_names == ("0", "1")
    assert found.notes.remarks == ("the Hub's metadata, which may name the labels, cannot be read",)


@pytest.mark.parametrize("names", [[1, 2], "abc", {"0": "a"}, None])
def test_class_names_that_are_no_list_of_strings_are_passed_over_and_said(root, names):
    features = {"label": {"_type": "ClassLabel", "names": names}}
    write(root / "train.parquet", range(2), features=features, label=[0, 1])
    found = load_dataset(str(root))
    assert found.train.class_names == ("0", "1")
    assert "the class names of the labels are not a list of text" in found.notes.remarks[0]


def test_folder_without_a_train_split_is_refused(root):
    labelled(root / "test-00000-of-00001.parquet", range(3))
    with pytest.raises(DataError, match=r"no train split in .*train-\*\.parquet"):
        load_dataset(str(root))


def test_split_without_rows_is_refused(root):
    labelled(root / "train.parquet", [])
    with pytest.raises(DataError, match="no rows"):
        load_dataset(str(root))


def test_metadata_beside_pictures_is_no_data_set(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        path = tmp_path / "p" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(DIGITS[0]))
    pq.write_table(pa.table({"file_name": ["x"]}), tmp_path / "p" / "train" / "metadata.parquet")
    assert len(load_dataset(str(tmp_path / "p")).train) == 4


def test_class_names_that_differ_by_a_zero_byte_are_two(root):
    write(root / "train.parquet", range(4), label=["a", "a\0", "a", "a\0"])
    found = load_dataset(str(root)).train
    assert found.class_names == ("a", "a\0")
    assert found.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ([[0], [1, 2], []], "lists of several labels, such as [1, 2]"),
        ([0.5, 1.0, 2.0], "numbers with fractions, such as 0.5"),
        ([{"a": 1}] * 3, "of type struct<a: int64>"),
    ],
)
def test_a_column_that_can_be_no_labels_is_named_and_pretraining_goes_on(root, label, reason):
    write(root / "train.parquet", range(3), features=CLASSES, label=label)
    found = load_dataset(str(root))
    assert (len(found.train), found.train.labels) == (3, None)
    assert f"column 'label' is not used as labels: it is {reason}" in found.notes.remarks


def test_numbers_in_one_file_and_words_in_the_next_are_words(root):
    write(root / "train-00000-of-00002.parquet", range(3), label=[0, 10, 2])
    write(root / "train-00001-of-00002.parquet", range(3), label=["0", "a", "2"])
    found = load_dataset(str(root)).train
    assert found.class_names == ("0", "10", "2", "a")
    assert found.labels.tolist() == [0, 1, 2, 0, 3, 2]


@pytest.mark.parametrize(
    ("train", "test"), [([0, 1, 2], ["2", "1", "0"]), (["0", "1", "2"], [2, 1, 0])]
)
def test_numbers_in_one_split_are_the_words_of_the_other(root, train, test):
    write(root / "train.parquet", range(3), label=train)
    write(root / "test.parquet", range(3), label=test)
    found = load_dataset(str(root))
    assert found.train.labels.tolist() == [0, 1, 2]
    assert found.test.labels.tolist() == [2, 1, 0]


def test_file_that_holds_other_rows_than_it_promises_is_refused(root):
    path = root / "train.parquet"
    labelled(path, range(10))
    # Thrift's compact protocol: num_rows (field 3, i64, zigzag) before a list of 2 row groups.
    before, after = path.read_bytes().rsplit(b"\x16\x14\x19\x2c", 1)
    for promised in (9, 11, 2**62):
        path.write_bytes(before + b"\x16" + varint(2 * promised) + b"\x19\x2c" + after)
        lengthened = len(varint(2 * promised)) - 1
        data = path.read_bytes()
        size = int.from_bytes(data[-8:-4], "little") + lengthened
        path.write_bytes(data[:-8] + size.to_bytes(4, "little") + data[-4:])
        # Before any room is made for so many pictures.
        with pytest.raises(DataError, match=rf"10 rows, {promised} by its footer"):
            parquet_source(root).open()


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd", "snappy"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_pages_unpack_to_what_an_honest_footer_says(tmp_path, version, compression, dictionary):
    rng = np.random.default_rng(0)
    names = [rng.bytes(int(size)) for size in rng.integers(2000, 9000, 300)]
    path, more = tmp_path / "f.parquet", {"data_page_version": version, "write_statistics": False}
    images = pa.array([{"bytes": data, "path": data[:9].hex()} for data in names], STRUCT)
    table = pa.table({"image": images, "label": [*range(300)]})
    pq.write_table(
        table,
        path,
        row_group_size=90,
        compression=compression,
        use_dictionary=dictionary,
        data_page_size=20_000,
        **more,
    )
    with path.open("rb") as raw:
        found = [unpacked_bytes(raw, group) for group in groups_of(raw)]
    metadata = pq.read_metadata(path)
    said = [metadata.row_group(group).total_byte_size for group in range(4)]
    # The footer counts the headers of the pages too, some 30 bytes of each.
    assert found == pytest.approx(said, rel=0.01)
    with opened_parquet(path) as file:
        parts = [
            [file.group_bytes(group, name) for name in table.column_names] for group in range(4)
        ]
    assert [sum(sizes) for sizes in parts] == found
    assert all(label < 0.01 * images for images, label in parts)


def test_a_footer_that_lies_does_not_get_more_memory(tmp_path, monkeypatch):
    """One value of 4 MB of zeros, in some 200 bytes; by its footer the group has 1,000 bytes."""
    path, value = tmp_path / "f.parquet", bytes(4 << 20)
    pq.write_table(pa.table({"image": [value] * 64}), path, compression="zstd")
    data = path.read_bytes()
    for size in (
        pq.read_metadata(path).row_group(0).total_byte_size,
        pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size,
    ):
        known, lie = varint(2 * size), b"\xd0\x8f" + b"\x80" * (len(varint(2 * size)) - 3) + b"\0"
        data = data.replace(known, lie)  # 2,000 as a number of so many bytes
    path.write_bytes(data)
    assert pq.read_metadata(path).row_group(0).total_byte_size == 1000
    monkeypatch.setattr("stopgrad.images.sources.columns.HELD", 12 << 20)
    with opened_parquet(path) as file:
        assert {len(batch) for batch in batches_of(file, "image")} == {2}
    monkeypatch.setattr("stopgrad.images.sources.limits.ALWAYS", 1 << 20)
    said = r"bytes that unpack to 4,194,\d\d\d, more than 200 times"
    with pytest.raises(DataError, match=said), opened_parquet(path) as file:
        next(batches_of(file, "image"))


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])
