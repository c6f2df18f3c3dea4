"""The image files of a folder -> its splits, and the class folders in them, by their names.

The folder that names the split is the first on the way to an image, below any that hold all images
(`archive/train/cat/1.png`), or the second (`images/train/1.png`, `cat/train/1.png`). `names` says
what names mean. All training folders are used, but if one is called `train`, only that one. If
there is none, loose images next to folders to score are trained on, and so are class folders next
to one to score that holds folders of the same names.

Otherwise a folder named like a split among folders that are not splits is a class like them; so is
a `train/` of loose images next to folders other than `unlabeled/`, with nothing to score.

Folders are classes if the training images all lie in folders one level down, in at least two of
them, and these hold at least 2 images each on average, at least 5 when there are more than 100
folders: 150,000 folders of one image each are not classes. A folder called `images` between a class
folder and its images is skipped. Up to 5 % of the images may lie elsewhere: they get no label.
Masks and thumbnails are not trained on (`masks`).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from stopgrad.images.sources.files import Found, in_order
from stopgrad.images.sources.masks import holds_images, without_masks
from stopgrad.images.sources.names import UNLABELED, SplitOf, split_of, splits_among, to_score
from stopgrad.storage import some

CLASS_WORDS = ("", "c", "n", "k", "class", "category", "label", "type", "grade", "stage")
FEW_CLASSES = 100
SHOWN = 3  # words that a remark shows
MOST_STRAY = 0.05  # of the images of a split may lie in no class folder

Folders = Mapping[str, Sequence[Found]]  # images by their first folder, and their paths below it


class FolderSplit(NamedTuple):
    """Images, with the parts of their paths below the folder of the split."""

    name: str  # of that folder; "" if there is none
    split: SplitOf
    images: tuple[Found, ...]
    cut: int = 0  # parts before the class folder

    def class_of(self, image: Found) -> str | None:
        """The class folder in which an image lies."""
        return image.parts[self.cut] if len(image.parts) == self.cut + 2 else None

    @property
    def inside(self) -> list[tuple[str, ...]]:
        """The paths that may begin with a class folder."""
        return [image.parts[self.cut :] for image in self.images]


class Arrangement(NamedTuple):
    """The images of a folder, by their use."""

    train: FolderSplit  # may be empty
    scored: tuple[FolderSplit, ...]  # the first is preferred
    others: Folders  # not read, by their folder; "": loose images
    masks: tuple[Found, ...]
    remarks: tuple[str, ...]


def arrange(images: Sequence[Found]) -> Arrangement:
    """The splits of images by their paths below the folder that the user has named."""
    images, masks, remarks = without_masks(images)
    inside, whole = images, FolderSplit("", "train", images)
    while True:
        folders = by_folder(inside)
        # Training data/ may hold train/ and test/.
        found = _inner_splits(folders) if len(folders) == 1 else None
        found = found or _outer_splits(folders, remarks) or _inner_splits(folders)
        if found:
            return _with_classes(found)._replace(masks=masks)
        if len(folders) != 1 or "" in folders:
            break
        (inside,) = map(tuple, folders.values())
    found = Arrangement(FolderSplit("", "train", inside), (), {}, masks, tuple(remarks))
    found = _with_classes(found)
    return found if are_classes(found.train.inside) else found._replace(train=whole)


def by_folder(images: Iterable[Found]) -> dict[str, list[Found]]:
    """Images by the first folder on their path, with what follows it; "" for loose ones."""
    folders: dict[str, list[Found]] = {}
    for image in images:
        loose = len(image.parts) == 1
        folder = "" if loose else image.parts[0]
        rest = image if loose else Found(image.parts[1:], image.path)
        folders.setdefault(folder, []).append(rest)
    return folders


def _first_folders(images: Iterable[Found]) -> set[str]:
    return {image.parts[0] for image in images if len(image.parts) > 1}


def _outer_splits(folders: Folders, remarks: list[str]) -> Arrangement | None:
    splits = splits_among(name for name in folders if name)
    train = [name for name, split in splits.items() if split == "train"]
    rest = folders.keys() - splits.keys()
    if not splits:
        return None
    if train:
        loose = all(len(image.parts) == 1 for name in train for image in folders[name])
        if not loose or len(train) < len(splits) or not _hold_classes(rest):
            return _arranged(folders, splits)
    elif rest <= {""} or any(_shares_folders(folders, name, rest) for name in splits):
        return _arranged(folders, splits)
    remarks.append(
        f"{_named(splits)} is taken for a class, because the folders beside it are not splits"
    )
    return None


def _hold_classes(rest: Collection[str]) -> bool:
    """Whether folders next to train/ make it a class like them."""
    return any(name and name.lower() not in UNLABELED for name in rest)


def _shares_folders(folders: Folders, name: str, rest: Collection[str]) -> bool:
    """Whether a folder holds folders of the same names as those next to it."""
    return any(len(image.parts) > 1 and image.parts[0] in rest for image in folders[name])


def _innermost(images: Sequence[Found]) -> list[Found]:
    """Images below folders that hold nothing but one folder, if that means no split."""
    while len(names := _first_folders(images)) == 1 and not splits_among(names):
        inside = by_folder(images)
        if "" in inside:
            break
        (images,) = inside.values()
    return list(images)


def _inner_splits(folders: Folders) -> Arrangement | None:
    """Splits in the second folder, if at least one folder has two kinds of them."""
    inside = {name: _innermost(of) for name, of in folders.items() if name}
    splits = {name: splits_among(_first_folders(of)) for name, of in inside.items()}
    parents = [n for n, of in splits.items() if "train" in of.values() and len({*of.values()}) > 1]
    if not parents:
        return None
    found: dict[str, list[Found]] = {}
    others = {name: list(images) for name, images in folders.items() if name not in parents}
    for parent in parents:
        for name, images in by_folder(inside[parent]).items():
            if name in splits[parent]:
                prefix = (parent,) if len(parents) > 1 else ()
                found.setdefault(name, []).extend(_under(prefix, images))
            else:
                others[f"{parent}/{name}"] = images
    arranged = _arranged(found, {name: of for s in splits.values() for name, of in s.items()})
    return arranged._replace(others={**arranged.others, **others})


def _arranged(folders: Folders, splits: Mapping[str, SplitOf]) -> Arrangement:
    """Splits by the names of their folders; without a training split, the rest is trained on."""
    names = [name for name in folders if splits.get(name) == "train"]
    names = [name for name in names if name.lower() == "train"] or names
    if names:
        train = _to_train(folders, sorted(names))
    else:
        rest = [_under((name,) if name else (), folders[name]) for name in folders.keys() - splits]
        train = FolderSplit("", "train", in_order(image for images in rest for image in images))
    scored = tuple(
        unwrapped(FolderSplit(name, splits[name], tuple(folders[name])))
        for name in to_score({name: split for name, split in splits.items() if name in folders})
    )
    taken = {*names, *(split.name for split in scored)} if names else folders.keys()
    others = {name: images for name, images in folders.items() if name not in taken}
    return Arrangement(train, scored, others, (), ())


def _to_train(folders: Folders, names: Sequence[str]) -> FolderSplit:
    if len(names) == 1:
        return unwrapped(FolderSplit(names[0], "train", tuple(folders[names[0]])))
    images = [image for name in names for image in _under((name,), folders[name])]
    return FolderSplit(", ".join(names), "train", tuple(images), cut=1)


def _under(prefix: tuple[str, ...], images: Iterable[Found]) -> list[Found]:
    return [Found((*prefix, *image.parts), image.path) for image in images]


def unwrapped(split: FolderSplit) -> FolderSplit:
    """The split without a folder around its classes: train/train/cat, train/images/cat."""
    names = _first_folders(split.images)
    if len(names) != 1 or any(len(image.parts) == 1 for image in split.images):
        return split
    (name,) = names
    repeats = name == split.name or split_of(name) or holds_images(name)
    inside = [image.parts[1:] for image in split.images]
    if not repeats or _strays(inside) > MOST_STRAY * len(inside):
        return split
    return split._replace(images=tuple(by_folder(split.images)[name]))


def _with_classes(found: Arrangement) -> Arrangement:
    """Leaves out a folder called images between a class folder and its images."""
    train = _without_inner(found.train)
    if are_classes(found.train.inside) or not are_classes(train.inside):
        return found
    return found._replace(train=train, scored=tuple(map(_without_inner, found.scored)))


def _without_inner(split: FolderSplit) -> FolderSplit:
    inner = (
        Found((*image.parts[:-2], image.parts[-1]), image.path)
        if len(image.parts) == split.cut + 3 and holds_images(image.parts[-2])
        else image
        for image in split.images
    )
    return split._replace(images=tuple(inner))


def are_classes(paths: Sequence[tuple[str, ...]]) -> bool:
    """Whether images with these paths lie in class folders, by the rule of this module."""
    strays = _strays(paths)
    return _are_enough(paths) and strays <= MOST_STRAY * len(paths)


def _are_enough(paths: Sequence[tuple[str, ...]]) -> bool:
    inside = [parts[0] for parts in paths if len(parts) == 2]
    folders = len(set(inside))
    return folders >= 2 and len(inside) >= (2 if folders <= FEW_CLASSES else 5) * folders


def _strays(paths: Sequence[tuple[str, ...]]) -> int:
    return sum(len(parts) != 2 for parts in paths)


def are_numbered(folders: Collection[str]) -> bool:
    """Whether folders differ in a number alone, as part_1 and part_2, and no word means classes."""
    words = {re.sub(r"\d", "", name).strip(" _-").lower() for name in folders}
    return len(words) == 1 and words.isdisjoint(CLASS_WORDS)


def why_no_classes(paths: Sequence[tuple[str, ...]]) -> str:
    """Why folders are not classes, if they nearly are; else ""."""
    strays = ["/".join(parts) for parts in paths if len(parts) != 2]
    folders = {parts[0] for parts in paths if len(parts) == 2}
    if 2 * len(strays) >= len(paths) or len(folders) < 2:
        return ""
    if not _are_enough(paths):
        return "no labels from folders: they hold too few images each to be classes"
    return f"no labels from folders: {len(strays):,} images lie in no class folder ({some(strays)})"


def classes_in_names(paths: Sequence[tuple[str, ...]]) -> str:
    """A remark on names that may hold the classes, such as cat.0.jpg and dog_1.jpg; else ""."""
    words = Counter(re.sub(r"[\W\d_]+$", "", parts[-1].rpartition(".")[0]) for parts in paths)
    if not 2 <= len(words) <= FEW_CLASSES or min(words.values()) < 2 or not all(words):
        return ""
    counts = ", ".join(f"{of!r} {count:,}" for of, count in words.most_common(SHOWN))
    more = ", ..." * (len(words) > SHOWN)
    return (
        f"no labels from names ({counts}{more}): if those are classes, move the images into "
        "folders of these names, or list them in labels.csv with the columns file and label"
    )


class InnerFolders(NamedTuple):
    """Folders of the same names in several folders, such as fold1/cat and fold2/cat."""

    names: tuple[str, ...]
    outer: tuple[tuple[str, ...], ...]  # the paths of the folders around them


def inner_classes(paths: Sequence[tuple[str, ...]]) -> InnerFolders | None:
    """The folders that would be classes if they did not lie one level too deep."""
    ends = zip(min(paths), max(paths), strict=False)  # these two share what all have in common
    depth = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    inside = [parts[depth:] for parts in paths]
    names = Counter(name for _, name in {parts[:2] for parts in inside if len(parts) == 3})
    repeated = [parts for parts in inside if len(parts) == 3 and names[parts[1]] > 1]
    outer = sorted({(*parts[:depth], parts[depth]) for parts in paths if len(parts) == depth + 3})
    inner = sorted({parts[1] for parts in repeated})
    if len(paths) - len(repeated) > MOST_STRAY * len(paths) or are_numbered(inner):
        return None
    return (
        InnerFolders(tuple(inner), tuple(outer))
        if _are_enough([parts[1:] for parts in repeated])
        else None
    )


def _named(folders: Iterable[str]) -> str:
    return ", ".join(f"{folder}/" for folder in sorted(folders))
