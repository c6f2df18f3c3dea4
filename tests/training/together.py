"""What one of several processes computes, for `test_processes`, which forks them.

The first process writes a file: views, losses and tensors of a training in fp64, parameters after a
step in fp32, what is measured at the end of an epoch, and what each process hears of the others.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stopgrad.config import BadImages, Config, preset
from stopgrad.errors import StopgradError
from stopgrad.evaluation import embed
from stopgrad.images import Dataset, images_from_arrays, load_dataset
from stopgrad.method import Processes, joined, one_by_one, simsiam_loss, use_threads
from stopgrad.runs import SharedWriter, TrainingImages, prepare
from stopgrad.training import check_resume
from stopgrad.training.pretrain import Pretraining, start_training
from stopgrad.training.watch import look, watched_outputs
from tests.runs.factories import info, train

STEPS, BATCH = 40, 10  # a batch that neither three nor four processes share evenly


@functools.cache
def images() -> TrainingImages:
    """600 images to learn from and 90 to watch, of three classes."""
    generator = np.random.default_rng(0)
    labels = np.arange(690) % 3
    pixels = generator.integers(0, 200, (690, 12, 12, 3), dtype=np.uint8)
    pixels[..., 0] += (labels * 20).astype(np.uint8)[:, None, None]
    every = images_from_arrays(pixels, labels=labels)
    dataset = Dataset("toy", every.take(np.arange(600)), every.take(np.arange(600, 690)))
    return prepare(dataset, config())


@functools.cache
def config(**changes: Any) -> Config:
    """A network of 8 channels in fp32."""
    knobs = {"batch": BATCH, "views.size": 12, "precision": "fp32", "device": "cpu", "epochs": 2}
    return preset("tiny", **{**knobs, **changes})


def training(processes: Processes | None, **changes: Any) -> Pretraining:
    """At step 0."""
    found, settings = images(), config(**changes)
    return start_training(
        found.train, settings, normalization=found.normalization, processes=processes
    )


def in_fp64(learner: Pretraining) -> Pretraining:
    """The same training with every number in fp64."""
    model = learner.model.double()
    learner.forward = lambda views: simsiam_loss(
        model(*(x.double() for x in views)), stop_gradient=True
    )
    return learner


def noted(learner: Pretraining) -> list[Tensor]:
    """The losses of the steps to come, in the precision in which they are computed."""
    losses: list[Tensor] = []
    backward = learner.backward

    def note(loss: Tensor) -> Tensor:
        losses.append(backward(loss))
        return losses[-1]

    learner.backward = note  # type: ignore[method-assign]
    return losses


def own_views(learner: Pretraining, step: int) -> Tensor:  # (2, B, 3, S, S)
    """The views of the whole batch of a step, put together from those of all processes."""
    learner.step = step
    indices = next(learner.batches())
    views = learner._views_of(*learner._own_part(indices, learner._table(len(indices))))
    learner.step = 0
    parts = [
        x if learner.processes is None else learner.processes.gather(x.contiguous(), total=BATCH)
        for x in views
    ]
    return torch.stack(parts)


def computed(processes: Processes | None, folder: Path) -> dict[str, Any]:
    """All that the tests compare; `folder` is for what several processes write."""
    found: dict[str, Any] = {"views": [own_views(training(processes), step) for step in (0, 7)]}
    kinds = {norm: {"batch_norm": norm} for norm in ("per-view", "joint")}
    for kind, changes in (kinds | {"momentum": {"target": "momentum"}}).items():
        double = in_fp64(training(processes, **changes))
        losses = noted(double)
        for indices in [*double.batches()][:STEPS]:
            double.advance(indices)
            double.read_losses()
        found[f"fp64 {kind}"] = (torch.stack(losses), double.model.state_dict())
    single = training(processes)
    single.advance(next(single.batches()))
    single.read_losses()
    found["fp32"] = {name: p.detach().clone() for name, p in single.model.named_parameters()}
    fresh = training(processes)
    if processes is not None:
        alone = training(processes, batch_norm_over="process")
        for indices in [*alone.batches()][:2]:
            alone.advance(indices)
            alone.read_losses()
        sums = [float(t.double().sum()) for t in alone.model.state_dict().values()]
        found["states"] = processes.everyone(sums)
        found["heard"] = heard(processes, folder)
    found["outputs"] = watched_outputs(fresh)
    looks = look(fresh, images())
    found["looks"] = [looks.layers, looks.verdict, looks.knn, looks.spectra]
    found["features"] = embed(
        fresh.model.encoder,
        images().train,
        normalization=fresh.normalization,
        compute=fresh.compute,
        batch=64,
        processes=processes,
    ).values
    return found


def heard(processes: Processes, folder: Path) -> dict[str, Any]:
    """What each process is told of what only one of them can see, in order of rank."""
    own = folder / str(
        processes.rank
    )  # only the first one's holds a run, only the last one's is bad
    run = processes.first_does(lambda: train(own / "run", 3, 5)) or info()
    standing = check_resume(own / "run", run, processes=processes)
    writer = SharedWriter(Path(os.devnull, "run"), run, processes)
    is_last = processes.rank == processes.count - 1
    for number in range(20):
        pixels = np.full((12, 12, 3), number, np.uint8)
        path = own / "images" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        if is_last and number == 7:
            path.write_bytes(path.read_bytes()[:50])

    def load(bad_images: BadImages) -> int:
        spec = str(own / "images")
        found = one_by_one(processes, lambda: load_dataset(spec, bad_images=bad_images))
        return len(found.train)

    found = {
        "step": standing.step,
        "status": raised(lambda: writer.set_status("running")),
        "fail": raised(lambda: load("fail")),
        "skip": load("skip"),
        "agreed": [processes.all_agree(True), processes.all_agree(not is_last)],
    }
    if processes.count == 2:  # at work alone for longer than the others wait for a collective
        processes.timeout, usual = 2.5, processes.timeout
        processes.first_does(lambda: time.sleep(4))
        processes.timeout = usual
    told = processes.everyone(found)
    return {key: [each[key] for each in told] for key in found}


def raised(act: Callable[[], object]) -> list[Any]:
    """The kind of error that an act ends with, its exit code and its text."""
    try:
        return [act()]
    except StopgradError as error:
        return [type(error).__name__, error.exit_code, str(error)]


def plain(looks: Any) -> Any:
    """Named tuples as lists, which a file of tensors may hold."""
    return [plain(each) for each in looks] if isinstance(looks, list | tuple) else looks


def fork(out: Path, count: int, port: int) -> None:
    """Computes in so many processes, with the variables that torchrun would set.

    All take turns on one core, and none interrupts another: between them are some ten thousand
    short messages, whose cost is the waking of the one that waits.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    children = []
    for rank in map(str, range(count)):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            return main(out)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(map(abs, codes)))


def main(out: Path) -> None:
    """Computes with the others, and writes in the first process."""
    use_threads(1)
    with joined(config()) as processes:
        found = computed(processes, out.parent)
        if processes is None or processes.is_first:
            torch.save(found | {"looks": plain(found["looks"])}, out)
