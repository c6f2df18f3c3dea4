"""Names beyond ASCII where the locale knows ASCII alone: as bytes on disk they are UTF-8."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.promises.process import run_in_turn

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


WAYS = (as_folder, as_zip, as_parquet, as_arrow, as_paths)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What four commands say of each kind of data; one process of that locale runs them all."""
    here, commands = tmp_path_factory.mktemp("locale"), list[tuple[object, ...]]()
    for write in WAYS:
        where = here / write.__name__
        data, store = write(where / "bilder-äöü"), where / "stör"
        commands += [
            ("check-data", data, "--preset", "tiny", "--json"),
            ("pack", "--data", data, "--out", store),
            ("verify", store),
            ("check-data", store, "--preset", "tiny", "--json"),
        ]
    commands += [("check-data", as_table(here / "tabelle-äöü"), "--preset", "tiny", "--json")]
    said = run_in_turn(*commands, **C_LOCALE, STOPGRAD_CACHE=str(here / "häufig"))
    found = {write.__name__: [out for out, _ in said[4 * n :][:4]] for n, write in enumerate(WAYS)}
    return found | {as_table.__name__: [said[-1][0]]}


@pytest.mark.input("oddity", what="non-ASCII names in an ASCII locale", happens="read")
@pytest.mark.parametrize("kind", [write.__name__ for write in WAYS])
def test_names_beyond_ascii_are_read_and_packed_in_any_locale(
    answers: dict[str, list[str]], kind: str
) -> None:
    of_data, _, _, of_store = answers[kind]
    found = json.loads(of_data)
    assert found["pictures"] == {"train": COUNT}
    assert found["damaged"] == []
    found = json.loads(of_store)
    assert found["pictures"] == {"train": COUNT}


@pytest.mark.input(
    "label", what="a table with non-ASCII text in an ASCII locale", happens="labels are read"
)
def test_a_table_of_names_beyond_ascii_is_read_in_any_locale(
    answers: dict[str, list[str]],
) -> None:
    found = json.loads(answers[as_table.__name__][0])
    counts = [(each["name"], each["train"]) for each in found["classes"]]
    assert counts == [(name, COUNT // 2) for name in sorted(CLASSES)]
    assert found["unused"] == []
