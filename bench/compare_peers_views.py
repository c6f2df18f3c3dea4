"""Views alone: each function returns views per second of the same augmentations (32 px, CIFAR)."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from stopgrad.config import ViewsConfig, preset, torch_generator
from stopgrad.images import Images, Pixels, normalization
from stopgrad.method import FasterViews, compute_for, random_table, views_of
from stopgrad.method.views.faster import LONG
from stopgrad.speed.stopwatch import per_call, wait_for

BATCH = 512  # of the paper; for those who work on a batch
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def stopgrad_views(images: Images, *, seconds: float, threads: int) -> float:
    """Ours, as a long run makes them on so many threads, from indices to normalised tensors."""
    config = preset("cifar")
    device = compute_for(config).device
    make = FasterViews(pixels=LONG) if device.type == "cpu" else views_of
    pixels, mean_std = torch.from_numpy(np.array(images.pixels)), normalization(images)
    batch = min(BATCH, len(pixels))

    def work(count: int) -> None:
        for number in range(count):
            indices = torch.randperm(len(pixels))[:batch]
            generator = torch_generator(0, "views", number, device=device)
            some = pixels[indices].to(device).permute(0, 3, 1, 2)
            table = random_table(generator, views=2 * batch)
            make(some, table, config=config.views, normalization=mean_std)

    work(1)  # compiles the loops
    return 2 * batch / _timed(work, device, seconds=seconds)


def kornia_views(images: Images, *, seconds: float, threads: int) -> float:
    """kornia's augmentations, a batch at a time on so many threads.

    Crops by resampling; with its other way, by slices, all of it together takes as long.
    """
    import kornia.augmentation as K

    config, device = preset("cifar").views, compute_for(preset("cifar")).device
    size = (config.size, config.size)
    jitter = (config.brightness, config.contrast, config.saturation, config.hue)
    view = torch.nn.Sequential(
        K.RandomResizedCrop(size, scale=(config.crop_min, 1.0), cropping_mode="resample"),
        K.RandomHorizontalFlip(p=config.flip),
        K.ColorJitter(*jitter, p=config.jitter),
        K.RandomGrayscale(p=config.grayscale),
        K.Normalize(MEAN, STD),
    )
    pixels = torch.from_numpy(np.array(images.pixels))
    batch = min(BATCH, len(pixels))

    def work(count: int) -> None:
        for _ in range(count):
            some = pixels[torch.randperm(len(pixels))[:batch]].to(device)
            x = some.permute(0, 3, 1, 2).float().div_(255)
            view(x), view(x)

    with torch.inference_mode():
        return 2 * batch / _timed(work, device, seconds=seconds)


def torchvision_views(images: Images, *, seconds: float, threads: int) -> float:
    """torchvision image by image, in as many processes of one thread as the others have threads.

    Nothing is sent between the processes, so this is its best case.
    """
    context = multiprocessing.get_context("fork")
    barrier, rates = context.Barrier(threads), context.SimpleQueue()
    pixels, config = np.array(images.pixels[:4096]), preset("cifar").views
    torch.set_num_threads(1)
    loops = [
        context.Process(target=_torchvision_loop, args=(pixels, config, (barrier, rates, seconds)))
        for _ in range(threads)
    ]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    if any(loop.exitcode for loop in loops):
        raise RuntimeError("a process of torchvision's views failed")
    return float(sum(rates.get() for _ in loops))


def _torchvision_loop(pixels: Pixels, config: ViewsConfig, how: tuple[Any, Any, float]) -> None:
    from PIL import Image

    barrier, rates, seconds = how
    view = _torchvision_view(config)
    images = [Image.fromarray(image) for image in pixels]
    for image in images[:100]:
        view(image)
    barrier.wait(timeout=120)
    count, began = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - began < seconds:
        for _ in range(50):
            image = images[count % len(images)]
            view(image), view(image)
            count += 1
    rates.put(2 * count / (time.perf_counter() - began))


def _torchvision_view(config: ViewsConfig) -> Callable[[Any], Any]:
    """The augmentations on PIL images, faster at this size than on tensors."""
    from torchvision.transforms import v2

    jitter = (config.brightness, config.contrast, config.saturation, config.hue)
    view: Callable[[Any], Any] = v2.Compose(
        [
            v2.RandomResizedCrop(config.size, scale=(config.crop_min, 1.0)),
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomApply([v2.ColorJitter(*jitter)], p=config.jitter),
            v2.RandomGrayscale(config.grayscale),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return view


def _timed(work: Callable[[int], None], device: torch.device, *, seconds: float) -> float:
    """Seconds per batch, in rows of about a tenth of the time, after a first such row."""
    work(2)
    wait_for(device)
    row = max(1, round(seconds / 10 / per_call(work, device=device)))
    rows = [per_call(lambda _: work(row), device=device) / row for _ in range(10)]
    return float(np.median(rows))
