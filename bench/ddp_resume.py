"""Why training over processes does without DistributedDataParallel: bits of a resumed run, time.

    torchrun --standalone --nproc-per-node 3 bench/ddp_resume.py

Twelve linear layers take six steps; six again; and three, then three more under a new wrapper.
After its first step DDP orders its buckets as gradients have come, so that a new wrapper adds up
otherwise. Then 45 MB of gradients, as ResNet-18 has them, are added up by DDP while it goes back
and by one sum after it, as stopgrad does, in turns. Prints one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

STEPS, WIDTH, BATCH = 6, 128, 8
WIDE, TURNS = 968, 15  # 12 layers of 968 x 968: 45 MB


def main() -> None:
    """Trains three times and compares."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    whole, again = trained(network(), 0, STEPS), trained(network(), 0, STEPS)
    half = network()
    trained(half, 0, STEPS // 2)
    resumed = trained(half, STEPS // 2, STEPS)
    rates = step_times()
    if dist.get_rank() == 0:
        found = {"processes": dist.get_world_size(), "torch": torch.__version__}
        found |= {"twice": difference(whole, again), "resumed": difference(whole, resumed)}
        found |= rates
        print(json.dumps(found))
    dist.destroy_process_group()


def network(width: int = WIDTH) -> nn.Sequential:
    """The same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        *[nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(2 * STEPS)]
    )


def step_times() -> dict[str, float]:
    """Milliseconds of a step under DDP and with one sum, medians, by turns."""
    wrapped, plain = DistributedDataParallel(network(WIDE)), network(WIDE)
    parameters = [*plain.parameters()]
    batch, buffer = torch.randn(256, WIDE), torch.zeros(sum(p.numel() for p in parameters))
    times: dict[str, list[float]] = {"ddp_step_ms": [], "one_sum_step_ms": []}
    for turn in range(TURNS):
        for name, of in times.items():
            dist.barrier()
            began = time.perf_counter()
            (wrapped if name == "ddp_step_ms" else plain)(batch).square().mean().backward()
            if name == "one_sum_step_ms":
                torch.cat([_gradient(p).flatten() for p in parameters], out=buffer)
                dist.all_reduce(buffer)
                for parameter, part in zip(
                    parameters, buffer.split([p.numel() for p in parameters]), strict=True
                ):
                    _gradient(parameter).copy_(part.view_as(parameter)).div_(dist.get_world_size())
            if turn >= 3:  # DDP has ordered its buckets by then
                of.append(1000 * (time.perf_counter() - began))
            for model in (wrapped, plain):
                model.zero_grad(set_to_none=False)
    return {name: statistics.median(of) for name, of in times.items()}


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def trained(model: nn.Module, start: int, stop: int) -> list[Tensor]:
    """The parameters after some steps under a wrapper of their own."""
    wrapped = DistributedDataParallel(model, bucket_cap_mb=0.25)
    for step in range(start, stop):
        generator = torch.Generator().manual_seed(1000 * step + dist.get_rank())
        model.zero_grad(set_to_none=True)
        wrapped(torch.randn(BATCH, WIDTH, generator=generator)).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
    return [parameter.detach().clone() for parameter in model.parameters()]


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest of any parameter; 0 where every bit is equal."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
