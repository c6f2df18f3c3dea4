"""Several data sets as one: the images of all, and labels where their classes agree.

Their spec is a JSON list of specs, so that a run, a study and a flag keep it as one text.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from stopgrad.config import Bands
from stopgrad.errors import DataError
from stopgrad.images.decoding import channels_in, range_in
from stopgrad.images.depth import Depth, ValueRange, levels_for
from stopgrad.images.opening import strict_pillow
from stopgrad.images.sources.labels import composed
from stopgrad.images.types import (
    UNLABELLED,
    Contents,
    DataSource,
    Encoded,
    Labels,
    Notes,
    SplitReader,
    Unused,
)

SEEN = 32  # images of each source that tell how deep its values are


def specs_of(spec: str) -> tuple[str, ...]:
    """The specs in a combined spec; any other spec alone."""
    if not spec.startswith('["'):
        return (spec,)
    try:
        specs = json.loads(spec)
    except ValueError:
        return (spec,)
    fits = all(isinstance(each, str) for each in specs)
    return tuple(specs) if fits else (spec,)


def spec_of_several(specs: Sequence[str]) -> str:
    """One spec for all; a single spec stays as it is."""
    flat = [each for spec in specs for each in specs_of(spec)]
    return flat[0] if len(flat) == 1 else json.dumps(flat, ensure_ascii=False)


def several_source(sources: Sequence[DataSource]) -> DataSource:
    """The images of all sources, each named below the name of its source.

    Raises:
        DataError: When one is named twice; from `open`, when they differ in channels.
    """
    roots = [source.root for source in sources]
    if twice := [root for root in roots if roots.count(root) > 1]:
        raise DataError(
            f"{twice[0]!r} is named twice",
            expected="different data sets",
            hint="leave one out",
        )
    named = dict(zip(_names(sources), sources, strict=True))
    notes = [_below(name, source.notes) for name, source in named.items()]
    return DataSource(
        name=" + ".join(named),
        root=json.dumps(roots),
        stamps=tuple(
            stamp._replace(path=f"{name}/{stamp.path}")
            for name, source in named.items()
            for stamp in source.stamps
        ),
        open=lambda: _open(named),
        notes=Notes().and_those(*notes),
    )


def _names(sources: Sequence[DataSource]) -> list[str]:
    """A different name for each, with the folder above if two have the same."""
    names = [source.name for source in sources]
    for name in {name for name in names if names.count(name) > 1}:
        for place, source in enumerate(sources):
            if source.name == name:
                names[place] = f"{Path(source.root).parent.name}/{name}"
    return [
        name if names.count(name) == 1 else f"{name} {place + 1}"
        for place, name in enumerate(names)
    ]


def _below(name: str, notes: Notes) -> Notes:
    """Notes of one source, with its name before each."""
    remarks = tuple(f"{name}: {remark}" for remark in notes.remarks)
    unused = (of._replace(names=tuple(f"{name}/{one}" for one in of.names)) for of in notes.unused)
    return notes._replace(remarks=remarks, unused=tuple(unused))


def _open(sources: Mapping[str, DataSource]) -> Contents:
    contents = {name: source.open() for name, source in sources.items()}
    said = Notes((*_read_twice(sources, contents), *_whites_apart(sources, contents)))
    _check_channels(contents, {name: source.reading.bands for name, source in sources.items()})
    notes = [_below(name, of.notes) for name, of in contents.items()]
    common = _common_classes(contents)
    tests = {name: of.test for name, of in contents.items() if of.test is not None}
    train = _joined({name: of.train for name, of in contents.items()}, contents, common.names)
    return Contents(
        common.names,
        train,
        _joined(tests, contents, common.names) if tests else None,
        Notes().and_those(*notes, common.notes, said),
    )


def _read_twice(
    sources: Mapping[str, DataSource], contents: Mapping[str, Contents]
) -> Iterator[str]:
    """A remark on each folder that lies in another one."""
    for outer, inner in itertools.permutations(sources, 2):
        if Path(sources[outer].root) in Path(sources[inner].root).parents:
            both = _files(contents[outer]) & _files(contents[inner])
            if both:
                yield f"{len(both):,} images are read twice: {inner} lies in {outer}"


def _files(contents: Contents) -> set[str]:
    readers = contents.readers.values()
    items = (item.data for reader in readers for item in reader.items())
    return {str(data) for data in items if isinstance(data, Path)}


def _whites_apart(
    sources: Mapping[str, DataSource], contents: Mapping[str, Contents]
) -> Iterator[str]:
    """A remark where one white level does not fit all sources, judged by some images of each."""
    for depth in get_args(Depth):
        whites = dict[str, float]()
        for name, of in contents.items():
            look = functools.partial(range_in, depth=depth, bands=sources[name].reading.bands)
            with strict_pillow():
                seen = [*map(look, itertools.islice(of.train.items(), SEEN))]
            if found := [each for each in seen if isinstance(each, ValueRange)]:
                whole = ValueRange(min(of.low for of in found), max(of.high for of in found))
                whites[name] = levels_for(depth, whole).white
        asked = any(source.reading.white_level for source in sources.values())
        if len(set(whites.values())) > 1 and not asked:
            named = ", ".join(f"{white:,g} in {name}" for name, white in whites.items())
            yield (
                f"all {depth} images share one white level; separately it would be {named}: "
                "pack each into a store to keep its own"
            )


def _check_channels(contents: Mapping[str, Contents], bands: Mapping[str, Bands]) -> None:
    """Refuses sources whose images have different numbers of channels."""
    with strict_pillow():
        counts = {name: channels_in(of.train.items(), bands[name]) for name, of in contents.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise DataError(
            f"images of different numbers of channels: {found}",
            expected="the same number in each data set",
            hint="choose as many with --bands; a store keeps those it was packed with",
        )


class _CommonClasses(NamedTuple):
    """C class names that hold for all sources with labels, () if there are none."""

    names: tuple[str, ...]
    notes: Notes


def _common_classes(contents: Mapping[str, Contents]) -> _CommonClasses:
    labelled = {name: of for name, of in contents.items() if of.train.labels is not None}
    kinds = {frozenset(map(composed, of.class_names)) for of in labelled.values()}
    if len(kinds) == 1:
        (first, *_), without = labelled.values(), contents.keys() - labelled.keys()
        remark = f"only {', '.join(labelled)} has labels"
        return _CommonClasses(first.class_names, Notes((remark,) if without else ()))
    unused = tuple(
        f"{name}/{split}:{row}"
        for name, of in labelled.items()
        for split, reader in of.readers.items()
        if reader.labels is not None
        for row in np.flatnonzero(reader.labels != UNLABELLED)
    )
    reason = f"the classes of {' and '.join(labelled)} differ"
    return _CommonClasses((), Notes(unused=(Unused("label", reason, unused),) if unused else ()))


def _joined(
    readers: Mapping[str, SplitReader],
    contents: Mapping[str, Contents],
    class_names: tuple[str, ...],
) -> SplitReader:
    """One split of all sources, with labels numbered as `class_names`, () for none."""
    labels = [
        _numbered(reader, contents[name].class_names, class_names)
        for name, reader in readers.items()
    ]
    known = any((of != UNLABELLED).any() for of in labels)
    return SplitReader(
        sum(reader.length for reader in readers.values()),
        np.concatenate(labels) if known else None,
        functools.partial(_items, readers),
    )


def _numbered(reader: SplitReader, own: Sequence[str], common: Sequence[str]) -> Labels:
    if reader.labels is None or not common:
        return np.full(reader.length, UNLABELLED)
    places = np.array([*map([*map(composed, common)].index, map(composed, own)), UNLABELLED])
    return places[reader.labels]  # the last place is that of UNLABELLED


def _items(readers: Mapping[str, SplitReader]) -> Iterator[Encoded]:
    for name, reader in readers.items():
        for encoded in reader.items():
            yield encoded._replace(name=f"{name}/{encoded.name}")
