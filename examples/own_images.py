"""From your own folder of images to features, neighbours and a report.

    python examples/own_images.py images/ --out runs/mine

In: a folder, flat, nested, or with one folder per class; labels are not needed. Out: the run
directory, with `features.parquet` (a row per image) and `report.html` inside. What the command line
does to a folder, this does in Python.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import stopgrad
from stopgrad.config import PRESETS


def main(arguments: Sequence[str] | None = None) -> None:
    """Pretrains on a folder of images and shows what the encoder has learned."""
    parser = argparse.ArgumentParser(description="Features for a folder of images.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--out", type=Path, required=True, help="the run directory, absent or empty"
    )
    parser.add_argument("--preset", default="cpu", help=", ".join(PRESETS))
    parser.add_argument("--epochs", type=int, help="default: those of the preset")
    parser.add_argument("--query", type=Path, help="an image whose nearest images to find")
    options = parser.parse_args(arguments)

    data = stopgrad.load(options.folder)
    print(data)  # how many images, which sizes, which classes

    epochs = {"epochs": options.epochs} if options.epochs else {}
    run = stopgrad.pretrain(data, out=options.out, preset=options.preset, **epochs)
    print(run.verdict)  # healthy or collapsed, and why; needs no labels

    embedded = run.embed(out=options.out / "features.parquet")
    print(f"{embedded.rows} images, {embedded.width} features each: {embedded.files[0]}")

    if options.query:
        print(run.neighbors(options.query))
    if data.dataset.train.labels is not None and data.dataset.test is not None:
        print(run.evaluate(labels=[1, 0.1]))  # kNN and linear probes, beside two baselines
    print(f"report: {run.report().page}")


if __name__ == "__main__":
    main()
