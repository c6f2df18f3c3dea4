"""An encoder pushed by the Hub's real client to a server on loopback, and loaded from there."""

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch

import stopgrad
from stopgrad.cli import main
from stopgrad.export import PretrainedEncoder
from tests.factories import HubAnswer

COMMIT = "0" * 39 + "1"
NAME = "somebody/digits"


class Hub(ThreadingHTTPServer):
    """One model repository that takes commits with whole files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []  # what, and with which token

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(HubAnswer):
    """What the client asks of the Hub on the way of an upload and a download."""

    server: Hub

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        if self.headers.get("Authorization") != "Bearer hf_right":
            self.reply(401, b'{"error": "Invalid credentials"}', {}, with_body=True)
            return
        answer = {
            "/api/repos/create": lambda: {"url": f"{self.server.address}/{NAME}"},
            "/api/validate-yaml": lambda: {"errors": [], "warnings": []},
            f"/api/models/{NAME}/preupload/main": lambda: self.how_to_send(json.loads(body)),
            f"/api/models/{NAME}/commit/main": lambda: self.commit(body),
        }[self.path]()
        self.reply(200, json.dumps(answer).encode(), {}, with_body=True)

    def how_to_send(self, asked: dict[str, list[dict[str, str]]]) -> object:
        files = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
            for file in asked["files"]
        ]
        return {"files": files}

    def commit(self, body: bytes) -> object:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
        return {"commitUrl": f"{self.server.address}/{NAME}/commit/{COMMIT}", "commitOid": COMMIT}

    def answer(self, *, with_body: bool) -> None:
        data = self.server.files.get(self.path.rpartition("/")[2])
        if self.path.startswith("/api/models/"):
            data = json.dumps({"id": NAME, "sha": COMMIT, "siblings": []}).encode()
        if data is None:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
            return
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        self.reply(200, data, {"ETag": etag, "X-Repo-Commit": COMMIT}, with_body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    settings: tuple[tuple[str, object], ...] = (
        ("HF_HUB_CACHE", str(tmp_path / "hub")),
        ("ENDPOINT", server.address),
        (
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.address + "/{repo_id}/resolve/{revision}/{filename}",
        ),
    )
    for name, value in settings:
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> stopgrad.Run:
    digits = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 3), dtype=np.uint8)
    out = tmp_path_factory.mktemp("push") / "run"
    return stopgrad.pretrain(digits, out=out, preset="tiny", epochs=1)


def test_what_is_pushed_loads_from_the_hub_with_the_same_features(
    run: stopgrad.Run,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run.path), "--push", NAME]) == 0
    assert f"it is at {hub.address}/{NAME}" in capsys.readouterr().err
    folder = tmp_path / "digits"
    assert hub.files == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {"README.md", "model.safetensors", "config.json", "card.json"} == set(hub.files)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    theirs = PretrainedEncoder.from_pretrained(NAME)
    assert torch.equal(theirs(x), PretrainedEncoder.from_pretrained(folder)(x))


def test_a_hub_that_does_not_answer_is_one_line_whatever_its_client_is_made_of(
    run: stopgrad.Run,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Error(Exception):
        """As httpx2 raises it: of no kind that we could name."""

    def refuse(*_: object, **__: object) -> None:
        raise Error("connection refused")

    monkeypatch.setitem(sys.modules, "httpx", None)  # which no package of ours needs
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run.path), "--push", NAME]) == 3
    assert "did not accept somebody/digits (connection refused)" in capsys.readouterr().err


def test_a_hub_that_refuses_is_one_line_and_the_folder_stays(
    run: stopgrad.Run,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    out = tmp_path / "mine"
    assert main(["export", str(run.path), "--push", NAME, "--out", str(out)]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the Hub did not accept somebody/digits (" in said
    assert said.endswith(f"log in with: hf auth login, then: hf upload {NAME} {out}")
    assert (out / "model.safetensors").exists()
    assert hub.files == {}


@pytest.mark.parametrize(
    "words",
    [
        ["--push", "digits"],
        ["--push", "a/b/c"],
        ["--push", "some body/digits"],
        ["--push", NAME, "--format", "onnx"],
        ["--format", "hub"],
        ["--out", "x"],
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_written(
    words: list[str], run: stopgrad.Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run.path), *words]) == 2
    assert not any(tmp_path.iterdir())
    assert hub.asked == []
