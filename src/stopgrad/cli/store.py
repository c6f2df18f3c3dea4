"""`stopgrad pack`, and the check of a packed store."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from stopgrad.cli.show import Screen, print_line
from stopgrad.errors import DataError
from stopgrad.images import how_it_was_read, load_dataset, verify_store
from stopgrad.images import pack as pack_images
from stopgrad.storage import Finding


def pack(options: argparse.Namespace) -> None:
    """Decodes a data set once into a store on disk, and says what to do with it."""
    screen, out = Screen(), options.out
    with screen.progress():
        pack_images(
            options.data,
            out,
            side=options.side,
            bad_images=options.bad_images,
            track=screen.track,
        )
        dataset = load_dataset(str(out.absolute()), changed="tell")
    pixels = sum(images.pixels.nbytes for images in (dataset.train, dataset.test) if images)
    screen.line(how_it_was_read(dataset))
    if dataset.damaged:
        screen.line(f"left out: {len(dataset.damaged):,} damaged images")
    print_line(f"done: {out}, {pixels / 1e6:,.0f} MB of pixels; use it as --data {quote(str(out))}")


def check_store(path: Path) -> Iterator[Finding]:
    """A finding for each file of a store.

    Raises:
        DataError: At the end, when one is not as it should be.
    """
    findings = []
    for finding in verify_store(path):
        findings.append(finding)
        yield finding
    wrong = [finding.file for finding in findings if not finding.ok]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(findings)} files of {path} are not as they should be: "
            f"{', '.join(wrong[:3])}",
            expected="the files that `stopgrad pack` wrote",
            hint="pack it again into a new store",
        )
