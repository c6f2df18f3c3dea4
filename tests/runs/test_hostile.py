"""Claims about `checkpoint` and files of people who mean harm: R18.

Each hostile checkpoint is the newest of two and its manifest agrees with it, so that only a look
at what it holds can refuse it; the older one is whole, and must not be used in its place.
"""

import gzip
import hashlib
import io
import json
import os
import pickle
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from stopgrad.config import preset
from stopgrad.errors import CheckpointError
from stopgrad.runs import load_checkpoint, read_run, verify_run
from stopgrad.runs.checkpoint import DamagedError
from stopgrad.runs.info import info_to_dict
from tests.runs.factories import checkpoint, edit, info, resume, train

MOST_MEMORY = 600 << 10  # kB more than before, whatever a file claims
HUGE = 10**400  # an integer of JSON; to make a float of it is an OverflowError

Hostile = Callable[[Path], None]


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def _put(folder: Path, name: str, data: bytes) -> None:
    """Writes a file and makes the manifest agree."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _state(folder: Path, **values: Any) -> None:
    state = {"step": 6, "losses": [0.1]} | values
    _put(folder, "state.json", json.dumps(state).encode())


def _model(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = checkpoint(6).model
    change(tensors)
    _put(folder, "model.safetensors", save(tensors))


def _optimizer(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = checkpoint(6).optimizer
    change(tensors)
    _put(folder, "optimizer.safetensors", save(tensors))


def _torch_file(proof: Path) -> bytes:
    file = io.BytesIO()
    torch.save(Payload(proof), file)
    return file.getvalue()


def _header(length: int, text: bytes) -> bytes:
    return length.to_bytes(8, "little") + text


def _twice(data: bytes) -> bytes:
    """Safetensors with the first tensor's key once more."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip()
    key, value = next(iter(json.loads(header).items()))
    header = header[:-1] + b"," + json.dumps({key: value}).encode()[1:]
    return _header(len(header), header) + data[8 + length :]


def _first(tensors: dict[str, torch.Tensor], value: float) -> None:
    next(iter(tensors.values())).view(-1)[0] = value


def _replace(name: str) -> Callable[[dict[str, torch.Tensor], torch.Tensor], None]:
    def replace(tensors: dict[str, torch.Tensor], value: torch.Tensor) -> None:
        tensors[name] = value

    return replace


CONV, RUNNING = "encoder.conv1.weight", "encoder.bn1.num_batches_tracked"

TENSORS: dict[str, Hostile] = {
    "pickle": lambda f: _put(f, "model.safetensors", pickle.dumps(Payload(f / "proof"))),
    "old pickle": lambda f: _put(f, "model.safetensors", pickle.dumps(Payload(f / "proof"), 0)),
    "torch.save": lambda f: _put(f, "optimizer.safetensors", _torch_file(f / "proof")),
    "gzip bomb": lambda f: _put(f, "model.safetensors", gzip.compress(bytes(50 << 20))),
    "nothing": lambda f: _put(f, "model.safetensors", b""),
    "another shape": lambda f: _model(f, lambda t: _replace(CONV)(t, torch.zeros(8, 3, 3, 5))),
    "fewer numbers": lambda f: _model(f, lambda t: _replace(CONV)(t, torch.zeros(1))),
    "another type": lambda f: _model(f, lambda t: _replace(CONV)(t, t[CONV].double())),
    "a float counter": lambda f: _model(f, lambda t: _replace(RUNNING)(t, torch.tensor(0.5))),
    "a tensor less": lambda f: _model(f, lambda t: t.pop(CONV)),
    "a tensor more": lambda f: _model(f, lambda t: _replace("\x1b[31m\nx")(t, torch.zeros(1))),
    "NaN": lambda f: _model(f, lambda t: _first(t, float("nan"))),
    "infinity": lambda f: _model(f, lambda t: _first(t, float("-inf"))),
    "NaN in momentum": lambda f: _optimizer(f, lambda t: _first(t, float("nan"))),
    "momentum of nothing": lambda f: _optimizer(f, lambda t: _replace("999.x")(t, torch.zeros(1))),
    "momentum without index": lambda f: _optimizer(f, lambda t: _replace("x")(t, torch.zeros(1))),
    "negative index": lambda f: _optimizer(f, lambda t: _replace("-1.x")(t, torch.zeros(1))),
    "broadcast": lambda f: _optimizer(f, lambda t: _replace("0.x")(t, torch.zeros(1))),
    "complex": lambda f: _optimizer(f, lambda t: _replace("0.x")(t, t["0.momentum_buffer"].bool())),
    "momentum dropped": lambda f: _optimizer(f, lambda t: t.clear()),
    "huge header": lambda f: _put(f, "model.safetensors", _header(1 << 62, b"{}")),
    "long header": lambda f: _put(f, "model.safetensors", _header(9, b"{}")),
    "deep header": lambda f: _put(f, "model.safetensors", _header(400_000, b"[" * 400_000)),
    "header of a list": lambda f: _put(f, "model.safetensors", _header(2, b"[]")),
    "key twice": lambda f: _put(f, "model.safetensors", _twice(save(checkpoint(6).model))),
    "more bytes": lambda f: _put(f, "model.safetensors", save(checkpoint(6).model) + b"x" * 99),
    "sparse": lambda f: os.truncate(f / "model.safetensors", 8 << 30),
}


def _manifest(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | values))


def _sums(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    _manifest(folder, sha256=manifest["sha256"] | values)


def _raw(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _socket(path: Path) -> None:
    path.unlink()
    before = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


FILES: dict[str, Hostile] = {
    "deep state": lambda f: _put(f, "state.json", b'{"losses":' * 200_000),
    "state twice": lambda f: _put(f, "state.json", b'{"step":6,"losses":[],"step":6}'),
    "state of a list": lambda f: _put(f, "state.json", b"[]"),
    "losses of text": lambda f: _state(f, losses=["1"]),
    "losses of lists": lambda f: _state(f, losses=[[0.1]]),
    "losses that are text": lambda f: _state(f, losses="12"),
    "losses by name": lambda f: _state(f, losses={"a": 1}),
    "NaN loss": lambda f: _state(f, losses=[float("nan")]),
    "a loss beyond every float": lambda f: _state(f, losses=[HUGE]),
    "too many losses": lambda f: _state(f, losses=[0.1] * 9),
    "another step": lambda f: _state(f, step=5),
    "a step that is true": lambda f: _state(f, step=True),
    "a large state": lambda f: _state(f, more=" " * (20 << 20)),
    "a file more": lambda f: _sums(f, **{"evil.py": "0" * 64}),
    "a path out": lambda f: _sums(f, **{"../../../evil": "0" * 64}),
    "a path instead": lambda f: _manifest(f, sha256={"../../config.json": "0" * 64}),
    "a path from the root": lambda f: _sums(f, **{"/etc/passwd": "0" * 64}),
    "manifest twice": lambda f: _raw(f, '{"format":2,"format":2}'),
    "manifest of a list": lambda f: _raw(f, "[]"),
    "sums of a list": lambda f: _manifest(f, sha256=[]),
    "deep manifest": lambda f: _raw(f, '{"sha256":' * 100_000),
    "a large manifest": lambda f: _raw(f, " " * (20 << 20) + "{}"),
    "a link": lambda f: _link(f / "model.safetensors", "/etc/passwd"),
    "a link inside": lambda f: _link(f / "state.json", "manifest.json"),
    "a link around": lambda f: _link(f / "state.json", "state.json"),
    "a linked manifest": lambda f: _link(f / "manifest.json", "/etc/hostname"),
    "a pipe": lambda f: _pipe(f / "model.safetensors"),
    "a socket": lambda f: _socket(f / "optimizer.safetensors"),
    "a folder": lambda f: _folder(f / "config.json"),
    "a config of nothing": lambda f: _put(f, "config.json", b"{}"),
    "a deep config": lambda f: _put(f, "config.json", b'{"config":' * 100_000),
    "a linked status": lambda f: (
        (f.parents[1] / "status.json").unlink()
        or (f.parents[1] / "status.json").symlink_to("/etc/passwd")
    ),
    "linked metrics": lambda f: _link(f.parents[1] / "metrics.jsonl", "/dev/zero"),
    "a piped record": lambda f: os.mkfifo(f.parents[1] / "records.jsonl"),
    "linked labels": lambda f: (f.parents[1] / "labels").symlink_to("/etc"),
}


@pytest.mark.parametrize("what", [*TENSORS, *FILES])
def test_a_hostile_checkpoint_is_refused_and_nothing_older_is_used(
    tmp_path: Path, what: str
) -> None:
    train(tmp_path, 3, 6)
    newest = tmp_path / "checkpoints" / "step-000006"
    (TENSORS | FILES)[what](newest)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path)
    assert not isinstance(caught.value, DamagedError)
    assert caught.value.exit_code == 7
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY
    assert not list(tmp_path.rglob("proof"))
    with pytest.raises(CheckpointError):
        resume(tmp_path)
    assert newest.exists()
    assert not all(finding.ok for finding in verify_run(tmp_path))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_whatever_the_manifest_says(tmp_path: Path, protocol: int) -> None:
    train(tmp_path, 3, 6)
    model = tmp_path / "checkpoints" / "step-000006" / "model.safetensors"
    for data in (pickle.dumps(Payload(tmp_path / "proof"), protocol), _torch_file(tmp_path / "p")):
        model.write_bytes(data)
        with pytest.raises(CheckpointError, match="is a pickle, which is never opened"):
            load_checkpoint(tmp_path)
    assert not (tmp_path / "proof").exists()


def test_a_pickle_of_ours_would_have_run(tmp_path: Path) -> None:
    """Negative control of the tests above."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()


def test_folders_that_lead_out_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, 3, 6)
    folder = run / "checkpoints" / "step-000006"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    _is_refused(run, "step-000006 is a link")
    folder.unlink()
    (run / "checkpoints").rename(tmp_path / "others")
    (run / "checkpoints").symlink_to(tmp_path / "others")
    _is_refused(run, "checkpoints is a link")
    assert (tmp_path / "others" / "step-000003" / "manifest.json").exists()


def _is_refused(run: Path, said: str) -> None:
    for use in (load_checkpoint, resume, read_run):
        with pytest.raises(CheckpointError, match=said):
            use(run)
    assert [(f.file, f.ok) for f in verify_run(run)] == [(".", False)]


CONFIGS: dict[str, tuple[str, Any]] = {
    "NaN": ("normalization.mean", ["x", 0, 0]),
    "a mean beyond every float": ("normalization.mean", [HUGE, 0, 0]),
    "epochs beyond every float": ("config.epochs", HUGE),
    "a rate beyond every float": ("config.optimizer.base_lr", HUGE),
    "no std": ("normalization.std", [1, 0, 1]),
    "a short mean": ("normalization.mean", [0.1]),
    "no images": ("data.images", 0),
    "images of text": ("data.images", "many"),
    "images that are true": ("data.images", True),
    "a spec of numbers": ("data.spec", 3),
    "names of numbers": ("data.class_names", [1]),
    "no threads": ("environment.threads", 0),
    "threads of text": ("environment.threads", "all"),
    "a million threads": ("environment.threads", 1_000_000),
    "an unknown key": ("config.evil", 1),
    "a text for a number": ("config.batch", "many"),
    "a list of knobs": ("config", []),
    "data of text": ("data", "mnist5k"),
    "another format": ("format", 99),
    "another task": ("data.task", "evil"),
    "changes of text": ("changes", "many"),
    "a change of text": ("changes", ["epochs"]),
    "a change without a step": ("changes", [{"key": "epochs", "old": 1, "new": 2}]),
    "an extension of text": ("changes", [{"step": 1, "key": "epochs", "old": "1", "new": "2"}]),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_hostile_config_is_one_line(tmp_path: Path, what: str) -> None:
    train(tmp_path, 3)
    edit(tmp_path / "config.json", *CONFIGS[what])
    with pytest.raises(CheckpointError, match="is not a run that can be read") as caught:
        read_run(tmp_path)
    assert str(caught.value).isprintable()
    findings = {finding.file: finding for finding in verify_run(tmp_path)}
    assert not findings["config.json"].ok
    assert findings["checkpoints/step-000003/model.safetensors"].ok


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[", b"{}", b"null", b"[" * 1_000_000, b'{"config": NaN}', b"x" * (17 << 20)],
)
def test_a_config_that_is_no_json_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(CheckpointError, match="is not a run that can be read"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "knobs", [{"encoder.width": 32}, {"projector.hidden": 10**6}, {"projector.out": 10**6}]
)
def test_a_config_cannot_ask_for_all_memory(tmp_path: Path, knobs: dict[str, Any]) -> None:
    train(tmp_path, 3, 6)
    bomb = info(preset("tiny", **knobs))
    described = json.dumps(info_to_dict(bomb)).encode()
    (tmp_path / "config.json").write_bytes(described)
    _put(tmp_path / "checkpoints" / "step-000006", "config.json", described)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="another shape"):
        load_checkpoint(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    train(tmp_path, 3)
    os.truncate(tmp_path / "checkpoints" / "step-000003" / "optimizer.safetensors", 8 << 30)
    with pytest.raises(CheckpointError, match=r"has 8,589,934,592 bytes, more than 1[78],"):
        load_checkpoint(tmp_path)
