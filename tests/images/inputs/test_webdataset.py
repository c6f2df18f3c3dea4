"""WebDataset shards: samples by key, labels beside images, splits by the names of shards."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images import load_dataset
from tests.images.factories import png
from tests.images.inputs.factories import PIXELS, labels, samples, shard, unused
from tests.inputs import row

UNCALLED = "no .json member holds a single label, called label, class or the like"


def label(
    what: str, happens: str, beside: Any, expected: Any, names: tuple[str, ...], said: str = ""
) -> Any:
    return row(what, happens, beside, expected, names, said)


LABELS = [
    label(
        "KEY.cls with a number",
        "the number is the label",
        {"cls": lambda n: f"{n % 2}\n"},
        [0, 1, 0, 1],
        (),
    ),
    *(
        label(
            f"KEY.{ending} with a number",
            "the number is the label",
            {ending: lambda n: f"{n % 2}\n"},
            [0, 1, 0, 1],
            ("0", "1"),
        )
        for ending in ("cls.txt", "class", "label", "label.txt", "target")
    ),
    label(
        "KEY.cls with -1 or ? for a missing label",
        "those images have no label",
        {"cls": lambda n: ["a", "-1", "?", "b"][n]},
        [0, -1, -1, 1],
        ("a", "b"),
    ),
    label(
        "KEY.cls with text",
        "the text is the class",
        {"cls": lambda n: "ab"[n % 2]},
        [0, 1, 0, 1],
        ("a", "b"),
    ),
    label(
        'KEY.json with "species", "fine_label" or another name of a label column',
        "its value is the label",
        {"json": lambda n: json.dumps({"caption": f"no {n}", "species": "ab"[n % 2]})},
        [0, 1, 0, 1],
        ("a", "b"),
    ),
    label(
        'KEY.json with "label"',
        "its value is the label",
        {"json": lambda n: json.dumps({"key": n, "label": float(n % 2)})},
        [0, 1, 0, 1],
        (),
    ),
    label(
        "KEY.cls beside KEY.json",
        "KEY.cls is used; the other is reported",
        {"cls": lambda n: str(n % 2), "json": lambda _: '{"label": 7}'},
        [0, 1, 0, 1],
        (),
        ".json members hold labels too, which are not used",
    ),
    label(
        "KEY.json with a list of one label",
        "the one item is the label",
        {"json": lambda n: json.dumps({"label": [n % 2]})},
        [0, 1, 0, 1],
        (),
    ),
    label(
        "KEY.txt with a class",
        "the text is the class",
        {"txt": lambda n: "ab"[n % 2]},
        [0, 1, 0, 1],
        ("a", "b"),
    ),
    label(
        "KEY.txt with a caption",
        "no labels; reported",
        {"txt": lambda n: f"photo {n}"},
        None,
        (),
        "the 4 texts of .txt members are captions, not classes",
    ),
    label(
        "KEY.json without a label",
        "no labels; reported",
        {"json": lambda n: json.dumps({"width": n})},
        None,
        (),
        UNCALLED,
    ),
    label(
        "KEY.json with several labels, or a fraction",
        "no labels; reported",
        {"json": lambda n: json.dumps({"label": [0, 1] if n % 2 else 0.5})},
        None,
        (),
        UNCALLED,
    ),
    label(
        "KEY.cls with fractions",
        "no labels; reported",
        {"cls": lambda n: f"{n / 2}"},
        None,
        (),
        "no .cls member holds a single label",
    ),
    label(
        "KEY.json that is invalid", "no labels", {"json": lambda _: "[" * 9999}, None, (), UNCALLED
    ),
    label("shards with only images", "no labels", {}, None, ()),
]


@pytest.mark.parametrize(("beside", "expected", "names", "said"), LABELS)
def test_label_stands_beside_an_image(
    tmp_path: Path, beside: Any, expected: Any, names: Any, said: str
) -> None:
    shard(tmp_path / "set" / "00000.tar", samples(0, 1, **beside))
    shard(tmp_path / "set" / "00001.tar", samples(2, 3, **beside))
    found = load_dataset(str(tmp_path / "set"))
    assert (found.train.pixels == PIXELS[:4]).all()
    assert labels(found) == expected
    assert not names or found.train.class_names == names
    assert found.train.sources[2] == "00001.tar/000002.png"
    missing = expected.count(-1) if expected else 0
    hidden = [f"{missing} of 4 images of train have no label"] if missing else []
    assert found.notes.remarks == (*filter(None, [said]), *hidden)


@pytest.mark.input(
    "label",
    what="labels in a shard without an image, or a second label of a sample",
    happens="listed, not used",
)
def test_labels_that_belong_to_no_image_are_named(tmp_path: Path) -> None:
    members = samples(0, 1, cls=lambda n: str(n))
    members |= {"000001.cls.txt": "7", "a/lost.cls": "1", "a/lost.txt": "x"}
    shard(tmp_path / "set" / "0.tar", members)
    found = load_dataset(str(tmp_path / "set"))
    assert labels(found) == [0, 1]
    assert {group.reason: group.names for group in found.notes.unused} == {
        "second labels of a sample": ("0.tar/000001.cls.txt",),
        "without an image": ("0.tar/a/lost.cls", "0.tar/a/lost.txt"),
    }


@pytest.mark.input(
    "format", what="WebDataset, {000..001}.tar", happens="the pattern names the shards"
)
@pytest.mark.parametrize(
    "pattern",
    [
        *("train-{000..001}.tar", "train-{001..000}.tar", "train-00*.tar"),
        *("train-{000,001}.tar", "{train-000,train-001}.tar"),
    ],
)
def test_pattern_names_shards(tmp_path: Path, pattern: str) -> None:
    for number in range(3):
        shard(tmp_path / f"train-{number:03}.tar", samples(2 * number, 2 * number + 1))
    found = load_dataset(str(tmp_path / pattern))
    first = PIXELS[[2, 3, 0, 1]] if "001..000" in pattern else PIXELS[:4]
    assert (found.train.pixels[:4] == first).all()
    assert len(found.train) == (6 if "*" in pattern else 4)


@pytest.mark.input(
    "oddity",
    what="a pattern that includes a missing shard",
    happens="refused; the error names the shard",
)
def test_missing_shard_of_a_pattern_is_named(tmp_path: Path) -> None:
    shard(tmp_path / "000.tar", samples(0, 1))
    with pytest.raises(DataError, match=r"2 of 3 files .* are not there \('.*/001\.tar', \.\.\.\)"):
        load_dataset(str(tmp_path / "{000..002}.tar"))


@pytest.mark.input("oddity", what="a missing shard in a numbered series", happens="reported")
def test_gap_among_numbered_shards_is_said(tmp_path: Path) -> None:
    for number in (0, 1, 4):
        shard(tmp_path / f"wds-{number:04}.tar", samples(number))
    found = load_dataset(str(tmp_path))
    assert found.notes.remarks == ("2 shards of 'wds-' are not there",)


@pytest.mark.input(
    "format", what="WebDataset with train and validation shards", happens="two splits"
)
@pytest.mark.parametrize(
    "names",
    [
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
        ("train/00000.tar.gz", "val/00000.tar.gz"),
        ("train_shard_0.tar", "test_shard_0.tar"),
    ],
)
def test_names_of_shards_tell_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, numbers in zip(names, ((0, 1, 2), (3, 4)), strict=True):
        shard(tmp_path / name, samples(*numbers, cls=lambda n: str(n % 2)))
    found = load_dataset(str(tmp_path))
    assert (labels(found), found.test.labels.tolist()) == ([0, 1, 0], [1, 0])
    assert (found.test.pixels == PIXELS[3:5]).all()


@pytest.mark.input("format", what="a single shard", happens="recognised by KEY.cls beside KEY.jpg")
def test_single_shard_is_known_by_its_labels(tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", samples(0, 1, 2, 3, cls=lambda n: str(n // 2)))
    assert labels(load_dataset(str(path))) == [0, 0, 1, 1]
    pictures = {f"{name}/{n}.{end}": png(PIXELS[n]) if end == "png" else "{}" for n, name in enumerate("aabb") for end in ("png", "json")}  # fmt: skip # noqa: E501
    assert load_dataset(str(shard(tmp_path / "pets.tar", pictures))).train.class_names == ("a", "b")


@pytest.mark.input(
    "format",
    what="a single shard of KEY.image.png beside KEY.cls",
    happens="recognised by the last ending of its images",
)
def test_single_shard_is_known_by_the_last_ending_of_its_images(tmp_path: Path) -> None:
    members = {f"{n:06}.{end}": of for n in range(4) for end, of in _two_endings(n).items()}
    found = load_dataset(str(shard(tmp_path / "train-000.tar", members)))
    assert (found.train.pixels == PIXELS[:4]).all()
    assert labels(found) == [0, 0, 1, 1]


def _two_endings(number: int) -> dict[str, bytes | str]:
    return {"image.png": png(PIXELS[number]), "cls": str(number // 2)}


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        row(
            "--label-column NAME for shards, where NAME is a key of KEY.json",
            "its value is the label",
            *("kind", [0, 1, 2, 0]),
            kind="label",
        ),
        row(
            "--label-column NAME for shards, where NAME is the ending of a member",
            "that member is the label, even beside KEY.cls",
            *("breed", [1, 1, 0, 0]),
            kind="label",
        ),
    ],
)
def test_the_named_label_of_samples_is_read(
    tmp_path: Path, named: str, expected: list[int]
) -> None:
    beside: dict[str, Any] = {
        "cls": lambda n: str(n % 2),
        "json": lambda n: json.dumps({"label": n % 2, "kind": "abca"[n]}),
        "breed": lambda n: "zzyy"[n],
    }
    shard(tmp_path / "set" / "0.tar", samples(0, 1, **beside))
    shard(tmp_path / "set" / "1.tar", samples(2, 3, **beside))
    assert labels(load_dataset(str(tmp_path / "set"))) == [0, 1, 0, 1]
    found = load_dataset(str(tmp_path / "set"), reading=Reading(label_column=named))
    assert labels(found) == expected
    assert found.notes.remarks == ()


def test_a_single_shard_is_known_by_the_label_that_is_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", samples(0, 1, breed=lambda n: "xy"[n]))
    found = load_dataset(str(path), reading=Reading(label_column="breed"))
    assert (found.train.class_names, labels(found)) == (("x", "y"), [0, 1])


@pytest.mark.input(
    "label",
    what="--label-column NAME that no sample of a shard has",
    happens="refused; the error lists the names that exist",
)
def test_a_label_that_no_sample_has_is_refused(tmp_path: Path) -> None:
    members = samples(0, 1, cls=str, json=lambda n: json.dumps({"kind": n, "size": n / 3}))
    shard(tmp_path / "set" / "0.tar", members)
    for name in ("breed", "size"):
        said = (
            f"no labels called '{name}' beside the images; expected .* in one of .cls, .json, kind"
        )
        with pytest.raises(DataError, match=said):
            load_dataset(str(tmp_path / "set"), reading=Reading(label_column=name))


@pytest.mark.input(
    "format",
    what="--image-column NAME for shards, where NAME is the ending of a member",
    happens="members with that ending are the images; a sample's other images are listed",
)
def test_the_named_image_of_samples_is_read(tmp_path: Path) -> None:
    members = {
        f"{n}.{end}.png": png(PIXELS[n + shift])
        for n in range(2)
        for end, shift in (("depth", 4), ("colour", 0))
    }
    shard(tmp_path / "set" / "0.tar", members)
    found = load_dataset(str(tmp_path / "set"), reading=Reading(image_column="colour.png"))
    assert (found.train.pixels == PIXELS[:2]).all()
    assert unused(found, "image") == ["0.tar/0.depth.png", "0.tar/1.depth.png"]
    with pytest.raises(DataError, match=r"members that end in \.infrared; correct --image-column"):
        load_dataset(str(tmp_path / "set"), reading=Reading(image_column="infrared"))


@pytest.mark.input(
    "oddity", what="further images and other members of a shard's sample", happens="listed"
)
def test_further_members_of_a_sample_are_named(tmp_path: Path) -> None:
    members = {
        "a/1.depth.png": png(PIXELS[5]),
        "a/1.png": png(PIXELS[1]),
        "a/1.cls": "4",
        "a/1.npy": b"x",
        "b/1.png": png(PIXELS[2]),
        "b/1.mask.png": png(PIXELS[6]),
        "b/1.cls": "4",
        "readme": "x",
    }
    found = load_dataset(str(shard(tmp_path / "set-0.tar", members).parent))
    assert (found.train.pixels == PIXELS[[1, 2]]).all()
    assert found.train.class_names == ("4",)
    assert unused(found, "image") == ["set-0.tar/a/1.depth.png", "set-0.tar/b/1.mask.png"]
    assert unused(found, "file") == ["set-0.tar/a/1.npy", "set-0.tar/readme"]


@pytest.mark.input(
    "layout",
    what="tars beside Parquet files of URLs (img2dataset), images and other files",
    happens="the tars are read; everything else is listed",
)
def test_what_lies_beside_shards_is_named(tmp_path: Path) -> None:
    root = tmp_path / "laion"
    shard(root / "00000.tar", samples(0, 1, txt=lambda n: f"photo {n}"))
    addresses = {"url": ["https://a.b/c.jpg"] * 2, "caption": ["a", "b"]}
    pq.write_table(pa.table(addresses), root / "00000.parquet")
    for name in ("00000_stats.json", "cover.psd", "readme.xyz"):
        (root / name).write_text("{}")
    found = load_dataset(str(root))
    assert (found.train.pixels == PIXELS[:2]).all()
    assert unused(found, "image") == ["cover.psd"]
    assert sorted(unused(found, "file")) == ["00000.parquet", "00000_stats.json", "readme.xyz"]


@pytest.mark.input("oddity", what="a truncated shard", happens="refused; the error names it")
def test_cut_shard_is_refused_by_name(tmp_path: Path) -> None:
    for number in (0, 1):
        path = shard(tmp_path / f"{number}.tar", samples(number))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"1\.tar' cannot be read to its end"):
        load_dataset(str(tmp_path))


def test_shards_are_never_unpacked(tmp_path: Path) -> None:
    shard(tmp_path / "set" / "0.tar", samples(0, 1))
    load_dataset(str(tmp_path / "set"))
    suffixes = {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".pixels"}
