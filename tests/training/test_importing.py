"""Claims about `import-weights`: files of torch.save become safetensors, and none runs code."""

import argparse
import functools
import io
import os
import subprocess
import warnings
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import stopgrad
from stopgrad.cli import main
from stopgrad.config import preset, torch_generator
from stopgrad.errors import CheckpointError, StorageError
from stopgrad.method import build_encoder
from stopgrad.training import importing, read_weights
from tests.inputs import row

TINY = preset("tiny").encoder
ENCODER = dict(build_encoder(TINY, torch_generator(0, "x")).state_dict())


def _below(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in ENCODER.items()}


_input = functools.partial(row, kind="weights")


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads files in this process, as one of its own takes seconds to start."""
    if "process_of_its_own" not in request.node.name:
        monkeypatch.setattr(importing, "_limit_memory", lambda size: None)
        monkeypatch.setattr(importing.subprocess, "run", _run_here)


def _run_here(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as those of another process, which end no test
        code = importing._main(*words[4:])
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


class Settings:
    """A class that the reader does not know."""

    def __init__(self) -> None:
        self.lr = 0.1


@pytest.mark.parametrize(
    ("values", "names", "left_out"),
    [
        _input("a state dict in a .pth file", "`import-weights` reads it", _below(""), "", []),
        _input(
            "a checkpoint with {state_dict: ...}, an optimizer and an epoch (MoCo, SimSiam)",
            "`import-weights` reads its tensors and lists the rest",
            {
                "epoch": 3,
                "state_dict": _below("module.encoder."),
                "optimizer": {"state": {0: {"m": torch.zeros(3)}}, "param_groups": [{"lr": 1.0}]},
            },
            "module.encoder.",
            ["epoch", "optimizer"],
        ),
        _input(
            "a checkpoint with {model: ...} and Python objects (DINO, timm)",
            "`import-weights` reads its tensors and loads none of the objects",
            {
                "model": _below("module."),
                "args": argparse.Namespace(lr=0.1),
                "best": np.float64(0.5),
                "own": Settings(),
            },
            "module.",
            ["args", "best", "own"],
        ),
        _input(
            "a Lightning checkpoint",
            "`import-weights` reads its tensors and lists the rest",
            {"state_dict": _below("backbone."), "callbacks": {Settings: 1}, "loops": None},
            "backbone.",
            ["callbacks", "loops"],
        ),
    ],
)
def test_the_tensors_of_a_checkpoint_are_taken(
    tmp_path: Path, values: Any, names: str, left_out: list[str]
) -> None:
    file, out = tmp_path / "a checkpoint.pth.tar", tmp_path / "out.safetensors"
    torch.save(values, file)
    found = stopgrad.import_weights(file, out=out)
    assert (found.tensors, found.left_out) == (54, left_out)
    written = load_file(out)
    assert written.keys() == _below(names).keys()
    assert all(torch.equal(written[names + key], value) for key, value in ENCODER.items())
    assert torch.equal(read_weights(str(out), TINY).tensors["bn1.bias"], ENCODER["bn1.bias"])


@pytest.mark.input(
    kind="weights", what="a file from PyTorch before 1.6", happens="`import-weights` reads it"
)
def test_a_file_before_archives_is_read(tmp_path: Path) -> None:
    torch.save(ENCODER, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    stopgrad.import_weights(tmp_path / "old.pth", out=tmp_path / "o.safetensors")
    assert torch.equal(load_file(tmp_path / "o.safetensors")["bn1.bias"], ENCODER["bn1.bias"])


def test_a_prefix_chooses_between_two_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {key: value + 1 for key, value in ENCODER.items()}
    both = _below("one.") | {f"two.{key}": value for key, value in other.items()}
    save_file(both, tmp_path / "both.safetensors")
    out = tmp_path / "two.safetensors"
    words = ["import-weights", str(tmp_path / "both.safetensors"), "--prefix", "two."]
    assert main([*words, "--out", str(out)]) == 0
    assert f"stopgrad pretrain --init {out}" in capsys.readouterr().err
    assert torch.equal(read_weights(str(out), TINY).tensors["bn1.bias"], other["bn1.bias"])
    assert main([*words[:-1], "three.", "--out", str(out)]) == 7


def test_a_link_is_followed(tmp_path: Path) -> None:
    torch.save(ENCODER, tmp_path / "epoch=3.ckpt")
    (tmp_path / "last.ckpt").symlink_to("epoch=3.ckpt")
    stopgrad.import_weights(tmp_path / "last.ckpt", out=tmp_path / "o.safetensors")
    assert (tmp_path / "o.safetensors").is_file()


def test_the_hint_at_a_pickle_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(ENCODER, tmp_path / "a b.pth")
    with pytest.raises(CheckpointError) as caught:
        read_weights(str(tmp_path / "a b.pth"), TINY)
    wanted = f"stopgrad import-weights '{tmp_path}/a b.pth' --out '{tmp_path}/a b.safetensors'"
    assert caught.value.hint.endswith(wanted)


# Files of people who mean harm


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *words: object) -> None:
        self.call = function, words

    def __reduce__(self) -> Any:
        return self.call


def _saved(values: object) -> Callable[[Path, Path], None]:
    return lambda file, proof: torch.save(values, file)


def _repacked(file: Path, proof: Path) -> None:
    torch.save({"w": torch.zeros(1 << 20)}, proof)
    with zipfile.ZipFile(proof) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    proof.unlink()


def _cut(file: Path, proof: Path) -> None:
    torch.save(ENCODER, file)
    os.truncate(file, file.stat().st_size // 2)


SPREAD = torch.zeros(1).expand(1 << 20, 1 << 20)
HOSTILE: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a command": (
        lambda file, proof: torch.save({"w": Calls(os.system, f"touch {proof}")}, file),
        "holds more than plain data (Trying to load unsupported GLOBAL posix.system",
    ),
    "a tensor of one number": (_saved({"w": SPREAD}), "claims tensors of 4,398,046,511,104 bytes"),
    "compressed": (_repacked, "has compressed entries"),
    "a whole model": (_saved(torch.nn.Linear(2, 2)), "holds no state dict"),
    "no tensors": (_saved({"epoch": 3, "w": [torch.zeros(3)]}), "holds no tensors"),
    "one name twice": (
        _saved({"a": {"b": torch.zeros(2)}, "a.b": torch.ones(2), "c": torch.ones(2)}),
        "holds a.b twice",
    ),
    "text": (
        lambda file, proof: file.write_bytes(b"weights of mine") and None,
        "is not a file of torch.save",
    ),
    "nothing": (lambda file, proof: file.touch(), "is not a file of torch.save"),
    "half a file": (_cut, "is not a zip file"),
    "a pipe": (lambda file, proof: os.mkfifo(file), "not a regular file"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_runs_nothing_and_is_one_line(tmp_path: Path, what: str) -> None:
    file, proof, out = (tmp_path / name for name in ("x.pth", "proof", "o.safetensors"))
    make, reason = HOSTILE[what]
    make(file, proof)
    with pytest.raises(CheckpointError) as caught:
        stopgrad.import_weights(file, out=out)
    assert reason.lower() in str(caught.value).lower()
    assert str(caught.value).isprintable()
    assert "weights_only" not in str(caught.value)  # PyTorch's advice to switch it off
    assert not proof.exists()
    assert not out.exists()


def test_a_process_of_its_own_with_little_memory_reads_the_file(tmp_path: Path) -> None:
    torch.save({"w": Calls(bytearray, 8 << 30)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="asks for more memory than its size explains"):
        stopgrad.import_weights(tmp_path / "x.pth", out=tmp_path / "o.safetensors")
    torch.save(ENCODER, tmp_path / "x.pth")
    assert stopgrad.import_weights(tmp_path / "x.pth", out=tmp_path / "o.safetensors").tensors == 54


def test_code_of_other_modules_becomes_nothing(tmp_path: Path) -> None:
    """A stub stands in for `exec` of builtins, which no list of modules blocks."""
    proof, out = tmp_path / "proof", tmp_path / "o.safetensors"
    values = {"state_dict": ENCODER, "x": Calls(exec, f"open({str(proof)!r}, 'w')")}
    torch.save(values, tmp_path / "x.pth")
    assert stopgrad.import_weights(tmp_path / "x.pth", out=out).left_out == ["x"]
    assert out.exists()
    assert not proof.exists()


def test_a_tensor_that_no_file_can_hold_is_named(tmp_path: Path) -> None:
    values = {"w": torch.eye(3).to_sparse(), "v": torch.zeros(2)}
    torch.save(values, tmp_path / "x.pth")
    found = stopgrad.import_weights(tmp_path / "x.pth", out=tmp_path / "o.safetensors")
    assert (found.tensors, found.left_out) == (1, ["w"])


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    torch.save(ENCODER, tmp_path / "x.pth")
    with pytest.raises(StorageError, match="could not be written"):
        stopgrad.import_weights(tmp_path / "x.pth", out=tmp_path / "no folder" / "o.safetensors")
