"""Masks and thumbnails: which image files are not images of their own, by the names around them.

They are found in three places: in a folder of masks or the like next to one called `images`; in a
folder named like masks, thumbnails or resized copies whose files have the names of the files next
to or around it, with or without a word for what they are (`7_mask.png`), and, if it is called
thumbs or the like, which may be a class, take less than half of their space; and next to the file
of the same name without such a word.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from stopgrad.images.sources.files import Found

IMAGE_FOLDERS = ("images", "imgs", "img", "jpegimages", "leftimgbit")
THUMBNAILS = frozenset({"thumb", "thumbs", "thumbnail", "thumbnails"})
MASKS = frozenset(  # that are never the name of a class
    {"masks", "annotations", "labels", "segmentations", "segmentationclass", "segmentationobject"}
    | {"groundtruth", "gtfine"}
)
RESIZED = frozenset({"resized", "preview", "previews", "downscaled", "downsampled", "lowres"})
BESIDE_IMAGES = MASKS | {"mask", "annotation", "label", "segmentation", "gt", "depth"} | THUMBNAILS
WORD = re.compile(r"[ ._-](?:mask|seg|gt|thumb)", re.IGNORECASE)  # rules most names out at once
CALLED = MASKS | THUMBNAILS
MARKED = re.compile(
    r"(.+?)[ ._-]+(?:masks?|seg|segmentation|gt|thumb|thumbnail)(?:[ _-]?\d+)?", re.IGNORECASE
)
MOST_OTHERS = 0.05  # of the files in a folder of masks may match no image

Folder = tuple[str, ...]  # the parts of its path


class MasksApart(NamedTuple):
    """Image files, sorted into images and masks."""

    images: tuple[Found, ...]
    masks: tuple[Found, ...]
    remarks: list[str]  # on folders that are named like those of masks and may hold some


def without_masks(images: Sequence[Found]) -> MasksApart:
    """Separates masks and thumbnails from the other images, both in order."""
    folders = {image.parts[:-1] for image in images}
    parents = {
        parts[:depth] for parts in folders for depth, name in enumerate(parts) if holds_images(name)
    }
    masked = {
        parts
        for parts in (folders if parents else ())
        for depth, name in enumerate(parts)
        if _plain(name) in BESIDE_IMAGES and parts[:depth] in parents
    }
    called = _called_masks(images, folders - masked)
    masked |= _copies(images, called)
    files = _marked(images)

    def is_mask(image: Found) -> bool:
        return image.parts[:-1] in masked or bool(files and _without_ending(image.parts) in files)

    remarks = [
        f"{len(of):,} images in {'/'.join(folder)}/ are used like all others: if they are masks "
        "or thumbnails, move them elsewhere"
        for folder, of in called.items()
        if len(of) < len(images) and of[0].parts[:-1] not in masked and _plain(folder[-1]) in CALLED
    ]
    if not masked and not files:
        return MasksApart(tuple(images), (), remarks)
    kept = tuple(image for image in images if not is_mask(image))
    return MasksApart(kept, tuple(image for image in images if is_mask(image)), remarks)


def _marked(images: Sequence[Found]) -> set[Folder]:
    """Paths, without ending, of files named like another in their folder plus a word for a mask."""
    found = {_without_ending(image.parts) for image in images if WORD.search(image.parts[-1])}
    there = {_without_ending(image.parts) for image in images} if found else set()
    return {parts for parts in found if _unmarked(parts) != parts and _unmarked(parts) in there}


def _called_masks(images: Sequence[Found], folders: set[Folder]) -> dict[Folder, list[Found]]:
    """Images by the outermost folder around them that is named like one of masks or thumbnails."""
    depths, found = dict[Folder, int](), dict[Folder, list[Found]]()
    for parts in folders:
        named = (
            n for n, name in enumerate(parts, 1) if _plain(name) in CALLED or _is_resized(name)
        )
        if depth := next(named, 0):
            depths[parts] = depth
    for image in images if depths else ():
        if depth := depths.get(image.parts[:-1], 0):
            found.setdefault(image.parts[:depth], []).append(image)
    return found


def _copies(images: Sequence[Found], called: Mapping[Folder, Sequence[Found]]) -> set[Folder]:
    """The folders whose images are masks or smaller copies of those next to or around them."""
    found, apart = set[Folder](), {copy.path for copies in called.values() for copy in copies}
    for folder, copies in called.items():
        above = folder[:-1]
        wholes = dict[Folder, str]()  # by path around it or in one folder next to it
        for image in _below(above, images):
            if image.path not in apart:
                around = _without_ending(image.parts[len(above) :])
                wholes |= {around: image.path, around[1:]: image.path}
        both = []
        for copy in copies:
            place = _without_ending(copy.parts[len(folder) :])
            whole = wholes.get(place) or wholes.get(_unmarked(place))
            both += [(_size(copy.path), _size(whole))] if whole else []
        if len(copies) - len(both) > MOST_OTHERS * len(copies):
            continue
        small, large = map(sum, zip(*both, strict=True))
        if 2 * small < large or _plain(folder[-1]) not in THUMBNAILS:
            found |= {copy.parts[:-1] for copy in copies}
    return found


def _below(folder: Folder, images: Sequence[Found]) -> Iterator[Found]:
    """The images in a folder, given images in order."""
    first = bisect_left(images, folder, key=lambda image: image.parts)
    for place in range(first, len(images)):
        if images[place].parts[: len(folder)] != folder:
            return
        yield images[place]


def _without_ending(parts: Folder) -> Folder:
    return (*parts[:-1], os.path.splitext(parts[-1])[0])


def _unmarked(parts: Folder) -> Folder:
    """A path without the word that marks a mask."""
    match = MARKED.fullmatch(parts[-1])
    return (*parts[:-1], match[1] if match else parts[-1])


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else 0


def holds_images(name: str) -> bool:
    """Whether a folder of this name holds images and is not a class: `images`, `JPEGImages`."""
    return _plain(name) in IMAGE_FOLDERS


def _is_resized(name: str) -> bool:
    return not RESIZED.isdisjoint(re.findall(r"[a-z]+", name.lower()))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
