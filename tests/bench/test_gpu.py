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
# the graphs that it would be made from, because making it takes a minute, and after the first
# training by the plain code, because tracing takes long too. The script runs three times: nothing
# but its files passes from one call to the next.
BARE_MACHINE = """
import functools, json, runpy, sys, torch
for name in ("jsonargparse", "huggingface_hub", "jinja2", "yaml", "timm", "torchvision",
             "sklearn", "scipy", "mlxtend", "vl_convert", "lightly"):
    sys.modules[name] = None
traced = iter([functools.partial(torch.compile, backend="eager", fullgraph=True)] * 2)
torch.compile = lambda function, **how: next(traced, lambda f, **_: f)(function, **how)
sys.path.insert(0, "bench")
plan = ["--plan", "5m", "--stages", "fast", "arm: rate x 2, seed 0"]
for more in (["--minutes", "0.3"], ["--minutes", "5"], plan):
    sys.argv = ["bench/gpu.py", *{arguments}, *more]
    try:
        runpy.run_path("bench/gpu.py", run_name="__main__")
    except SystemExit as end:
        lines = open({out!r} + "/gpu.jsonl").read()
        print("called:", json.dumps([end.code, lines]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some real digits in the Hub's Parquet layout."""
    digits = load_dataset("mnist5k")
    assert digits.test is not None
    path = tmp_path_factory.mktemp("parquet")
    for name, images in (("train", digits.train), ("test", digits.test)):
        some = images.take(np.arange(0, len(images), len(images) // 100))
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


def _calls(folder: Path, out: Path) -> list[tuple[int, str]]:
    """Exit code and record after a call without enough time, one with it, and one by the plan."""
    arguments = ["--data", str(folder), "--out", str(out), "--small", "--epochs", "2"]
    done = subprocess.run(
        [sys.executable, "-c", BARE_MACHINE.format(arguments=arguments, out=str(out))],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=880,
    )
    calls = [line for line in done.stderr.splitlines() if line.startswith("called: ")]
    assert len(calls) == 3, done.stderr[-3000:]
    return [tuple(json.loads(line.removeprefix("called: "))) for line in calls]


@pytest.mark.timeout(900)
def test_it_measures_in_pieces_with_few_packages(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu"
    (first_code, before), (second_code, text), (third_code, planned) = _calls(folder, out)
    assert (first_code, second_code, third_code) == (1, 0, 0)
    assert before
    assert text.startswith(before)
    lines = text.splitlines()
    stages = {line["stage"]: line for line in map(json.loads, lines)}
    assert len(stages) == len(lines)
    assert stages["agreement"]["largest_difference"]["plain, fp32"] < 1e-5
    assert stages["agreement"]["largest_difference"]["compiled"] < 0.02
    assert stages["replay"]["steps"] > 0
    assert stages["replay"]["losses_differ"] == stages["replay"]["tensors_differ"] == []
    assert stages["resume"]["differences"] == []
    assert stages["resume"]["killed_after_checkpoint"] > 0
    one, two = stages["processes"]["2 on cpu"]["rows"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["sums_per_step"] == 0 < two["sums_per_step"]
    speed = stages["speed: compiled, batch 32"]
    assert sum(speed["phases"].values()) == pytest.approx(1)
    assert speed["share_of_matmul"]["low"] > 0
    assert len(stages["training: 2 epochs"]["views_per_s"]) == 2
    assert "peer" in stages
    fast, arm = map(json.loads, planned.removeprefix(text).splitlines())
    assert (fast["stage"], arm["stage"]) == ("fast, seed 0", "arm: rate x 2, seed 0")
    assert fast["knn"]
    assert arm["knn"]
    assert arm["config"]["optimizer"]["base_lr"] == 0.06
    assert (out / arm["run"] / "config.json").exists()
