"""A folder of image files -> a `DataSource`.

`files` says which files are images, `layout` which splits and classes their folders make, `tables`
how files such as metadata.csv label images that lie in no class folders; if the user names the
column of the labels, class folders are ignored. Of several splits the first whose images have
labels is scored, test splits first; its name and those of all images that are not read are noted.
Tables are not read before the source is opened, unless the choice of a split depends on them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.config import BY_RULE, Reading
from stopgrad.errors import DataError
from stopgrad.images.sources.files import FolderListing, Found, as_text, list_folder
from stopgrad.images.sources.labels import RawLabels, composed, number_labels
from stopgrad.images.sources.layout import (
    Arrangement,
    FolderSplit,
    are_classes,
    are_numbered,
    arrange,
    classes_in_names,
    inner_classes,
    unwrapped,
    why_no_classes,
)
from stopgrad.images.sources.masks import holds_images
from stopgrad.images.sources.names import UNLABELED, scored_as, to_score
from stopgrad.images.types import (
    Contents,
    DataSource,
    Encoded,
    FileStamp,
    Labels,
    Notes,
    SplitReader,
    Unused,
    stamp,
)
from stopgrad.storage import some

if TYPE_CHECKING:
    from stopgrad.images.sources.tables import TableLabels

MOST_FLAGS = 5  # that a line names

log = logging.getLogger(__name__)


def folder_source(
    root: Path, reading: Reading = BY_RULE, *, listing: FolderListing | None = None
) -> DataSource:
    """The images in a folder.

    Args:
        root: The folder.
        reading: The split that is scored, by rule the first with labels; the columns of tables.
        listing: The contents of the folder, if known.

    Raises:
        DataError: When it is not a folder, or holds no images to train on.
        ConfigError: For a split that is not there.
    """
    if not root.is_dir():
        raise DataError(
            f"{str(root)!r} is not a folder",
            expected="a folder of images or of Parquet files",
            hint="name the folder that holds the images",
        )
    listing = listing or list_folder(root)
    found = arrange(listing.images)
    if not found.train.images:
        raise _nothing_to_train_on(root, listing, found)
    if (reading.image_column or reading.label_column) and not listing.tables:
        log.warning("%s has no columns to choose from", as_text(root.name))
    known = _FolderLabels.of(listing, found, reading)
    scored = _choose(found, known, reading.split)
    return DataSource(
        as_text(root.name),
        str(root),
        tuple(_stamps(found, known, scored)),
        lambda: _open(found.train, scored, known),
        notes=_notes(listing, found, known, scored, reading.split),
    )


def _nothing_to_train_on(root: Path, listing: FolderListing, found: Arrangement) -> DataError:
    """The error for a folder without images, with what it holds instead."""
    hint = "name the folder that holds the images, or the one that holds train/"
    there = []
    if found.scored:
        names = ", ".join(f"{split.name}/" for split in found.scored)
        there.append(f"images to score in {names}")
        hint = f"to learn from those: --data {quote(_folder_of(found.scored[0].images))}"
    if listing.tables:
        hint = "save images that are stored in a table (base64, pixels, URLs) as files"
        there.append(f"tables without images: {some(['/'.join(t.parts) for t in listing.tables])}")
    groups = [group for group in listing.unused if group.what == "image"] or listing.unused
    there += [
        f"{len(names):,} {kind}{'s' * (len(names) > 1)} not read, {reason}"
        for kind, reason, names in groups[:3]
    ]
    what = f" ({'; '.join(there)})" if there else ""
    return DataError(
        f"no images to train on in {str(root)!r}{what}",
        expected="files that end in .png, .jpg, .webp or the like, in the folder or in train/",
        hint=hint,
    )


class _FolderLabels(NamedTuple):
    """How the images of a folder get their labels."""

    by_column: bool  # whether the user has named the column that holds them
    by_folder: bool  # whether the training images lie in class folders that count
    classes: frozenset[str]  # those folders
    listing: FolderListing
    from_tables: Callable[[], TableLabels]  # reads them once

    @classmethod
    def of(cls, listing: FolderListing, found: Arrangement, reading: Reading) -> _FolderLabels:
        train, masks = found.train, {mask.path for mask in found.masks}
        rest = tuple(image for image in listing.images if image.path not in masks)
        listing = listing._replace(images=rest)
        by_column = bool(reading.label_column and listing.tables)
        by_folder = not by_column and are_classes(train.inside)
        of_folders = {train.class_of(image) for image in train.images} if by_folder else set()
        classes = frozenset(filter(None, of_folders))

        @functools.cache
        def read(classes: frozenset[str]) -> TableLabels:
            from stopgrad.images.sources.tables import table_labels

            splits = {i.path: s.split for s in (train, *found.scored) for i in s.images}
            folders = {i.path: s.class_of(i) for s in (train, *found.scored) for i in s.images}
            known = {*map(composed, classes)}
            own = {path: of for path, of in folders.items() if of and composed(of) in known}
            return table_labels(listing, splits, reading, classes=own)

        # part_1/ and part_2/ beside a table that labels what is in them
        if listing.tables and are_numbered(classes):
            labels = read(frozenset()).labels
            if 2 * sum(image.path in labels for image in train.images) >= len(train.images):
                by_folder, classes = False, frozenset()
        return cls(by_column, by_folder, classes, listing, functools.partial(read, classes))

    @property
    def tables(self) -> tuple[Found, ...]:
        """The tables in the folder."""
        return self.listing.tables

    def has_classes(self, split: FolderSplit) -> bool:
        """Whether images of a split lie in class folders of the training split."""
        known = {*map(composed, self.classes)}
        return any(composed(split.class_of(image) or "") in known for image in split.images)

    def has_labels(self, split: FolderSplit) -> bool:
        """Whether images of a split have a label, by folder or by table."""
        if self.has_classes(split) or not self.tables:
            return self.has_classes(split)
        return not self.from_tables().labels.keys().isdisjoint(i.path for i in split.images)

    def needs_tables(self, splits: Sequence[FolderSplit]) -> bool:
        """Whether the folders leave some of these splits without labels."""
        return bool(self.tables) and not all(self.has_classes(split) for split in splits)


def _choose(found: Arrangement, known: _FolderLabels, wanted: str) -> FolderSplit | None:
    """The split to score: the one that is wanted, or the first with labels."""
    splits = {split.name: split for split in found.scored}
    others = {
        name: unwrapped(FolderSplit(name, "test", tuple(of))) for name, of in found.others.items()
    }
    meanings = {**dict.fromkeys(others), **{name: split.split for name, split in splits.items()}}
    names = to_score({found.train.name: "train", **meanings}, wanted)
    several = [{**others, **splits}[name] for name in names]
    if len(several) < 2:
        return several[0] if several else None
    return next((split for split in several if known.has_labels(split)), several[0])


def _stamps(
    found: Arrangement, known: _FolderLabels, scored: FolderSplit | None
) -> Iterator[FileStamp]:
    """The stamps of all images that are read, and of the tables that may label them.

    Their names tell how images were understood: two ways of reading a folder never share a key.
    """
    train = found.train
    for image in train.images:
        stray = known.by_folder and train.class_of(image) is None
        yield stamp(image.path, name="/".join(("unlabelled" if stray else "train", *image.parts)))
    if scored is not None:
        name = "test" if scored in found.scored[:1] else scored.name
        for image in scored.images:
            yield stamp(image.path, name="/".join((name, *image.parts)))
    if known.needs_tables([train, *([scored] if scored else [])]):
        for table in known.tables:
            yield stamp(table.path, name="/".join(("labels", *table.parts)))


def _notes(
    listing: FolderListing,
    found: Arrangement,
    known: _FolderLabels,
    scored: FolderSplit | None,
    wanted: str,
) -> Notes:
    """Notes taken from the names: which splits are read, and all that is not."""
    train, remarks, unused = found.train, list(found.remarks), list[Unused]()

    def pass_over(reason: str, images: Sequence[Found]) -> None:
        if images:
            names = tuple(listing.below(image.path) for image in images)
            unused.append(Unused("image", reason, names))

    remarks += _remarks(found, scored, known)
    read = " and ".join(f"{split.name}/" for split in (train, scored) if split and split.name)
    others = [
        image
        for name in sorted(found.others)
        if scored is None or name != scored.name or scored in found.scored
        for image in found.others[name]
    ]
    pass_over(f"beside {read}", others)
    for split in found.scored:
        if scored is not None and split.name != scored.name:
            pass_over(f"{scored.name}/ is scored instead of {split.name}/", split.images)
    pass_over("masks, annotations or thumbnails beside images", found.masks)
    remarks += [
        _how_to_learn_from(_folder_of(images), listing.root)
        for name, images in found.others.items()
        if name.lower() in UNLABELED
    ]
    name = "" if scored is None else _called(found, scored, wanted)
    return Notes(tuple(remarks), (*unused, *listing.unused), name)


def _called(found: Arrangement, scored: FolderSplit, wanted: str) -> str:
    """The name of the scored split in results."""
    meaning = scored.split if scored in found.scored else None
    return scored_as(scored.name, {scored.name: meaning}, wanted)


def _remarks(found: Arrangement, scored: FolderSplit | None, known: _FolderLabels) -> Iterator[str]:
    train = found.train
    if scored is not None:
        if (train.name.lower(), scored.name.lower()) != ("train", "test"):
            learned = f"{train.name}/" if train.name else "the images outside it"
            yield f"to train on: {learned}; to score: {scored.name}/"
        skipped = found.scored[: found.scored.index(scored)] if scored in found.scored else ()
        if skipped:
            names = ", ".join(f"{split.name}/" for split in skipped)
            yield f"{scored.name}/ is scored, because the images in {names} have no labels"
    if not known.by_folder:
        if are_classes(train.inside) and not known.by_column:
            names = some(sorted({parts[0] for parts in train.inside}))
            yield f"{names} are parts of one set: a table labels their images"
        elif not known.by_column:
            yield from filter(None, (why_no_classes(train.inside), _why_no_inner_classes(train)))
        if not known.tables:
            yield from filter(None, [classes_in_names(train.inside)])
        return
    for split in filter(None, (train, scored)):
        strays = ["/".join(i.parts) for i in split.images if split.class_of(i) is None]
        if 0 < len(strays) < len(split.images):
            where = f" of {split.name}/" if split.name else ""
            yield f"in no class folder{where}, so without a label: {some(strays)} ({len(strays):,})"


def _why_no_inner_classes(train: FolderSplit) -> str:
    """Advice for classes that lie one level too deep; else ""."""
    inner = inner_classes(train.inside)
    if inner is None or train.cut:
        return ""
    root = Path(_folder_of(train.images))
    flags = [f"--data {quote(str(root.joinpath(*folder)))}" for folder in inner.outer]
    shown = " ".join(flags[:MOST_FLAGS]) + " ..." * (len(flags) > MOST_FLAGS)
    return (
        f"no labels from folders: {some([folder[-1] for folder in inner.outer])} hold folders "
        f"with the same names ({some(inner.names)}); if those are the classes, merge the folders "
        f"of each name, or train on all: {shown}"
    )


def _how_to_learn_from(folder: str, root: str) -> str:
    """The commands that learn from a folder next to the training split."""
    return (
        f"to learn from {folder}: stopgrad pretrain --data {quote(folder)}, and embed, "
        f"compare and finetune (with --out) its run with --data {quote(root)}"
    )


def _folder_of(images: Sequence[Found]) -> str:
    """The folder to which the paths of images are relative."""
    return str(Path(images[0].path).parents[len(images[0].parts) - 1])


def _open(train: FolderSplit, scored: FolderSplit | None, known: _FolderLabels) -> Contents:
    read = [split for split in (train, scored) if split is not None]
    notes = Notes()
    if known.needs_tables(read):
        notes = known.from_tables().notes
    elif known.tables:
        names = tuple("/".join(table.parts) for table in known.tables)
        notes = Notes(unused=(Unused("file", "not read: the folders are classes", names),))
    labels = number_labels(*([_raw_labels(split, known) for split in read] + [None])[:2])
    return Contents(
        labels.class_names,
        _reader(train, labels.train),
        _reader(scored, labels.test) if scored is not None else None,
        notes.and_those(labels.notes),
    )


def _raw_labels(split: FolderSplit, known: _FolderLabels) -> RawLabels | None:
    """The label of each image (N,) by its class folder, or else by a table; None without any."""

    def name_of(row: int) -> str:
        return known.listing.below(split.images[row].path)

    name = split.name or split.split
    by_folder = [split.class_of(image) for image in split.images]
    if known.has_classes(split):
        return RawLabels(name, by_folder, name_of)
    if known.tables:
        labels = known.from_tables().labels
        values = [labels.get(image.path) for image in split.images]
        if any(value is not None for value in values):
            return RawLabels(name, values, name_of)
    if known.by_column:
        return None
    # Classes that the training split lacks: none can be used, and that is noted.
    classes = {name for name in by_folder if name and not holds_images(name)}
    lost = bool(classes) if known.by_folder else are_classes(split.inside)
    return RawLabels(name, by_folder, name_of) if lost else None


def _reader(split: FolderSplit, labels: Labels | None) -> SplitReader:
    return SplitReader(len(split.images), labels, functools.partial(_items, split.images))


def _items(images: tuple[Found, ...]) -> Iterator[Encoded]:
    for found in images:
        yield Encoded("/".join(found.parts), Path(found.path))
