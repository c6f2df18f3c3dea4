"""A data set as the public face takes it: by name, by path or in memory; packed.

In: a spec, a path, several of them, or images that the caller holds. Out: `Data`, whose images are
decoded once for each size that training asks for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypedDict, Unpack, cast, get_args

from stopgrad import images, runs
from stopgrad.config import BY_RULE, BadImages, Config, Reading, bands_as_text, config_from_dict
from stopgrad.errors import ConfigError, DataError
from stopgrad.face.arguments import check_choices
from stopgrad.face.progress import Screen, at_work
from stopgrad.storage import printable, user_path

if TYPE_CHECKING:
    from stopgrad.images import Changed, Dataset, DataSource
    from stopgrad.runs import RunData

ARRAYS = "arrays:"  # prefix of the spec of images in memory
SIDE = 256  # px; of images stored before a config says what it needs


class Data:
    """A data set; its images are decoded once for each size that training asks for."""

    def __init__(
        self,
        spec: str | Sequence[str],
        first: Dataset | None = None,
        *,
        side: int = 0,
        reading: Reading = BY_RULE,
        source: DataSource | None = None,
        again: Callable[[Reading], Data] | None = None,
        bad_images: BadImages = "fail",
    ) -> None:
        """Notes where the images are.

        Args:
            spec: A name, a path, several of them, or `arrays:NAME` of images in memory.
            first: The images, if they were read already.
            side: px, at which `first` was read.
            reading: How it was read.
            source: Reads them, where the spec cannot.
            again: Reads an array with another reading.
            bad_images: What damaged images did.
        """
        self.spec = images.spec_of_several([spec] if isinstance(spec, str) else spec)
        self._reading, self._where = reading, source or self.spec
        self._first, self._side, self._again = first, side, again
        self._bad_images = bad_images

    @property
    def dataset(self) -> Dataset:
        """The images as they were first read."""
        if self._first is None:
            self._side = SIDE
            self._first = _read(self._where, Screen(), side=SIDE, reading=self._reading)
        return self._first

    def __len__(self) -> int:
        return len(self.dataset.train) + len(self.dataset.test or ())

    def __repr__(self) -> str:
        found = images.how_it_was_read(self.dataset).removeprefix(f"read {self.dataset.name}: ")
        return printable(f"<Data {self.spec!r}: {found}>")

    def stored_for(
        self,
        config: Config,
        screen: Screen,
        *,
        split: str = "auto",
        like: RunData | None = None,
        changed: Changed = "fail",
    ) -> Dataset:
        """The images as a config stores them, whole at a size that its encoder takes.

        Args:
            config: The training's; where it does not say how to read, the data's own reading holds.
            screen: Shows progress.
            split: The split that is scored, as `evaluate` takes it.
            like: The images of a run, whose size, bands and levels these are to have.
            changed: What to do with a store whose folder has changed since it was packed.
        """
        config = self.with_reading(config)
        asked, own = runs.reading_of(config, split=split, like=like), self._reading
        how: dict[str, Any] = {"split": split, "like": like, "changed": changed}
        own = own._replace(white_level=asked.white_level, bands=asked.bands, levels=asked.levels)
        if self._again is not None and own != self._reading:
            return self._again(own).stored_for(config, screen, **how)
        side = runs.side_of(config, like=like)
        first = self._first if self._serves(config, asked, like, side=side) else None
        if first is not None:
            return runs.fit_sizes(first, config)
        where = images.dataset_source(self.dataset) if self._is_array else self._where
        with screen.progress():
            screen.doing("reading the images")
            return runs.load_images(where, config, **how, track=screen.track)

    def to_look_at(self) -> str | DataSource:
        """The source for looking at each image: files read anew, or images in memory."""
        if not self.spec.startswith(ARRAYS):
            return self.spec
        in_files = self._where != self.spec
        return self._where if in_files else images.dataset_source(self.dataset)

    def with_reading(self, config: Config) -> Config:
        """The config, with the data's own reading settings where it has none."""
        own = self._reading
        return replace(
            config,
            bad_images=self._bad_images if config.bad_images == "fail" else config.bad_images,
            image_column=config.image_column or own.image_column,
            label_column=config.label_column or own.label_column,
            white_level=config.white_level or own.white_level,
            bands=config.bands if config.reading.bands else bands_as_text(own.bands),
        )

    def with_columns(self, config: Config) -> Config:
        """The config, with the columns that were named with the data, else its own."""
        named = self.reading_knobs
        return replace(config, **{key: named[key] for key in named if key.endswith("_column")})

    def check_columns(self, reading: Reading) -> None:
        """Refuses columns that were named beside images in memory that have none.

        Raises:
            ConfigError: With what to give instead.
        """
        named = _columns_in(reading)
        if named and self.spec.startswith(ARRAYS) and not getattr(self._where, "again", None):
            raise ConfigError(
                f"{' and '.join(named)} for images without columns",
                expected="rows such as {'image': ..., 'label': ...}",
                hint="give labels as labels=..., or rows with these columns",
            )

    @property
    def reading_knobs(self) -> dict[str, Any]:
        """The knobs for reading the data, where they differ from the rules."""
        return reading_in(self.with_reading(Config()))

    @property
    def _is_array(self) -> bool:
        """Whether these are images in memory whose files are not known."""
        return self.spec.startswith(ARRAYS) and self._where == self.spec

    def _serves(self, config: Config, reading: Reading, like: RunData | None, *, side: int) -> bool:
        """Whether reading the images again would give the same ones: neither would resize any."""
        first = self._first
        if first is None or not runs.has_size_of(like, first, side=side):
            return False
        if self._is_array or reading != self._reading:
            return self._is_array
        size = first.train.pixels.shape[1:3]
        kept = size != (self._side, self._side) and max(size) <= side
        whole = not first.train.whole_side and (not first.damaged or config.bad_images == "skip")
        return whole and (kept or self._side == side)


class HeldImages(Protocol):
    """Images that a caller holds: an array, a tensor, a list, a column of a table, a data set."""

    def __getitem__(self, index: Any, /) -> Any:
        """One or several images."""
        ...


AnyData: TypeAlias = "str | Path | Data | Dataset | HeldImages"


class HowRead(TypedDict, total=False):
    """How a data set is read, where the rules should not decide; named like the knobs."""

    image_column: str  # of a table, that holds the images or their paths; "": by rule
    label_column: str  # of a table, that holds the labels; "": by rule
    white_level: float  # the value that is white in images of more than 8 bits; 0: from the set
    bands: str  # "4,3,2" for red, green and blue, or one band; more, or "all": a channel per band


@at_work
def load(
    data: AnyData,
    *,
    labels: Any = None,
    class_names: Sequence[str] = (),
    side: int = SIDE,
    bad_images: BadImages = "fail",
    **reading: Unpack[HowRead],
) -> Data:
    """Reads a data set and shows how it was understood.

    Args:
        data: A name (`mnist5k`, `cifar10`, `cifar100`, `hf:OWNER/NAME`), the path of a folder of
            images or of Parquet files, of an archive, of a file of arrays or of a packed store; or
            a list of several of these. Or images themselves: an array or a tensor (N, H, W, 3),
            (N, 3, H, W) or (N, H, W), or of any number of bands, of bytes, or of floats from 0 to
            1; a list, an array or a column of paths of image files, of arrays, of tensors or of
            Pillow images; or a data set of PyTorch.
        labels: N numbers or texts, of images themselves; None where one has no label.
        class_names: C names of labels that are numbers from 0 on.
        side: px. Images of one size, at most this, are kept as they are; others become centred
            squares, except those of one array. Training reads them again where it asks for
            another size.
        bad_images: What to do about damaged images: fail, or skip.
        **reading: How it is read where the rules should not decide, as the knobs of these names:
            `image_column` and `label_column` of a table (Parquet, CSV, ...) or of rows in memory;
            `white_level`, the value that is white in images of more than 8 bits; `bands`, such as
            "4,3,2" for red, green and blue, or one band; more, or "all", make a channel per band.

    Raises:
        ConfigError: For labels or names with anything but images themselves, and for a `reading`
            that is unknown, or with images that were read before, and for columns with images
            that have none.
        DataError: For data that are missing or unsuitable.
    """
    check_choices("bad_images", [bad_images], get_args(BadImages))
    specs, how = _specs(data), _asked(reading).reading
    read_elsewhere = specs or isinstance(data, (Data, images.Dataset))
    if labels is not None and how.label_column:
        raise ConfigError("both labels and label_column", expected="one of them")
    if read_elsewhere and (labels is not None or class_names):
        raise ConfigError(
            "labels or class_names for images that are not an array",
            expected="a data set with its own labels, or an array",
            hint="name the folders train/CLASS and test/CLASS",
        )
    if specs:
        spec = images.spec_of_several(specs)
        first = _read(spec, Screen(), side=side, reading=how, bad_images=bad_images)
        return Data(spec, first, side=side, reading=how, bad_images=bad_images)
    if not isinstance(data, (Data, images.Dataset)):
        held = images.plain(data)
        source = images.held_source(held, labels=labels, class_names=class_names, reading=how)
        found = _held(held, source, side=side, reading=how, bad_images=bad_images)
        found.check_columns(how)
        return found
    if reading:
        raise ConfigError(
            f"{', '.join(reading)} for images that were already read",
            expected="a name, a path, or the images themselves",
        )
    return data if isinstance(data, Data) else Data(f"{ARRAYS}{data.name}", data)


def reading_in(config: Config) -> dict[str, Any]:
    """The knobs for reading data, where a config differs from the rules."""
    usual, names = Config(), (*HowRead.__annotations__, "bad_images")
    return {n: value for n in names if (value := getattr(config, n)) != getattr(usual, n)}


def _specs(data: AnyData) -> list[str]:
    """The names and paths of data sets; [] for images themselves."""
    if isinstance(data, (str, os.PathLike)):
        return [os.fspath(data)]
    found = None if isinstance(data, (Data, images.Dataset)) else images.paths_in(data)
    return found if found and not images.are_image_files(found) else []


def _asked(reading: HowRead) -> Config:
    """A config that says only how data are read."""
    check_choices("argument", reading, [*HowRead.__annotations__])
    return config_from_dict(dict(reading))


def _held(
    data: Any, source: DataSource, *, side: int, reading: Reading, bad_images: BadImages
) -> Data:
    """Images that the caller holds, or a list of image files."""
    import numpy as np

    spec = f"{ARRAYS}images"
    reading = reading if reading.bands else reading._replace(bands=source.reading.bands)
    if not isinstance(data, np.ndarray):
        first = _read(source, Screen(), side=side, reading=reading, bad_images=bad_images)
        return Data(spec, first, side=side, reading=reading, source=source, bad_images=bad_images)
    contents = source.open()
    labels = contents.train.labels

    def again(reading: Reading) -> Data:
        return _held(data, source, side=side, reading=reading, bad_images=bad_images)

    whole = data.ndim == 4 and data.shape[3] == 3 and data.dtype == np.uint8
    if whole and reading == BY_RULE and (labels is None or labels.min() >= 0):
        train = images.images_from_arrays(data, labels=labels, class_names=contents.class_names)
        dataset = images.Dataset("images", train, None, notes=contents.notes)
        return Data(spec, dataset, again=again)
    largest = max(data.shape[1:], default=1)  # px at least, so that none is resized
    first = _read(source, Screen(), side=largest, reading=reading, bad_images=bad_images)
    return Data(spec, first, reading=reading, again=again)


@at_work
def pack(
    data: AnyData,
    out: str | Path,
    *,
    side: int = SIDE,
    bad_images: BadImages = "fail",
    **reading: Unpack[HowRead],
) -> Data:
    """Decodes a data set once into a store on disk, to train with little memory.

    Args:
        data: A name or a path, as for `load`, or the result of `load` for one.
        out: A folder to write, or to continue after a kill.
        side: px. Side of the stored images: centred squares, unless all share a size up to it.
        bad_images: What to do about damaged images: fail, or skip.
        **reading: As for `load`.

    Raises:
        ConfigError: For a `reading` that is unknown.
        DataError: For data that are missing or unsuitable.
        StorageError: When the disk refuses.
    """
    check_choices("bad_images", [bad_images], get_args(BadImages))
    screen, store = Screen(), user_path(out).absolute()
    asked = as_data(data).with_reading(replace(_asked(reading), bad_images=bad_images))
    images.pack(
        spec_of(data),
        store,
        side=side,
        reading=asked.reading,
        bad_images=asked.bad_images,
        track=screen.track,
    )
    dataset = images.load_dataset(str(store), changed="warn")
    tell_data(dataset, screen)
    if dataset.damaged:
        screen.line(f"left out: {len(dataset.damaged):,} damaged images")
    return Data(str(store), dataset)


def as_data(data: AnyData, config: Config | None = None) -> Data:
    """What a caller names, not read yet; images in memory by the columns that a config names.

    Raises:
        ConfigError: For such columns beside images in memory that have none.
        DataError: As `load`, for images in memory.
    """
    reading = BY_RULE if config is None else config.reading
    if isinstance(data, Data):
        data.check_columns(reading)
        return data
    specs = _specs(data)
    return Data(specs) if specs else load(data, **_columns_in(reading))


def _columns_in(reading: Reading) -> HowRead:
    """The columns that are named, by the names of the knobs."""
    columns = {"image_column": reading.image_column, "label_column": reading.label_column}
    return cast("HowRead", {name: column for name, column in columns.items() if column})


def tell_data(dataset: Dataset, screen: Screen) -> None:
    """Says how a data set was read and what in it is unused, before a pretraining on it."""
    screen.line(images.what_to_know(dataset)[0])
    tell_notes(dataset, screen)


def tell_notes(dataset: Dataset, screen: Screen) -> None:
    """Says what became of labels and what is unused; warns if that is many images."""
    for line in images.what_to_know(dataset)[1:]:
        screen.line(line)
    images.warn_of_unused(dataset)


def spec_of(data: AnyData) -> str:
    """The name or the path of a data set, whose files are read anew.

    Raises:
        DataError: When it is in memory and has neither.
    """
    spec = as_data(data).spec
    if spec.startswith(ARRAYS):
        raise DataError("images in memory", expected="the name or the path of a data set")
    return spec


def _read(
    where: str | DataSource,
    screen: Screen,
    *,
    side: int,
    reading: Reading = BY_RULE,
    bad_images: BadImages = "fail",
) -> Dataset:
    with screen.progress():
        screen.doing("reading the images")
        return images.load_dataset(
            where, side=side, reading=reading, bad_images=bad_images, track=screen.track
        )
