"""How the cost of each thing grows: at 1, 2, 4 and 8 times the size, against the size.

    PYTHONPATH=src python bench/growth.py --out results/YYYY-MM-DD-growth

Each row multiplies one thing and keeps the others: images in an epoch, epochs, labelled images that
kNN compares with, runs in a study that is reported, pixels along a side of JPEGs that are packed,
and processes that share the cores. Sizes take turns, the least of three rounds counts, and what
starts up once is not in it. Writes OUT/growth.jsonl and OUT/growth.svg.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stopgrad.config import preset
from stopgrad.evaluation import Features, weighted_knn
from stopgrad.report import read_studies, write_page
from stopgrad.runs import environment
from stopgrad.speed.steps import start_on_random_pixels

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent / "results" / "2026-11-26-predictor-lr"  # 24 runs
TIMES = (1, 2, 4, 8)


def main() -> None:
    """Measures what is asked for and draws it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=GROWING, default=[*GROWING])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            cost = GROWING[name](Path(folder))
            rounds = [{times: cost(times) for times in TIMES} for _ in range(options.rounds)]
            for times in TIMES:
                seconds = min(found[times] for found in rounds)
                rows.append({"thing": name, "times": times, "seconds": seconds})
                print(json.dumps(rows[-1]), flush=True)
    about = environment(device="cpu", threads=1)._asdict()
    lines = [json.dumps(row | about) + "\n" for row in rows]
    (options.out / "growth.jsonl").write_text("".join(lines))
    (options.out / "growth.svg").write_text(_figure(rows))


Cost = Callable[[int], float]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _steps(*, images: int, epochs: int) -> float:
    """Seconds of training, after an epoch that settles the process."""
    config = preset("tiny", epochs=epochs + 1, device="cpu", threads=1)
    training = start_on_random_pixels(config, images=images)

    every = [*training.batches()]  # of one epoch, over and over

    def epoch() -> None:
        for indices in every:
            training.advance(indices)
        training.read_losses()

    epoch()
    return _seconds(lambda: [epoch() for _ in range(epochs)])


def _images(folder: Path) -> Cost:
    return lambda times: _steps(images=1024 * times, epochs=1)


def _epochs(folder: Path) -> Cost:
    return lambda times: _steps(images=1024, epochs=times)


def _bank(folder: Path) -> Cost:
    """2,000 images of width 512 scored against 6,250 to 50,000."""
    generator = torch.Generator().manual_seed(0)

    def features(count: int) -> Features:
        return Features(torch.randn(count, 512, generator=generator), torch.arange(count) % 10)

    queries, bank = features(2000), features(6250 * TIMES[-1])

    def cost(times: int) -> float:
        part = Features(*(None if x is None else x[: 6250 * times] for x in bank))  # type: ignore[arg-type]
        return _seconds(lambda: weighted_knn(part, queries, preset("cpu").knn))

    return cost


def _runs(folder: Path) -> Cost:
    """A page about 24 to 192 runs: the same study under other names."""
    places = [shutil.copytree(STUDY, folder / f"study-{n}") for n in range(TIMES[-1])]

    def page(times: int) -> None:
        chapters = [study for place in places[:times] for study in read_studies(place)]
        write_page(chapters, out=folder / "page.html")

    page(1)
    return lambda times: _seconds(lambda: page(times))


def _side(folder: Path) -> Cost:
    """512 JPEGs of 96 to 768 px packed as they are, by one process; the start is taken off."""

    def pack(side: int, count: int) -> float:
        jpegs = folder / f"side-{side}-{count}"
        if not jpegs.exists():
            jpegs.mkdir()
            rng = np.random.default_rng(0)
            for number in range(count):
                small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
                small.resize((side, side), Image.Resampling.BICUBIC).save(jpegs / f"{number}.jpg")
        store = folder / "store"
        words = ["pack", "--data", jpegs, "--out", store, "--side", side]
        seconds = _seconds(
            lambda: subprocess.run(
                [sys.executable, "-m", "stopgrad", *map(str, words)],
                check=True,
                capture_output=True,
            )
        )
        shutil.rmtree(store)
        return seconds

    return lambda times: pack(96 * times, 520) - pack(96 * times, 8)


def _processes(folder: Path) -> Cost:
    """A step of the same batch shared by 1 to 8 processes."""

    def cost(times: int) -> float:
        words = ["--counts", times, "--preset", "tiny", "--batch", 64, "--steps", 20, "--rounds", 1]
        done = subprocess.run(
            [sys.executable, HERE / "processes.py", *map(str, words)],
            check=True,
            capture_output=True,
            text=True,
        )
        return float(json.loads(done.stdout)["rows"][0]["step_ms"]) / 1000

    return cost


GROWING: Mapping[str, Callable[[Path], Cost]] = {
    "images": _images,
    "epochs": _epochs,
    "images compared with (kNN)": _bank,
    "runs in a report": _runs,
    "side of JPEGs packed": _side,
    "processes on the same cores": _processes,
}


def _figure(rows: list[dict[str, Any]]) -> str:
    """Cost against size, both relative to the smallest; the dashed line is proportional."""
    import vl_convert

    first = {row["thing"]: row["seconds"] for row in rows if row["times"] == 1}
    values = [row | {"cost": row["seconds"] / first[row["thing"]]} for row in rows]
    axis = {"scale": {"type": "log", "base": 2}, "axis": {"values": [1, 2, 4, 8, 16, 32, 64]}}
    x = {"field": "times", "type": "quantitative", "title": "size, times the smallest", **axis}
    y = {"field": "cost", "type": "quantitative", "title": "time, times the least", **axis}
    legend = {"orient": "top", "columns": 2, "columnPadding": 40, "labelLimit": 300}
    color = {"field": "thing", "type": "nominal", "title": None, "sort": [*first], "legend": legend}
    dashed = {"type": "line", "strokeDash": [4, 4], "color": "#888"}
    line = [{"times": times, "cost": times} for times in TIMES]
    chart = {
        "layer": [
            {"data": {"values": line}, "mark": dashed, "encoding": {"x": x, "y": y}},
            {
                "data": {"values": values},
                "mark": {"type": "line", "point": True, "strokeWidth": 2},
                "encoding": {"x": x, "y": y, "color": color},
            },
        ],
        "width": 420,
        "height": 320,
        "background": "white",
    }
    return vl_convert.vegalite_to_svg(json.dumps(chart))


if __name__ == "__main__":
    main()
