"""`stopgrad check-data`: what a data set holds, and what pretraining on it will need.

With --json one object: data, name, preset, starts, verdict, error; pictures (of each split);
damaged (split, name, reason), tiny, copies (split, name), duplicates (groups of those), leaked
(test, train), odd (a list for each trait); formats, sizes, classes (null without labels); cost and
suggestion (null where no step could be taken); packing (null where no store is needed). Where there
is nothing to look at, only data, preset, starts, verdict and error.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import stopgrad
from stopgrad.cli.parser import DATA, add_config
from stopgrad.cli.screen import print_json, print_table
from stopgrad.errors import DataError
from stopgrad.evaluation import count, duration

if TYPE_CHECKING:
    from stopgrad.images import DamagedImage, Findings, ImagePlace, Trait
    from stopgrad.speed import Cost, Outlook

HELP = (
    "list damaged and odd images, and what pretraining will need; exit code 0: it would start, "
    "3: not"
)
NAMED = 5  # images that a row of the table names
TRAITS: dict[Trait, str] = {
    "animated": "several frames",
    "sixteen_bit": "16 bits",
    "cmyk": "CMYK",
    "palette": "palette",
    "alpha": "alpha",
    "rotated": "EXIF-rotated",
    "elongated": "very long",
    "few_colours": "few colours",
    "constant": "one colour",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the data, the knobs and --json."""
    parser.add_argument("data", metavar="SPEC", help=DATA)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    add_config(parser)


def run(options: argparse.Namespace) -> None:
    """Looks at all images, takes a few steps on them, and prints what was found.

    Raises:
        DataError: When pretraining would not start.
    """
    try:
        findings, outlook = stopgrad.check(options.data, config=options.config)
    except DataError as error:
        if options.json:
            print_json(_without_findings(options, error))
        raise
    if options.json:
        print_json(as_json(options, findings, outlook))
    else:
        _print(options, findings, outlook)
    if outlook.refusal is not None:
        raise outlook.refusal


def as_json(options: argparse.Namespace, findings: Findings, outlook: Outlook) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "data": options.data,
        "name": findings.name,
        "preset": options.preset,
        "bad_images": options.config.bad_images,
        "starts": outlook.refusal is None,
        "verdict": verdict(findings, outlook),
        "error": None if outlook.refusal is None else str(outlook.refusal),
        "pictures": findings.pictures,
        "damaged": [picture._asdict() for picture in findings.damaged],
        "tiny": _places(findings.tiny),
        "copies": _places(findings.copies),
        "duplicates": [_places(group) for group in findings.duplicates],
        "leaked": [{"test": test.name, "train": train.name} for test, train in findings.leaked],
        "odd": {trait: _places(places) for trait, places in findings.odd.items()},
        "formats": findings.formats,
        "sizes": [{**size._asdict(), "pictures": n} for size, n in findings.sizes.items()],
        "classes": [each._asdict() for each in findings.classes] or None,
        "cost": outlook.cost and {**outlook.cost._asdict(), "fits": outlook.cost.fits},
        "suggestion": outlook.suggestion and _suggestion_as_json(outlook),
        "packing": outlook.packing and outlook.packing._asdict(),
    }


def _suggestion_as_json(outlook: Outlook) -> dict[str, Any]:
    suggestion, cost = outlook.suggestion, outlook.suggested_cost
    assert suggestion is not None
    return {
        **suggestion._asdict(),
        "flags": suggestion.flags,
        "seconds": cost and cost.seconds,
        "host_bytes": cost and cost.host_bytes,
        "device_bytes": cost and cost.device_bytes,
    }


def _places(places: Sequence[ImagePlace]) -> list[dict[str, str]]:
    return [place._asdict() for place in places]


def verdict(findings: Findings, outlook: Outlook) -> str:
    """One sentence: whether pretraining would start, and what is worth a look before it does."""
    from stopgrad.images import DamagedImagesError

    every = sum(findings.pictures.values())
    error = outlook.refusal
    if isinstance(error, DamagedImagesError):
        share = 100 * len(findings.damaged) / every
        return (
            f"pretraining would be refused: {count(len(findings.damaged))} of {count(every)} "
            f"images ({share:.1f} %) are damaged"
        )
    if error is not None:
        return f"pretraining would be refused: {error.found}"
    left_out = f", without {count(len(findings.damaged))} damaged" if findings.damaged else ""
    assert findings.dataset is not None
    start = f"pretraining would start with {count(len(findings.dataset.train))} images{left_out}"
    notes = [f"{count(len(places))} {name}" for name, places in _notes(findings) if places]
    if outlook.cost is not None and not outlook.cost.fits:
        notes.insert(0, "more memory needed than is there")
    return f"{start}; worth a look: {', '.join(notes)}" if notes else f"{start}; nothing is odd"


def _notes(findings: Findings) -> Iterator[tuple[str, Sequence[ImagePlace]]]:
    """What is worth a look, by its name."""
    yield "tiny", findings.tiny
    yield "duplicates", findings.copies
    yield "in test and train", [test for test, _ in findings.leaked]
    for trait, name in TRAITS.items():
        yield name, findings.odd[trait]


def _print(options: argparse.Namespace, findings: Findings, outlook: Outlook) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for row in [*_contents(findings), *_lists(findings), *_outlook(options, outlook)]:
        table.add_row(*map(Text, row))
    print_table(table, verdict(findings, outlook))


Row = tuple[str, str, str]


def _contents(findings: Findings) -> Iterator[Row]:
    from stopgrad.images import how_it_was_read

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
    yield "classes", count(len(classes)) if classes else "", _few(classes) or "no labels"
    if findings.dataset is not None:
        yield "", "", how_it_was_read(findings.dataset)


def _lists(findings: Findings) -> Iterator[Row]:
    damaged = [f"{_name(picture)} ({picture.reason})" for picture in findings.damaged]
    yield "damaged", count(len(damaged)), _few(damaged)
    for name, places in _notes(findings):
        if places or name in ("tiny", "duplicates"):
            yield name, count(len(places)), _few(list(map(_name, places)))


def _name(picture: ImagePlace | DamagedImage) -> str:
    """A name without line breaks and other control characters, which repr escapes."""
    return repr(picture.name) + (" of test" if picture.split == "test" else "")


def _few(words: Sequence[str]) -> str:
    more = f" and {count(len(words) - NAMED)} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more


def _outlook(options: argparse.Namespace, outlook: Outlook) -> Iterator[Row]:
    if cost := outlook.cost:
        yield "", "", ""
        yield "time", "", f"{duration(cost.seconds)} with {_setting(options)} on {cost.device}"
        yield "memory", "", _memory(cost)
        yield "", "", f"measured: {cost.how}"
    if suggestion := outlook.suggestion:
        cost = outlook.suggested_cost
        needs = f" ({duration(cost.seconds)}, {_memory(cost)})" if cost else ""
        yield "suggestion", "", f"{suggestion.flags}{needs}"
        yield "", "", f"because of {suggestion.reason}"
    if packing := outlook.packing:
        yield "first", "", f"stopgrad pack {options.data} --out STORE --side {packing.side}"
        yield "", "", f"because {packing.reason}"


def _setting(options: argparse.Namespace) -> str:
    config = options.config
    return f"preset {options.preset} ({config.epochs} epochs, batch {config.batch})"


def _memory(cost: Cost) -> str:
    host = f"{_gigabytes(cost.host_bytes)} of {_gigabytes(cost.host_limit)}"
    if not cost.device_bytes:
        return host
    return f"{host}, GPU {_gigabytes(cost.device_bytes)} of {_gigabytes(cost.device_limit)}"


def _gigabytes(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB"


def _without_findings(options: argparse.Namespace, error: DataError) -> dict[str, Any]:
    """The object where there is nothing to look at."""
    return {
        "data": options.data,
        "preset": options.preset,
        "starts": False,
        "verdict": f"pretraining would be refused: {error.found}",
        "error": str(error),
    }
