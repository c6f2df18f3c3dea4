"""Files in a folder of images that are not read: each is named with its reason, or known."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stopgrad.errors import DataError
from stopgrad.images import load_dataset, packages
from stopgrad.images.sources.find import find_source
from stopgrad.images.types import DataSource
from tests.images.factories import become_nobody, each, nobodys_folder, put
from tests.inputs import row

CLASSES = each("cat", "dog", count=20)


@pytest.fixture(autouse=True)
def _without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "is_installed", lambda module: False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def write(root: Path, name: str, data: bytes = b"\0") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def unused(source: DataSource) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(group.what, group.reason): group.names for group in source.notes.unused}


def used(source: DataSource) -> int:
    return sum(reader.length for reader in source.open().readers.values())


def image(form: str, size: tuple[int, int] = (8, 8)) -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 7, np.uint8)).save(file, form)
    return file.getvalue()


LABELS = (
    "{} files that may hold labels, such as COCO annotations, are not read: save them as a CSV, "
    "labels.csv, with the columns file and label"
)


def passed(what: str, name: str, kind: str, reason: str, happens: str = "") -> Any:
    return row(what, happens or f"listed with the reason: {reason}", name, kind, reason)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        passed(
            "HEIC without its extra",
            "IMG_1.HEIC",
            "image",
            ".heic needs: pip install 'stopgrad[heic]'",
        ),
        passed(
            "HEIF without its extra",
            "IMG_1.heif",
            "image",
            ".heif needs: pip install 'stopgrad[heic]'",
        ),
        passed(
            "DICOM without its extra",
            "scan.dcm",
            "image",
            ".dcm needs: pip install 'stopgrad[dicom]'",
        ),
        passed("raw files from cameras", "DSC1.NEF", "image", ".nef is not read: convert to PNG"),
        passed("Photoshop files", "flyer.psd", "image", ".psd is not read: convert to PNG"),
        passed("SVG", "logo.svg", "image", ".svg is not read: convert to PNG"),
        passed(
            "compressed NIfTI (.nii.gz)",
            "brain.nii.gz",
            "image",
            ".nii is not read: convert to PNG",
        ),
        passed("video", "clip.MOV", "image", ".mov is a video: save its frames as PNG or JPEG"),
        passed("VOC annotations", "1.xml", "file", ".xml files are not read"),
        passed("COCO annotations", "instances_val2017.json", "file", LABELS.format(".json")),
        passed(
            "COCO annotations from Roboflow",
            "_annotations.coco.json",
            "file",
            LABELS.format(".json"),
        ),
        passed("labels in JSON", "labels.json", "file", LABELS.format(".json")),
        passed(
            "a list of labels in a .txt file",
            "val_synset_labels.txt",
            "file",
            LABELS.format(".txt"),
        ),
        passed("spreadsheets", "train.xlsx", "file", LABELS.format(".xlsx")),
        passed("other JSON", "settings.json", "file", ".json files are not read"),
        passed("YOLO boxes", "labels/1.txt", "file", ".txt files are not read"),
        passed(
            "archives beside images",
            "more.zip",
            "file",
            ".zip files are not opened: unpack them",
        ),
        passed("files with an unknown ending", "a.xyz", "file", ".xyz files are not read"),
        passed(
            "files without an ending that are not images",
            "Makefile",
            "file",
            "files without an ending that are not images",
        ),
    ],
)
def test_a_file_of_another_kind_is_named_with_its_reason(
    root: Path, name: str, kind: str, reason: str
) -> None:
    put(root, *CLASSES)
    write(root, f"cat/{name}")
    write(root, f"dog/{name}")
    source = find_source(str(root))
    assert unused(source) == {(kind, reason): (f"cat/{name}", f"dog/{name}")}
    assert used(source) == 40
    assert source.open().class_names == ("cat", "dog")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
@pytest.mark.input(
    "format",
    what="images without an ending, or with a number as the ending (scan.001)",
    happens="read if their first bytes are those of an image",
)
def test_an_image_without_an_ending_is_read(root: Path, form: str) -> None:
    for name in ("a/x", "a/scan.001", "b/Shot 2026-01-01 at 10.30.15", "b/9e107d9d372bb682"):
        write(root, name, image(form))
    write(root, "b/notes", b"BMW or P3: no image")
    found = load_dataset(str(root))
    assert len(found.train) == 4
    assert found.train.pixels[0, 0, 0].tolist() == pytest.approx([7, 7, 7], abs=1)
    assert [group.names for group in found.notes.unused] == [("b/notes",)]


@pytest.mark.parametrize("ending", [".dat", ".jpg~", ".jpg_large", ".bak"])
@pytest.mark.input(
    "format",
    what="images with an invalid ending (photo.jpg~, photo.jpg_large)",
    happens="listed: rename them",
)
def test_an_image_with_a_strange_ending_is_named(root: Path, ending: str) -> None:
    put(root, *CLASSES)
    write(root, f"cat/photo{ending}", image("JPEG"))
    reason = f"images of type .jpg that end in {ending}: rename them"
    assert unused(find_source(str(root))) == {("image", reason): (f"cat/photo{ending}",)}


@pytest.mark.parametrize(
    "name",
    [
        "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/old.jpg",
        "$RECYCLE.BIN/S-1-5-21/$RABCDEF.jpg",
        "dog/.thumbnails/normal/1.png",
        ".@__thumb/default/1.jpg",
        "__MACOSX/cat/._0.png",
        "cat/._0.png",
        ".Trash-1000/files/2.png",
        "System Volume Information/3.png",
        "cat/.ipynb_checkpoints/0-checkpoint.png",
        "lost+found/#12345.jpg",
    ],
)
@pytest.mark.input(
    "oddity",
    what="thumbnails and system folders (@eaDir, $RECYCLE.BIN, __MACOSX, .thumbnails, ...)",
    happens="skipped and listed; class folders stay classes",
)
def test_thumbnails_are_known(root: Path, name: str) -> None:
    put(root, *CLASSES, name)
    for system in ("Thumbs.db", "cat/desktop.ini", ".DS_Store", "dog/Icon\r"):
        write(root, system)
    source = find_source(str(root))
    assert unused(source) == {("file", "thumbnails and system folders"): (name,)}
    assert source.open().class_names == ("cat", "dog")
    assert used(source) == 40


@pytest.mark.parametrize(
    "name",
    [
        ".photos/1.png",
        "cat/.hidden.png",
        ".cache/a/b/1.heic",
        "cat/.png",
        "dog/.JPG",
        "cat/.1.jpg.icloud",
    ],
)
@pytest.mark.input("oddity", what="hidden images and folders", happens="listed, not read")
def test_hidden_images_are_named(root: Path, name: str) -> None:
    put(root, *CLASSES)
    write(root, name)
    write(root, ".git/config")
    reason = ("image", "hidden: the name begins with a dot")
    assert unused(find_source(str(root))) == {reason: (name,)}


@pytest.mark.parametrize(
    "strays",
    [
        ["contact_sheet.png"],
        ["cat/deeper/1.png", "poster.png"],
    ],
    ids=["one loose image", "a loose and a deep one"],
)
@pytest.mark.input(
    "layout",
    what="a few stray images beside class folders (up to 5 %)",
    happens="they have no label and are listed; the others keep theirs",
)
def test_stray_images_do_not_undo_the_labels(root: Path, strays: list[str]) -> None:
    put(root, *CLASSES, *strays)
    found = load_dataset(str(root))
    assert found.train.class_names == ("cat", "dog")
    assert found.train.labels is not None
    assert np.bincount(found.train.labels + 1).tolist() == [len(strays), 20, 20]
    (remark,) = (r for r in found.notes.remarks if r.startswith("in no class folder"))
    assert all(repr(name) in remark for name in strays)


@pytest.mark.input(
    "layout",
    what="more stray images beside class folders (over 5 %)",
    happens="no labels; the stray images are listed as the reason",
)
def test_many_strays_are_named_as_what_keeps_folders_from_being_classes(root: Path) -> None:
    put(root, *CLASSES, *(f"{number}.png" for number in range(3)))
    found = load_dataset(str(root))
    assert found.train.labels is None
    assert found.notes.remarks == (
        "no labels from folders: 3 images lie in no class folder ('0.png', '1.png', '2.png')",
    )


def test_a_stray_image_changes_the_key_of_the_cache(root: Path) -> None:
    """Else the labels of old, none, would be taken for the new ones."""
    put(root, *CLASSES, "stray.png")
    names = [stamp.path for stamp in find_source(str(root)).stamps]
    assert names == [*sorted(f"train/{name}" for name in CLASSES), "unlabelled/stray.png"]


@pytest.mark.parametrize("closed", ["cat/private", "eel", "lost+found"])
@pytest.mark.input(
    "oddity",
    what="a folder that cannot be opened",
    happens="skipped and listed; the rest is read",
)
def test_a_folder_that_may_not_be_opened_is_named(closed: str) -> None:
    with nobodys_folder() as folder:
        put(folder / "p", *CLASSES)
        (folder / "p" / closed).mkdir()
        (folder / "p" / closed).chmod(0)
        become_nobody()
        source = find_source(str(folder / "p"))
        ((what, reason), names), *more = unused(source).items()
        assert (names, more) == ((f"{closed}/",), [])
        if closed == "lost+found":
            assert (what, reason) == ("file", "thumbnails and system folders")
        else:
            expected = "folders that cannot be opened (Permission denied)"
            assert (what, reason) == ("image", expected)
        assert used(source) == 40


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["IMG_1.heic", "IMG_2.heic", "notes.txt"], r"2 images not read, \.heic needs: pip"),
        (["scan.nef"], r"1 image not read, \.nef is not read: convert to PNG"),
        ([".hidden/1.png"], "1 image not read, hidden"),
        (["a.pdf"], r"1 file not read, \.pdf files are not read"),
    ],
)
def test_a_folder_in_which_nothing_is_read_says_what_is_there(
    root: Path, names: list[str], found: str
) -> None:
    for name in names:
        write(root, name)
    with pytest.raises(DataError, match=f"no images to train on .*{found}"):
        find_source(str(root))


@pytest.mark.input(
    "oddity", what="a link to a folder that no longer exists", happens="listed under unused images"
)
def test_a_link_that_leads_nowhere_is_named(root: Path) -> None:
    put(root, *CLASSES)
    (root / "eel").symlink_to("/gone/eel")
    assert unused(find_source(str(root))) == {("image", "links that lead nowhere"): ("eel",)}


def test_a_link_to_a_folder_above_is_named(root: Path) -> None:
    put(root, *CLASSES)
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "all").symlink_to(root)
    reason = ("file", "links to folders above them")
    assert unused(find_source(str(root))) == {reason: ("all", "cat/again")}


def put_run(root: Path) -> None:
    for name in ("config.json", "status.json", "metrics.jsonl", "checkpoints/step-1/model.png"):
        write(root, f"runs/mine/{name}")


def put_store(root: Path) -> None:
    write(root, "images.store/stopgrad-store.json", b"{}")
    write(root, "images.store/pictures.parquet")


def put_features(root: Path) -> None:
    write(root, "features.csv", b"path,split,label,class_name,f0\ncat/0.png,train,0,cat,0.5\n")


def put_figure(root: Path) -> None:
    from stopgrad.images import sign_figure

    write(root, "views.png", sign_figure(image("PNG")))


def put_figures(root: Path) -> None:
    from stopgrad.images import sign_figure

    for name in ("curves", "spectrum"):
        write(root, f"figures/{name}.png", sign_figure(image("PNG")))
        write(root, f"figures/{name}.svg")


@pytest.mark.parametrize(
    ("leave", "names"),
    [
        (put_run, {"runs/mine/"}),
        (put_store, {"images.store/"}),
        (put_features, {"features.csv"}),
        (put_figure, {"views.png"}),
        (put_figures, {f"figures/{n}.{e}" for n in ("curves", "spectrum") for e in ("png", "svg")}),
    ],
    ids=["a run", "a store", "features", "views", "figures of a report"],
)
@pytest.mark.input(
    "layout",
    what="runs, stores, features and figures of stopgrad inside the data",
    happens="recognised and skipped",
)
def test_what_stopgrad_has_written_is_no_image_of_the_data(
    root: Path, leave: Callable[[Path], None], names: set[str]
) -> None:
    put(root, *CLASSES)
    before = find_source(str(root)).stamps
    leave(root)
    source = find_source(str(root))
    found = load_dataset(str(root))
    assert source.stamps == before
    assert found.train.class_names == ("cat", "dog")
    (group,) = found.notes.unused
    assert set(group.names) == names
    expected = "written by stopgrad" if names != {"features.csv"} else "not read"
    assert expected in group.reason


def test_features_beside_unlabelled_images_are_not_their_labels(root: Path) -> None:
    put(root, *each("a", count=6))
    rows = "".join(f"a/{n}.png,train,{n % 2},c{n % 2},0.5\n" for n in range(6))
    write(root, "features.csv", b"path,split,label,class_name,f0\n" + rows.encode())
    found = load_dataset(str(root))
    assert found.train.labels is None
    assert [(g.reason, g.names) for g in found.notes.unused] == [
        ("written by stopgrad", ("features.csv",))
    ]


@pytest.mark.parametrize(
    ("rows", "pictures", "parquet"),
    [(0, 40, False), (30, 40, False), (400, 40, False), (400, 2, True)],
    ids=["features", "fewer rows", "many rows", "a Hub data set with two figures"],
)
@pytest.mark.input(
    "layout",
    what="Parquet files in a folder of images",
    happens="the images are read, unless they number at most 5 % of the Parquet rows with images",
)
def test_parquet_counts_where_it_holds_the_images(
    root: Path, rows: int, pictures: int, parquet: bool
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    put(root, *CLASSES[:pictures])
    data = [{"bytes": image("PNG"), "path": None}] * rows
    table = pa.table({"image": data} if rows else {"path": ["cat/0.png"], "features": [[0.5]]})
    pq.write_table(table, root / "train.parquet")
    source = find_source(str(root))
    assert used(source) == (rows if parquet else pictures)
    named = [name for group in source.notes.unused for name in group.names]
    assert named == (CLASSES[:pictures] if parquet else ["train.parquet"])


HIDDEN = ["@eaDir", ".git", "__MACOSX", "cat/.thumbnails"]
SPLITS = ["train", "train/cat", "train/dog", "test", "test/cat", "val", "val/dog", "Training"]
OTHERS = ["", "cat", "dog", "cat/train", "cat/test", "images", "images/train", "images/val"]
OTHERS += ["Testing/cat", "masks", "labels", "a/b", "runs", "unlabeled"]
FOLDERS = st.sampled_from([*SPLITS, *OTHERS, *HIDDEN])
BY_CONTENT = ["2", "5.dat", "scan.001"]  # no ending tells what they are
IMAGES = ["0.png", "1.JPG", "3.heic", ".6.png", "._7.png", "8.nef", "x.png", "10.svg", *BY_CONTENT]
FILES = st.sampled_from([*IMAGES, "4.txt", "9.csv", "metadata.csv"])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(places=st.sets(st.tuples(FOLDERS, FILES), min_size=1, max_size=40))
def test_every_image_is_used_or_named(
    tmp_path_factory: pytest.TempPathFactory, places: set[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    data = image("PNG")
    for folder, name in places:
        write(root / folder, name, data)
    found = [
        f"{folder}/{name}".removeprefix("/")
        for folder, name in places
        if name in IMAGES and not (folder in HIDDEN and name in BY_CONTENT)
    ]
    try:
        source = find_source(str(root))
    except DataError as error:
        assert "no images to train on" in str(error)  # noqa: PT017
        return
    readers = source.open().readers.values()
    paths = [item.data for reader in readers for item in reader.items()]
    read = [os.path.relpath(str(path), root) for path in paths]
    named = [name for group in source.notes.unused for name in group.names]
    assert len(set(read)) == len(read)
    assert sorted([*read, *(n for n in named if n.rpartition("/")[2] in IMAGES)]) == sorted(found)


def test_looking_does_not_wait_for_a_pipe(root: Path) -> None:
    put(root, *CLASSES)
    for name in ("pipe", "pipe.xyz"):
        os.mkfifo(root / name)
    assert set().union(*unused(find_source(str(root))).values()) == {"pipe", "pipe.xyz"}


def test_an_installed_extra_makes_its_files_images(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "is_installed", lambda module: module == "pillow_heif")
    put(root, *CLASSES)
    write(root, "cat/x.heic")
    write(root, "cat/y.dcm")
    source = find_source(str(root))
    assert used(source) == 41
    assert [*unused(source).values()] == [("cat/y.dcm",)]


def test_a_loud_line_names_the_share_that_is_not_used(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from stopgrad.images import warn_of_unused, what_to_know

    put(root, *CLASSES)
    for number in range(160):
        write(root, f"IMG_{number:04}.HEIC")
    found = load_dataset(str(root))
    warn_of_unused(found)
    assert "160 of 200 images are not used" in caplog.text
    assert (
        "not used: 160 images ('IMG_0000.HEIC', 'IMG_0001.HEIC', 'IMG_0002.HEIC', ...): "
        ".heic needs: pip install 'stopgrad[heic]'"
    ) in what_to_know(found)


def put_pairs(root: Path, *pairs: tuple[str, str], side: int = 8) -> None:
    """Images of noise, and their copies of so many pixels."""
    for number, (whole, copy) in enumerate(pairs):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        for name, pixels in ((whole, noise), (copy, noise[:side, :side])):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / name)


@pytest.mark.parametrize(
    ("whole", "copy"),
    [
        row("photos/ and thumbs/ with the same file names", "thumbs/ is skipped and listed",
            "photos/{}.png", "thumbs/{}.png", kind="layout"),
        row("thumbnails/ in the folder of the images", "thumbnails/ is skipped and listed",
            "{}.png", "thumbnails/{}.webp", kind="layout"),
        row("CLASS/thumbs", "thumbs/ is skipped and listed; the class folders are the classes",
            "cat/{}.png", "cat/Thumbs/{}.png", kind="layout"),
        row("thumbnail/CLASS beside CLASS", "thumbnail/ is skipped and listed",
            "cat/{}.png", "thumbnail/cat/{}.png", kind="layout"),
        row("train/CLASS and thumbs/train/CLASS", "thumbs/ is skipped and listed",
            "train/cat/{}.png", "thumbs/train/cat/{}.png", kind="layout"),
    ],
)  # fmt: skip
def test_smaller_copies_of_the_same_names_are_passed_over(
    root: Path, whole: str, copy: str
) -> None:
    put_pairs(root, *((whole.format(n), copy.format(n)) for n in range(5)))
    source = find_source(str(root))
    reason = "masks, annotations or thumbnails beside images"
    assert unused(source) == {("image", reason): tuple(copy.format(n) for n in range(5))}
    assert used(source) == 5
    assert source.notes.remarks == ()


@pytest.mark.parametrize(
    ("copy", "side"),
    [
        row("a class thumbs/ with other file names", "read as a class; reported",
            "thumbs/up{}.png", 8, kind="layout"),
        row("a class thumbs/ with the same file names and image sizes",
            "read as a class; reported", "thumbs/{}.png", 32, kind="layout"),
    ],
)  # fmt: skip
def test_a_folder_called_thumbs_that_is_none_is_said(root: Path, copy: str, side: int) -> None:
    put_pairs(root, *((f"fist/{n}.png", copy.format(n)) for n in range(5)), side=side)
    source = find_source(str(root))
    assert used(source) == 10
    assert source.notes.remarks == (
        "5 images in thumbs/ are used like all others: if they are masks or thumbnails, "
        "move them elsewhere",
    )


@pytest.mark.parametrize(
    ("whole", "mask"),
    [
        row("CXR_png/ and masks/ with the same file names, with or without _mask",
            "masks/ is skipped and listed", "CXR_png/{}.png", "masks/{}_mask.png",
            kind="layout"),
        row("photos/ and labels/ with the same file names", "labels/ is skipped and listed",
            "photos/{}.png", "labels/{}.png", kind="layout"),
        row("CLASS/masks", "masks/ is skipped and listed; the class folders are the classes",
            "cat/{}.png", "cat/masks/{}.png", kind="layout"),
        row("CLASS/7.png beside CLASS/7_mask.png",
            "the masks are skipped and listed", "cat/x ({}).png", "cat/x ({})_mask.png",
            kind="layout"),
        row("7.png beside 7_mask_1.png", "the masks are skipped and listed", "{}.png",
            "{}_mask_1.png", kind="layout"),
        row("images_resized/CLASS beside images/CLASS", "images_resized/ is skipped and listed",
            "images/cat/{}.png", "images_resized/cat/{}.jpg", kind="layout"),
        row("preview/ or resized_256/ beside photos/ with the same file names",
            "skipped and listed", "photos/{}.png", "resized_256/{}.png", kind="layout"),
        row("photo.png beside photo-thumb.webp", "the thumbnails are skipped and listed",
            "{}.png", "{}-thumb.webp", kind="layout"),
    ],
)  # fmt: skip
def test_masks_of_the_same_names_are_passed_over(root: Path, whole: str, mask: str) -> None:
    put(root, *(of.format(n) for n in range(5) for of in (whole, mask)))
    source = find_source(str(root))
    reason = "masks, annotations or thumbnails beside images"
    assert unused(source) == {("image", reason): tuple(mask.format(n) for n in range(5))}
    assert used(source) == 5


@pytest.mark.parametrize(
    ("names", "remarks"),
    [
        (each("mask", "no_mask"), 0),  # classes
        ([f"{kind}/{n}_{kind}.png" for kind in ("mask", "gt") for n in range(3)], 0),
        (["cat/0.png", "cat/1.png", "masks/7.png", "masks/8.png"], 1),  # of other names
        (["masks/0.png", "masks/1.png"], 0),  # nothing else is there
        (each("train_resized/cat", "train_resized/dog", "test_resized/cat"), 0),
        (each("resized/train", "resized/test"), 0),
    ],
)
def test_what_is_no_mask_of_another_image_is_read(
    root: Path, names: list[str], remarks: int
) -> None:
    put(root, *names)
    source = find_source(str(root))
    assert used(source) == len(names)
    assert [remark for remark in source.notes.remarks if "if they are masks" in remark] == (
        ["2 images in masks/ are used like all others: if they are masks or thumbnails, "
         "move them elsewhere"] * remarks
    )  # fmt: skip
