"""Data sets of the Hub, by the Hub's real client, from a server on loopback."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stopgrad.config import Reading
from stopgrad.errors import DataError, StorageError
from stopgrad.images import load_dataset
from tests.factories import HubAnswer
from tests.inputs import row

DIGITS = (load_digits().images * 15).astype(np.uint8)  # (1797, 8, 8)
TARGETS = load_digits().target
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """The part of the Hub that a download touches: the listing of a repository and its files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[tuple[str, str, str], bytes] = {}  # (repository, revision, path)
        self.cards: dict[str, dict] = {}
        self.broken: set[str] = set()
        self.asked: list[str] = []

    def put(self, repository: str, path: str, data: bytes, *, revision: str = "main") -> None:
        self.files[repository, revision, path] = data

    def downloads(self) -> list[str]:
        return [path for path in self.asked if path.startswith("GET") and "/resolve/" in path]


class Answer(HubAnswer):
    """The listing of a repository, or a file of it."""

    server: Hub

    def answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        if any(part in path for part in self.server.broken):
            self.reply(410, b"gone", {}, with_body)  # the client would repeat after a 500
        elif path.startswith("/api/datasets/"):
            self.listing(path.removeprefix("/api/datasets/"), with_body)
        else:
            self.file(path.removeprefix("/datasets/"), with_body)

    def listing(self, path: str, with_body: bool) -> None:
        repository, _, revision = path.partition("/revision/")
        if repository == "real/gated":
            self.reply(403, b"", {"X-Error-Code": "GatedRepo"}, with_body)
            return
        found = {revision_ for name, revision_, _ in self.server.files if name == repository}
        if not found:
            self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
        elif (revision or "main") not in found:
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
        else:
            body = self.description(repository, revision or "main")
            self.reply(200, json.dumps(body).encode(), {}, with_body)

    def description(self, repository: str, revision: str) -> dict:
        names = [p for name, r, p in self.server.files if (name, r) == (repository, revision)]
        siblings = [{"rfilename": name} for name in names]
        card = (
            {"cardData": self.server.cards[repository]} if repository in self.server.cards else {}
        )
        return {"id": repository, "sha": COMMIT, "siblings": siblings, **card}

    def file(self, path: str, with_body: bool) -> None:
        repository, _, rest = path.partition("/resolve/")
        _, _, name = rest.partition("/")
        for revision in ("main", "refs/convert/parquet"):
            data = self.server.files.get((repository, revision, name))
            if data is not None:
                mark = hashlib.sha256(data).hexdigest()
                headers = {"ETag": f'"{mark}"', "X-Repo-Commit": COMMIT}
                self.reply(200, data, headers, with_body)
                return
        self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def parquet(rows, *, label: str = "label", labels=None) -> bytes:
    names = [f"digit {number}" for number in range(10)]
    features = {"image": {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}
    cells = []
    for place in rows:
        file = io.BytesIO()
        Image.fromarray(DIGITS[place]).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": f"{place}.png"})
    table = pa.table({"image": cells, label: TARGETS[list(rows)] if labels is None else labels})
    text = json.dumps({"info": {"features": features}})
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": text}), file)
    return file.getvalue()


@pytest.fixture
def digits(hub) -> Hub:
    hub.put("real/digits", "README.md", b"# digits")
    hub.put("real/digits", "plain_text/train-00000-of-00002.parquet", parquet(range(30)))
    hub.put("real/digits", "plain_text/train-00001-of-00002.parquet", parquet(range(30, 50)))
    hub.put("real/digits", "plain_text/test-00000-of-00001.parquet", parquet(range(50, 60)))
    hub.put("real/digits", "plain_text/validation-00000-of-00001.parquet", b"never read")
    return hub


def test_data_set_of_the_hub_is_loaded(digits):
    found = load_dataset("hf:real/digits")
    assert found.name == "real/digits"
    assert (found.train.pixels == DIGITS[:50, :, :, None]).all()
    assert (found.test.pixels == DIGITS[50:60, :, :, None]).all()
    assert found.test.labels.tolist() == TARGETS[50:60].tolist()
    assert found.train.class_names[3] == "digit 3"
    assert found.train.sources[30] == "plain_text/train-00001-of-00002.parquet:0"


@pytest.mark.input(
    "command", what="a Hub cache that cannot be written to", happens="refused; the error names it"
)
def test_a_cache_of_the_hub_that_cannot_be_written_to_is_named(digits, tmp_path, monkeypatch):
    (tmp_path / "file").touch()  # nothing can be made below it, not even by root
    cache = str(tmp_path / "file" / "hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", cache)
    with pytest.raises(StorageError, match=r"real/digits.*file/hub.*set HF_HOME"):
        load_dataset("hf:real/digits")


def test_only_the_splits_needed_are_downloaded_and_only_once(digits):
    load_dataset("hf:real/digits")
    names = sorted(path.rpartition("/")[2] for path in digits.downloads())
    assert [name.split("-")[0] for name in names] == ["test", "train", "train"]
    digits.asked.clear()
    load_dataset("hf:real/digits")
    assert digits.asked == ["GET /api/datasets/real/digits"]


def test_endpoint_and_caches_of_the_environment_are_honoured(digits, tmp_path):
    code = "import sys; from stopgrad.images import load_dataset as l; d = l('hf:real/digits'); "
    code += "print(len(d.train), d.train.fingerprint)"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["50", load_dataset("hf:real/digits").train.fingerprint]
    assert list((tmp_path / "home" / "hub").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("spec", "repository", "label"),
    [("cifar10", "uoft-cs/cifar10", "label"), ("cifar100", "uoft-cs/cifar100", "fine_label")],
)
def test_known_names_are_repositories_of_the_hub(hub, spec, repository, label):
    hub.put(repository, f"{spec}/train-00000-of-00001.parquet", parquet(range(9), label=label))
    found = load_dataset(spec)
    assert found.name == spec
    assert found.train.labels.tolist() == TARGETS[:9].tolist()


def test_configuration_is_named_in_the_spec(hub):
    hub.put("real/two", "large/train.parquet", parquet(range(7)))
    hub.put("real/two", "small/train.parquet", parquet(range(3)))
    assert len(load_dataset("hf:real/two/small").train) == 3
    with pytest.raises(DataError, match=r"several configurations.*one of large, small"):
        load_dataset("hf:real/two")


def of_two_sizes(hub) -> None:
    for name, count in (("large", 7), ("small", 3), ("words", 0)):
        split = "train" if count else "test"
        hub.put("real/two", f"{name}/{split}-0000.parquet", parquet(range(count or 2)))


@pytest.mark.parametrize(
    ("configs", "count"),
    [
        row(f"a Hub data set with {what}", happens, configs, count, kind="layout")
        for what, configs, count, happens in (
            ("a configuration marked as the default", [{"config_name": "large"},
             {"config_name": "small", "default": True}], 3, "that one is read"),
            ("several configurations in its card",
             [{"config_name": "large"}, {"config_name": "small"}], 7, "the first one is read"),
            ("a default configuration that uses folders of other names", [
             {"config_name": "x", "data_files": "large/*.parquet"},
             {"config_name": "default", "data_files": [{"split": "train", "path": ["small/*"]}]}],
             3, "the default configuration is read"),
            ("splits that its card defines", [{"config_name": "all", "data_files": [
             {"split": "train", "path": "small/train-*"},
             {"split": "validation", "path": "large/**/train-*.parquet"}]}], 3,
             "read as the card says"),
        )
    ],
)  # fmt: skip
def test_of_several_configurations_the_card_names_the_one_to_read(hub, configs, count):
    of_two_sizes(hub)
    hub.cards["real/two"] = {"configs": configs}
    found = load_dataset("hf:real/two")
    assert len(found.train) == count
    hub.cards["real/two"] = {"configs": "written by hand"}
    assert len(load_dataset("hf:real/two/small").train) == 3


def test_the_configuration_that_is_read_and_the_others_are_said(hub):
    of_two_sizes(hub)
    hub.cards["real/two"] = {"configs": [{"config_name": "small"}]}
    found = load_dataset("hf:real/two")
    assert found.notes.remarks == ("read the configuration 'small', not 'large', 'words'",)
    (unused,) = found.notes.unused
    assert unused == (
        "file", "of another configuration", ("large/train-0000.parquet", "words/test-0000.parquet")
    )  # fmt: skip


def test_the_only_configuration_with_a_train_split_is_read(hub):
    hub.put("real/one", "pictures/train-0000.parquet", parquet(range(4)))
    hub.put("real/one", "captions/test-0000.parquet", b"never read")
    assert len(load_dataset("hf:real/one").train) == 4


@pytest.mark.input(
    "label", what="hidden test labels on the Hub", happens="validation is downloaded and scored"
)
def test_of_a_test_split_without_labels_one_file_is_downloaded(hub):
    hub.put("real/hidden", "data/train-00000-of-00001.parquet", parquet(range(9)))
    hub.put("real/hidden", "data/val-00000-of-00001.parquet", parquet(range(9, 12)))
    hidden = parquet(range(2), labels=[-1, -1])
    hub.put("real/hidden", "data/test-00000-of-00002.parquet", hidden)
    hub.put("real/hidden", "data/test-00001-of-00002.parquet", b"never read")
    found = load_dataset("hf:real/hidden")
    assert found.test.labels.tolist() == TARGETS[9:12].tolist()
    assert found.notes.scored == "validation"
    assert "'val' is scored, as no label of 'test' can be used" in found.notes.remarks
    (unused,) = found.notes.unused
    assert (unused.what, len(unused.names)) == ("file", 2)
    named = load_dataset("hf:real/hidden", reading=Reading(split="val"))
    assert named.test.fingerprint == found.test.fingerprint


@pytest.mark.parametrize(
    "file", ["pictures.zip", "metadata.parquet"], ids=["no Parquet", "metadata beside images"]
)
def test_converted_branch_is_used_where_the_main_one_has_no_parquet_of_images(hub, file):
    hub.put("real/zip", file, b"never read")
    converted = "refs/convert/parquet"
    hub.put("real/zip", "default/train/0000.parquet", parquet(range(4)), revision=converted)
    assert len(load_dataset("hf:real/zip").train) == 4


def test_data_set_without_parquet_is_refused(hub):
    hub.put("real/zip", "pictures.zip", b"PK")
    with pytest.raises(DataError, match="'real/zip' has no Parquet files"):
        load_dataset("hf:real/zip")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:real/nothing", "no data set 'real/nothing' on the Hub"),
        ("hf:real/gated", "'real/gated' is open to approved users only"),
        ("hf:bad name/--", "no data set 'bad name/--' on the Hub"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(digits, spec, message):
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(spec)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def silence(monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: refused


@pytest.mark.timeout(30)
def test_hub_that_cannot_be_reached_is_said_in_one_line(digits, monkeypatch):
    silence(monkeypatch)
    with pytest.raises(DataError, match="the Hub does not answer for 'real/digits'") as caught:
        load_dataset("hf:real/digits")
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(30)
def test_data_set_downloaded_before_needs_no_hub_and_says_so(digits, monkeypatch, caplog):
    expected = load_dataset("hf:real/digits").train.fingerprint
    silence(monkeypatch)
    assert load_dataset("hf:real/digits").train.fingerprint == expected
    assert "using the copy of real/digits downloaded before" in caplog.text


def test_refused_download_is_said_in_one_line(digits):
    digits.broken.add("train-00001")
    with pytest.raises(DataError, match="the Hub does not answer for 'real/digits'"):
        load_dataset("hf:real/digits")


def test_file_that_is_no_parquet_is_named(hub):
    hub.put("real/bad", "train.parquet", b"no parquet")
    with pytest.raises(DataError, match=r"train\.parquet' cannot be read as Parquet"):
        load_dataset("hf:real/bad")


def test_hub_cache_is_the_clients_own(digits, tmp_path):
    load_dataset("hf:real/digits")
    (snapshot,) = (tmp_path / "hub").glob("datasets--real--digits/snapshots/*")
    assert snapshot.name == COMMIT
    assert Path(snapshot / "plain_text").is_dir()
