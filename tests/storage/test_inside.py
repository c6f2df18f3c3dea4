"""Inside a run no link is followed, also one that took a folder's place after a look at it."""

import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from stopgrad.errors import StorageError
from stopgrad.storage import (
    OddFileError,
    appearing,
    append_lines,
    lock,
    make_folder,
    open_folder,
    open_regular,
    read_file,
    read_lines_after,
    read_start,
    refuse_links,
    remove_file,
    remove_folder,
    remove_temporaries,
    replace_file,
    replace_lines,
    sync_directory,
    write_json,
)

WHOLE = b'{"step": 1}\n'


def link_file(path: Path) -> None:
    with appearing(path, publish=os.link) as file:
        file.write(b"new")


CALLS: dict[str, Callable[[Path], object]] = {
    "read": lambda folder: read_file(folder / "file", most=99),
    "read the start": lambda folder: read_start(folder / "file", 2),
    "read rows": lambda folder: read_lines_after(folder / "file", 0, dict),
    "open": lambda folder: os.close(open_regular(folder / "file")),
    "open a folder": lambda folder: os.close(open_folder(folder / "below")),
    "sync": lambda folder: sync_directory(folder),
    "create": lambda folder: os.close(open_regular(folder / "new", os.O_RDWR | os.O_CREAT)),
    "lock": lambda folder: lock(folder).close(),
    "append": lambda folder: append_lines(folder / "file", [{"step": 2}]),
    "replace": lambda folder: replace_file(folder / "file", b"new"),
    "replace rows": lambda folder: replace_lines(folder / "file", []),
    "write": lambda folder: write_json(folder / "below" / "file.json", {}),
    "link": lambda folder: link_file(folder / "new"),
    "make a folder": lambda folder: make_folder(folder / "new" / "newer"),
    "remove": lambda folder: remove_file(folder / "file"),
    "remove a folder": lambda folder: remove_folder(folder / "below"),
    "remove temporaries": remove_temporaries,
}
SILENT = ("remove a folder",)  # goes as far as it can
LOOKS = ("read", "read the start", "read rows", "open", "open a folder", "sync")


def fill(folder: Path) -> Path:
    """A folder with a file, what a kill left, and a folder below."""
    (folder / "below").mkdir(parents=True)
    for name in ("file", ".file.0.tmp", "below/file"):
        (folder / name).write_bytes(WHOLE)
    return folder


def seen(folder: Path) -> dict[str, object]:
    return {str(p): p.read_bytes() if p.is_file() else "folder" for p in folder.rglob("*")}


@pytest.fixture
def swapped(tmp_path: Path) -> Path:
    """A folder of a run that has become a link to one outside."""
    (tmp_path / "run").mkdir()
    folder = tmp_path / "run" / "checkpoints"
    folder.symlink_to(fill(tmp_path / "outside"))
    return folder


@pytest.mark.parametrize("name", CALLS)
def test_a_folder_of_a_run_that_became_a_link_leads_nowhere(name: str, swapped: Path) -> None:
    refuse_links(swapped.parent)
    outside = swapped.parents[1] / "outside"
    before = seen(outside)
    refused = pytest.raises((OSError, StorageError), match="checkpoints is a link")
    with nullcontext() if name in SILENT else refused:
        CALLS[name](swapped)
    assert seen(outside) == before


@pytest.mark.parametrize("name", CALLS)
def test_each_of_these_calls_would_lead_outside_by_its_path(name: str, swapped: Path) -> None:
    outside = swapped.parents[1] / "outside"
    before = seen(outside)
    CALLS[name](swapped)
    assert (seen(outside) == before) == (name in LOOKS)


@pytest.mark.parametrize("name", CALLS)
def test_in_real_folders_each_does_the_same_as_by_its_path(name: str, tmp_path: Path) -> None:
    results = []
    for place in ("known", "other"):
        folder = fill(tmp_path / place / "checkpoints")
        if place == "known":
            refuse_links(tmp_path / place)
        before = {*seen(folder)}
        CALLS[name](folder)
        found = {path.removeprefix(str(folder)): data for path, data in seen(folder).items()}
        found.pop("/lock", None)  # has the time in it
        results.append((found, before <= {*seen(folder)}))
    assert results[0] == results[1]


def test_a_link_above_a_run_is_the_users_own(tmp_path: Path) -> None:
    fill(tmp_path / "disk" / "run" / "checkpoints")
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    run = tmp_path / "home" / "run"
    refuse_links(run)
    replace_file(run / "checkpoints" / "file", b"new")
    replace_file(run / "file", b"newer")
    assert (tmp_path / "disk" / "run" / "checkpoints" / "file").read_bytes() == b"new"
    assert (tmp_path / "disk" / "run" / "file").read_bytes() == b"newer"


def test_the_runs_of_a_study_are_reached_from_the_study(tmp_path: Path) -> None:
    study = tmp_path / "study"
    (study / "runs").mkdir(parents=True)
    (study / "runs" / "a").symlink_to(fill(tmp_path / "outside"))
    refuse_links(study / "runs" / "a" / "below")  # the run
    refuse_links(study)
    with pytest.raises(OddFileError, match=r"^a is a link or not a folder"):
        read_file(study / "runs" / "a" / "below" / "file", most=99)


def test_a_file_is_published_in_the_folder_where_it_was_begun(tmp_path: Path) -> None:
    folder, outside = fill(tmp_path / "run" / "checkpoints"), fill(tmp_path / "outside")
    refuse_links(tmp_path / "run")
    before = seen(outside)
    with suppress(OddFileError), appearing(folder / "file") as file:
        file.write(b"new")
        folder.rename(tmp_path / "aside")
        folder.symlink_to(outside)
    assert seen(outside) == before
    assert (tmp_path / "aside" / "file").read_bytes() == b"new"


def test_a_message_names_the_whole_path_of_what_is_not_there(tmp_path: Path) -> None:
    fill(tmp_path / "run")
    refuse_links(tmp_path / "run")
    for name in ("below/none", "none", "none/file"):
        path = tmp_path / "run" / name
        with pytest.raises(FileNotFoundError) as caught:
            read_file(path, most=99)
        assert caught.value.filename == str(path)


def test_no_descriptor_stays_open(swapped: Path) -> None:
    refuse_links(swapped.parent)
    fill(swapped.parent / "real" / "deeper")
    before = len(os.listdir("/dev/fd"))
    for folder in (swapped, swapped.parent / "real" / "deeper"):
        for call in CALLS.values():
            with suppress(OSError, StorageError):
                call(folder)
    assert len(os.listdir("/dev/fd")) == before


def test_a_folder_is_made_with_those_above_it_and_not_over_a_file(tmp_path: Path) -> None:
    refuse_links(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b" / "c" / "d")
    make_folder(tmp_path / "a" / "b" / "c" / "d")
    assert (tmp_path / "a" / "b" / "c" / "d").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file" / "below")
