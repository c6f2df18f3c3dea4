"""What is handed on besides the code: the wheel, the image of a container, the public CI."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from stopgrad.images import load_dataset

ROOT = Path(__file__).parents[1]
WANTED = ("encoder", "knn_accuracy", 1)
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def normalize(features: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows of length 1, whose Euclidean order is that of the cosine."""
    unit: np.ndarray[Any, Any] = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit


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


def test_the_encoder_of_the_readme_is_small_and_takes_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, path = _readme(monkeypatch)
    assert Path(path).stat().st_size < 2e6
    names = {"pixels": torch.randint(256, (3, 32, 32, 3), dtype=torch.uint8)}
    exec(code, names)
    assert names["features"].shape == (3, 128)
    assert names["features"].isfinite().all()


def test_the_encoder_of_digits_tells_them_apart_as_its_record_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    code, path = _readme(monkeypatch)
    code, path = (text.replace("-30-cpu-preset", "-29-digits-encoder") for text in (code, path))
    digits, features = load_dataset("mnist5k"), []
    assert digits.test is not None
    for part in (digits.train, digits.test):
        names = {"pixels": torch.from_numpy(part.pixels.copy())}
        exec(code, names)
        features.append(normalize(names["features"].numpy()))
    knn = neighbors.KNeighborsClassifier(200, weights=lambda d: np.exp((1 - d**2 / 2) / 0.1))
    knn.fit(features[0], digits.train.labels)
    records = map(json.loads, (Path(path).parent / "records.jsonl").read_text().splitlines())
    (said,) = (r["value"] for r in records if (r["of"], r["metric"], r["labels"]) == WANTED)
    # The record was made in bf16, which moves a few of the 1,000 images.
    assert knn.score(features[1], digits.test.labels) == pytest.approx(said, abs=0.01)


def _readme(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The lines of the README that load an encoder, and its path."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(from stopgrad.export .*?)```", text, re.DOTALL)
    (path,) = re.findall(r'"(results/\S+\.safetensors)"', code)
    return code, path
