"""The docs as a site: every page has its place, every public name is described, it builds."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import stopgrad

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def _settings() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    return found


def _pages(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else _pages(value)


def test_every_page_stands_once_in_the_navigation() -> None:
    pages = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    assert sorted(_pages(_settings()["nav"])) == pages
    assert _settings()["strict"] is True


def test_every_public_name_is_described() -> None:
    told = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)", _text("api.md"), re.M)}
    told |= set(re.findall(r"stopgrad\.(\w+)", _text("api.md")))
    assert set(stopgrad.__all__) <= told


def test_every_test_that_stands_for_an_earlier_one_is_there() -> None:
    rows = re.findall(r"^\| `\S+` `test_\w+` \| `(\S+)` `(\w+)`", _text("tests-moved.md"), re.M)
    assert len(rows) > 30
    missing = [
        name for file, name in rows if f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []


def test_the_commands_of_the_pages_exist() -> None:
    known = {file.stem.replace("_", "-") for file in (ROOT / "src/stopgrad/cli").glob("*.py")}
    pages = [*DOCS.glob("how-to/*.md"), DOCS / "faq.md", DOCS / "index.md"]
    commands = [c for page in pages for c in re.findall(r"stopgrad ([a-z-]+) ", page.read_text())]
    assert len(commands) > 20
    assert set(commands) <= known


def test_links_that_leave_the_docs_become_names() -> None:
    spec = importlib.util.spec_from_file_location("links", DOCS / "links.py")
    assert spec is not None
    assert spec.loader is not None
    links = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(links)
    page = type("Page", (), {"file": type("File", (), {"src_uri": "guide.md"})})
    made = links.on_page_markdown("a [b](../c/d.py), [e](f.md)", page=page)
    assert made == "a b (`c/d.py`), [e](f.md)"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings_handlers"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "stopgrad.face.run.Run.evaluate" in (tmp_path / "api.html").read_text()


def _text(name: str) -> str:
    return (DOCS / name).read_text()
