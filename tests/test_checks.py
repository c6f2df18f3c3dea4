"""Style, types and what the docs claim of the code: so one command checks everything."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import stopgrad
from tests import house

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])


def _check(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_has_nothing_to_say() -> None:
    _check("ruff", "check", ".")


def test_the_code_is_formatted() -> None:
    _check("ruff", "format", "--check", ".")


def test_the_types_hold() -> None:
    _check("mypy")


def test_every_link_of_the_docs_leads_to_a_file_of_the_repository() -> None:
    links = [
        (page, link.partition("#")[0])
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if "://" not in link
    ]
    assert len(links) > 20
    assert [
        f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()
    ] == []


def test_the_method_page_names_files_and_functions_that_are_there() -> None:
    text = (ROOT / "docs" / "method.md").read_text()
    places = re.findall(r"`([\w/]+\.py)(?:: ([\w, ]+))?", text)
    assert len(places) > 20
    wrong = []
    for path, names in places:
        file = next(
            (f for f in (ROOT / "src" / "stopgrad" / path, ROOT / path) if f.is_file()), None
        )
        if file is None:
            wrong.append(path)
            continue
        wrong += [f"{path}: {n}" for n in names.split(", ") if n and n not in _defined(file)]
    assert wrong == []


def _defined(file: Path) -> set[str]:
    """Names that a file defines: functions, classes, methods and constants."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    definitions = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in nodes if isinstance(node, definitions)} | {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def test_readme_and_house_page_list_the_thirteen_rooms_and_nothing_finer() -> None:
    listed = (ROOT / "README.md").read_text().partition("## The code")[2].partition("\n## ")[0]
    assert re.findall(r"^    (\w+) ", listed, re.MULTILINE) == list(house.ROOMS)
    page = (ROOT / "docs" / "house.md").read_text().partition("## Rooms")[2]
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(house.ROOMS)


def test_ci_runs_the_test_command_of_the_readme_on_every_supported_python() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    found = re.search(r"sed -n 's/(.*)/\\1/p' README.md", script)
    assert found
    pattern = found[1].replace(r"\(", "(").replace(r"\)", ")")
    commands = re.findall(pattern, (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 1
    assert commands[0].endswith("'.[dev]' && .venv/bin/python -m pytest")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    oldest = _project()["requires-python"].removeprefix(">=")
    assert job["strategy"]["matrix"]["python"] == [oldest, "3.12", "3.13"]


def test_the_citation_and_the_changelog_know_the_version() -> None:
    version = stopgrad.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", version)
    assert citation["references"][0]["year"] == 2021
    changelog = (ROOT / "CHANGELOG.md").read_text()
    dated = re.findall(rf"^## \[{re.escape(version)}\] - (\S+)$", changelog, re.MULTILINE)
    assert dated == [citation["date-released"]]


def _project() -> dict[str, str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
