"""Claims about where stopgrad runs: terminals that close, odd encodings, no home, odd paths."""

import fcntl
import html
import json
import os
import pty
import pwd
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import stopgrad
from stopgrad.cli import main
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import load_dataset
from tests.factories import write_digits
from tests.promises.process import order_in, run_forked, run_in_turn, start_forked

SHORT = ("--preset", "tiny", "--knn_every", "0", "--checkpoint_every", "0")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("plätze") / "bildér", train=64, test=8)


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "stopgrad", *map(str, words)]


# Terminals


def _left_alone(out: Path, images: Path, *, epochs: int, ignores: bool) -> int:
    """The exit code of a training whose terminal closes after two epochs."""

    def settle() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # makes it the terminal that is closed on them
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignores else signal.SIG_DFL)

    ours, theirs = pty.openpty()
    words = _command("pretrain", "--data", images, "--out", out, *SHORT, "--epochs", epochs)
    with subprocess.Popen(
        words,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=settle,
    ) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"loss -") < 2:
            seen += os.read(ours, 1 << 16)
        os.close(ours)
        try:
            return process.wait(timeout=60)
        finally:
            process.kill()


@pytest.mark.input(
    kind="command",
    what="a terminal that is closed",
    happens="the run saves and ends (exit code 129)",
)
def test_a_closed_terminal_saves_the_run(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert _left_alone(run, images, epochs=4000, ignores=False) == 129
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "interrupted"
    assert (run / "checkpoints" / f"step-{status['step']:06d}" / "manifest.json").exists()


@pytest.mark.input(
    kind="command",
    what="a terminal that is closed under nohup or after disown",
    happens="the run goes on to its end",
)
def test_a_run_that_ignores_the_hang_up_outlives_its_terminal(images: Path, tmp_path: Path) -> None:
    assert _left_alone(tmp_path / "run", images, epochs=12, ignores=True) == 0
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
@pytest.mark.input(
    kind="command",
    what="SIGUSR1, SIGUSR2 or SIGXCPU, which batch systems send before they end a job",
    happens="the run saves and ends; the exit code is 128 + the signal",
)
def test_a_warning_of_a_batch_system_saves_the_run(
    images: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "a run"
    words = ("pretrain", "--data", images, "--out", out, *SHORT, "--epochs", 4000)
    running = start_forked(order_in(tmp_path, *words))
    said = tmp_path / "err"
    while not (said.exists() and "  epoch" in said.read_text()):
        assert running.is_running()
        time.sleep(0.01)
    running.send(number, group=False)
    done = running.wait()
    assert done.code == 128 + number
    step = json.loads((out / "status.json").read_text())["step"]
    wanted = f"stopgrad: stopped by signal {number}, saved at step {step}; continue with: "
    assert done.last_line == f"{wanted}stopgrad resume '{out}'"


# Standard output and standard error


@pytest.mark.parametrize("words", [["study", "list"], ["--version"], ["check-data"]])
@pytest.mark.input(
    kind="command", what="standard output on a full disk", happens="a one-line error, exit code 5"
)
def test_results_that_a_full_disk_refuses_are_one_line(words: list[str], images: Path) -> None:
    more = [images, "--preset", "tiny"] if words[0] == "check-data" else []
    done = run_forked(*words, *more, out="/dev/full")
    assert done.code == 5
    (line,) = done.err.splitlines()
    assert line.startswith(
        "stopgrad: standard output could not be written (No space left on device); expected "
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.input(
    kind="command",
    what="standard output in ASCII, Latin-1 or another encoding than UTF-8",
    happens="characters that it cannot hold are escaped",
)
def test_any_encoding_of_the_output_will_do(images: Path, tmp_path: Path, encoding: str) -> None:
    pack = ("pack", images, "--out", tmp_path / f"größe-{encoding}-\u2013")
    check = ("check-data", images, "--preset", "tiny", "--epochs", 1)
    said = run_in_turn(pack, check, encoding=encoding, PYTHONIOENCODING=encoding)
    packed, checked = map("".join, said)
    assert "Traceback" not in packed + checked
    assert "\\u2013" in packed
    assert ("größe" in packed) == (encoding != "ascii")
    assert "größe" not in checked


def test_closed_streams_stop_nothing(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = _command("pretrain", "--data", images, "--out", out, *SHORT, "--epochs", 1)
    assert (
        subprocess.run(["sh", "-c", f"{shlex.join(words)} >&- 2>&-"], check=False).returncode == 0
    )
    assert json.loads((out / "status.json").read_text())["state"] == "finished"


def test_a_reader_of_the_remarks_that_ends_stops_nothing(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = _command("pretrain", "--data", images, "--out", out, *SHORT, "--epochs", 5)
    subprocess.run(["sh", "-c", f"{shlex.join(words)} 2>&1 | head -n 1"], check=True)
    assert json.loads((out / "status.json").read_text())["state"] == "finished"


# Homes and caches


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without HOME and without an entry in passwd, as in many containers."""

    def unknown(who: object) -> None:
        raise KeyError(who)

    for name in ("HOME", "STOPGRAD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.input(
    kind="command", what="no HOME and no entry in passwd", happens="works without a cache"
)
def test_nobody_needs_a_home(
    homeless: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = stopgrad.pretrain(str(images), out="run", preset="tiny", epochs=1)
    assert run.metrics[-1]["epoch"] == 1
    assert "cannot cache the decoded images" in caplog.text
    assert [path.name for path in homeless.iterdir()] == ["run"]


@pytest.mark.parametrize("cache", ["~unknown/cache", "/dev/null/cache"])
@pytest.mark.input(
    kind="command", what="a cache that cannot be written to", happens="works, with a warning"
)
def test_an_unwritable_cache_is_done_without(
    homeless: Path,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cache: str,
) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", cache)
    assert len(load_dataset(str(images)).train) == 64
    assert "cannot cache the decoded images" in caplog.text
    assert list(homeless.iterdir()) == []


@pytest.mark.input(kind="command", what="~unknown in a path", happens="treated like any other path")
def test_an_unknown_home_is_no_folder(homeless: Path) -> None:
    with pytest.raises(DataError, match="no folder '~unknown/images'"):
        load_dataset("~unknown/images")
    with pytest.raises(ConfigError, match="--init '~unknown/w' does not exist"):
        stopgrad.pretrain("mnist5k", out="run", preset="tiny", init="~unknown/w")
    with pytest.raises(ConfigError, match=r"no study '~unknown/s\.yaml'"):
        stopgrad.study("~unknown/s.yaml", data="mnist5k", out="s", preset="tiny")


@pytest.mark.input(
    kind="command",
    what="--out=~/x, where the shell does not expand ~",
    happens="~ is the user's home",
)
def test_a_tilde_is_the_home_on_the_command_line_and_in_python(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    words = ("pretrain", f"--data={images}", "--out=~/run", *SHORT, "--epochs", 1)
    assert main([*map(str, words)]) == 0
    assert f"stopgrad evaluate {home}/run\n" in capsys.readouterr().err
    run = stopgrad.Run("~/run")
    assert run.report("~/page.html", figures="~/figures").page == home / "page.html"
    assert run.export("safetensors", "~/a.safetensors").files[0] == home / "a.safetensors"
    run.embed(out="~/features.npy")
    run.neighbors().save("~/near.png")
    run.evaluate(of="pixels", out="~/records")
    stopgrad.verify("~/run")
    stopgrad.pack(str(images), "~/store")
    stopgrad.views("~/store", out="~/views.png", preset="tiny")
    assert [*here.iterdir()] == []
    names = "a.safetensors features.npy figures near.png page.html records run store views.png"
    assert {*names.split()} <= {path.name for path in home.iterdir()}


# Paths that a shell would take apart


@pytest.mark.parametrize("name", ["a b", "it's", "$HOME", "a;b", "*"])
@pytest.mark.input(
    kind="command",
    what="a path that a shell would split or expand",
    happens="quoted in printed commands",
)
def test_the_printed_command_can_be_pasted(
    name: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    words = ("pretrain", "--data", images, "--out", out, *SHORT, "--epochs", 1)
    assert main([*map(str, words)]) == 0
    command = capsys.readouterr().err.splitlines()[-1].partition("evaluate it with: ")[2]
    assert shlex.split(command) == ["stopgrad", "evaluate", str(out)]
    page = html.unescape(stopgrad.write_report(out).page.read_text())
    assert f"Score it with: stopgrad evaluate {shlex.quote(str(out))}" in page
