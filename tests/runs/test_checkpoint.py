"""Claims about `checkpoint`: what is saved comes back, and one process writes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stopgrad.errors import CheckpointError, ConfigError, DivergedError, LockedError
from stopgrad.runs import RunWriter, load_checkpoint, read_metrics, read_run, read_status
from stopgrad.runs.checkpoint import save_checkpoint
from stopgrad.runs.info import info_to_dict
from tests.runs.factories import begin, checkpoint, info, resume, same, train, train_on


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    begin(tmp_path)
    saved = checkpoint(3)
    key = "encoder.conv1.weight"
    saved.model[key] = saved.model[key].contiguous(memory_format=torch.channels_last)
    save_checkpoint(tmp_path, saved)
    assert same(load_checkpoint(tmp_path), checkpoint(3))
    assert not same(load_checkpoint(tmp_path), checkpoint(4))


def test_the_newest_two_stay(tmp_path: Path) -> None:
    train(tmp_path, 3, 6, 9, 12)
    folders = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert folders == ["step-000009", "step-000012"]


def test_one_million_steps_sort_behind_two(tmp_path: Path) -> None:
    run = begin(tmp_path, info(steps=1_000_000))
    for step in (2, 1_000_000, 999_999):
        save_checkpoint(tmp_path, checkpoint(step, run))
    assert load_checkpoint(tmp_path).step == 1_000_000


def test_a_checkpoint_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    train(tmp_path, 3, 6)
    (tmp_path / "checkpoints" / "step-000006" / "manifest.json").unlink()
    assert load_checkpoint(tmp_path).step == 3


def test_a_checkpoint_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    train(tmp_path, 3)
    for value in (float("nan"), float("inf")):
        bad = checkpoint(6)
        bad.optimizer["2.momentum_buffer"].view(-1)[0] = value
        with RunWriter.resume(tmp_path) as writer:
            writer.begin()
            with pytest.raises(DivergedError, match=r"'2\.momentum_buffer' is not finite"):
                writer.save(bad)
        assert load_checkpoint(tmp_path).step == 3
        assert read_status(tmp_path)["state"] == "diverged"


def test_a_copy_beside_the_checkpoints_is_left_alone(tmp_path: Path) -> None:
    train(tmp_path, 3)
    folder = tmp_path / "checkpoints"
    for name in ("step-000003.bak", "step-0000000003", "step-٠٠٠٠٠٣"):
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_text("{}")
    for step in (6, 9, 12):
        save_checkpoint(tmp_path, checkpoint(step))
    assert load_checkpoint(tmp_path).step == 12
    assert len(list(folder.iterdir())) == 5


def test_a_damaged_checkpoint_is_gone_when_the_run_goes_on(tmp_path: Path) -> None:
    train(tmp_path, 3, 6)
    newest = tmp_path / "checkpoints" / "step-000006"
    (newest / "state.json").write_bytes(b"{}")
    assert train_on(tmp_path).step == 3
    assert not newest.exists()
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_nothing_but_damage_is_an_error(tmp_path: Path) -> None:
    train(tmp_path, 3)
    (tmp_path / "checkpoints" / "step-000003" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)


# A run directory


def test_a_run_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists"):
        RunWriter.create(tmp_path, info())


def test_a_new_run_does_not_go_on_with_one_that_was_made_meanwhile(tmp_path: Path) -> None:
    late = RunWriter.create(tmp_path / "run", info())
    train(tmp_path / "run", 3)
    with late, pytest.raises(ConfigError, match="exists"):
        late.begin()
    assert read_status(tmp_path / "run")["state"] == "running"


def test_a_run_reads_back_what_it_was_asked(tmp_path: Path) -> None:
    asked = info()
    with RunWriter.create(tmp_path / "run", asked) as writer:
        assert not writer.path.exists()
        assert writer.begin() is None
    read = read_run(tmp_path / "run")
    assert read == writer.info
    assert read._replace(environment={}) == asked._replace(environment={})
    assert read.environment["threads"] == torch.get_num_threads()
    assert read.environment["torch"] == torch.__version__


def test_every_checkpoint_carries_its_run(tmp_path: Path) -> None:
    run = train(tmp_path, 3)
    (tmp_path / "config.json").rename(tmp_path / "lost")
    with pytest.raises(CheckpointError, match="not a run"):
        load_checkpoint(tmp_path)
    copy = tmp_path / "checkpoints" / "step-000003" / "config.json"
    assert json.loads(copy.read_bytes()) == json.loads(json.dumps(info_to_dict(run)))
    (tmp_path / "config.json").write_bytes(copy.read_bytes())
    assert load_checkpoint(tmp_path).info == run


def test_a_directory_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run"):
        read_run(tmp_path)


def test_a_run_that_breaks_says_so_in_its_status(tmp_path: Path) -> None:
    train(tmp_path, 3, 6)

    def break_down() -> None:
        with RunWriter.resume(tmp_path) as writer:
            writer.begin()
            raise MemoryError("too large")

    with pytest.raises(MemoryError):
        break_down()
    status = read_status(tmp_path)
    assert (status["state"], status["reason"]) == (
        "failed",
        "NoMemoryError: the memory ran out (too large); expected memory for the images, the "
        "network and a batch; give the process more memory and repeat the command or resume the "
        "run, or start a run with a smaller batch, smaller views or a smaller network",
    )
    assert (status["step"], status["epoch"]) == (6, 0)


# Metrics


def test_metrics_after_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    train(tmp_path, 2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3}\n{"step": 4, "lo')
    assert train_on(tmp_path).step == 2
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"st\n{"step": 2}\n', "line 1"),
        ('{"step": 1}\n{"step": 2, "loss": NaN}\n{"step": 3}\n', "line 2.*NaN"),
        ('{"step": 1}\n{"step": 2, "loss": 1e999}\n', "line 2.*too large"),
        ('{"step": 1, "step": 2}\n', "line 1.*twice"),
        ('{"step": 1}\n[]\n', "line 2"),
        ('{"step": "1"}\n{"step": 2}\n', "line 1"),
        ('{"step": -1}\n', "line 1"),
        ('{"loss": 1}\n{"step": 2}\n', "line 1"),
        ("[" * 100_000 + "\n" + '{"step": 2}\n', "line 1.*too deep"),
    ],
)
def test_a_line_that_is_no_row_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(CheckpointError, match=said):
        read_metrics(tmp_path)


@pytest.mark.parametrize("torn", ['{"st', '{"st\n', "\x00\x00", "\n", '{"step": 2}'])
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + torn)
    assert read_metrics(tmp_path) == [{"step": 1}]


# One writer


HOLDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.runs.factories import checkpoint, info
from stopgrad.runs import RunWriter
with RunWriter.create(Path(sys.argv[1]), info()) as writer:
    writer.begin()
    writer.save(checkpoint(0, writer.info))
    print("held", flush=True)
    time.sleep(60)
"""


def test_only_one_process_writes_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with RunWriter.resume(tmp_path) as second, pytest.raises(LockedError) as caught:
            second.begin()
        said = rf"written by process {holder.pid} on {os.uname().nodename} since 20\d\d-\d\d-\d\dT"
        holder.kill()
        assert caught.match(said)
        assert not (tmp_path / "status.json").exists()
    resume(tmp_path)


def test_what_stands_in_a_lock_file_is_shown_only_if_we_wrote_it(tmp_path: Path) -> None:
    train(tmp_path, 3)
    with RunWriter.resume(tmp_path) as first:
        first.begin()
        (tmp_path / "lock").write_text("\x1b[31mprocess 1 on host since yesterday\n")
        with RunWriter.resume(tmp_path) as second, pytest.raises(LockedError, match="an unknown"):
            second.begin()


def test_a_lock_that_leads_elsewhere_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "mine")
    with (
        RunWriter.create(tmp_path / "run", info()) as writer,
        pytest.raises(Exception, match="lock"),
    ):
        writer.begin()
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_signal_sets_a_flag_and_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with RunWriter.create(tmp_path / "run", info()) as writer:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            if writer.stop_signal is not None:
                break
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    assert writer.stop_signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
