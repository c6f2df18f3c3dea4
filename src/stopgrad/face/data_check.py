"""`check`: what a data set holds and what pretraining on it will need, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from stopgrad import images, method, speed
from stopgrad.config import Config
from stopgrad.evaluation import count, duration, extent_text, extent_values, folds_text
from stopgrad.face.arguments import chosen_config, in_plain_torch
from stopgrad.face.data import ARRAYS, AnyData, as_data, reading_in
from stopgrad.face.progress import Screen, at_work
from stopgrad.face.tables import Shown
from stopgrad.method import published_extent
from stopgrad.report import Column, Table, TableCell

if TYPE_CHECKING:
    from stopgrad.images import DamagedImage, Findings, ImagePlace, Trait
    from stopgrad.speed import Cost, Outlook

NAMED = 5  # images that a row of the table names
TRAITS: dict[Trait, str] = {
    "animated": "several frames",
    "sixteen_bit": "more than 8 bits",
    "cmyk": "CMYK",
    "palette": "palette",
    "alpha": "alpha",
    "rotated": "EXIF-rotated",
    "elongated": "very long",
    "few_colours": "few colours",
    "constant": "one colour",
}


@at_work
@in_plain_torch
def check(
    data: AnyData, *, preset: str = "cifar", config: Config | None = None, **knobs: Any
) -> DataCheck:
    """Looks at every image and takes a few steps on them.

    Args:
        data: As for `load`.
        preset: As for `pretrain`.
        config: As for `pretrain`.
        **knobs: As for `pretrain`.

    Raises:
        DataError: When there is nothing to look at.
    """
    config, screen = chosen_config(config, knobs, preset=preset), Screen()
    data = as_data(data, config)
    config = data.with_reading(config)
    method.use_threads(config.threads)
    findings = images.check_images(
        data.to_look_at(),
        side=config.image_side,
        tiny_below=config.views.size / 2,
        reading=config.reading,
        bad_images=config.bad_images,
        track=screen.track,
    )
    screen.doing("measuring a few steps")
    outlook = speed.look_ahead(findings, config)
    if data.spec.startswith(ARRAYS):  # which no command can name
        outlook = outlook._replace(packing=None)
    return DataCheck(data.spec, preset, config, findings, outlook)


class DataCheck(Shown):
    """The findings about a data set, and the outlook for pretraining on it."""

    def __init__(
        self, spec: str, preset: str, config: Config, findings: Findings, outlook: Outlook
    ) -> None:
        self.spec, self.preset, self.config = spec, preset, config
        self.findings, self.outlook = findings, outlook

    @property
    def verdict(self) -> str:
        """One sentence: whether pretraining would start, and what to check before."""
        findings, error = self.findings, self.outlook.refusal
        damaged = count(len(findings.damaged))
        if isinstance(error, images.DamagedImagesError):
            total = sum(findings.pictures.values())
            part = f"{100 * len(findings.damaged) / total:.1f} %"
            found = f"{damaged} of {count(total)} images ({part}) are damaged"
            return f"pretraining would be refused: {found}"
        if error is not None:
            return f"pretraining would be refused: {error.found}"
        assert findings.dataset is not None
        without = f", without {damaged} damaged" if findings.damaged else ""
        start = f"pretraining would start with {count(len(findings.dataset.train))} images{without}"
        notes = [f"{name} ({count(len(places))})" for name, places in _notes(findings) if places]
        for what in ("band", "image", "label"):
            if unused := findings.notes.count(what):
                notes.insert(0, f"{what}s that are not used ({count(unused)})")
        if self.outlook.cost is not None and not self.outlook.cost.fits:
            notes.insert(0, "it needs more memory than is available")
        return f"{start}; please check: {', '.join(notes)}" if notes else f"{start}; nothing is odd"

    @property
    def tables(self) -> list[Table]:
        """What the data set holds; what pretraining will need, if that could be measured."""
        heads = (Column("found"), Column("number", "right"), Column("which", wraps=True))
        contents = Table("contents", heads, _cells(_contents(self.findings)))
        columns = (Column("pretraining"), Column("on this machine", wraps=True))
        needs = Table("needs", columns, _cells(self._needs()))
        return [contents, needs] if needs.rows else [contents]

    @property
    def lines(self) -> list[str]:
        """How the data set was read, and the verdict."""
        dataset = self.findings.dataset
        return [*(images.what_to_know(dataset) if dataset else []), self.verdict]

    def _needs(self) -> Iterator[tuple[str, ...]]:
        config, outlook = self.config, self.outlook
        if cost := outlook.cost:
            setting = f"preset {self.preset} ({config.epochs} epochs, batch {config.batch})"
            yield "time", f"{duration(cost.seconds)} with {setting} on {cost.device}"
            yield "memory", _memory(cost)
            yield "measured", cost.how
        if outlook.extent:
            published = folds_text(published_extent().folds)
            yield "length", f"{extent_text(outlook.extent)}; the published run: N = {published}"
        if suggestion := outlook.suggestion:
            cost = outlook.suggested_cost
            needs = f" ({duration(cost.seconds)}, {_memory(cost)})" if cost else ""
            if outlook.suggested_extent:
                needs += f", N = {folds_text(outlook.suggested_extent.folds)}"
            yield "suggestion", f"{suggestion.flags}{needs}"
            yield "because", suggestion.reason
        if packing := outlook.packing:
            given = reading_in(config).items()
            words = (f" --{n.replace('_', '-')} {quote(f'{v}')}" for n, v in given)
            flags = "".join(words)
            specs = " ".join(map(quote, images.specs_of(self.spec)))
            yield "first", f"stopgrad pack {specs} --out STORE --side {packing.side}{flags}"
            yield "because", packing.reason

    def as_json(self) -> dict[str, Any]:
        """The object that `stopgrad check-data --json` prints."""
        findings, outlook = self.findings, self.outlook
        return {
            "data": self.spec,
            "name": findings.name,
            "preset": self.preset,
            "bad_images": self.config.bad_images,
            "starts": outlook.refusal is None,
            "verdict": self.verdict,
            "error": None if outlook.refusal is None else str(outlook.refusal),
            "pictures": findings.pictures,
            "damaged": [image._asdict() for image in findings.damaged],
            "tiny": _places(findings.tiny),
            "copies": _places(findings.copies),
            "duplicates": [_places(group) for group in findings.duplicates],
            "leaked": [{"test": test.name, "train": train.name} for test, train in findings.leaked],
            "odd": {trait: _places(places) for trait, places in findings.odd.items()},
            "formats": findings.formats,
            "sizes": [{**size._asdict(), "pictures": n} for size, n in findings.sizes.items()],
            "remarks": findings.notes.remarks,
            "unused": [group._asdict() for group in findings.notes.unused],
            "classes": [each._asdict() for each in findings.classes] or None,
            "cost": outlook.cost and {**outlook.cost._asdict(), "fits": outlook.cost.fits},
            "suggestion": outlook.suggestion and _suggestion_as_json(outlook),
            "packing": outlook.packing and outlook.packing._asdict(),
            "extent": outlook.extent and extent_values(outlook.extent),
        }


def _suggestion_as_json(outlook: Outlook) -> dict[str, Any]:
    suggestion, cost = outlook.suggestion, outlook.suggested_cost
    assert suggestion is not None
    return {
        **suggestion._asdict(),
        "flags": suggestion.flags,
        "extent": outlook.suggested_extent and extent_values(outlook.suggested_extent),
        "seconds": cost and cost.seconds,
        "host_bytes": cost and cost.host_bytes,
        "device_bytes": cost and cost.device_bytes,
    }


def _places(places: Sequence[ImagePlace]) -> list[dict[str, str]]:
    return [place._asdict() for place in places]


def _notes(findings: Findings) -> Iterator[tuple[str, Sequence[ImagePlace]]]:
    """Images that may need attention, by the name of their kind."""
    yield "tiny", findings.tiny
    yield "duplicates", findings.copies
    yield "in test and train", [test for test, _ in findings.leaked]
    for trait, name in TRAITS.items():
        yield name, findings.odd[trait]


def _cells(rows: Iterator[tuple[str, ...]]) -> tuple[tuple[TableCell, ...], ...]:
    return tuple(tuple(map(TableCell, row)) for row in rows)


def _contents(findings: Findings) -> Iterator[tuple[str, ...]]:
    splits = [f"{count(n)} {split}" for split, n in findings.pictures.items()]
    yield "images", count(sum(findings.pictures.values())), ", ".join(splits)
    formats = [f"{name} {count(n)}" for name, n in findings.formats.items()]
    yield "formats", count(len(formats)), _few(formats)
    sizes = [f"{w} x {h} px {count(n)}" for (w, h), n in findings.sizes.items()]
    yield "sizes", count(len(sizes)), _few(sizes)
    classes = [
        f"{each.name!r} {count(each.train)}" + (f" + {count(each.test)}" if each.test else "")
        for each in findings.classes
    ]
    yield "classes", count(len(classes)), _few(classes) or "no labels"
    damaged = [f"{_name(image)} ({image.reason})" for image in findings.damaged]
    yield "damaged", count(len(damaged)), _few(damaged)
    for name, places in _notes(findings):
        if places or name in ("tiny", "duplicates"):
            yield name, count(len(places)), _few(list(map(_name, places)))


def _name(image: ImagePlace | DamagedImage) -> str:
    """A name whose control characters are escaped."""
    return repr(image.name) + (" of test" if image.split == "test" else "")


def _few(names: Sequence[str]) -> str:
    more = f" and {count(len(names) - NAMED)} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _memory(cost: Cost) -> str:
    host = f"{_gigabytes(cost.host_bytes)} of {_gigabytes(cost.host_limit)}"
    if not cost.device_bytes:
        return host
    return f"{host}, GPU {_gigabytes(cost.device_bytes)} of {_gigabytes(cost.device_limit)}"


def _gigabytes(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB"
