"""R26: a hostile Hub or mirror writes nothing outside of its client's cache.

A real server on loopback answers as the Hub does, but for one lie: the commit, the names of files,
or the headers that the client makes paths of.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.factories import HubAnswer
from tests.promises.lab import SMALL, Lab
from tests.promises.outcome import Control, Outcome, control
from tests.promises.pages import write_parquet
from tests.promises.process import Done

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = "data/train-00000-of-00001.parquet"
DATA = 3  # exit code
UP = "../" * 5  # from every folder of the cache in which names come together to `home`
VICTIM = b"the user's own\n"

LIES: dict[str, dict[str, str]] = {
    "a commit that is a path": {"sha": f"{UP}victim.txt"},
    "an entity tag that is a path": {"ETag": f'"{UP}new.txt"'},
    "a commit of a file that is a path": {"X-Repo-Commit": f"{UP}new"},
    "an entity tag of large files that is a path": {"X-Linked-Etag": f'"{UP}new.txt"'},
    "a file name upwards": {"file": f"{UP}train-00000-of-00001.parquet"},
    "a file name from the root": {"file": "/tmp/train-00000-of-00001.parquet"},
    "a commit that is a branch": {"sha": "main"},
    "a commit with a newline": {"sha": f"{COMMIT}\n"},
}
DAMAGED: tuple[object, ...] = (
    None,
    [],
    {"commit": COMMIT},
    [f"{UP}x", [FILE], []],
    [COMMIT, 5, []],
)


class LyingHub(ThreadingHTTPServer):
    """A repository of one Parquet file, and what is said of it instead of the truth."""

    def __init__(self, data: bytes, lie: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.data, self.lie = data, lie


class Answer(HubAnswer):
    """The listing, or the file."""

    server: LyingHub

    def answer(self, *, with_body: bool) -> None:
        lie = self.server.lie
        if unquote(urlsplit(self.path).path).startswith("/api/"):
            files = [{"rfilename": lie.get("file", FILE)}]
            listing = {"id": "an/owner", "sha": lie.get("sha", COMMIT), "siblings": files}
            self.reply(200, json.dumps(listing).encode(), {}, with_body)
            return
        honest = {
            "ETag": f'"{hashlib.sha256(self.server.data).hexdigest()}"',
            "X-Repo-Commit": lie.get("sha", COMMIT),
        }
        headers = honest | {k: v for k, v in lie.items() if k not in ("sha", "file")}
        headers = {key: value.strip() for key, value in headers.items()}
        self.reply(200, self.server.data, headers, with_body)


def check(lab: Lab, tries: int) -> Outcome:
    """So many lies of the server, and listings that were kept and damaged since."""
    data = next(write_parquet(lab, ["one", "two"]).glob("*.parquet")).read_bytes()
    failures: list[str] = []
    kinds = list(LIES)
    for number in lab.numbers(tries):
        lie = kinds[number % len(kinds)]
        failures += [f"{lie}: {line}" for line in _meet(lab, data, LIES[lie])]
    failures += _offline(lab, data) if lab.is_first else []
    return Outcome(tries, tuple(failures), _controls(lab, data) if lab.is_first else ())


def _controls(lab: Lab, data: bytes) -> tuple[Control, ...]:
    trusting = [
        line
        for lie in ("a commit that is a path", "an entity tag that is a path")
        for line in _meet(lab, data, LIES[lie], sabotage="trusted_hub")
    ]
    return (
        control("answers taken as they are", trusting, sees="outside"),
        control("an honest server", _meet(lab, data, {}), sees="exit code 0"),
    )


def _meet(lab: Lab, data: bytes, lie: Mapping[str, str], *, sabotage: str = "") -> list[str]:
    """What is wrong when a command loads from a server with this lie."""
    home = lab.place("hub")
    home.mkdir()
    (home / "victim.txt").write_bytes(VICTIM)
    with _serving(data, lie) as address:
        done = _load(lab, home, address, sabotage=sabotage)
    wrong = _refused(done)
    if (home / "victim.txt").read_bytes() != VICTIM:
        wrong.append("outside: the user's file was overwritten")
    ours = {"victim.txt", "a", "views.png"}
    wrong += [f"outside: {path.name}" for path in home.iterdir() if path.name not in ours]
    return wrong


def _refused(done: Done) -> list[str]:
    wrong = [done.crashed] if done.crashed else []
    if done.code != DATA:
        wrong.append(f"exit code {done.code}: {done.last_line}")
    if not done.crashed and "\n" in done.err.strip():
        wrong.append(f"not one line: {done.err[:300]!r}")
    return wrong


def _load(lab: Lab, home: Path, address: str, *, sabotage: str = "") -> Done:
    """Loads a picture of a data set from the Hub at this address."""
    cache = home / "a" / "b" / "c"
    environment = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(cache),
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "STOPGRAD_CACHE": str(home / "a" / "ours"),
    }
    words = ("views", "--data", "hf:an/owner", "--out", home / "views.png", "--count", 1, *SMALL)
    return lab.run(*words, environment=environment, sabotage=sabotage, fresh=False)


def _offline(lab: Lab, data: bytes) -> Iterator[str]:
    """A listing that was kept, damaged, is one line when the Hub does not answer."""
    home = lab.place("offline")
    home.mkdir()
    with _serving(data, {}) as address:
        done = _load(lab, home, address)
    if done.code != 0:
        yield f"an honest server: exit code {done.code}: {done.last_line}"
    kept = home / "a" / "ours" / "hub" / "an--owner.json"
    for value in DAMAGED if lab.full else DAMAGED[:1]:
        kept.write_text("{" if value is None else json.dumps(value))
        found = _refused(_load(lab, home, "http://127.0.0.1:9"))
        yield from (f"a kept listing {value!r}: {line}" for line in found)


@contextmanager
def _serving(data: bytes, lie: Mapping[str, str]) -> Iterator[str]:
    server = LyingHub(data, lie)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
