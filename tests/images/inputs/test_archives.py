"""Archives: the folder inside is read by the rules for folders, and hostile members do nothing."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from stopgrad.errors import DataError, StorageError
from stopgrad.images import (
    DamagedImagesError,
    load_dataset,
    spec_of_several,
    warn_of_unused,
)
from tests.images.factories import png
from tests.images.inputs.factories import put_cifar, tarred, unused, zipped
from tests.inputs import row

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images to train on and two to score, in two classes."""
    for number, name in enumerate(
        ("train/cat/0", "train/cat/1", "train/dog/2", "train/dog/3", "test/cat/4", "test/dog/5")
    ):
        file = tmp_path / "pets" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(PIXELS[number]))
    (tmp_path / "pets" / "readme.txt").write_text("pets")
    return tmp_path / "pets"


KINDS = [
    row(
        "zip of a folder of images",
        "read as the folder itself",
        lambda f, to: zipped(f, to / "pets.zip"),
    ),
    row(
        "zip with the folder in it, and __MACOSX",
        "read as the folder itself",
        lambda f, to: add(zipped(f, to / "pets.ZIP", inside="pets/"), "__MACOSX/pets/._0.png"),
    ),
    row(
        "tar of a folder of images",
        "read as the folder itself",
        lambda f, to: tarred(f, to / "pets.tar"),
    ),
    row(
        "tar.gz with the folder in it",
        "read as the folder itself",
        lambda f, to: tarred(f, to / "pets.tar.gz", inside="pets"),
    ),
    row("tgz", "read as the folder itself", lambda f, to: tarred(f, to / "pets.tgz")),
    row("tar.bz2", "read as the folder itself", lambda f, to: tarred(f, to / "pets.tar.bz2")),
    row("tar.xz", "read as the folder itself", lambda f, to: tarred(f, to / "pets.tar.xz")),
    row(
        "a folder with train.zip and test.zip",
        "each is read as a folder of that name",
        lambda f, to: max(zipped(f / n, to / f"{n}.zip").parent for n in ("train", "test")),
    ),
    row(
        "a zip in a zip",
        "opened, at most two levels deep",
        lambda f, to: zipped(zipped(f, to / "in" / "pets.zip").parent, to / "pets.zip"),
    ),
]


def add(path: Path, name: str, data: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, data)
    return path


@pytest.mark.parametrize("pack", KINDS)
def test_archive_is_read_as_the_folder_it_was_made_of(
    folder: Path, tmp_path: Path, cache: Path, pack: Callable[[Path, Path], Path]
) -> None:
    (tmp_path / "packed" / "in").mkdir(parents=True)
    expected, found = (
        load_dataset(str(folder)),
        load_dataset(str(pack(folder, tmp_path / "packed"))),
    )
    assert found.train.class_names == ("cat", "dog")
    assert found.train.labels.tolist() == [0, 0, 1, 1]
    assert (found.train.pixels == PIXELS[:4]).all()
    assert found.train.fingerprint == expected.train.fingerprint
    assert found.test.fingerprint == expected.test.fingerprint
    assert found.train.sources == expected.train.sources
    assert found.name in ("pets", "packed")


@pytest.mark.input("layout", what="one tar per class (ImageNet)", happens="each tar is a class")
def test_tars_of_classes_are_classes_and_no_shards(tmp_path: Path) -> None:
    for place, name in enumerate(("n01440764", "n01443537")):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{name}_{number}.png").write_bytes(png(PIXELS[2 * place + number]))
        tarred(tmp_path / name, tmp_path / "packed" / f"{name}.tar")
    found = load_dataset(str(tmp_path / "packed"))
    assert found.train.class_names == ("n01440764", "n01443537")
    assert (found.train.pixels == PIXELS[:4]).all()


def test_nothing_that_was_unpacked_stays(folder: Path, tmp_path: Path, cache: Path) -> None:
    load_dataset(str(zipped(folder, tmp_path / "pets.zip")))
    assert [p.name for p in (cache / "images").iterdir() if p.name.startswith(".")] == []


def test_archive_is_not_unpacked_again_while_it_stays_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = str(zipped(folder, tmp_path / "pets.zip"))
    first = load_dataset(spec)
    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "open", None)
        assert load_dataset(spec).train.fingerprint == first.train.fingerprint
    (folder / "train/cat/0.png").write_bytes(png(PIXELS[5]))
    zipped(folder, Path(spec))
    assert load_dataset(spec).train.fingerprint != first.train.fingerprint


@pytest.mark.input(
    "label",
    what="train.csv beside train.zip (Kaggle)",
    happens="listed, with what to do: unpack the archive, or put the table into it",
)
def test_a_table_beside_an_archive_is_named_with_what_to_do(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(4):
        (flat / f"{number}.png").write_bytes(png(PIXELS[number]))
    (tmp_path / "to").mkdir()
    archive = zipped(flat, tmp_path / "to" / "train.zip")
    (tmp_path / "to" / "train.csv").write_text("id,label\n0,a\n1,b\n2,a\n3,b\n")
    for named in (tmp_path / "to", archive):
        found = load_dataset(str(named))
        assert len(found.train) == 4
        (group,) = found.notes.unused
        assert group.names == ("train.csv",)
        assert group.reason.endswith(": unpack the archive, or put the table into it")


@pytest.mark.input("format", what="cifar-10-binary.tar.gz", happens="read as the folder in it")
def test_archive_of_arrays_is_read_as_the_folder_in_it(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-bin").mkdir()
    put_cifar(tmp_path / "cifar-10-batches-bin")
    path = tmp_path / "cifar-10-binary.tar.gz"
    found = load_dataset(str(tarred(tmp_path / "cifar-10-batches-bin", path, inside="cifar")))
    assert found.train.class_names == ("cat", "dog", "frog")
    assert found.train.labels.tolist() == [0, 1, 2, 2]


def member(name: str, data: bytes = b"", **values: Any) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in values.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


HOSTILE = [
    row("an archive member whose path begins with /", "listed, not unpacked", "{out}/x.png", {}),
    row(
        "an archive member whose path leaves the archive through ..",
        "listed, not unpacked",
        "../../x.png",
        {},
    ),
    row(
        "a link in an archive",
        "listed, not followed",
        "a.png",
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    ),
    row(
        "a hard link in an archive",
        "listed",
        "a.png",
        {"type": tarfile.LNKTYPE, "linkname": "../x"},
    ),
    row("a named pipe in an archive", "listed", "a.png", {"type": tarfile.FIFOTYPE}),
    row("a device file in an archive", "listed", "a.png", {"type": tarfile.CHRTYPE}),
    row(
        "a name that occurs twice in an archive",
        "the first is used; the other is listed",
        "1.png",
        {},
    ),
    row("an archive member below another file (1.png in 0.png/)", "listed", "0.png/1.png", {}),
    row("an archive member whose name is too long", "listed", f"{'x' * 300}.png", {}),
]


@pytest.mark.parametrize(("name", "values"), HOSTILE)
def test_hostile_member_is_named_and_does_nothing(
    tmp_path: Path, name: str, values: dict[str, Any]
) -> None:
    name = name.format(out=tmp_path / "out")
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(2):
            archive.addfile(*member(f"{number}.png", png(PIXELS[number])))
        archive.addfile(*member(name, b"" if values else png(PIXELS[3]), **values))
    before = sorted(p for p in tmp_path.rglob("*"))
    found = load_dataset(str(path))
    assert (found.train.pixels == PIXELS[:2]).all()
    assert unused(found, "image") == [name]
    made = [p for p in tmp_path.rglob("*") if p not in before]
    assert all((tmp_path / "cache") in (p, *p.parents) for p in made)


@pytest.mark.parametrize(
    ("name", "bits"), [("/x.png", 0), ("..\\x.png", 0), ("C:\\x.png", 0), ("a.png", 0o120777)]
)
def test_hostile_member_of_a_zip_is_named(tmp_path: Path, name: str, bits: int) -> None:
    path = tmp_path / "set.zip"
    add(path, "0.png", png(PIXELS[0]))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("x.png")
        info.filename, info.external_attr, info.create_system = name, bits << 16, 3
        archive.writestr(info, png(PIXELS[1]))
    found = load_dataset(str(path))
    assert len(found.train) == 1
    assert len(unused(found, "image")) == 1


def encrypted(path: Path) -> Path:
    """Sets the flag by which a zip says that its members need a password."""
    data = bytearray(path.read_bytes())
    for magic, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = -1
        while (start := data.find(magic, start + 1)) >= 0:
            data[start + place] |= 1
    path.write_bytes(data)
    return path


def zeros(path: Path, size: int) -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("0.bmp", "w") as to,
    ):
        for _ in range(size >> 20):
            to.write(bytes(1 << 20))
    return path


def zeros_in_tar(path: Path, size: int) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("0.bmp")
        info.size = size
        with open("/dev/zero", "rb") as file:
            archive.addfile(info, file)
    return path


def cut(path: Path, count: int) -> Path:
    path.write_bytes(path.read_bytes()[:-count])
    return path


def scratched(path: Path) -> Path:
    """Damages the header of the last member."""
    data = bytearray(path.read_bytes())
    data[data.rfind(b"ustar") - 100] ^= 0xFF
    path.write_bytes(data)
    return path


REFUSED = [
    row(
        "an encrypted zip",
        "refused with a one-line error",
        lambda f, to: encrypted(zipped(f, to / "a.zip")),
        "is encrypted.*password",
    ),
    row(
        "a zip bomb",
        "refused because of its unpacked size",
        lambda f, to: zeros(to / "a.zip", 8 << 20),
        "unpack to 8,388,608",
    ),
    row(
        "a tar.gz bomb",
        "refused because of its unpacked size",
        lambda f, to: zeros_in_tar(to / "a.tgz", 8 << 20),
        "far beyond its size",
    ),
    row(
        "a truncated zip",
        "refused",
        lambda f, to: cut(zipped(f, to / "a.zip"), 30),
        "cannot be read",
    ),
    row(
        "a truncated tar",
        "refused",
        lambda f, to: cut(tarred(f, to / "a.tar"), 9000),
        "cannot be read to its end",
    ),
    row(
        "a truncated tar.gz",
        "refused",
        lambda f, to: cut(tarred(f, to / "a.tar.gz"), 30),
        "cannot be read to its end",
    ),
    row(
        "a tar with a damaged header",
        "refused: the rest of the tar is lost",
        lambda f, to: scratched(tarred(f, to / "a.tar", format=tarfile.USTAR_FORMAT)),
        "damaged header",
    ),
    row(
        "a .7z or .rar archive",
        "refused: unpack it",
        lambda f, to: zipped(f, to / "a.7z"),
        "is an unsupported kind of archive.*unpack it",
    ),
    row(
        "a .tar.zst archive",
        "refused: unpack it",
        lambda f, to: written(to / "a.tar.zst", b"\x28\xb5\x2f\xfd0"),
        "compressed by zstd; expected .*; unpack it with zstd -d$",
    ),
    row(
        "an archive without images",
        "refused; the error lists what it holds",
        lambda f, to: add(to / "a.zip", "a.txt"),
        "no images",
    ),
]


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("make", "line"), REFUSED)
def test_unfit_archive_is_refused_in_one_line(
    folder: Path,
    tmp_path: Path,
    cache: Path,
    make: Callable[[Path, Path], Path],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("limits", "tars"):
        monkeypatch.setattr(f"stopgrad.images.sources.{module}.ALWAYS", 1 << 22)
    (tmp_path / "packed").mkdir()
    path = make(folder, tmp_path / "packed")
    with pytest.raises(DataError, match=line) as caught:
        load_dataset(str(path))
    assert "\n" not in str(caught.value)
    written = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file())
    assert written < 1 << 23


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda f, to: zipped(f / "test", to / "a.zip", inside="test/"), "a.zip"),
        (
            lambda f, to: zipped(
                zipped(f / "test", to / "in" / "b.zip", inside="test/").parent, to / "a.zip"
            ),
            "a.zip/b.zip",
        ),
        (
            lambda f, to: (
                zipped(
                    zipped(f / "test", to / "in" / "b.zip", inside="test/").parent,
                    to / "two" / "a.zip",
                ).parent
            ),
            "two/a.zip/b.zip",
        ),
    ],
    ids=["a zip", "a zip in a zip", "a folder with one"],
)
def test_a_refusal_names_the_archive_and_not_what_it_was_unpacked_to(
    folder: Path, tmp_path: Path, make: Callable[[Path, Path], Path], named: str
) -> None:
    to = tmp_path / "packed"
    for inner in ("in", "two"):
        (to / inner).mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        load_dataset(str(make(folder, to)))
    assert caught.value.found.startswith(f"no images to train on in {str(to / named)!r} (")
    assert caught.value.hint == "unpack it, and name the folder to learn from"


@pytest.mark.input(
    "oddity", what="a damaged member of a zip", happens="that image counts as damaged; reported"
)
def test_damaged_member_is_a_damaged_image(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    data = bytearray(path.read_bytes())
    data[data.find(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DamagedImagesError, match=r"1 damaged image among 6: 'cat/4\.png' of test"):
        load_dataset(str(path))


@pytest.mark.input("oddity", what="a tar.gz with a wrong checksum", happens="refused")
def test_packed_tar_is_compared_with_its_checksum(folder: Path, tmp_path: Path) -> None:
    path = tarred(folder, tmp_path / "a.tar.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="CRC check failed"):
        load_dataset(str(path))


@pytest.mark.input("oddity", what="a second tar after the end of the first", happens="reported")
def test_what_follows_the_end_of_a_tar_is_said(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tarred(folder, tmp_path / "a.tar")
    path.write_bytes(path.read_bytes() * 2)
    assert len(load_dataset(str(path)).train) == 4
    assert "continues after its end marker" in caplog.text


def test_zip_that_the_disk_cannot_hold_is_refused_before_it_is_unpacked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(StorageError, match=r"bytes, 100 bytes free"):
        load_dataset(str(zipped(folder, tmp_path / "pets.zip")))


def put_into(path: Path, names: Sequence[str]) -> None:
    """A zip or tar of images of noise."""
    encoded = {}
    for number, name in enumerate(names):
        data = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(data, "PNG")
        encoded[name] = data.getvalue()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in encoded.items():
                archive.writestr(name, data)
        return
    with tarfile.open(path, "w") as archive:
        for name, data in encoded.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


MEMBERS = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)]


@pytest.mark.parametrize(
    ("files", "train"),
    [
        row("a stray image beside a zip", "the zip is read; the image is listed", ["set.zip"], 20,
            kind="layout"),
        row("a stray image beside a tar", "the tar is read; the image is listed", ["set.tar"], 20,
            kind="layout"),
        row("a stray image beside train.zip and test.zip", "both zips are read; the image "
            "is listed",
            ["train.zip", "test.zip"], 20, kind="layout"),
    ],
)  # fmt: skip
def test_a_stray_image_does_not_hide_archives(tmp_path: Path, files: list[str], train: int) -> None:
    for file in files:
        put_into(tmp_path / file, MEMBERS)
    Image.new("RGB", (9, 9)).save(tmp_path / "logo.png")
    found = load_dataset(str(tmp_path))
    assert (len(found.train), found.train.class_names) == (train, ("cat", "dog"))
    assert (found.test is not None) == (len(files) == 2)
    (group,) = found.notes.unused
    assert (group.what, group.names) == ("image", ("logo.png",))


@pytest.mark.input(
    "layout",
    what="a stray image beside array files",
    happens="the arrays are read; the image is listed",
)
@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5"])
def test_a_stray_image_does_not_hide_arrays(tmp_path: Path, ending: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    if ending == ".h5":
        with h5py.File(tmp_path / "set.h5", "w") as file:
            file["images"] = pixels
    elif ending == ".npz":
        np.savez(tmp_path / "set.npz", images=pixels)
    else:
        np.save(tmp_path / "images.npy", pixels)
    Image.new("RGB", (9, 9)).save(tmp_path / "preview.jpg")
    found = load_dataset(str(tmp_path))
    assert np.array_equal(found.train.pixels, pixels)
    (group,) = found.notes.unused
    assert (group.what, group.names) == ("image", ("preview.jpg",))


@pytest.mark.input(
    "layout",
    what="images beside archives that hold fewer than 20 times as many",
    happens="the images are read; those in the archives are listed, with a warning",
)
def test_images_in_archives_beside_images_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_into(tmp_path / "more.zip", MEMBERS)
    for number in range(2):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / f"photo {number}.png")
    found = load_dataset(str(tmp_path))
    assert len(found.train) == 2
    names = {group.what: group.names for group in found.notes.unused}
    assert names == {"file": ("more.zip",), "image": tuple(f"more.zip/{of}" for of in MEMBERS)}
    warn_of_unused(found)
    assert "20 of 22 images are not used" in caplog.text


@pytest.mark.input(
    "layout", what="images beside the archive they came from", happens="the images are read"
)
def test_the_archive_that_images_came_from_lacks_nothing(tmp_path: Path) -> None:
    put_into(tmp_path / "set.zip", MEMBERS)
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        archive.extractall(tmp_path)
    found = load_dataset(str(tmp_path))
    assert (len(found.train), found.train.class_names) == (20, ("cat", "dog"))
    assert [group.names for group in found.notes.unused] == [("set.zip",)]


@pytest.mark.input(
    "layout",
    what="part1.zip and part2.zip, each with the same class folders",
    happens="no labels; a message says how to train on both with labels",
)
def test_archives_with_the_same_classes_are_said_to_be_named_each(tmp_path: Path) -> None:
    files = [tmp_path / "set" / f"part{number}.zip" for number in (1, 2)]
    files[0].parent.mkdir()
    for file in files:
        put_into(file, MEMBERS)
    found = load_dataset(str(tmp_path / "set"))
    assert (len(found.train), found.train.labels) == (40, None)
    assert found.notes.remarks[-1].endswith(f"--data {files[0]} --data {files[1]}")
    both = load_dataset(spec_of_several([*map(str, files)])).train
    assert both.labels is not None
    assert np.bincount(both.labels).tolist() == [20, 20]


@pytest.mark.input(
    "oddity", what="a file that Git LFS has not fetched", happens="refused: git lfs pull fetches it"
)
@pytest.mark.parametrize(
    "name", ["a.png", "a.zip", "a.tar", "a.npz", "a.h5", "a.parquet", "a.arrow"]
)
def test_a_file_that_git_has_not_fetched_is_called_so(tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / name).write_text(pointer)
    path = tmp_path if name == "a.png" else tmp_path / name
    with pytest.raises(DataError, match="a pointer of Git LFS: git lfs pull fetches the file"):
        load_dataset(str(path), side=8)
