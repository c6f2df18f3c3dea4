"""Claims about `bench/gpu.py`, on a CPU: what it measures there is never kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stopgrad.images import load_dataset

ROOT = Path(__file__).parents[2]

# What may be missing on a GPU machine where nothing can be installed. Compiled code is replaced by
# the graphs that it would be made from, because making it takes a minute.
BARE_MACHINE = """
import functools, runpy, sys, torch
for name in ("jsonargparse", "huggingface_hub", "altair", "jinja2", "yaml", "timm", "torchvision",
             "sklearn", "scipy", "mlxtend", "vl_convert", "lightly"):
    sys.modules[name] = None
torch.compile = functools.partial(torch.compile, backend="aot_eager", fullgraph=True)
sys.path.insert(0, "bench")
sys.argv = ["bench/gpu.py", *sys.argv[1:]]
runpy.run_path("bench/gpu.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some real digits in the Hub's Parquet layout."""
    digits = load_dataset("mnist5k")
    assert digits.test is not None
    path = tmp_path_factory.mktemp("parquet")
    for name, images in (("train", digits.train), ("test", digits.test)):
        some = images.take(np.arange(0, len(images), len(images) // 150))
        _write(path / f"{name}-00000-of-00001.parquet", some.pixels, some.labels)
    return path


def _write(path: Path, pixels: np.ndarray, labels: np.ndarray | None) -> None:
    import io

    from PIL import Image

    files = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG")
        files.append({"bytes": file.getvalue(), "path": None})
    assert labels is not None
    pq.write_table(pa.table({"img": files, "label": labels}), path)


def _call(folder: Path, out: Path, *, minutes: float) -> int:
    arguments = ["--data", str(folder), "--out", str(out), "--small", "--epochs", "2"]
    return subprocess.run(
        [sys.executable, "-c", BARE_MACHINE, *arguments, "--minutes", str(minutes)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        check=False,
        timeout=240,
    ).returncode


def test_it_measures_in_pieces_with_few_packages(folder: Path, tmp_path: Path) -> None:
    assert _call(folder, tmp_path / "gpu", minutes=0.05) == 1
    before = (tmp_path / "gpu" / "gpu.jsonl").read_text().splitlines()
    assert _call(folder, tmp_path / "gpu", minutes=3) == 0
    lines = (tmp_path / "gpu" / "gpu.jsonl").read_text().splitlines()
    assert lines[: len(before)] == before
    stages = {line["stage"]: line for line in map(json.loads, lines)}
    assert len(stages) == len(lines)
    assert stages["agreement"]["largest_difference"]["plain, fp32"] < 1e-5
    assert stages["agreement"]["largest_difference"]["compiled"] < 0.02
    assert stages["replay"]["steps"] > 0
    assert stages["replay"]["losses_differ"] == stages["replay"]["tensors_differ"] == []
    assert stages["resume"]["differences"] == []
    assert stages["resume"]["killed_after_checkpoint"] > 0
    speed = stages["speed: compiled, batch 64"]
    assert sum(speed["phases"].values()) == pytest.approx(1)
    assert speed["share_of_matmul"]["low"] > 0
    assert len(stages["training: 2 epochs"]["views_per_s"]) == 2
    assert "peer" in stages
