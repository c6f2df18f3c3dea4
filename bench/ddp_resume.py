"""Why training over processes does not use DistributedDataParallel: a resumed run has other bits.

    torchrun --standalone --nproc-per-node 3 bench/ddp_resume.py

Twelve linear layers take six steps; six again; and three, then three more under a new wrapper.
After its first step DDP orders its buckets as gradients have come, so that a new wrapper adds up
otherwise. Prints one line of JSON.
"""

from __future__ import annotations

import json

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

STEPS, WIDTH, BATCH = 6, 128, 8


def main() -> None:
    """Trains three times and compares."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    whole, again = trained(network(), 0, STEPS), trained(network(), 0, STEPS)
    half = network()
    trained(half, 0, STEPS // 2)
    resumed = trained(half, STEPS // 2, STEPS)
    if dist.get_rank() == 0:
        found = {"processes": dist.get_world_size(), "torch": torch.__version__}
        found |= {"twice": difference(whole, again), "resumed": difference(whole, resumed)}
        print(json.dumps(found))
    dist.destroy_process_group()


def network() -> nn.Sequential:
    """The same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        *[nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(2 * STEPS)]
    )


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
