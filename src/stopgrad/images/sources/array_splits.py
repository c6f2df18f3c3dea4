"""Arrays by name, from files of any format -> the splits of a data set.

An array belongs to the split that its own name says, or else its file's, or its folder's:
`x_train`, `train/images`, `t10k-images-idx3-ubyte`, `..._valid_x.h5`. The images of a split are the
array whose shape is one of images (`array_images`); of several, the one with the first of
`IMAGE_WORDS` in its name; arrays whose names differ only in numbers are parts of one
(`data_batch_1`, ...). The labels are an array of as many rows with one of `ARRAY_LABELS` in its
name: numbers, text, or rows with a single 1 (one-hot). The user may name either. Files of images
without any labels, named by different words, are one class each (`cat.npy`, `dog.npy`). All else is
noted.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images.sources.array_files import StoredArray, pickled, stored_arrays
from stopgrad.images.sources.array_images import (
    ArrayLayout,
    alpha_said,
    image_layout,
    may_be_one,
    stack_layout,
)
from stopgrad.images.sources.labels import Label, as_labels, labels_of_rows, texts_in
from stopgrad.images.sources.layout import are_classes
from stopgrad.images.sources.named_splits import NamedSplit, contents_of
from stopgrad.images.sources.names import (
    ARRAY_LABELS,
    COARSE,
    is_split,
    split_in,
    split_of,
    words_of,
)
from stopgrad.images.types import (
    Contents,
    DataSource,
    Encoded,
    Notes,
    Unused,
    stamp,
)
from stopgrad.storage import few

# The best first; a name with a word for labels is never that of images.
IMAGE_WORDS = ("images", "image", "imgs", "img", "x", "pixels", "pictures", "photos", "data")
OF_MANY = frozenset({"images", "imgs", "x", "pictures", "photos"})  # never the name of one image
NAME_LISTS = (  # CIFAR-10, CIFAR-100, STL-10
    *("batches.meta.txt", "fine_label_names.txt", "coarse_label_names.txt", "class_names.txt"),
)
NAMED = 5  # arrays that a message names
LONG = 4  # times as many rows as columns: a table whose rows are images
MOST_CLASSES = 10_000  # columns of one-hot labels
MOST_TEXT = 1 << 16  # bytes of a list of class names


def images_in_arrays(path: Path, *, name: str) -> Iterator[str]:
    """The names of the images in a file of arrays; rows of floating-point numbers are features.

    Raises:
        DataError: When it cannot be read.
    """
    for part in _parts(stored_arrays(path, name=name), bands=False):
        if len(part.array.shape) != 2 or part.array.dtype.kind != "f":
            yield from part.rows()


def arrays_source(path: Path, reading: Reading, *, files: Sequence[Path] = ()) -> DataSource:
    """A file of arrays, or a folder of such files.

    Args:
        path: The file or the folder.
        reading: The split that is scored, by rule the first with labels.
        files: The files in the folder.
    """
    names = {file: file.relative_to(path).as_posix() for file in files} or {path: ""}
    lists = {file: file.name for name in NAME_LISTS if (file := path / name).is_file()}

    def read() -> Contents:
        arrays = [array for file in names for array in stored_arrays(file, name=names[file])]
        return _open(arrays, path, reading)

    return DataSource(
        name=path.name if files else path.stem,
        root=str(path),
        stamps=tuple(stamp(f, name=name or path.name) for f, name in (names | lists).items()),
        open=read,
    )


class _Part(NamedTuple):
    """An array, with what its name and its shape tell."""

    array: StoredArray
    layout: ArrayLayout | None  # if it can hold images
    split: str  # the word for it in the name, "" if there is none
    words: tuple[str, ...]  # of the whole name, without numbers and the split
    last: frozenset[str]  # of the array's own name; of its file's too, if NumPy gave that name

    def rank(self, words: Sequence[str]) -> int:
        """The index in `words` of the first one in its name; their number if there is none."""
        return next((place for place, word in enumerate(words) if word in self.last), len(words))

    def rows(self) -> Iterator[str]:
        """The names of its images."""
        count = self.layout.images if self.layout else 0
        yield from (f"{self.array.name}:{row}" for row in range(count))


def _parts(arrays: Sequence[StoredArray], bands: bool) -> list[_Part]:
    parts, in_files = [], Counter(array.name.rpartition("/")[0] for array in arrays)
    for array in arrays:
        words = [_words(part) for part in array.name.split("/")]
        kept = tuple(word for of in words for word in of if not is_split(word))
        own = words[-1]
        if own == ["arr"] and in_files[array.name.rpartition("/")[0]] == 1 < len(words):
            own = [word for word in words[-2] if len(array.shape) < 3 or word not in ARRAY_LABELS]
        parts.append(_Part(array, None, split_in(array.name), kept, frozenset(own)))
    labelled = {part.array.shape[0] for part in parts if _is_label(part) and part.array.shape}
    return [
        part if _is_label(part) else part._replace(layout=_layout(part.array, labelled, bands))
        for part in parts
    ]


def _is_label(part: _Part) -> bool:
    return not part.last.isdisjoint(ARRAY_LABELS)


def _words(name: str) -> list[str]:
    return words_of(re.sub(r"\.(npy|npz|mat|h5|he5|hdf5?|bin|gz)$", "", name))


def _layout(array: StoredArray, labelled: set[int], bands: bool) -> ArrayLayout | None:
    """The layout of an array that may be a stack of images or one image, maybe of many bands.

    It is one image unless some labels are as many as its rows, or it is a table that is long or
    not in a file of its own.
    """
    if array.encoded:
        return ArrayLayout(array.shape[0], ())
    shape, alone = array.shape, array.name.endswith(".npy")
    long = len(shape) == 2 and (not alone or shape[0] > LONG * shape[1])
    stack, one = (find(shape, array.dtype, bands=bands) for find in (stack_layout, image_layout))
    if shape and (shape[0] in labelled or long):
        return stack if len(shape) == 2 else stack or one
    return one or stack


def _open(arrays: Sequence[StoredArray], path: Path, reading: Reading) -> Contents:
    parts = _without_a_class_called_train(_parts(arrays, bands=bool(reading.bands)))
    pictures = _called(parts, reading.image_column, "image")
    labels = _called(parts, reading.label_column, "label")
    splits, used, remarks = list[NamedSplit](), set[str](), dict[str, None]()
    for word in dict.fromkeys(part.split for part in parts):
        if images := _images_of(word, pictures or parts):
            split, names = _split(word, images, labels or [*filter(_is_label, parts)])
            splits.append(split)
            used |= names
            said = () if reading.bands else (alpha_said(_channels(part)) for part in images)
            remarks |= dict.fromkeys(filter(None, said))
    of_used = [part.last for part in parts if part.array.name in used and _is_label(part)]
    coarse = any(not COARSE.isdisjoint(words) for words in of_used)
    listed, class_names = _class_names(parts, path, coarse=coarse)
    notes = Notes(tuple(remarks), tuple(_strange(parts, used | listed)))
    contents = contents_of(splits, reading.split, class_names=class_names, notes=notes)
    if contents is None:
        raise _no_images(arrays, path)
    return contents


def _without_a_class_called_train(parts: list[_Part]) -> list[_Part]:
    """If each file is a class, one may have the name of a split, such as QuickDraw's train.npy."""
    said = [part for part in parts if part.split]
    kinds = [{*part.words} for part in parts if not part.split]
    in_files = all(part.array.name.endswith(".npy") for part in parts)
    if len(said) != 1 or len(kinds) < 2 or not in_files or any(map(_is_label, parts)):
        return parts
    common, [own] = set.intersection(*kinds), said
    if {*own.words} != common or not common or any(not kind > common for kind in kinds):
        return parts
    whole = own._replace(split="", words=(*own.words, own.split))
    return [whole if part is own else part for part in parts]


def _channels(part: _Part) -> int:
    return part.layout.bands if part.layout and part.layout.shape else 0


def _called(parts: Sequence[_Part], name: str, flag: str) -> list[_Part]:
    """The arrays with the name given by the user, in all splits; [] for "".

    Raises:
        DataError: When there is no such array.
    """
    found = [
        part
        for part in parts
        if name in (part.array.name, (last := part.array.name.split("/")[-1]), Path(last).stem)
    ]
    if name and not found:
        raise DataError(
            f"no array {name!r}",
            expected=f"one of {few([part.array.name for part in parts])}",
            hint=f"correct --{flag}-column",
        )
    return found if name else []


def _images_of(word: str, parts: Sequence[_Part]) -> tuple[_Part, ...]:
    """The arrays of a split that hold its images: one, or parts of one, or one for each class.

    Raises:
        DataError: When it is unclear which they are.
    """
    possible = [part for part in parts if part.split == word and part.layout]
    best = min((part.rank(IMAGE_WORDS) for part in possible), default=0)
    chosen = [part for part in possible if part.rank(IMAGE_WORDS) == best]
    columns = {(_file(part), part.layout and part.layout.images) for part in chosen}
    labelled = any(part.split == word and _is_label(part) for part in parts)
    single = all(part.layout and part.layout.images == 1 for part in chosen)
    open_which = not single and (labelled or len(columns) < len(chosen))
    if open_which and len({part.words for part in chosen}) > 1:
        named = ", ".join(repr(part.array.name) for part in chosen[:NAMED])
        raise DataError(
            f"several arrays that may be the images ({named})",
            expected=f"one array, called {' or '.join(IMAGE_WORDS[:5])}",
            hint="; ".join(["name it with --image-column", *_open_stacks(chosen)]),
        )
    return tuple(sorted(chosen, key=lambda part: _in_order(part.array.name)))


def _file(part: _Part) -> str:
    """The file of an array; its own name if it is alone in its file."""
    return part.array.name.rpartition("/")[0] or part.array.name


def _in_order(name: str) -> list[tuple[int, str]]:
    """A key that sorts batch_10 after batch_9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _split(
    word: str, images: tuple[_Part, ...], labels: Sequence[_Part]
) -> tuple[NamedSplit, set[str]]:
    """A split with the first labels that fit, and the names of the arrays that make it."""
    used = {part.array.name for part in images}
    names = tuple(name for part in images for name in part.rows())
    split = NamedSplit(word, names, functools.partial(_items, images))
    groups: dict[tuple[str, ...], list[_Part]] = {}
    of_split = [part for part in labels if part.split == word]
    # labels.npy next to train_images.npy labels the images to train on.
    if not of_split and split_of(word) == "train":
        of_split = [part for part in labels if not part.split]
    for part in sorted(of_split, key=_label_order):
        groups.setdefault(part.words, []).append(part)
    remarks = []
    for group in groups.values():
        values = _labels_in([part.array for part in group], count=len(names))
        if isinstance(values, str):
            remarks.append(values)
            continue
        used |= {part.array.name for part in group}
        return split._replace(labels=values, remarks=tuple(remarks)), used
    if not groups and (classes := _classes(images, train=split_of(word) in ("train", None))):
        remarks += ["each file or folder is a class: no array holds labels"]
        split = split._replace(labels=classes)
    return split._replace(remarks=(*remarks, *_open_stacks(images))), used


def _labels_in(arrays: Sequence[StoredArray], *, count: int) -> list[Label] | str:
    """The labels in the parts of an array, or why they cannot label this number of images."""
    named = ", ".join(repr(array.name) for array in arrays[:NAMED])
    rows = sum(array.shape[0] for array in arrays)
    if rows != count:
        return f"the labels in {named} are not used: {rows:,} for {count:,} images"
    if any(array.dtype.kind in "OV" for array in arrays):
        how = "save them as numbers or text, such as np.asarray(labels, dtype=str)"
        return f"the labels in {named} are not used: they are objects, structs or cells; {how}"
    shapes = {array.shape[1:] for array in arrays}
    if max(map(np.prod, shapes)) > MOST_CLASSES:
        return f"{named} cannot be labels of images: its shape is {arrays[0].shape}"
    array = np.concatenate([array.read() for array in arrays]).reshape(count, -1)
    return labels_of_rows(array, named)


def _open_stacks(images: Sequence[_Part]) -> Iterator[str]:
    """A remark on stacks without labels that could also be single images, by shape and name."""
    stacks = [part for part in images if part.layout and part.layout.images > 1]
    arrays = [part.array for part in stacks if part.last.isdisjoint(OF_MANY)]
    said = {array.name: may_be_one(array.shape, array.dtype) for array in arrays}
    found = [f"{name!r} {what}" for name, what in said.items() if what]
    if found:
        yield found[0] + f" (and {len(found) - 1:,} more such arrays)" * (len(found) > 1)


def _label_order(part: _Part) -> tuple[Any, ...]:
    """Plain names first, fine labels before coarse ones."""
    name = part.array.name
    return (part.rank(ARRAY_LABELS), "coarse" in part.last, len(part.last), _in_order(name))


def _classes(images: Sequence[_Part], *, train: bool) -> list[Label]:
    """The class of each image if files or folders of different names are classes, else []."""
    if all(part.layout and part.layout.images == 1 for part in images):
        paths = [tuple(_below_split(part)) for part in images]
        fit = are_classes(paths) if train else all(len(path) == 2 for path in paths)
        return [path[0] for path in paths] if fit else []
    kinds = [part.words for part in images]
    common = set(kinds[0]).intersection(*kinds)
    if len(set(kinds)) < 2:
        return []
    names = [" ".join(word for word in kind if word not in common) for kind in kinds]
    return [name for name, part in zip(names, images, strict=True) for _ in part.rows()]


def _below_split(part: _Part) -> list[str]:
    """The folders and the file of an array, without those that name a split."""
    return [each for each in part.array.name.split("/") if split_of(each) is None]


def _no_images(arrays: Sequence[StoredArray], path: Path) -> DataError:
    if any(array.dtype.hasobject for array in arrays):
        return pickled(path)
    listed = [f"{array.name!r} {array.dtype} {array.shape}" for array in arrays[:NAMED]]
    more = ", ..." if len(arrays) > NAMED else ""
    layouts = (stack_layout(array.shape, array.dtype, bands=True) for array in arrays)
    rows = next((a for a in arrays if len(a.shape) == 2 and math.isqrt(a.shape[1]) > 7), None)
    side = math.isqrt(rows.shape[1]) if rows else 0
    many = next((layout.bands for layout in layouts if layout and len(layout.shape) == 3), 0)
    return DataError(
        f"no images to train on in {str(path)!r} ({', '.join(listed) or 'no arrays'}{more})",
        expected="an array of images, (N, H, W, 3), (N, 3, H, W) or (N, H, W), to train on",
        hint=f"for images of {many} bands, add --bands all --encoder.channels {many}, or choose "
        "three, as --bands 4,3,2"
        if many
        else f"if its rows are gray images, save it as x.reshape(-1, {side}, {side})"
        if rows and side**2 == rows.shape[1]
        else "call it x_train or images, and save it as numbers",
    )


def _strange(parts: Sequence[_Part], used: set[str]) -> Iterator[Unused]:
    """Arrays that are neither images nor labels of a split."""
    rest = [part for part in parts if part.array.name not in used]
    labels = tuple(part.array.name for part in rest if _is_label(part))
    others = tuple(part.array.name for part in rest if not _is_label(part))
    if labels:
        yield Unused("file", "arrays of labels that do not fit, or are not needed", labels)
    if others:
        yield Unused("file", "arrays that are called neither images nor labels", others)


def _class_names(
    parts: Sequence[_Part], path: Path, *, coarse: bool
) -> tuple[set[str], tuple[str, ...]]:
    """The class names listed in an array, or in a file next to them: which array, and the names.

    Coarse labels have other names than fine ones.
    """
    others = frozenset({"fine"}) if coarse else COARSE
    for part in parts:
        one = len(part.array.shape) == 1 and not part.array.dtype.hasobject
        if "names" in part.last and others.isdisjoint(part.last) and _is_label(part) and one:
            array = part.array.read()
            is_text = array.dtype.kind in "SUO"
            names = texts_in(array) if is_text else as_labels(array, part.array.name)
            if not isinstance(names, str):
                return {part.array.name}, tuple(map(str, names))
    for file in (path / name for name in NAME_LISTS if others.isdisjoint(name.split("_"))):
        if file.is_file() and file.stat().st_size < MOST_TEXT:
            lines = file.read_text("utf-8", "replace").splitlines()
            return set(), tuple(line.strip() for line in lines if line.strip())
    return set(), ()


def _items(images: Sequence[_Part]) -> Iterator[Encoded]:
    for part in images:
        assert part.layout is not None
        array, names = part.array, part.rows()
        whole = part.layout.images != array.shape[0]  # one image, whose rows are not images
        for block in [array.read()] if whole else array.blocks():
            for image in block if array.encoded else part.layout.arranged(block):
                yield Encoded(next(names), image.tobytes() if array.encoded else image)
