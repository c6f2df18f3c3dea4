"""Claims about what a user sees: on a terminal nothing is silent for long, a log tells the time."""

import functools
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

import stopgrad
from stopgrad.face.progress import Screen, progress_columns
from tests.factories import write_digits
from tests.terminal import SHORT, SILENCE_S, forked_on_terminal, seen_of

STOPGRAD = (sys.executable, "-m", "stopgrad")
OFFERED = {
    "stopgrad pre": "pretrain",
    "stopgrad study ta": "table",
    "stopgrad evaluate --lab": "--labels",
    "stopgrad pretrain --preset ti": "tiny",
    "stopgrad pretrain --views.si": "--views.size",
}
ASKED = {  # reads lines that are typed; prints what each offers
    "bash": r"""source ./_stopgrad
        while read -r typed; do
            COMP_WORDS=($typed); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            $(complete -p stopgrad | sed 's/.*-F \([^ ]*\).*/\1/'); echo "${COMPREPLY[@]}"
        done""",
    "zsh": r"""zmodload zsh/zpty; zpty other zsh -f -i
        zpty -w other 'fpath=($PWD $fpath); autoload -U compinit; compinit -D -u'
        zpty -w other 'show() { print -r -- ${${=BUFFER}[-1]} >> offered; BUFFER= }'
        zpty -w other 'zle -N show; bindkey ^B show'
        while read -r typed; do zpty -w -n other "$typed"$'\t\x02'; done
        zpty -w other exit; zpty -r other all $'*\0'; cat offered""",
    "fish": r"""source ./_stopgrad
        while read typed; complete -C $typed | string split -f 1 \t; end""",
}
BROKEN = "import time; print('begun', flush=True); time.sleep(2.5); print('done')"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a run."""
    folder = tmp_path_factory.mktemp("first minutes")
    images = write_digits(folder / "images", train=60, test=20)
    stopgrad.pretrain(images, out=folder / "known", preset="tiny", epochs=1)
    return folder


def test_a_silent_command_is_noticed(tmp_path: Path) -> None:
    seen = seen_of([sys.executable, "-c", BROKEN], columns=80, cwd=tmp_path)
    assert (seen.code, seen.text.split()) == (0, ["begun", "done"])
    assert seen.silence_s > SILENCE_S


def test_the_first_minutes_are_never_silent_for_two_seconds(place: Path) -> None:
    seen = {
        command: seen_of([*STOPGRAD, *command.split()], columns=80, cwd=place) for command in SHORT
    }
    assert {command: one.text for command, one in seen.items() if one.code} == {}
    silent = {command: one.silence_s for command, one in seen.items() if one.silence_s > SILENCE_S}
    assert silent == {}


def test_records_go_to_the_file_while_bars_are_on_the_terminal(place: Path) -> None:
    words = ("evaluate", "known", "--metrics", "knn_accuracy", "--json")
    seen = forked_on_terminal(*words, columns=80, cwd=place, out=str(place / "found.jsonl"))
    lines = (place / "found.jsonl").read_text().splitlines()
    assert [json.loads(line)["of"] for line in lines] == ["encoder", "untrained", "pixels"]
    assert "knn_accuracy" not in seen
    assert "\x1b[?25l" in seen  # a bar hides the cursor


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ["pretrian", "evaluate known --of pixels"])
def test_no_line_is_longer_than_the_terminal(place: Path, command: str, columns: int) -> None:
    seen = forked_on_terminal(*command.split(), columns=columns, cwd=place)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen).replace("\r", "\n").splitlines()
    assert len(shown) > 3
    assert max(map(len, shown)) <= columns


def test_a_log_tells_the_time_and_what_is_left(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopgrad.pretrain(place / "images", out=place / "logged", preset="tiny", epochs=2)
    said = capsys.readouterr().err.replace("\xa0", " ").splitlines()
    epochs = [line for line in said if "epoch " in line]
    assert [line[10:19] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in said)
    assert re.search(r"  about \d+ s left$", epochs[0])
    assert epochs[1].endswith("  about 0 s left")


def test_a_log_has_lines_within_what_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stopgrad.face.progress.LOG_EVERY_S", 0.0)
    assert list(Screen().track("abc", "embed", 3)) == ["a", "b", "c"]
    said = capsys.readouterr().err.replace("\xa0", " ").splitlines()
    assert [line[10:] for line in said] == [
        "embed: 1 of 3, about 0 s left",
        "embed: 2 of 3, about 0 s left",
    ]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (120, "linear probe of raw pixels, 10 % of the labels"),
        (80, "linear probe of raw pixels, 10 % of the labels"),
        (60, "linear probe of raw pixels, 10 % …"),
        (40, "linear probe"),
    ],
)
def test_a_bar_stays_on_its_line(columns: int, said: str) -> None:
    console = Console(file=io.StringIO(), width=columns, force_terminal=True, color_system=None)
    seconds = iter(range(100))
    kinds, clock = progress_columns(columns), functools.partial(next, seconds)
    bars = Progress(*kinds, console=console, expand=True, get_time=clock, auto_refresh=False)
    task = bars.add_task("linear probe of raw pixels, 10 % of the labels", total=900, rate="")
    for time in (" elapsed", " left"):
        with console.capture() as shown:
            console.print(bars.get_renderable())
        [line] = shown.get().splitlines()
        assert line.startswith(said)
        assert columns < 60 or (time in line and "/900 " in line)
        bars.update(task, advance=100)
        bars.update(task, advance=100)


@pytest.mark.parametrize("shell", [*ASKED])
def test_shells_complete_commands_options_presets_and_knobs(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = subprocess.run([*STOPGRAD, "completion", shell], check=True, capture_output=True)
    (tmp_path / "_stopgrad").write_bytes(script.stdout)
    done = subprocess.run(
        [shell, "-c", ASKED[shell]],
        cwd=tmp_path,
        input="\n".join([*OFFERED, ""]),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert dict(zip(OFFERED, done.stdout.split(), strict=True)) == OFFERED
    assert b"such as\n" not in script.stdout


@pytest.mark.parametrize(
    ("typed", "whole"),
    [
        (r"my\ ru", "my runs/"),
        (r"my\ runs/hu", "my runs/hundred/"),
        ("'my runs/hu", "my runs/hundred/"),
        ('"my runs/hu', "my runs/hundred/"),
        ("my", "my runs/"),
        (r"my\ runs/it", "my runs/it's one/"),
    ],
)
def test_bash_completes_names_of_files_with_spaces(tmp_path: Path, typed: str, whole: str) -> None:
    for name in ("hundred", "it's one"):
        (tmp_path / "my runs" / name).mkdir(parents=True)
    script = subprocess.run([*STOPGRAD, "completion", "bash"], check=True, capture_output=True)
    (tmp_path / "_stopgrad").write_bytes(script.stdout)
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-i"],
        cwd=tmp_path,
        input=f'source ./_stopgrad; stopgrad() {{ echo "$2"; }}\nstopgrad evaluate {typed}\t\n',
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == whole
