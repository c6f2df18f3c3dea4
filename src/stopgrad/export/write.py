"""A run -> files that other tools load, each compared with our own encoder.

The card is written last. If its sha256 matches the file, both are complete.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stopgrad.config import TIMM, ExportFormat, torch_generator
from stopgrad.errors import CheckpointError, ConfigError, StorageError
from stopgrad.evaluation import finite
from stopgrad.export.card import describe, model_card
from stopgrad.export.formats import check_format, encode_onnx, layout, run_onnx
from stopgrad.export.pretrained import PretrainedEncoder
from stopgrad.method import build_encoder
from stopgrad.runs import TrainedRun, decode_tensors, encode_tensors
from stopgrad.storage import (
    check_ending,
    json_bytes,
    read_file,
    storage_errors,
    sync_directory,
    write_atomically,
    write_json,
)
from stopgrad.training import card_of

CLOSE = {"onnx": 1e-4}  # largest difference allowed, relative to the largest feature
CLOSE_TORCH = 1e-5
TRIES = 10  # while other exports write the same file
PROBES = 4  # random images in the comparison
SUFFIX = {"onnx": ".onnx", "hub": ""}


class Exported(NamedTuple):
    """The files of an export."""

    out: Path
    files: tuple[Path, ...]
    card: dict[str, Any]
    difference: float | None  # from our encoder, relative; None: the library is not installed

    def __repr__(self) -> str:
        code = "".join(f"\n    {line}" for line in self.lines)
        return f"<Exported {str(self.out)!r} as {self.card['format']}; load it with:{code}>"

    @property
    def lines(self) -> list[str]:
        """Python code that loads the export from here; the card's lines run in its folder."""
        name, path = quoted(self.out.name), quoted(str(self.out))
        return [line.replace(name, path) for line in self.card["load"]]


def quoted(path: str) -> str:
    """A path as a Python string, in double quotes where they need no escape."""
    text = repr(path)
    return text if '"' in text else f'"{text[1:-1]}"'


def export_run(run: TrainedRun, *, name: ExportFormat, out: Path) -> Exported:
    """Writes the encoder of a run in a format.

    Args:
        run: The run at the checkpoint to export. It may be unfinished; the card says so.
        name: The format.
        out: A file with the suffix of the format, replaced if it exists; a new folder for hub.

    Raises:
        ConfigError: For an encoder that the format cannot hold, an unsuitable `out`, or a missing
            package.
        CheckpointError: When the target library computes other features.
        DivergedError: When the features are not finite.
        StorageError: When the disk refuses.
    """
    _check_out(name, out)
    config = run.info.config
    check_format(config.encoder, name)
    encoder = build_encoder(config.encoder, torch_generator(config.seed, "encoder"))
    encoder.load_state_dict({k: v.cpu() for k, v in run.model.encoder.state_dict().items()})
    encoder.eval()  # with plain BN, in fp32, on the CPU
    card = describe(run) | {"format": name}
    match name:
        case "hub":
            return _hub(run, encoder, card, out)
        case "onnx":
            return _onnx(encoder, card, out)
        case "safetensors":
            return _safetensors(encoder, card, out)
        case "torchvision" | "timm":
            return _for_library(run, encoder, card, out)


def _safetensors(encoder: nn.Module, card: dict[str, Any], out: Path) -> Exported:
    card["load"] = [
        "from stopgrad.export import PretrainedEncoder",
        f"model = PretrainedEncoder.from_file({quoted(out.name)})",
    ]
    data = encode_tensors(encoder.state_dict())
    model = PretrainedEncoder(card["encoder"], card["preprocessing"])
    model.encoder.load_state_dict(decode_tensors(data))
    return _write(out, data, card, difference=_difference(encoder, model, card))


def _for_library(run: TrainedRun, encoder: nn.Module, card: dict[str, Any], out: Path) -> Exported:
    name: ExportFormat = card["format"]
    found, difference = layout(run.info.config.encoder, name), None
    tensors = encoder.state_dict()
    if importlib.util.find_spec(found.package) is not None:
        model = found.build()
        model.load_state_dict(tensors)
        model.eval()
        difference = _difference(encoder, model, card)
        card["checked"] = f"{found.package} {version(found.package)}"
    card["load"] = [
        f"import {found.package}",
        "from safetensors.torch import load_file",
        "from torch import nn",
        *found.lines,
        f"model.load_state_dict(load_file({quoted(out.name)}))",
        "model.eval()",
    ]
    return _write(out, encode_tensors(tensors), card, difference=difference)


def _onnx(encoder: nn.Module, card: dict[str, Any], out: Path) -> Exported:
    card["load"] = [
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({quoted(out.name)})",
        '[features] = session.run(None, {"x": x})',
    ]
    x = _probes(card)
    card["shapes"] = {"x": ["batch", x.shape[1], "height", "width"]}
    card["shapes"]["features"] = ["batch", card["features"]]
    ours = not card["encoder"]["name"].startswith(TIMM)
    if not ours:
        card["shapes"]["x"][2:] = x.shape[2:]
    metadata = card["preprocessing"] | {"card": card}
    data = encode_onnx(encoder, x, sizes_vary=ours, metadata=metadata)
    difference = _difference(encoder, lambda y: run_onnx(data, y), card)
    card["checked"] = f"onnxruntime {version('onnxruntime')}"
    return _write(out, data, card, difference=difference)


def _hub(run: TrainedRun, encoder: nn.Module, card: dict[str, Any], out: Path) -> Exported:
    """Writes a folder that is complete or absent."""
    card["load"] = [
        "from stopgrad.export import PretrainedEncoder",
        f"model = PretrainedEncoder.from_pretrained({quoted(out.name)})",
    ]
    with storage_errors(out, needed=0):
        out.parent.mkdir(parents=True, exist_ok=True)
        above = Path(tempfile.mkdtemp(prefix=".hub-", suffix=".tmp", dir=out.parent))
        temporary = above / out.name  # with the permissions that the user wants
        temporary.mkdir()
    try:
        model = PretrainedEncoder(card["encoder"], card["preprocessing"])
        model.encoder.load_state_dict(encoder.state_dict())
        write_atomically(temporary / "README.md", model_card(run, card, name=out.name).encode())
        model.save_pretrained(temporary)
        weights = (temporary / "model.safetensors").read_bytes()
        sealed = _sealed(card, "model.safetensors", weights)
        write_json(temporary / "card.json", sealed)
        difference = _difference(encoder, PretrainedEncoder.from_pretrained(temporary), card)
        with storage_errors(out, needed=0):
            sync_directory(temporary)
            try:
                temporary.rename(out)
            except OSError:
                _check_out("hub", out)  # another export was there first
                raise
            sync_directory(out.parent)
    finally:
        shutil.rmtree(above, ignore_errors=True)
    return Exported(out, tuple(sorted(out.iterdir())), sealed, difference)


def _write(out: Path, data: bytes, card: dict[str, Any], *, difference: float | None) -> Exported:
    """Writes a file and its card, and again if another export wrote one of them in the meantime.

    It holds no lock, because not every folder supports one: whoever writes last checks again.
    """
    described, sealed = card_of(out), _sealed(card, out.name, data)
    for _ in range(TRIES):
        with storage_errors(out, needed=len(data)):
            out.parent.mkdir(parents=True, exist_ok=True)
            described.unlink(missing_ok=True)
        write_atomically(out, data)
        write_json(described, sealed)
        if _are_there({out: data, described: json_bytes(sealed)}):
            return Exported(out, (out, described), sealed, difference)
    raise StorageError(
        f"other processes are writing {out} too",
        expected="one export to a file at a time",
        hint="wait for them, then repeat the command",
    )


def _are_there(files: dict[Path, bytes]) -> bool:
    try:
        return all(read_file(path, most=len(data)) == data for path, data in files.items())
    except OSError:  # replaced by a larger file, or removed
        return False


def _sealed(card: dict[str, Any], name: str, data: bytes) -> dict[str, Any]:
    """The card as read back from JSON, with the name, sha256 and size of its file."""
    described: dict[str, Any] = json.loads(json.dumps(card))
    file = {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return file | described


def _probes(card: dict[str, Any]) -> Tensor:  # (PROBES, C, S, S)
    side, channels = card["preprocessing"]["view_size"], card["encoder"]["channels"]
    return torch.randn(PROBES, channels, side, side, generator=torch_generator(0, "export"))


def _difference(
    encoder: nn.Module, other: Callable[[Tensor], Tensor], card: dict[str, Any]
) -> float:
    """The largest difference between two encoders' features, relative to the largest feature.

    Raises:
        CheckpointError: When it is more than rounding explains.
    """
    x = _probes(card)
    with torch.inference_mode():
        ours, theirs = encoder(x), other(x)
    finite(ours, role="probe")
    most = CLOSE.get(card["format"], CLOSE_TORCH)
    scale = float(ours.abs().max()) or 1.0
    found = float((ours - theirs).abs().max()) / scale
    if not found <= most:
        raise CheckpointError(
            f"features as {card['format']} differ by {found:.1g} of the largest feature",
            expected=f"at most {most:g}",
            hint="nothing was written; choose another format, and report this as a bug",
        )
    return found


def _check_out(name: ExportFormat, out: Path) -> None:
    suffix = SUFFIX.get(name, ".safetensors")
    if suffix:
        check_ending(out, suffix, option=f"--format {name} --out")
    if name == "hub" and out.exists():
        raise ConfigError(
            f"{out} exists",
            expected="a new folder",
            hint="choose another --out, or remove it",
        )
