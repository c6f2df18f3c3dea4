"""Claims about `cli`: one line and an exit code for whatever is wrong."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stopgrad
from stopgrad.cli import main, quickstart
from stopgrad.cli.parser import COMMANDS, parse
from stopgrad.config import preset
from stopgrad.evaluation import read
from stopgrad.images import Dataset, load_dataset


def _folder(path: Path, *, count: int) -> Path:
    chance = np.random.default_rng(0)
    path.mkdir()
    for number in range(count):
        pixels = chance.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{number}.png")
    return path


def _fails(capsys: pytest.CaptureFixture[str], *words: object, names: object) -> tuple[int, str]:
    """Exit code and the one line on standard error; standard output stays empty.

    The line says what is wrong, with the name of it, then what is expected or what to do.
    """
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stopgrad: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    wrong, _, advice = err.removeprefix("stopgrad: ").rstrip("\n").partition("; ")
    assert str(names) in wrong, err
    assert len(advice) > len("expected "), err
    assert not err.rstrip().endswith("."), err
    return code, err


@pytest.mark.parametrize("command", ["", *COMMANDS, "study run", "study table"])
def test_help_answers_at_once_and_takes_no_torch(command: str) -> None:
    words = [*command.split(), "--help"]
    code = f"import sys, stopgrad.cli as c\ntry: c.main({words})\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.3
    assert done.stdout.startswith(f"usage: stopgrad {command}".rstrip())


@pytest.mark.parametrize(
    ("words", "code", "names"),
    [
        (["frob"], 2, "invalid choice: 'frob'"),
        (["pretrain", "--out", "x"], 2, "--data"),
        (["report", "x", "--title", "Ours"], 2, "--title"),
        (["bench", "--threads", "5000"], 2, "--threads 5000"),
        (["evaluate", "x", "--frob"], 2, "--frob"),
        (["evaluate", "nowhere"], 7, "not a run"),
        (["resume", "nowhere"], 7, "not a run"),
        (["pretrain", "--data", "cifar11", "--out", "x"], 3, "cifar10"),
        (
            ["pretrain", "--data", "mnist5k", "--out", "x", "--preset", "cpux"],
            2,
            "did you mean cpu",
        ),
        (["pretrain", "--data", "mnist5k", "--out", "x", "--bach", "8"], 2, "did you mean batch"),
        (["pretrain", "--data", "mnist5k", "--out", "x", "8"], 2, "'8'"),
        (["pretrain", "--data", "mnist5k", "--out", "x", "--batch", "1"], 2, "at least 2"),
        (["pretrain", "--data", "mnist5k", "--out", "x", "--batch", "9999"], 3, "batch = 9999"),
        (["pretrain", "--data", "mnist5k", "--out", "x", "--device", "cuda:99"], 2, "cuda:99"),
        (["pretrain", "--data", "mnist5k", "--out", "x", "--device", "tpu"], 2, "tpu"),
        (["pretrain", "--data", "mnist5k", "--out", "x", "--config", "no.yaml"], 2, "no.yaml"),
        (
            ["pretrain", "--data", "mnist5k", "--out", "x", "--optimizer.base-lr", "nan"],
            2,
            "optimizer.base_lr",
        ),
        (
            ["pretrain", "--data", "mnist5k", "--out", "x", "--encoder.name", "resnet19"],
            2,
            "did you mean resnet1",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    names: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, error = _fails(capsys, *words, names=names)
    assert found == code, error
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_exists_is_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, error = _fails(
        capsys, "pretrain", "--data", "mnist5k", "--out", tmp_path, names=f"{tmp_path} exists"
    )
    assert code == 2, error
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_command_that_is_told_can_be_pasted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "notes.txt").touch()
    words = ("pretrain", "--data", "mnist5k", "--out", tmp_path / "a b", "--preset", "tiny")
    assert (
        _fails(capsys, *words, names="a b")[1]
        .rstrip()
        .endswith(f"stopgrad resume '{tmp_path}/a b'")
    )
    data = _folder(tmp_path / "some images", count=3)
    assert main(["pack", str(data), "--out", str(tmp_path / "a store")]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"use it as --data '{tmp_path}/a store'")


def test_a_working_directory_that_was_removed_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _ = _fails(capsys, "study", "list", names="the working directory was removed")
    assert code == 2


def test_a_system_without_bus_errors_runs_commands_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(signal, "SIGBUS")  # as Windows
    assert main(["study", "list"]) == 0
    assert "weight-decay" in capsys.readouterr().out


def test_quickstart_says_what_its_records_say(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = load_dataset("mnist5k")
    assert digits.test is not None
    few = Dataset(
        "few", *(part.take(np.arange(0, 1000, 5)) for part in (digits.train, digits.test))
    )
    given = stopgrad.load(few)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stopgrad, "load", lambda *_, **__: given)
    monkeypatch.setattr(quickstart, "preset", lambda _: preset("tiny", epochs=1, knn_every=0))
    monkeypatch.delattr(os, "getloadavg")  # as Windows
    assert main(["quickstart"]) == 0
    printed = capsys.readouterr()
    assert "Pretrains on 200 handwritten digits" in printed.err
    found = read(tmp_path / "runs" / "quickstart" / "records.jsonl")
    fewest = {r.of: r for r in found if (r.labels, r.metric) == (0.01, "linear_accuracy")}
    right = {of: f"{100 * record.value:.1f}" for of, record in fewest.items()}
    said = re.sub(r"\s+", " ", printed.out)
    labels = fewest["encoder"].protocol["train_images"]
    assert f"With {labels} labels a linear classifier gets {right['encoder']} %" in said
    assert f"and {right['pixels']} % on raw pixels" in said
    assert (tmp_path / "runs" / "quickstart" / "report.html").exists()
    assert quickstart._new_directory() == Path("runs/quickstart-2")


def test_a_folder_without_images_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    words = ("pretrain", "--data", tmp_path / "empty", "--out", tmp_path / "run")
    code, _ = _fails(capsys, *words, names=tmp_path / "empty")
    assert code == 3
    assert not (tmp_path / "run").exists()


def test_one_damaged_image_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", count=40)
    whole = (folder / "7.png").read_bytes()
    (folder / "7.png").write_bytes(whole[: len(whole) // 2])
    code, error = _fails(
        capsys, "pretrain", "--data", folder, "--out", tmp_path / "run", names="7.png"
    )
    assert code == 3, error


def test_evaluating_without_labels_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, run = _folder(tmp_path / "images", count=40), tmp_path / "run"
    words = ("pretrain", "--preset", "tiny", "--epochs", 1, "--data", folder, "--out", run)
    assert main([str(word) for word in words]) == 0
    capsys.readouterr()
    code, error = _fails(capsys, "evaluate", run, names="without labels")
    assert code == 3, error
    assert not (run / "records.jsonl").exists()


def test_a_yaml_file_gives_knobs_that_flags_override(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "knobs.yaml"
    file.write_text("batch: 64\noptimizer:\n  base_lr: 1e-3\n  wieght_decay: 1\n")
    words = ("pretrain", "--data", "mnist5k", "--out", tmp_path / "x", "--config", file)
    typo = "optimizer.wieght_decay (did you mean optimizer.weight_decay?)"
    code, error = _fails(capsys, *words, "--batch", "many", names=typo)
    assert code == 2
    assert "batch = 'many'" in error


def test_a_switch_needs_no_value(tmp_path: Path) -> None:
    words = ("pretrain", "--data", "mnist5k", "--out", str(tmp_path / "x"), "--stop-on-collapse")
    for more, batch in (((), 512), (("--batch", "64"), 64), (("--compile=off",), 512)):
        config = parse((*words, *more)).config
        assert (config.stop_on_collapse, config.batch) == (True, batch)
    assert not parse((*words, "false")).config.stop_on_collapse
    assert not parse(words[:-1]).config.stop_on_collapse


def test_a_knob_that_is_no_switch_needs_a_value(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("pretrain", "--data", "mnist5k", "--out", tmp_path / "x", "--batch")
    for more in ((), ("--epochs", "2")):
        code, error = _fails(capsys, *words, *more, names="--batch: expected one argument")
        assert code == 2, error


ON_A_CPU = (  # as PyTorch 2.14 words it
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 37748736 bytes. Error code 12 (Cannot allocate memory)\n\nmore lines"
)
ON_A_GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3 GiB"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "the memory ran out"),
        (RuntimeError(ON_A_CPU), "the memory ran out (37748736 bytes more requested)"),
        (torch.OutOfMemoryError(ON_A_GPU), "memory of the GPU ran out (2.00 GiB more requested"),
        (RuntimeError("could not create a primitive"), "ran out (could not create a primitive)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory ran out ("),
    ],
)
def test_memory_that_runs_out_is_one_line_with_advice(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def starve(spec: str, **how: object) -> None:
        raise error

    monkeypatch.setattr("stopgrad.runs.setup.load_dataset", starve)
    code, err = _fails(capsys, "views", "--data", "mnist5k", "--out", "x.png", names=said)
    assert code == 5
    assert "smaller batch" in err
    assert isinstance(error, MemoryError) == ("the memory ran out; expected" in err)


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (
            ["pretrain", "--data", "mnist5k", "--out", "x", "--preset", "tiny", "--init", LONG],
            "File name too long",
        ),
        (["pretrain", "--data", "mnist5k", "--out", LONG, "--preset", "tiny"], LONG[:80]),
        (["pretrain", "--data", LONG, "--out", "x", "--preset", "tiny"], LONG[:80]),
        (["evaluate", LONG], LONG[:80]),
        (["verify", LONG], LONG[:80]),
        (["report", "x/" * 2500], "x/x/x"),
        (["pack", "mnist5k", "--out", LONG], LONG[:80]),
        (["study", "status", LONG], LONG[:80]),
        (["verify", "file/run"], "file/run"),
    ],
)
def test_a_path_that_the_system_refuses_is_one_line(
    words: list[str],
    names: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, error = _fails(capsys, *words, names=names)
    assert code in (2, 3, 5, 7)
    assert len(error) < 900
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_path_without_permission_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: str, **how: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/locked/images")

    monkeypatch.setattr("stopgrad.runs.setup.load_dataset", refuse)
    code, error = _fails(
        capsys, "views", "--data", "mnist5k", "--out", "x.png", names="'/locked/images'"
    )
    assert (code, error.startswith("stopgrad: '/locked/images': Permission denied;")) == (2, True)


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(spec: str, **how: object) -> None:
        raise RuntimeError("a shape that does not fit the memory format")

    monkeypatch.setattr("stopgrad.runs.setup.load_dataset", fail)
    with pytest.raises(RuntimeError, match="memory format"):
        main(["views", "--data", "mnist5k", "--out", "x.png"])


def test_no_name_in_an_error_steers_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("\x1b[31mx", "a\x9b31m", "b\rc", "d\ne")
    for name in names:
        assert main(["study", "table", str(tmp_path / name)]) == 3
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert not set(error) & set("\x1b\x9b\r")
