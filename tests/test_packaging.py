"""What is handed on besides the code: the wheel, the image of a container, the public CI."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    version = pytest.importorskip("setuptools").__version__
    if int(version.partition(".")[0]) < 77:
        pytest.skip(f"setuptools {version} knows no licence expressions")
    for name in ("pyproject.toml", "README.md", "LICENSE", "src"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    shutil.rmtree(tmp_path / "src" / "stopgrad.egg-info", ignore_errors=True)
    code = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "src" / "stopgrad"
    files = (file for file in package.rglob("*") if file.is_file())
    wanted = {str(f.relative_to(package.parent)) for f in files if "__pycache__" not in f.parts}
    assert packed == wanted
    assert "stopgrad/images/mnist5k.npz" in packed


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def test_the_container_takes_its_base_as_an_argument_and_runs_as_no_root() -> None:
    found = _instructions()
    assert found[:2] == [("ARG", "BASE=python:3.12-slim"), ("FROM", "${BASE}")]
    known = {"ARG", "FROM", "SHELL", "RUN", "COPY", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in found} == known
    assert int(dict(found)["USER"]) > 0
    assert json.loads(dict(found)["ENTRYPOINT"])[-1].endswith("/stopgrad")


def test_the_container_is_given_what_it_copies_and_nothing_else() -> None:
    copied = [
        name for word, rest in _instructions() if word == "COPY" for name in rest.split()[:-1]
    ]
    kept = (ROOT / ".dockerignore").read_text().split()
    assert kept[0] == "*"
    assert sorted(name.removeprefix("!") for name in kept if name[0] == "!") == sorted(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_the_container_installs_extras_that_exist() -> None:
    (extras,) = re.findall(r"/src\[([\w,]+)\]", (ROOT / "Dockerfile").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed")
    subprocess.run([linter, str(ROOT / "Dockerfile")], check=True)


def test_ci_installs_the_wheel_and_runs_the_first_command_of_the_readme() -> None:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["wheel"]["steps"]
    ran = "\n".join(step.get("run", "") for step in steps)
    assert "python -m build" in ran
    assert re.search(r"pip install .*dist/\*\.whl\n.*stopgrad quickstart", ran, re.DOTALL)


def test_ci_runs_on_a_mac_with_its_gpu_and_on_windows() -> None:
    job = yaml.safe_load(WORKFLOW.read_text())["jobs"]["elsewhere"]
    matrix = job["strategy"]["matrix"]
    assert matrix["os"] == ["macos-latest", "windows-latest"]
    assert matrix["device"][0] == "auto"
    assert "stopgrad resume" in "".join(step.get("run", "") for step in job["steps"])
