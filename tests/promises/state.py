"""What a run directory holds, read from outside: a hash of its state and its rows of metrics.

Neither torch nor a line of the product's own readers is used, so that a fault there cannot hide
itself. The hash is sha256 over sorted (key, dtype, shape, bytes) of model, buffers and optimiser,
and over the position; the learning rates stand in the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TIMES = ("views_per_s",)  # what may differ between two equal runs
PARTS = ("model.safetensors", "optimizer.safetensors")


class Stored(NamedTuple):
    """One tensor in a safetensors file."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class End(NamedTuple):
    """What a run came to."""

    step: int
    hash: str
    rows: tuple[str, ...]  # canonical, floats in hex


def read_end(run: Path) -> End:
    """The end of a run as its files tell it."""
    return End(newest_step(run), model_hash(run), tuple(map(_canonical, rows(run))))


def model_hash(run: Path) -> str:
    """sha256 over model, buffers, optimiser and position of the newest checkpoint."""
    folder = newest(run)
    digest = hashlib.sha256()
    for part in PARTS:
        for key, dtype, shape, data in sorted(tensors(folder / part)):
            digest.update(f"{part} {key} {dtype} {shape} {len(data)}\n".encode() + data)
    digest.update(_canonical(json.loads((folder / "state.json").read_text())).encode())
    return digest.hexdigest()


def newest(run: Path) -> Path:
    """The folder of the newest committed checkpoint.

    Raises:
        FileNotFoundError: When there is none.
    """
    folders = committed(run)
    if not folders:
        raise FileNotFoundError(f"no checkpoint in {run}")
    return folders[-1]


def committed(run: Path) -> list[Path]:
    """Folders of checkpoints that have a manifest, oldest first."""
    found = [path.parent for path in (run / "checkpoints").glob("step-*/manifest.json")]
    return sorted(found, key=step_of)


def newest_step(run: Path) -> int:
    """The step of the newest committed checkpoint, -1 when there is none."""
    return max(map(step_of, committed(run)), default=-1)


def step_of(folder: Path) -> int:
    """123 of `step-000123`."""
    return int(folder.name.removeprefix("step-"))


def tensors(path: Path) -> Iterator[Stored]:
    """The tensors of a safetensors file: 8 bytes of length, a JSON header, the data."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    for key, entry in header.items():
        if key != "__metadata__":
            start, stop = (8 + size + offset for offset in entry["data_offsets"])
            yield Stored(key, entry["dtype"], tuple(entry["shape"]), raw[start:stop])


def rows(run: Path) -> list[dict[str, Any]]:
    """All rows of metrics; a line torn by a kill is left out."""
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def last_row_step(run: Path) -> int:
    """The last step that has a row, 0 when none has."""
    return max((row["step"] for row in rows(run) if row["kind"] == "step"), default=0)


def status(run: Path) -> dict[str, Any]:
    """`status.json`, empty while there is none."""
    path = run / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def differences(run: Path, wanted: End) -> list[str]:
    """How a finished run differs from the undisturbed one; empty when not in a single bit."""
    try:
        found = read_end(run)
    except (OSError, ValueError, KeyError) as error:
        return [f"{run.name}: cannot be read ({type(error).__name__}: {error})"]
    told = [f"{run.name}: {line}" for line in _each_step_once(found, wanted)]
    if found.hash != wanted.hash:
        told.append(f"{run.name}: another state at step {found.step}")
    if not told and found.rows != wanted.rows:
        pairs = zip(found.rows, wanted.rows, strict=True)
        told.append(f"{run.name}: rows differ, first {next(a for a, b in pairs if a != b)}")
    return told


def _each_step_once(found: End, wanted: End) -> Iterator[str]:
    counts, due = Counter(map(_position, found.rows)), Counter(map(_position, wanted.rows))
    for position in sorted(counts.keys() | due.keys()):
        if counts[position] != due[position]:
            yield f"{position} has {counts[position]} rows instead of {due[position]}"


def _position(row: str) -> str:
    values = json.loads(row)
    return f"{values['kind']} {values[values['kind']]}"


def _canonical(value: dict[str, Any]) -> str:
    kept = {key: item for key, item in value.items() if key not in TIMES}
    return json.dumps(_in_hex(kept), sort_keys=True)


def _in_hex(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_hex(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_hex(item) for item in value]
    return value.hex() if isinstance(value, float) else value


def overwrite_tensors(path: Path, pattern: bytes) -> None:
    """Fills the data of a safetensors file with a repeated pattern; its header stays."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    length = len(raw) - start
    path.write_bytes(raw[:start] + (pattern * length)[:length])


def sums(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a checkpoint that its manifest names."""
    names = promised_sums(folder)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def promised_sums(folder: Path) -> dict[str, str]:
    """The sha256 that the manifest of a checkpoint gives for each file."""
    return dict(json.loads((folder / "manifest.json").read_text())["sha256"])


def reseal(folder: Path) -> None:
    """Writes the manifest anew over files that were changed, as a forger would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | {"sha256": sums(folder)}
    path.write_text(json.dumps(manifest, indent=2) + "\n")
