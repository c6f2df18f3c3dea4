"""An image data set of the Hugging Face Hub, in Parquet -> a `DataSource`.

One request lists the files; only those of the splits needed are downloaded, by the Hub's own
client, with its progress bars and its cache. The endpoint is $HF_ENDPOINT if that is set. The
listing is kept, so that a data set that was loaded once loads again without a network.

A server's answers become paths in that cache, so a commit, a file name or the name of a stored
file is used only if it has the form of one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.config import Reading
from stopgrad.errors import DataError, StorageError
from stopgrad.images.sources.names import why_unread
from stopgrad.images.sources.parquet import has_labels, shards_source
from stopgrad.images.sources.shards import USUAL, ShardPlace, Shards, choose_shards, place_of
from stopgrad.images.store import cache_folder
from stopgrad.images.types import DataSource, Notes, T, Unused
from stopgrad.storage import as_text, first_line, in_short, read_json, typed, write_atomically

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, HfApi

CONVERTED = "refs/convert/parquet"  # the branch on which the Hub keeps its own conversions
TIMEOUT = 15.0  # s for the listing
COMMIT = re.compile("[0-9a-f]{40}")
STORED = re.compile(r'(W/)?"?[\w.:+=-]*"?', re.ASCII)  # an entity tag that is one name of a file
HEADERS = {"X-Repo-Commit": COMMIT, "X-Linked-ETag": STORED, "ETag": STORED}

log = logging.getLogger(__name__)


class Listing(NamedTuple):
    """The files of a repository at one commit."""

    commit: str
    files: list[str]
    configs: list[dict[str, Any]]  # of the data set's card

    def checked(self) -> Listing:
        """Itself, if its parts are well formed; else a ValueError or a TypeError."""
        typed(Listing, self._asdict())
        if not COMMIT.fullmatch(self.commit):
            raise ValueError(f"commit {self.commit!r}")
        for name in self.files:
            if name.startswith("/") or "\\" in name or {"..", "."} & {*name.split("/")}:
                raise ValueError(f"file {name!r}")
        return self


def hub_source(spec: str, *, repository: str, reading: Reading) -> DataSource:
    """The files of a data set, downloaded where the cache lacks them.

    Args:
        spec: As the user named it.
        repository: OWNER/NAME or OWNER/NAME/CONFIG.
        reading: The split that is scored, and the columns that are read.

    Raises:
        DataError: When the name is malformed, the Hub cannot be reached or knows no such data
            set, it has no Parquet files, or a download fails.
        StorageError: When the cache of the Hub's client cannot be written to.
    """
    from huggingface_hub import HfApi

    name, config = _parse(spec, repository)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    listing, offline = _list(api, name)
    shards = choose_shards(
        _places(listing, config),
        config=config,
        usual=_usual(listing.configs),
        split=reading.split,
        where=f"{spec} on the Hub",
    )
    download = functools.partial(
        api.hf_hub_download,
        name,
        repo_type="dataset",
        revision=listing.commit,
        local_files_only=offline,
    )

    def fetch(file: str) -> Path:
        return Path(_asking(functools.partial(download, file), name))

    shards = _with_one_scored(shards, fetch, reading)
    paths = [fetch(file) for files in (shards.train, *shards.scored.values()) for file in files]
    root = paths[0].parents[len(Path(shards.train[0]).parts) - 1]
    return shards_source(shards, reading, name=spec.removeprefix("hf:"), root=root)


def _with_one_scored(shards: Shards, fetch: Callable[[str], Path], reading: Reading) -> Shards:
    """The files without those of splits that are not scored, which need no download.

    Of several splits the first one whose first file has labels is scored, or else the first.
    """
    names = [*shards.scored]
    usable = (name for name in names if has_labels(fetch(shards.scored[name][0]), reading))
    chosen = next(usable, names[0]) if len(names) > 1 else "".join(names)
    scored = {name: files for name, files in shards.scored.items() if name == chosen}
    rest = {name: files for name, files in shards.scored.items() if name != chosen}
    unused = [
        Unused("file", why_unread(k), files) for k, files in {**rest, **shards.others}.items()
    ]
    return shards._replace(
        scored=scored,
        others={},
        without_labels=tuple(names[: names.index(chosen)]) if scored else (),
        notes=shards.notes.and_those(Notes(unused=tuple(unused))),
    )


def _places(listing: Listing, config: str | None) -> list[ShardPlace]:
    """Where each Parquet file belongs: by the data set's card if it says so, else by its name."""
    named = [
        ShardPlace(_name_of(each), split or place.split, file)
        for each in listing.configs
        for split, pattern in _patterns(each)
        for file in fnmatch.filter(listing.files, pattern)
        if (place := place_of(file))
    ]
    if named and config in (None, *(place.config for place in named)):
        return list(dict.fromkeys(named))
    return [place for file in listing.files if (place := place_of(file))]


def _patterns(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The splits of a configuration, "" where the card names none, and the files of each.

    People write cards by hand: what cannot be understood is passed over.
    """
    folder = config.get("data_dir")
    for each in _as_list(config.get("data_files") or (f"{folder}/*" if folder else [])):
        files = each if isinstance(each, dict) else {"path": each}
        for path in _as_list(files.get("path", [])):
            yield str(files.get("split", "")), str(path).removeprefix("./").replace("**/", "")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _name_of(config: Mapping[str, Any]) -> str:
    return str(config.get("config_name", "default"))


def _usual(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Configurations by preference: the one that the card flags, the usual ones, then its order."""
    flagged = [_name_of(config) for config in configs if config.get("default") is True]
    return [*flagged, *USUAL, *map(_name_of, configs)]


def _parse(spec: str, repository: str) -> tuple[str, str | None]:
    owner, _, rest = repository.partition("/")
    name, _, config = rest.partition("/")
    if not owner or not name:
        raise DataError(
            f"data set {spec!r}",
            expected="hf:OWNER/NAME or hf:OWNER/NAME/CONFIG",
            hint="take the name from the address of the data set's page",
        )
    return f"{owner}/{name}", config.strip("/") or None


def _list(api: HfApi, name: str) -> tuple[Listing, bool]:
    """The newest listing, or (True) the one kept from before when the Hub cannot be reached."""
    kept = cache_folder() / "hub" / f"{name.replace('/', '--')}.json"
    try:
        listing = _asking(lambda: _ask_for_listing(api, name), name)
    except HubUnreachableError as error:
        if not kept.is_file():
            raise
        listing = _kept(kept, name)
        log.warning("%s; using the copy of %s downloaded before", error.found, name)
        return listing, True
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(listing).encode())
    except (OSError, StorageError) as error:
        log.warning("cannot keep the listing of %s in %s (%s)", name, kept, error)
    return listing, False


def _kept(path: Path, name: str) -> Listing:
    try:
        return Listing(*read_json(path)).checked()
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"the Hub does not answer, and the listing of {name!r} kept in {path} is damaged "
            f"({in_short(error)})",
            expected="a connection to the Hub, or the listing that was kept",
            hint="check the network and HF_ENDPOINT, or name a local folder",
        ) from error


def _ask_for_listing(api: HfApi, name: str) -> Listing:
    from huggingface_hub.errors import RevisionNotFoundError

    configs: list[dict[str, Any]] = []
    for revision in (None, CONVERTED):
        try:
            info = api.dataset_info(name, revision=revision, timeout=TIMEOUT)
        except RevisionNotFoundError:  # the Hub has not converted this one
            break
        files = [sibling.rfilename for sibling in info.siblings or []]
        configs = configs or _configs(info)
        if info.sha and any(map(place_of, files)):
            try:
                return Listing(info.sha, files, configs).checked()
            except (ValueError, TypeError) as error:
                raise _malformed(in_short(error)) from error
        log.info("%s has no Parquet files of its own; looking at %s", name, CONVERTED)
    raise DataError(
        f"data set {name!r} has no Parquet files",
        expected="an image data set in Parquet, or one that the Hub has converted",
        hint="download it yourself and name its folder",
    )


def _configs(info: DatasetInfo) -> list[dict[str, Any]]:
    """The configurations that the card of a data set lists."""
    found = info.card_data.get("configs") if info.card_data else None
    return [config for config in _as_list(found) if isinstance(config, dict)]


def _malformed(what: str) -> DataError:
    return DataError(
        f"the Hub answers with {as_text(what)}",
        expected="commits of 40 hexadecimal digits, and names of files within a repository",
        hint="nothing of it was used; check HF_ENDPOINT, and do not trust that server",
    )


@contextlib.contextmanager
def checked_answers() -> Iterator[None]:
    """In here, refuses answers to the Hub's client with headers that are unfit as file names.

    The client makes paths of them. A DataError ends the request.
    """
    from huggingface_hub import get_session

    def check(response: Any) -> None:
        found = {key: response.headers.get(key, "") for key in HEADERS}
        wrong = [f"{key} {value!r}" for key, value in found.items() if not _is_name(key, value)]
        if response.request.method == "HEAD" and wrong:  # no other answer becomes a path
            raise _malformed(wrong[0])

    hooks = get_session().event_hooks
    get_session().event_hooks = {**hooks, "response": [*hooks["response"], check]}
    try:
        yield
    finally:
        get_session().event_hooks = hooks


def _is_name(key: str, value: str) -> bool:
    return not value or (HEADERS[key].fullmatch(value) is not None and ".." not in value)


class HubUnreachableError(DataError):
    """No answer from the Hub, or an error in place of one."""


def _asking(ask: Callable[[], T], name: str) -> T:
    """The Hub's answer; whatever goes wrong is a DataError or StorageError of one line."""
    from huggingface_hub import errors

    try:
        with checked_answers():
            return ask()
    except DataError:
        raise
    except errors.GatedRepoError as error:
        raise DataError(
            f"data set {name!r} is open to approved users only",
            expected="a data set that you may download",
            hint="ask for access on its page and log in with: hf auth login",
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            f"no data set {name!r} on the Hub",
            expected="the OWNER/NAME of an image data set that you may see",
            hint="check the name; for a private one log in with: hf auth login",
        ) from error
    # The client has raised errors of requests, httpx and httpx2 over its versions, which have
    # no common root but Exception; only calls of the client are in this block.
    except Exception as error:
        raise _no_answer(name, error) from None  # the client has tried again itself


def _no_answer(name: str, error: Exception) -> StorageError | HubUnreachableError:
    if isinstance(error, OSError) and error.filename is not None:  # of its cache
        return StorageError(
            f"{name!r} cannot be kept in {str(error.filename)!r} ({error.strerror})",
            expected="a folder for the Hub's downloads that can be written to",
            hint="set HF_HOME to another folder",
        )
    return HubUnreachableError(
        f"the Hub does not answer for {name!r} ({first_line(error)})",
        expected="a connection to the Hub, or a data set downloaded before",
        hint="check the network and HF_ENDPOINT, or name a local folder",
    )
