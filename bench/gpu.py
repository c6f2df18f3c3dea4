"""What one GPU does: agreement with the CPU, speed beside its limit, 30 epochs, and 800 foretold.

    PYTHONPATH=src:. python bench/gpu.py --data CIFAR10 --out results/YYYY-MM-DD-gpu

Each stage appends one line to OUT/gpu.jsonl and is skipped when it is there already, and the
training goes on from its checkpoint: a call that runs out of its minutes is repeated until it ends
with code 0. `--epochs 800` is a long run in such pieces. It imports no more than torch, NumPy,
Pillow, pyarrow, safetensors, rich and lazy_loader, and runs from a checkout without an install.
Without a GPU it runs on the CPU (`--small` for tests).

Stages: agreement (losses of the device against the CPU in fp32, on the same views), replay (steps
replayed as one CUDA graph against steps launched kernel by kernel, bit by bit), resume (a training
killed by SIGKILL and gone on with, against one left alone, bit by bit), one speed stage
for each batch and way of training, a peer where one is installed, processes (N of them on one card,
and one on each card where there are several), training, forecast.
`--stages training forecast` takes those that begin so.

    PYTHONPATH=src:. python bench/gpu.py --data CIFAR10 --out OUT --plan 12m

takes instead, for a card that is lent for minutes, what matters most first: resume, the peer, the
preset `fast`, and then arms that tell how to make it better, 70 epochs each, seed by seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stopgrad.config import PRESETS, Config, EncoderConfig, config_to_dict
from stopgrad.errors import InterruptedRunError, StopgradError
from stopgrad.images import Dataset, load_dataset, normalization
from stopgrad.method import Views, training_flops
from stopgrad.runs import RunWriter, TrainingImages, describe_run, has_begun, prepare, read_metrics
from stopgrad.speed.steps import start_on_random_pixels, step_phases, take_steps
from stopgrad.speed.stopwatch import MatrixProduct, peak_bytes, per_call, spread
from stopgrad.storage import append_lines, read_lines
from stopgrad.training import pretrain_epochs, start_training
from tests.promises import state

HERE = Path(__file__).resolve().parent

WAYS: dict[str, dict[str, Any]] = {
    "plain": {"compile": "off"},
    "compiled": {"compile": "on"},
    "compiled, joint BN": {"compile": "on", "batch_norm": "joint"},
    "compiled, any algorithm": {"compile": "on", "repeatable": False},
    "plain, fp32": {"compile": "off", "precision": "fp32"},
    "plain, fused BN": {"compile": "off", "batch_norm_kernel": "fused"},
    "compiled, fused BN": {"compile": "on", "batch_norm_kernel": "fused"},
}
"""Ways of training one and the same network; the second is what `compile = auto` does on a GPU.

Fused kernels run on a GPU alone.
"""

ARMS: dict[str, dict[str, object]] = {
    "base": {},
    "rate x 2": {"optimizer.base_lr": 0.06},
    "rate x 4": {"optimizer.base_lr": 0.12},
    "hidden 2048": {"predictor.hidden": 2048},
    "no zero-init": {"encoder.zero_init": False},
    "grayscale .1": {"views.grayscale": 0.1},
}
"""Changes to the paper's setting that `--plan` tries; about 95 s each on an H100."""

ARM_EPOCHS, ARM_SEEDS = 70, 3

BATCHES = (256, 512, 1024)
AGREEING_STEPS = 5
REPLAYED_STEPS = 12
RESUMED_EPOCHS = 3
SPARE = 60.0  # s before the end in which no new stage begins


class Scale(NamedTuple):
    """How much is measured: all of it, or so little that a test can wait for it."""

    encoder: EncoderConfig
    batches: tuple[int, ...]
    images: int  # random images of the speed stages
    seconds: float  # of steps in each repeat
    repeats: int
    side: int  # of the matrix product


FULL = Scale(EncoderConfig(), BATCHES, 8192, 2.0, 5, 8192)
SMALL = Scale(EncoderConfig(name="cifar_resnet8", stem="half"), (16, 32), 256, 0.05, 2, 128)


class Session(NamedTuple):
    """One call: where its lines go and when it has to end."""

    options: argparse.Namespace
    scale: Scale
    device: torch.device
    deadline: float  # of time.monotonic()

    def lines(self) -> dict[str, dict[str, Any]]:
        """What earlier calls have measured, by stage."""
        path = self.options.out / "gpu.jsonl"
        if not path.exists():
            return {}
        found: list[dict[str, Any]] = read_lines(path, dict, what="a stage", hint="remove it").rows
        return {line["stage"]: line for line in found}

    def left(self) -> float:
        """Seconds to the end."""
        return self.deadline - time.monotonic()

    def config(self, **changes: Any) -> Config:
        """The paper's CIFAR setting with changes."""
        return Config(encoder=self.scale.encoder, device=str(self.device), **changes)

    def changed(self, changes: Mapping[str, object]) -> Config:
        """The same with changes by key path (without `preset`, whose parser may be missing)."""
        config = self.config(batch=_batch(self))
        for key, value in changes.items():
            group, _, knob = key.rpartition(".")
            if group:
                value = dataclasses.replace(getattr(config, group), **{knob: value})
            config = dataclasses.replace(config, **{group or knob: value})
        return dataclasses.replace(config, epochs=1) if self.scale is SMALL else config


def main() -> int:
    """Runs the stages that are missing while there is time; 1 when some are left."""
    options = _parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = SMALL if options.small else FULL
    session = Session(options, scale, device, time.monotonic() + 60 * options.minutes)
    options.out.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(str(options.data), side=32)
    stages = _plan(session, dataset) if options.plan else _stages(session, dataset)
    for name, stage in stages.items():
        if name in session.lines() or not name.startswith(tuple(options.stages)):
            continue
        if session.left() < min(SPARE, 30 * options.minutes):
            print(f"left for another call: {name} and what comes after it", flush=True)
            return 1
        began = time.monotonic()
        measured = stage()
        if measured is None:
            print(f"to be continued: {name}", flush=True)
            return 1
        line = {"stage": name, **measured, "wall_s": time.monotonic() - began, **_where(device)}
        append_lines(options.out / "gpu.jsonl", [line])
        print(f"{name}: {json.dumps(measured)}", flush=True)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, type=Path, help="CIFAR-10 as Parquet files")
    parser.add_argument("--out", required=True, type=Path, help="folder for records and run")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call. Default: 9")
    parser.add_argument("--plan", metavar="12m", help="minutes of a lent card, best used")
    parser.add_argument("--epochs", type=int, default=30, help="of the training. Default: 30")
    parser.add_argument("--seed", type=int, default=0, help="of the training. Default: 0")
    parser.add_argument("--checkpoint-every", type=int, default=0, help="steps; 0: when it pays")
    parser.add_argument("--measure-every", type=int, default=1, help="epochs. Default: 1")
    parser.add_argument(
        "--stages",
        nargs="+",
        default=[""],
        metavar="NAME",
        help="those that begin so. Default: all",
    )
    parser.add_argument("--small", action="store_true", help="for tests: a tiny network")
    options = parser.parse_args()
    if options.plan:
        options.minutes = float(options.plan.removesuffix("m"))
    return options


def _stages(session: Session, dataset: Dataset) -> dict[str, Callable[[], dict[str, Any] | None]]:
    """Name -> measurement, in order; None from a measurement means: not done yet."""
    middle = session.scale.batches[len(session.scale.batches) // 2]
    speeds = {
        f"speed: {way}, batch {batch}": lambda way=way, batch=batch: _speed(session, way, batch)
        for way in _ways(session)
        for batch in (session.scale.batches if way == "compiled" else (middle,))
    }
    epochs = session.options.epochs
    return {
        "agreement": lambda: _agreement(session, dataset),
        "replay": lambda: _replay(session, dataset),
        "resume": lambda: _resume(session, steps=RESUMED_EPOCHS * _steps(session, dataset)),
        **speeds,
        "processes": lambda: _processes(session),
        "peer": lambda: _peer(session),
        f"training: {epochs} epochs": lambda: _training(session, dataset, *_chosen(session)),
        f"forecast from {epochs} epochs": lambda: _forecast(session),
    }


def _ways(session: Session) -> list[str]:
    """Those that this device can take."""
    return [way for way in WAYS if session.device.type == "cuda" or "fused" not in way]


def _plan(session: Session, dataset: Dataset) -> dict[str, Callable[[], dict[str, Any] | None]]:
    """Name -> measurement for a card that is lent for minutes, the most telling first."""
    every = _stages(session, dataset)
    arms = {
        f"arm: {arm}, seed {seed}": session.changed({"epochs": ARM_EPOCHS, "seed": seed, **changes})
        for seed in range(ARM_SEEDS)
        for arm, changes in ARMS.items()
    }
    trainings = {"fast, seed 0": session.changed(PRESETS["fast"]), **arms}
    return {name: every[name] for name in ("resume", "peer")} | {
        name: lambda name=name, config=config: _training(
            session, dataset, re.sub(r"\W+", "-", name), config
        )
        for name, config in trainings.items()
    }


def _agreement(session: Session, dataset: Dataset) -> dict[str, Any]:
    """Losses of the first steps on the same views, against the CPU's fp32 path."""
    batch = session.scale.batches[0] // 4
    images = dataset.train
    mean_std = normalization(images)
    plain = session.config(batch=batch, precision="fp32", compile="off")
    on_cpu = dataclasses.replace(plain, device="cpu")
    reference = start_training(images, on_cpu, normalization=mean_std)
    ways = {
        way: start_training(
            images, session.config(batch=batch, **WAYS[way]), normalization=mean_std
        )
        for way in _ways(session)
        if way in ("plain, fp32", "plain", "compiled") or "fused" in way
    }
    for _, indices in zip(range(AGREEING_STEPS), reference.batches(), strict=False):
        views = reference.views(indices)
        reference.take_step(views)
        for training in ways.values():
            training.take_step(Views(*(x.to(session.device) for x in views)))
    losses = reference.read_losses()
    found = {way: training.read_losses() for way, training in ways.items()}
    worst = {
        way: max(abs(a - b) for a, b in zip(losses, theirs, strict=True))
        for way, theirs in found.items()
    }
    return {"batch": batch, "cpu_fp32_losses": losses, "losses": found, "largest_difference": worst}


def _replay(session: Session, dataset: Dataset) -> dict[str, Any]:
    """Steps as a run takes them, against the same steps launched kernel by kernel."""
    images = dataset.train
    config = session.config(batch=_batch(session))
    replayed, launched = (
        start_training(images, config, normalization=normalization(images)) for _ in range(2)
    )
    launched.replay = None
    for _, batch in zip(range(REPLAYED_STEPS), launched.batches(), strict=False):
        launched.advance(batch)
        replayed.advance(batch)
    ours, theirs = replayed.read_losses(), launched.read_losses()
    states = [
        {**found.model, **{f"optimizer.{k}": v for k, v in found.optimizer.items()}}
        for found in (replayed.snapshot(), launched.snapshot())
    ]
    return {
        "steps": len(ours),
        "recorded": replayed.replay is not None and replayed.replay.is_recorded,
        "losses": ours,
        "losses_differ": [a - b for a, b in zip(ours, theirs, strict=True) if a != b],
        "tensors": len(states[0]),
        "tensors_differ": [k for k, v in states[0].items() if not torch.equal(v, states[1][k])],
    }


def _resume(session: Session, *, steps: int) -> dict[str, Any]:
    """A training killed by SIGKILL half-way and gone on with, against one left alone."""
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = (Path(folder) / name for name in ("alone", "killed"))
        every = math.ceil(steps / 4)
        began = time.monotonic()
        _train_apart(session, alone, every).wait()
        seconds = time.monotonic() - began
        process = _train_apart(session, killed, every)
        while process.poll() is None and state.newest_step(_run_in(killed)) < steps // 2:
            time.sleep(0.01)
        process.kill()
        process.wait()
        at = state.newest_step(_run_in(killed))
        _train_apart(session, killed, every).wait()
        end = state.read_end(_run_in(alone))
        return {
            "steps": end.step,
            "killed_after_checkpoint": at,
            "state": end.hash,
            "rows": len(end.rows),
            "differences": state.differences(_run_in(killed), end),
            "alone_s": seconds,
        }


def _train_apart(session: Session, out: Path, every: int) -> subprocess.Popen[bytes]:
    """A process that does the training stage alone, for a few epochs."""
    words = ["--data", session.options.data, "--out", out, "--stages", "training"]
    words += ["--epochs", RESUMED_EPOCHS, "--checkpoint-every", every]
    words += ["--small"] if session.options.small else []
    return subprocess.Popen([sys.executable, __file__, *map(str, words)])


def _run_in(out: Path) -> Path:
    return out / f"run-{RESUMED_EPOCHS}-epochs-seed-0"


def _batch(session: Session) -> int:
    return session.scale.batches[-1] if session.options.small else 512


def _steps(session: Session, dataset: Dataset) -> int:
    return len(dataset.train) // _batch(session)


def _speed(session: Session, way: str, batch: int) -> dict[str, Any]:
    """Views per second, share of the matrix rate and phases of one way of training."""
    scale, device = session.scale, session.device
    config = session.config(batch=batch, **WAYS[way])
    matrix = MatrixProduct(scale.side, device=device, at_least=scale.seconds / 4)
    began = time.monotonic()
    training = start_on_random_pixels(config, images=max(scale.images, 4 * batch))
    take_steps(training, 3)
    ready = time.monotonic() - began
    rates, limits = [], []
    for _ in range(scale.repeats):
        limits.append(matrix.rates().of(training.compute.precision))
        seconds = per_call(
            lambda count: take_steps(training, count), device=device, at_least=scale.seconds
        )
        rates.append(2 * batch / seconds)
    flops = training_flops(config)
    shares = [rate * flops / limit for rate, limit in zip(rates, limits, strict=True)]
    parts = [step_phases(training) for _ in range(5)]
    return {
        "way": way,
        "batch": batch,
        "views_per_s": spread(rates)._asdict(),
        "flops_per_s": flops * spread(rates).median,
        "matmul_flops": spread(limits)._asdict(),
        "share_of_matmul": spread(shares)._asdict(),
        "phases": min(parts, key=sum).fractions()._asdict(),
        "ready_s": ready,  # start, compilation and the first steps
        "peak_bytes": peak_bytes(device),
    }


def _peer(session: Session) -> dict[str, Any] | None:
    """The comparison with peers on this device, where one is installed."""
    script = HERE / "compare_peers.py"
    if importlib.util.find_spec("lightly") is None or not script.exists():
        return {"peer": None, "reason": "lightly is not installed here"}
    out = session.options.out / "peers"
    limit = max(1.0, session.left() - SPARE)
    command = [sys.executable, str(script), "--data", str(session.options.data), "--out", str(out)]
    command += ["--minutes", f"{limit / 60 / 2:.1f}", "--contests", "resnet18", "--batch", "512"]
    command += ["--systems", "stopgrad", "lightly", "lightly-bf16"]
    try:
        ended = subprocess.run(command, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"peer": "lightly", "reason": f"not done within {limit:.0f} s"}
    if ended.returncode:
        return None  # it is tried again
    return {"peer": "lightly", "records": out.name}


def _processes(session: Session) -> dict[str, Any]:
    """Views per second of two processes on one card, and of one on each card; see `processes`."""
    cards = torch.cuda.device_count()
    runs = [("cuda:0", 2, "")] if cards else [("cpu", 2, "")]
    runs += [("cuda", cards, ""), ("cuda", cards, " --fast")] if cards > 1 else []
    small, found = session.scale is SMALL, dict[str, Any]()
    for device, count, more in runs:
        command = [sys.executable, str(HERE / "processes.py"), "--counts", "1", str(count)]
        command += ["--device", device, "--data", str(session.options.data), "--rounds", "1"]
        command += ["--batch", str(_batch(session)), "--preset", "tiny" if small else "cifar"]
        command += ["--steps", "3" if small else "30", *more.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        name = f"{count} on {device}{more}"
        if done.returncode == 0:
            found[name] = json.loads(done.stdout.splitlines()[-1])
        else:
            found[name] = done.stderr[-4000:].splitlines()
    return found


def _chosen(session: Session) -> tuple[str, Config]:
    """Folder and config of the training that the options ask for."""
    config = session.config(
        batch=_batch(session),
        epochs=session.options.epochs,
        seed=session.options.seed,
        checkpoint_every=session.options.checkpoint_every,
        measure_every=session.options.measure_every,
    )
    return f"run-{config.epochs}-epochs-seed-{config.seed}", config


def _training(
    session: Session, dataset: Dataset, folder: str, config: Config
) -> dict[str, Any] | None:
    """Trains with kNN every 10 epochs, in as many calls as that takes; None: not done yet."""
    path = session.options.out / folder
    images = prepare(dataset, config)
    info = describe_run(dataset, config, spec="cifar10")
    writer = RunWriter(path, info) if has_begun(path) else RunWriter.create(path, info)
    stop = threading.Timer(max(1.0, session.left() - 15), os.kill, (os.getpid(), signal.SIGTERM))
    stop.daemon = True
    stop.start()
    try:
        _train(writer, images, config)
    except InterruptedRunError:
        return None
    finally:
        stop.cancel()
    rows = [row for row in read_metrics(path) if row["kind"] == "epoch"]
    return {
        "config": config_to_dict(config),
        "fingerprint": dataset.train.fingerprint,
        "knn": {row["epoch"]: row["knn"] for row in rows if row["knn"] is not None},
        "loss": rows[-1]["loss"],
        "verdict": rows[-1]["verdict"],
        "views_per_s": [row["views_per_s"] for row in rows],
        "run": path.name,
    }


def _train(writer: RunWriter, images: TrainingImages, config: Config) -> None:
    with writer:
        began = time.monotonic()
        for epoch in pretrain_epochs(images, config, writer=writer):
            seconds, began = time.monotonic() - began, time.monotonic()
            knn = "" if epoch.knn is None else f", kNN {epoch.knn:.2%}"
            print(
                f"epoch {epoch.number}: {seconds:.2f} s, loss {epoch.loss:+.4f}{knn}, "
                f"{epoch.views_per_s:,.0f} views/s",
                flush=True,
            )
            line = {"run": writer.path.name, "epoch": epoch.number, "seconds": seconds}
            line["scored"] = epoch.knn is not None
            append_lines(writer.path.parent / "epochs.jsonl", [line])


def _forecast(session: Session) -> dict[str, Any]:
    """What 800 epochs with kNN every 10 would take, from the epochs that were timed."""
    path = session.options.out / "epochs.jsonl"
    epochs = read_lines(path, dict, what="an epoch", hint="remove it").rows
    own = [e for e in epochs if e["run"] == _chosen(session)[0] and e["epoch"] > 1]
    plain, scored = ([e["seconds"] for e in own if e["scored"] is of] for of in (False, True))
    if not plain or not scored:
        return {"reason": "too few epochs were timed"}
    seconds = 720 * spread(plain).median + 80 * spread(scored).median
    return {
        "epoch_s": spread(plain)._asdict(),
        "epoch_with_knn_s": spread(scored)._asdict(),
        "minutes_for_800_epochs": seconds / 60,
    }


def _where(device: torch.device) -> dict[str, Any]:
    """The hardware and the versions that a line was measured with."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StopgradError as error:
        sys.exit(str(error))
