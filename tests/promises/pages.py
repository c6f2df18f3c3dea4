"""R20: no name becomes markup: class, file and run names full of HTML change no element.

The report of a run with hostile names must have the elements and attributes of the same run with
harmless ones, load nothing, and carry its policy. With --full the browser's own reading counts.
"""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from tests.factories import MARKUP
from tests.promises.lab import ALONE, SMALL, Lab, draw_picture
from tests.promises.outcome import Outcome, control
from tests.promises.process import LONGEST

PAYLOADS = (*MARKUP, "\x01<b>\x1b")
PICTURES = 4  # of a class to train on
LOADING = {"src", "href", "xlink:href", "action", "formaction", "data", "poster", "srcset"}
POLICY = ("default-src 'none'", "base-uri 'none'", "form-action 'none'")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Page(NamedTuple):
    """A report as a browser sees it."""

    elements: Counter[str]  # each with its attributes' names
    loads: tuple[str, ...]  # what attributes and styles could load
    policy: str


def check(lab: Lab, tries: int) -> Outcome:
    """So many reports of a run with all payloads as class and file names, each under another name.

    With --full the first page is also read by a browser, where there is one, after its script.
    """
    hostile = _run(lab, PAYLOADS)
    plain = _report(lab, _run(lab, [re.sub(r"\W", "x", name) for name in PAYLOADS]))
    harmless = read_page(plain)
    failures: list[str] = []
    pages = []
    for number in lab.numbers(tries):
        name = PAYLOADS[number % len(PAYLOADS)].replace("/", "\\")
        pages.append(_report(lab, _renamed(lab, hostile, name)))
        failures += [f"run {name!r}: {x}" for x in _wrong(read_page(pages[-1]), harmless)]
    raw = read_page(_report(lab, _renamed(lab, hostile, "raw"), sabotage="no_escaping"))
    escaping = control("escaping off", _wrong(raw, harmless), sees="element")
    measured = {"browser": "asked with --full"} if lab.is_first else {}
    if lab.full and lab.is_first:
        browser, found = _ask_browser(lab, pages[0], plain)
        measured, failures = {"browser": browser}, failures + found
    return Outcome(tries, tuple(failures), (escaping,), measured)


def _wrong(page: Page, harmless: Page) -> Iterator[str]:
    """What a hostile name has added to a page."""
    for element, count in (page.elements - harmless.elements).items():
        yield f"{count} more of the element {element}"
    for element, count in (harmless.elements - page.elements).items():
        yield f"{count} fewer of the element {element}"
    for url in page.loads:
        if not url.startswith(("#", "data:image/")):
            yield f"loads {url!r}"
    if any(part not in page.policy for part in POLICY) or "unsafe" in page.policy:
        yield f"policy {page.policy!r}"


def _run(lab: Lab, names: Sequence[str]) -> Path:
    """A run of one epoch on pictures of classes with these names, and of files with these names."""
    data, run = write_parquet(lab, names), lab.place("named")
    words = ("pretrain", "--data", data, "--out", run, *SMALL, *ALONE, "--epochs", "1")
    done = lab.run(*words)
    assert done.code == 0, done.err
    return run


def _renamed(lab: Lab, run: Path, name: str) -> Path:
    place = lab.place("pages")
    place.mkdir()
    return Path(shutil.copytree(run, place / name))


def _report(lab: Lab, run: Path, *, sabotage: str = "") -> Path:
    done = lab.run("report", run, sabotage=sabotage)
    assert done.code == 0, done.err
    return run / "report.html"


def write_parquet(lab: Lab, names: Sequence[str]) -> Path:
    """Pictures in the Hub's layout, whose metadata may give classes any name."""
    import pyarrow
    from pyarrow import parquet

    folder, chance = lab.place("parquet"), lab.chance("R20")
    folder.mkdir()
    features = {"label": {"names": list(names), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for split, each in (("train", PICTURES), ("test", 1)):
        rows = [
            {"image": {"bytes": _png(chance, tint=n % 3), "path": name}, "label": n}
            for n, name in enumerate(names)
            for _ in range(each)
        ]
        table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata)
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def _png(chance: random.Random, *, tint: int) -> bytes:
    file = io.BytesIO()
    draw_picture(chance, tint=tint).save(file, format="PNG")
    return file.getvalue()


class _Reader(HTMLParser):
    """Collects what a `Page` has."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.loads: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[f"<{' '.join([tag, *sorted(key for key, _ in attrs)])}>"] += 1
        values = {key: value or "" for key, value in attrs}
        self.loads += [value for key, value in values.items() if key in LOADING]
        self.loads += re.findall(r"url\(['\"]?([^)'\"]*)", values.get("style", ""))
        if values.get("http-equiv", "").lower() == "content-security-policy":
            self.policy = values["content"]


def read_page(path: Path) -> Page:
    """The elements of a page, what it could load, and its policy."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return Page(reader.elements, tuple(reader.loads), reader.policy)


def _ask_browser(lab: Lab, page: Path, plain: Path) -> tuple[str, list[str]]:
    """The browser's name, and where a page has other elements for it than a harmless one."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return "not run: no Chromium", []
    seen = [_as_seen(lab, browser, each) for each in (page, plain)]
    return browser, [f"browser: {line}" for line in _wrong(*seen)]


def _as_seen(lab: Lab, browser: str, page: Path) -> Page:
    copy = lab.place("browser") / "page.html"
    copy.parent.mkdir()
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", copy.as_uri()]
    copy.write_bytes(page.read_bytes())
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=LONGEST)
    seen = copy.with_name("seen.html")
    seen.write_text(done.stdout)
    return read_page(seen)
