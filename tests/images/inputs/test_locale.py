"""Names beyond ASCII where the locale knows ASCII alone: as bytes on disk they are UTF-8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COUNT = 40
CLASSES = ("Käfer", "αβ")


def pictures(folder: Path) -> list[Path]:
    (folder / "ä").mkdir(parents=True)
    for number in range(COUNT):
        image = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "ä" / f"ü{number}.png")
    return sorted((folder / "ä").iterdir())


def as_folder(where: Path) -> Path:
    pictures(where)
    return where


def as_zip(where: Path) -> Path:
    pictures(where)
    return Path(shutil.make_archive(str(where), "zip", where))


def as_parquet(where: Path) -> Path:
    files = pictures(where / "of")
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    (where / "rows").mkdir()
    pq.write_table(pa.table({"image": cells}), where / "rows" / "train.parquet")
    return where / "rows"


def as_arrow(where: Path) -> Path:
    files = pictures(where / "of")
    table = pa.table({"image": [{"bytes": f.read_bytes(), "path": f.name} for f in files]})
    (where / "rows").mkdir()
    with pa.ipc.new_stream(str(where / "rows" / "train.arrow"), table.schema) as writer:
        writer.write_table(table)
    return where / "rows"


def as_paths(where: Path) -> Path:
    files = pictures(where)
    table = pa.table({"image": [f"ä/{file.name}" for file in files]})
    pq.write_table(table, where / "train.parquet")
    return where


def as_table(where: Path) -> Path:
    files = pictures(where)
    rows = (f"ä/{file.name},{CLASSES[n % 2]}" for n, file in enumerate(files))
    (where / "étiquettes.csv").write_text("\n".join(["file_name,label", *rows]), "utf-8")
    return where


def told(cache: Path, *words: str) -> str:
    command = [sys.executable, "-m", "stopgrad", *words]
    environment = os.environ | C_LOCALE | {"STOPGRAD_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.mark.input("oddity", what="names beyond ASCII in a locale of ASCII alone", happens="read")
@pytest.mark.parametrize("write", [as_folder, as_zip, as_parquet, as_arrow, as_paths])
def test_names_beyond_ascii_are_read_and_packed_in_any_locale(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    data, store = str(write(tmp_path / "bilder-äöü")), str(tmp_path / "stör")
    cache = tmp_path / "häufig"
    found = json.loads(told(cache, "check-data", data, "--preset", "tiny", "--json"))
    assert found["pictures"] == {"train": COUNT}
    assert found["damaged"] == []
    told(cache, "pack", "--data", data, "--out", store)
    told(cache, "verify", store)
    found = json.loads(told(cache, "check-data", store, "--preset", "tiny", "--json"))
    assert found["pictures"] == {"train": COUNT}


@pytest.mark.input(
    "label", what="a table beyond ASCII in a locale of ASCII alone", happens="labels are read"
)
def test_a_table_of_names_beyond_ascii_is_read_in_any_locale(tmp_path: Path) -> None:
    data, cache = as_table(tmp_path / "bilder-äöü"), tmp_path / "häufig"
    found = json.loads(told(cache, "check-data", str(data), "--preset", "tiny", "--json"))
    counts = [(each["name"], each["train"]) for each in found["classes"]]
    assert counts == [(name, COUNT // 2) for name in sorted(CLASSES)]
    assert found["unused"] == []
