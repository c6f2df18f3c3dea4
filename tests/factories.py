"""What tests of several rooms start from: real digits, records, hostile names, a local Hub."""

from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from stopgrad.evaluation import Features, Record
from stopgrad.images import Dataset, load_dataset, pack
from stopgrad.images.writing import SplitWriter

# Each would add an element or an attribute, or end a tag or a quote, were it not escaped.
MARKUP = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "</title><b>bold</b>",
    "</style><i>out</i>",
    "</script><u>out</u>",
    "</svg><p>out</p>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    '"><iframe src=//example.org></iframe>',
    "'><a href=javascript:alert(1)>x</a>",
    "<!-- open comment",
    "--><b>after a comment</b>",
    "<![CDATA[<b>x</b>]]>",
    "]]><b>x</b>",
    "<?xml version='1.0'?><b/>",
    "<plaintext>",
    "<textarea>",
    "<template><b>x</b></template>",
    "<base href=//example.org>",
    "<meta http-equiv=refresh content=0>",
    "<link rel=stylesheet href=//example.org>",
    "<style>*{display:none}</style>",
    "{{ 7 * 7 }}<b>{% raw %}",
    "&lt;b&gt;&#60;b&#62;",
    "\\u003cb\\u003e<b>\\",
    '`${alert(1)}`<b x="1">',
    "\u2028<b>\u202e",
    "<math><mi xlink:href=javascript:alert(1)>",
)


def digits(train: int = 400, test: int = 100) -> Dataset:
    """So many real digits to learn from and to score, of all classes."""
    whole = load_dataset("mnist5k")
    assert whole.test is not None
    parts = (
        part.take(np.arange(count) * (len(part) // count))
        for part, count in ((whole.train, train), (whole.test, test))
    )
    return Dataset("digits", *parts)


def digit_features() -> tuple[Features, Features]:
    """The pixels of scikit-learn's digits as features: 1,200 to learn from, 597 to score."""
    found = load_digits()
    values, labels = torch.tensor(found.data, dtype=torch.float32), torch.tensor(found.target)
    return Features(values[:1200], labels[:1200]), Features(values[1200:], labels[1200:])


def write_digits(folder: Path, *, train: int, test: int) -> Path:
    """PNG files of so many real digits, as train/CLASS/*.png and test/CLASS/*.png; the folder."""
    whole = load_dataset("mnist5k")
    for split, images, count in (("train", whole.train, train), ("test", whole.test, test)):
        assert images is not None
        assert images.labels is not None
        for number in np.linspace(0, len(images) - 1, count).astype(int):
            place = folder / split / f"digit {images.labels[number]}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.pixels[number]).save(place / f"{number}.png")
    return folder


def record(**values: Any) -> Record:
    """A kNN accuracy of an encoder on 10,000 images of a test split, unless `values` say else."""
    usual: dict[str, Any] = {
        "metric": "knn_accuracy",
        "value": 0.6,
        "of": "encoder",
        "split": "test",
        "images_scored": 10_000,
        "protocol": {"evaluator": "knn", "k": 200, "k_requested": 200, "temperature": 0.1},
        "data": {"name": "toy", "fingerprint": "f"},
        "code": "1",
        "versions": {},
        "device": "cpu",
        "threads": 1,
        "wall_s": 1.0,
        "time": "2026-01-01T00:00:00+00:00",
    }
    return Record(**usual | values)


class HubAnswer(BaseHTTPRequestHandler):
    """One request to a Hub on loopback; a test says in `answer` what is replied."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        raise NotImplementedError

    def reply(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def pack_until_killed(data: str, store: Path, *, side: int, shards: int) -> None:
    """Packs until so many shards are whole, and leaves what a kill would leave."""
    write = SplitWriter._write_shard

    def killed(self: SplitWriter, attempts: Any) -> None:
        if len(self.shards) == shards:
            raise KeyboardInterrupt
        write(self, attempts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SplitWriter, "_write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(data, store, side=side)
