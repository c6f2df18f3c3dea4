"""Claims about processes that train together: they compute the run of one process.

Real processes on the CPU, forked; those of torchrun are in `cli/test_devices`.
"""

from __future__ import annotations

import gc
import os
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from stopgrad.errors import ConfigError, DataError, StopgradError
from stopgrad.images import load_dataset, pack, writing
from stopgrad.method import Processes, joined, process_count, unused_gpus
from stopgrad.method.compute import own_device
from stopgrad.method.processes import VARIABLES
from stopgrad.training.pretrain import start_training
from stopgrad.training.sessions import check_agreement
from tests.promises.process import call_forked
from tests.studies.engines import free_port
from tests.training import together


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process computes."""
    return together.computed(None, Path(os.devnull))


@pytest.fixture(scope="module", params=[2, 3, 4])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What several compute together."""
    out = tmp_path_factory.mktemp("together") / "computed.pt"
    call_forked(together.fork, out, request.param, free_port())
    return torch.load(out, weights_only=True)


def test_every_bit_of_a_view_is_that_of_one_process(
    alone: dict[str, Any], shared: dict[str, Any]
) -> None:
    for own, theirs in zip(alone["views"], shared["views"], strict=True):
        assert torch.equal(own, theirs)


@pytest.mark.parametrize("kind", ["per-view", "joint", "momentum"])
def test_forty_steps_in_fp64_are_those_of_one_process(
    alone: dict[str, Any], shared: dict[str, Any], kind: str
) -> None:
    (losses, tensors), (own_losses, own_tensors) = shared[f"fp64 {kind}"], alone[f"fp64 {kind}"]
    assert len(own_losses) == together.STEPS
    assert float((losses - own_losses).abs().max()) < 1e-11
    assert tensors.keys() == own_tensors.keys()
    for name, tensor in own_tensors.items():
        assert float((tensors[name] - tensor).abs().max()) < 1e-9, name


def test_a_step_in_fp32_is_that_of_one_process(
    alone: dict[str, Any], shared: dict[str, Any]
) -> None:
    own, theirs = (
        torch.cat([p.flatten() for p in found["fp32"].values()]) for found in (alone, shared)
    )
    assert float((own - theirs).norm() / own.norm()) < 1e-6


def test_every_bit_of_what_is_measured_is_that_of_one_process(
    alone: dict[str, Any], shared: dict[str, Any]
) -> None:
    for own, theirs in zip(alone["outputs"], shared["outputs"], strict=True):
        assert torch.equal(own, theirs)
    assert torch.equal(alone["features"], shared["features"])
    assert shared["looks"] == together.plain(alone["looks"])
    assert None not in shared["looks"]


def test_the_checkpoint_is_read_by_the_first_process_and_told_to_the_others(
    shared: dict[str, Any],
) -> None:
    assert set(shared["heard"]["step"]) == {5}


def test_a_status_that_the_disk_refuses_the_first_process_ends_all_with_its_error(
    shared: dict[str, Any],
) -> None:
    first, *others = shared["heard"]["status"]
    assert first[:2] == ["StorageError", 5]
    assert others
    assert all(other == first for other in others)


def test_a_bad_image_that_one_process_finds_ends_all_or_is_left_out_as_with_one(
    shared: dict[str, Any],
) -> None:
    *others, last = shared["heard"]["fail"]
    assert last[:2] == ["DamagedImagesError", 3]
    assert "07.png" in last[2]
    assert all(other == last for other in others)
    *others, last = shared["heard"]["skip"]
    assert (set(others), last) == ({20}, 19)


def test_processes_agree_when_each_of_them_says_yes(shared: dict[str, Any]) -> None:
    said = shared["heard"]["agreed"]
    assert said == [[True, False]] * len(said)


def in_place(rank: int, count: int) -> Processes:
    """Who a process would be, without the others."""
    return Processes(rank, count, torch.device("cpu"), *(cast("Any", None),) * 3)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_that_divide_the_parts_take_the_batches_of_one_and_read_only_their_parts(
    count: int,
) -> None:
    together_alone = together.training(None, parts=4, batch=20)
    batches, per_part = [*together_alone.batches()], 600 // 4
    assert len(batches) == 30
    taken: list[list[int]] = [[] for _ in batches]
    for rank in range(count):
        one = together.training(in_place(rank, count), parts=4, batch=20)
        own = {p for p in range(4) if p * count // 4 == rank}
        for step, batch in enumerate(one.batches()):
            indices = one._own_part(batch, torch.zeros(40, 1))[0]
            assert {int(i) // per_part for i in indices} == own
            taken[step] += indices.tolist()
    assert taken == [batch.tolist() for batch in batches]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 images in twelve shards."""
    folder = tmp_path_factory.mktemp("packed")
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (600, 12, 12, 3), "B"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_IMAGES", 50)
        pack(str(folder / "images.npy"), folder / "store", side=12)
    return folder / "store"


def opened(store: Path) -> set[int]:
    """The shards of a store that this process has mapped, by what the system knows."""
    maps = Path("/proc/self/maps").read_text()
    return {int(number) for number in re.findall(rf"{store}/train-(\d+)\.pixels", maps)}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux says what is mapped")
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_process_opens_only_the_shards_of_its_own_parts(store: Path, count: int) -> None:
    for rank in range(count):
        images = load_dataset(str(store)).train
        assert images.known is not None
        assert opened(store) == set()
        one = start_training(
            images,
            together.config(parts=4, batch=20),
            normalization=images.known,
            processes=in_place(rank, count) if count > 1 else None,
        )
        for batch in one.batches():
            one._views_of(*one._own_part(batch, one._table(len(batch))))
        assert opened(store) == {shard for shard in range(12) if shard // 3 * count // 4 == rank}
        del one, images
        gc.collect()


def test_each_part_gives_each_batch_as_many_images_and_each_image_once_in_an_epoch() -> None:
    batches = [*together.training(None, parts=3, batch=12).batches()]
    for batch in batches:
        assert torch.bincount(batch // 200).tolist() == [4, 4, 4]
    assert torch.cat(batches).sort().values.tolist() == [*range(600)]


def test_parts_that_are_not_equal_fill_every_batch_without_taking_an_image_twice() -> None:
    batches = [*together.training(None, parts=7, batch=14).batches()]  # 85 or 86 images each
    ends = torch.tensor([85, 171, 257, 342, 428, 514])
    assert len(batches) == 600 // 14
    for batch in batches:
        assert torch.bincount(torch.bucketize(batch, ends, right=True)).tolist() == [2] * 7
    assert len(set(torch.cat(batches).tolist())) == 14 * len(batches)


def test_a_batch_that_parts_do_not_divide_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="batch = 10 is not a multiple of parts = 4"):
        together.config(parts=4)


def test_processes_that_normalise_alone_keep_the_same_weights_and_statistics(
    shared: dict[str, Any],
) -> None:
    first, *others = shared["states"]
    assert others
    assert all(other == first for other in others)


@pytest.mark.parametrize(
    ("place", "kind", "named"),
    [(0, DataError, "other images"), (1, ConfigError, "stopgrad"), (2, ConfigError, "other torch")],
)
def test_processes_with_other_images_or_programs_are_refused_by_name(
    place: int, kind: type[StopgradError], named: str
) -> None:
    class Told:
        """Processes of which the third says something else."""

        def everyone(self, own: tuple[str, ...]) -> list[list[str]]:
            other = [*own]
            other[place] = "another"
            return [[*own], [*own], other]

    with pytest.raises(kind, match=f"process 2 has .*{named}"):
        check_agreement(cast("Any", Told()), together.images())


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_ADDR, MASTER_PORT"),
        (dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"), "x"), "MASTER_ADDR"),
    ],
)
def test_some_of_the_variables_of_torchrun_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=named):
        process_count()


def test_more_processes_than_a_machine_has_gpus_are_refused_in_each_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    variables = dict.fromkeys(VARIABLES, "3") | {"LOCAL_WORLD_SIZE": "3"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for rank in ("0", "1", "2"):  # also in the first one, which alone prints
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(ConfigError, match="3 processes on a machine with 2 GPUs"):
            own_device(torch.device("cuda"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device(torch.device("cuda")) == torch.device("cuda:1")


@pytest.mark.parametrize(("repeatable", "nvls"), [(True, "0"), (False, None)])
def test_the_sums_of_nvlink_itself_are_off_where_a_run_is_to_be_repeatable(
    monkeypatch: pytest.MonkeyPatch, repeatable: bool, nvls: str | None
) -> None:
    for name in (*VARIABLES, "NCCL_NVLS_ENABLE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.delenv("NCCL_NVLS_ENABLE")
    joined(together.config(repeatable=repeatable))
    assert os.environ.get("NCCL_NVLS_ENABLE") == nvls


def test_variables_of_slurm_alone_mean_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert process_count() == 1


@pytest.mark.parametrize(
    ("device", "gpus", "idle"), [("auto", 4, 3), ("auto", 1, 0), ("cpu", 4, 0), ("auto", 0, 0)]
)
def test_gpus_that_one_process_leaves_idle_are_counted(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, idle: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert unused_gpus(together.config(device=device)) == idle
