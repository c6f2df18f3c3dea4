"""Claims about `weights` and --init: where an encoder starts from, and what is refused."""

import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

from stopgrad.cli import main
from stopgrad.config import EncoderConfig, preset, torch_generator
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.evaluation import Record, read
from stopgrad.export import export_run
from stopgrad.images import Dataset, load_dataset
from stopgrad.method import build_encoder
from stopgrad.runs import TrainedRun, encode_tensors, load_checkpoint, read_run
from stopgrad.training import read_weights
from tests.factories import HubAnswer
from tests.runs.factories import edit
from tests.training.factories import encoder_run

TINY = preset("tiny").encoder
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return encoder_run(tmp_path_factory.mktemp("start") / "run", seed=5)


def _equal(found: dict[str, torch.Tensor], run: TrainedRun) -> bool:
    wanted = run.model.encoder.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in found)


def test_a_run_and_its_export_hold_the_same_weights(run: TrainedRun, tmp_path: Path) -> None:
    out = tmp_path / "encoder.safetensors"
    export_run(run, name="safetensors", out=out)
    of_run, of_file = read_weights(str(run.path), TINY), read_weights(str(out), TINY)
    assert _equal(of_run.tensors, run)
    assert _equal(of_file.tensors, run)
    assert of_run.sha256 == of_file.sha256
    other = encoder_run(tmp_path / "other", seed=6)
    assert read_weights(str(other.path), TINY).sha256 != of_run.sha256


def test_weights_of_another_encoder_are_refused_with_the_first_that_differ(
    run: TrainedRun,
) -> None:
    with pytest.raises(ConfigError, match="does not fit the encoder") as caught:
        read_weights(str(run.path), EncoderConfig(name="cifar_resnet8", width=2.0))
    assert "'conv1.weight' is 16 x 3 x 3 x 3, not 32 x 3 x 3 x 3" in str(caught.value)
    assert "--encoder.name cifar_resnet8 --encoder.stem half --encoder.width 1" in str(caught.value)
    with pytest.raises(ConfigError, match=r"missing: 'layer1\.1\.bn1\.bias'"):
        read_weights(str(run.path), EncoderConfig(name="cifar_resnet14", stem="half"))


@pytest.mark.parametrize("spec", ["nowhere", "timm:resnet81", "timm:", "\0", "a/../b"])
def test_what_is_not_there_is_one_line(spec: str) -> None:
    with pytest.raises(ConfigError, match="--init"):
        read_weights(spec, TINY)


def test_the_nearest_names_of_timm_are_offered() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*resnet18"):
        read_weights("timm:resnet188", TINY)


# Files of people who mean harm: R18


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def _header(length: int, text: bytes) -> bytes:
    return length.to_bytes(8, "little") + text


def _claims(shape: list[int], end: int) -> bytes:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    text = json.dumps({"conv1.weight": entry}).encode()
    return _header(len(text), text)


def _changed(change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    encoder = build_encoder(TINY, torch_generator(0, "x"))
    tensors = dict(encoder.state_dict())
    change(tensors)
    return save(tensors)


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "pickle": lambda p: pickle.dumps(Payload(p)),
    "old pickle": lambda p: pickle.dumps(Payload(p), 0),
    "nothing": lambda p: b"",
    "text": lambda p: b"encoder",
    "huge header": lambda p: _header(1 << 62, b"{}"),
    "long header": lambda p: _header(99, b"{}"),
    "deep header": lambda p: _header(200_000, b"[" * 200_000),
    "header of a list": lambda p: _header(2, b"[]"),
    "huge claim": lambda p: _claims([1 << 40, 1 << 40], 4),
    "negative claim": lambda p: _claims([-1], 4),
    "a tensor less": lambda p: _changed(lambda t: t.pop("conv1.weight")),
    "a stage more": lambda p: _changed(lambda t: t.update({"layer4.\x1b[31m": torch.zeros(1)})),
    "another shape": lambda p: _changed(lambda t: t.update({"conv1.weight": torch.zeros(1)})),
    "another type": lambda p: _changed(lambda t: t.update({"bn1.bias": t["bn1.bias"].double()})),
    "NaN": lambda p: _changed(lambda t: t["bn1.bias"].fill_(float("nan"))),
    "infinity": lambda p: _changed(lambda t: t["bn1.bias"].fill_(float("inf"))),
    "more bytes": lambda p: _changed(lambda t: None) + b"x" * 99,
    "cut": lambda p: _changed(lambda t: None)[:-9],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_line(tmp_path: Path, what: str) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(HOSTILE[what](tmp_path / "proof"))
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        read_weights(str(file), TINY)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 900
    assert not (tmp_path / "proof").exists()


def test_no_name_in_a_file_steers_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(_changed(lambda t: t.update({"\x1b[31m.x": torch.zeros(1)})))
    assert read_weights(str(file), TINY).remark == "1 other tensors left out: ?[31m (1)"


def test_a_whole_file_is_taken(tmp_path: Path) -> None:
    """Negative control of the test above."""
    (tmp_path / "weights.safetensors").write_bytes(_changed(lambda t: None))
    read_weights(str(tmp_path / "weights.safetensors"), TINY)


def test_a_pipe_and_a_file_longer_than_its_header_says_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_weights(str(tmp_path / "pipe"), TINY)
    large = tmp_path / "large.safetensors"
    large.write_bytes(_changed(lambda t: None))
    os.truncate(large, 8 << 30)
    with pytest.raises(CheckpointError, match="not fully covered"):
        read_weights(str(large), TINY)


# A pretraining from weights


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """80 real digits to learn from."""
    whole = load_dataset("mnist5k")
    found = Dataset("digits", whole.train.take(np.arange(80) * 50), whole.test)
    monkeypatch.setattr("stopgrad.runs.load_images", lambda *rest, **how: found)
    return found


def _pretrain(out: Path, *words: object, task: str = "pretrain") -> int:
    base = (task, "--data", "mnist5k", "--out", out, "--preset", "tiny", "--epochs", 1)
    return main([str(word) for word in (*base, "--knn-every", 0, *words)])


def test_a_pretraining_starts_from_the_weights_and_notes_them(
    run: TrainedRun, digits: Dataset, tmp_path: Path
) -> None:
    assert _pretrain(tmp_path / "new", "--init", run.path) == 0
    noted = read_run(tmp_path / "new").data["init"]
    assert noted == read_weights(str(run.path), TINY).card()
    assert _pretrain(tmp_path / "plain") == 0
    assert "init" not in read_run(tmp_path / "plain").data
    one, other = (load_checkpoint(tmp_path / name).model for name in ("new", "plain"))
    assert not torch.equal(one["encoder.conv1.weight"], other["encoder.conv1.weight"])


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretrainings end in their first step."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stopgrad.training.pretrain.Pretraining.advance", die)


def _holds_at_step_0(path: Path, run: TrainedRun) -> bool:
    saved = load_checkpoint(path)
    encoder = {k.removeprefix("encoder."): v for k, v in saved.model.items() if "encoder." in k}
    return saved.step == 0 and _equal(encoder, run)


def test_the_first_checkpoint_holds_the_weights(
    run: TrainedRun, digits: Dataset, tmp_path: Path, dying: None
) -> None:
    assert _pretrain(tmp_path / "new", "--init", run.path) == 130
    assert _holds_at_step_0(tmp_path / "new", run)


def test_a_run_killed_before_its_first_checkpoint_starts_from_the_same_weights_again(
    run: TrainedRun,
    digits: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dying: None,
) -> None:
    out = tmp_path / "new"
    assert _pretrain(out, "--init", run.path) == 130
    shutil.rmtree(out / "checkpoints")
    assert main(["resume", str(out)]) == 130
    assert _holds_at_step_0(out, run)
    shutil.rmtree(out / "checkpoints")
    edit(out / "config.json", "data.init.sha256", "0" * 64)
    assert main(["resume", str(out)]) == 2
    assert f"{run.path} has changed, sha256 000000000000 -> " in capsys.readouterr().err


def test_a_resumed_run_needs_its_weights_no_more_but_may_not_change_them(
    run: TrainedRun,
    digits: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = encoder_run(tmp_path / "gone", seed=5)
    assert _pretrain(tmp_path / "new", "--init", gone.path) == 0
    gone.path.rename(tmp_path / "elsewhere")
    assert main(["resume", str(tmp_path / "new"), "--extend", "2"]) == 0
    edit(tmp_path / "new" / "config.json", "data.init.sha256", "0" * 64)
    assert main(["resume", str(tmp_path / "new"), "--extend", "3"]) == 3
    assert "data.init: " in capsys.readouterr().err
    values = json.loads((tmp_path / "new" / "config.json").read_text())
    del values["data"]["init"]
    (tmp_path / "new" / "config.json").write_text(json.dumps(values))
    assert main(["resume", str(tmp_path / "new"), "--extend", "3"]) == 3


def test_records_of_the_encoder_say_what_it_started_from(
    run: TrainedRun, digits: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "new"
    assert _pretrain(out, "--init", run.path) == 0
    assert (
        main(["evaluate", str(out), "--metrics", "knn_accuracy", "--of", "encoder", "pixels"]) == 0
    )
    short = ("--finetune.epochs", "1", "--labels", "1")
    assert main(["finetune", str(out), *short]) == 0
    starts = [(record.of, record.protocol["evaluator"], record.init) for record in _read(out)]
    card = read_weights(str(run.path), TINY).card()
    assert starts == [
        ("encoder", "knn", card),
        ("pixels", "knn", None),
        ("encoder", "finetune", card),
    ]


def _read(out: Path) -> list[Record]:
    return read(out / "records.jsonl")


def test_a_wrong_start_is_one_line_and_leaves_nothing(
    run: TrainedRun, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--init", run.path, "--encoder.stem", "small", "--encoder.width", 2)
    assert _pretrain(tmp_path / "new", *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--encoder.stem half --encoder.width 1" in error
    assert not (tmp_path / "new").exists()


# timm's weights, by the Hub's real client, from a server on loopback


class Hub(ThreadingHTTPServer):
    """One repository with one file."""

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.data = data


class Answer(HubAnswer):
    """The listing of the repository, or its file."""

    server: Hub

    def answer(self, *, with_body: bool) -> None:
        listing = json.dumps({"id": "timm/x", "sha": COMMIT, "siblings": []}).encode()
        body = listing if self.path.startswith("/api/models/") else self.server.data
        self.reply(200, body, {"ETag": '"1"', "X-Repo-Commit": COMMIT}, with_body)


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    servers = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def start(data: bytes) -> None:
        server = Hub(data)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


NAME = "test_resnet"  # timm's smallest


def _with_classes() -> tuple[dict[str, torch.Tensor], bytes]:
    torch.manual_seed(0)
    tensors = timm.create_model(NAME).state_dict()
    return tensors, save(tensors)


def test_timms_weights_come_from_the_hub_without_their_classifier(
    serve: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, data = _with_classes()
    serve(data)
    config = EncoderConfig(name=f"timm:{NAME}")
    found = read_weights(f"timm:{NAME}", config)
    assert set(tensors) - set(found.tensors) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, tensors[key]) for key, value in found.tensors.items())
    assert found.source == f"timm:{NAME}"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # kept: no network is needed now
    assert read_weights(f"timm:{NAME}", config).sha256 == found.sha256


def test_a_hub_that_gives_a_pickle_is_refused(
    serve: Callable[[bytes], None], tmp_path: Path
) -> None:
    serve(pickle.dumps(Payload(tmp_path / "proof")))
    with pytest.raises(CheckpointError, match="is not safetensors"):
        read_weights(f"timm:{NAME}", EncoderConfig(name=f"timm:{NAME}"))
    assert not (tmp_path / "proof").exists()


def test_without_a_network_the_answer_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.perf_counter()
    with pytest.raises(DataError, match=r"did not provide model\.safetensors of timm/"):
        read_weights(f"timm:{NAME}", EncoderConfig(name=f"timm:{NAME}"))
    assert time.perf_counter() - began < 10  # timm's own way takes most of a minute


def test_a_card_is_compared_with_its_file(run: TrainedRun, tmp_path: Path) -> None:
    out = tmp_path / "encoder.safetensors"
    export_run(run, name="safetensors", out=out)
    tensors = dict(run.model.encoder.state_dict())
    tensors["bn1.bias"] = tensors["bn1.bias"] + 1
    out.write_bytes(encode_tensors(tensors))
    with pytest.raises(CheckpointError, match="does not match the sha256"):
        read_weights(str(out), TINY)
